//! `glm chat`: in a terminal, line by line from a pipe, or one answer to a conversation in a file.

mod adapters;
mod command;
mod complete;
mod edit;
mod editor;
mod history;
mod lines;
mod session;
mod settings;
mod style;
mod terminal;
pub mod thoughts;
mod wrap;

use std::io::{IsTerminal, stdin};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use glm_model::{AnswerEvent, Conversation, ConversationOptions, Message};
use serde_json::json;

use crate::answer;
use crate::args::{self, Chat};
use crate::interrupt::{self, Again};
use crate::messages;
use crate::output::{self, note};
use crate::{input, open};
use adapters::Adapters;
use session::{Session, finish, is_answered};
use thoughts::Thoughts;

pub fn run(args: &Chat) -> Result<()> {
    let file = args.messages.as_deref().or(args.resume.as_deref());
    let messages = file.map(input::messages).transpose()?;
    // Whether there is one answer to give, and not a conversation to go on with.
    let is_once = args.messages.is_some() && !messages.as_deref().is_some_and(is_answered);
    if args.messages.is_some() && !is_once {
        check_resumable(args)?;
    }
    if is_once || !stdin().is_terminal() {
        // Nobody could choose one of them.
        open::refuse_names(&args.model)?;
    }
    let bundle = open::bundle(&args.model, args.template.as_deref(), &args.model.options())?;
    open::note_unusable(args.answering.unusable(bundle.model()));
    let adapters = Adapters::open(&args.model, bundle.model())?;
    let cancel = interrupt::token(Again::Exits)?;
    let request = args.answering.request(bundle.model());
    let mut options =
        ConversationOptions::new(request.ending_as(bundle.template(), bundle.tokenizer()));
    options.request.cancel = cancel.clone();
    options.prompt.thinking = args.thinking.think;
    options.stop_strings.clone_from(&args.answering.stop);
    options.context = args.answering.context;
    options.overflow = match args.context_overflow {
        args::Overflow::Error => glm_model::Overflow::Error,
        args::Overflow::DropOldest => glm_model::Overflow::DropOldest,
    };
    let conversation = Conversation::new(&bundle, options)?;
    let is_typed = stdin().is_terminal();
    let advice = if is_typed { messages::context_advice } else { messages::overflow_advice };
    let mut session = Session::new(conversation, adapters, args.stats, advice);
    if let Some((messages, path)) = messages.zip(file) {
        if is_once {
            let answered = once(args, &mut session.conversation, messages);
            return answered.with_context(|| messages::conversation_in(path.display()));
        }
        session.resume(messages, path)?;
    }
    if let Some(system) = &args.system {
        session.set_system(system)?;
    }
    note(&greeting(args, &session.conversation));
    if is_typed {
        return terminal::talk(&mut session, &cancel, !args.no_history);
    }
    let questions = lines::talk(&mut session)?;
    let path = args.messages.as_ref().filter(|_| questions == 0);
    path.map_or(Ok(()), |path| bail!(messages::nothing_to_answer(path.display())))
}

/// Checks that a conversation that ends with an answer can go on: there must be someone to ask the next question.
fn check_resumable(args: &Chat) -> Result<()> {
    let path = args.messages.as_deref().unwrap_or(Path::new("-"));
    let can_go_on = !args.json && path != Path::new("-");
    ensure!(can_go_on, messages::nothing_to_answer(path.display()));
    Ok(())
}

/// The first line: the model, and the settings that repeat its answers.
fn greeting(args: &Chat, conversation: &Conversation) -> String {
    let choice = match answer::seed(&conversation.options().request.sampling) {
        Some(seed) => messages::with_seed(seed),
        None => messages::greedy(),
    };
    let summary = open::summary(&args.model, conversation.bundle().model());
    messages::chat_begins(summary, conversation.context(), choice)
}

/// Answers a conversation that ends with a question.
fn once(args: &Chat, conversation: &mut Conversation, messages: Vec<Message>) -> Result<()> {
    messages.into_iter().for_each(|message| conversation.append(message));
    let seed = answer::seed(&conversation.options().request.sampling);
    let reply = conversation.answer()?;
    let prompt = reply.prompt_ids().to_vec();
    let mut thoughts = Thoughts::new(false);
    let mut show = |event: &AnswerEvent| match args.json {
        true => Ok(()),
        false => thoughts.show(event).and_then(|()| answer::say_text(event)),
    };
    let shown = finish(reply, &mut show);
    thoughts.end()?;
    let shown = shown?;
    if args.json {
        let fields = json!({ "text": shown.text, "prompt_ids": prompt });
        output::json(&shown.json(seed, fields))?;
    } else {
        output::line("")?;
    }
    shown.close(args.stats)
}
