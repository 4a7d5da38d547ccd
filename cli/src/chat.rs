//! `glm chat`: in a terminal, line by line from a pipe, or one answer to a conversation in a file.

mod command;
mod lines;
mod terminal;

use std::io::{IsTerminal, stdin};

use anyhow::Result;
use glm_model::{Conversation, ConversationOptions, Message, Reply, Role};
use serde_json::json;

use crate::answer::{self, Show, Shown};
use crate::args::{self, Chat};
use crate::interrupt::{self, Again};
use crate::output::{self, note, say};
use crate::units::count;
use crate::{input, open};

pub fn run(args: &Chat) -> Result<()> {
    args.answering.check()?;
    let messages = args.messages.as_deref().map(input::messages).transpose()?;
    let bundle = open::bundle(&args.model, args.template.as_deref())?;
    let typed = messages.is_none() && stdin().is_terminal();
    let cancel = interrupt::token(if typed { Again::Waits } else { Again::Exits })?;
    let request = args.answering.request(bundle.model())?;
    let mut options =
        ConversationOptions::new(request.ending_as(bundle.template(), bundle.tokenizer()));
    options.request.cancel = cancel.clone();
    options.stop_strings.clone_from(&args.answering.stop);
    options.context = args.answering.context;
    options.overflow = match args.context_overflow {
        args::Overflow::Error => glm_model::Overflow::Error,
        args::Overflow::DropOldest => glm_model::Overflow::DropOldest,
    };
    let mut conversation = Conversation::new(&bundle, options)?;
    if let Some(system) = &args.system {
        conversation.append(Message::new(Role::System, system));
        conversation.check()?;
    }
    if let (Some(messages), Some(path)) = (messages, &args.messages) {
        messages.into_iter().for_each(|message| conversation.append(message));
        let answered = once(args, &mut conversation);
        return answered
            .map_err(|error| error.context(format!("the conversation in {}", path.display())));
    }
    note(&greeting(args, &conversation));
    match typed {
        true => terminal::talk(&mut conversation, &cancel, args.stats),
        false => lines::talk(&mut conversation, args.stats),
    }
}

/// The first line: the model, and the settings that repeat its answers.
fn greeting(args: &Chat, conversation: &Conversation) -> String {
    let choice = match answer::seed(&conversation.options().request.sampling) {
        Some(seed) => format!("seed {seed}"),
        None => "greedy".to_owned(),
    };
    let summary = open::summary(&args.model, conversation.bundle().model());
    format!("{summary}, context {}, {choice}", conversation.context())
}

/// Answers a conversation that ends with a question.
fn once(args: &Chat, conversation: &mut Conversation) -> Result<()> {
    let seed = answer::seed(&conversation.options().request.sampling);
    let reply = conversation.answer()?;
    let prompt = reply.prompt_ids().to_vec();
    let mut show = |piece: &str| if args.json { Ok(()) } else { say(piece) };
    let shown = finish(reply, &mut show)?;
    if args.json {
        let fields = json!({ "text": shown.text, "prompt_ids": prompt });
        output::json(&shown.json(seed, fields))?;
    } else {
        output::line("")?;
    }
    shown.close(args.stats)
}

/// Shows a reply and appends it to the conversation.
fn finish(mut reply: Reply<'_>, show: &mut Show<'_>) -> Result<Shown> {
    let dropped = reply.dropped_rounds();
    if dropped > 0 {
        note(&format!(
            "the conversation has become too long: {} dropped at its beginning",
            count(dropped, "round")
        ));
    }
    let shown = answer::show(&mut reply, true, show)?;
    reply.finish()?;
    Ok(shown)
}

/// Prints a reply, ends its line and reports on it.
fn print(reply: Reply<'_>, stats: bool) -> Result<()> {
    let shown = finish(reply, &mut say)?;
    output::line("")?;
    shown.close(stats)
}
