//! `glm chat`: talk, in a terminal, line by line from a pipe, or one answer to a conversation in a file.

mod command;
mod conversation;
mod lines;
mod terminal;

use std::io::{IsTerminal, stdin};
use std::path::Path;

use anyhow::Result;
use glm_model::{Message, Role};
use serde_json::json;

use crate::answer::Answerer;
use crate::args::Chat;
use crate::interrupt::{self, Again};
use crate::output::{self, note, say};
use crate::{input, open};
use conversation::Conversation;

/// What a newcomer should know who named no model.
const DEMO: &str = "It knows only the few things it was taught (ask what it can do). A real model: glm chat -m FOLDER, with the \
                    files of ChatGLM-6B in the folder";

pub fn run(args: &Chat) -> Result<()> {
    args.answering.check()?;
    let messages = args.messages.as_deref().map(input::messages).transpose()?;
    let tokenizer = open::tokenizer(&args.model.source)?;
    let template = open::template(&args.model.source, args.template.as_deref(), &tokenizer)?;
    let model = open::model(&args.model, Some(&tokenizer))?;
    let typed = messages.is_none() && stdin().is_terminal();
    let cancel = interrupt::token(if typed { Again::Waits } else { Again::Exits })?;
    let answerer = Answerer::new(&model, &args.answering, cancel.clone())?;
    let mut conversation = Conversation::new(answerer, &tokenizer, template, args.context_overflow);
    if let Some(system) = &args.system {
        conversation.messages.push(Message::new(Role::System, system));
        conversation.check()?;
    }
    match (messages, &args.messages) {
        (Some(messages), Some(path)) => once(args, &mut conversation, messages, path),
        _ => {
            note(&greeting(args, &model, &conversation));
            if args.model.source.model.is_none() {
                note(DEMO);
            }
            if typed {
                terminal::talk(&mut conversation, &cancel, args.stats)
            } else {
                lines::talk(&mut conversation, args.stats)
            }
        }
    }
}

/// The first line: which model answers, and what repeats its answers.
fn greeting(args: &Chat, model: &glm_model::Model, conversation: &Conversation<'_>) -> String {
    let answerer = &conversation.answerer;
    let choice = match answerer.seed() {
        Some(seed) => format!("seed {seed}"),
        None => "greedy".to_owned(),
    };
    let context = answerer.context();
    format!("{}, context {context}, {choice}", open::summary(&args.model, model))
}

/// Answers a conversation that ends with a question.
fn once(
    args: &Chat,
    conversation: &mut Conversation<'_>,
    messages: Vec<Message>,
    path: &Path,
) -> Result<()> {
    conversation.messages = messages;
    let mut show = |piece: &str| if args.json { Ok(()) } else { say(piece) };
    let (prompt, reply) = conversation
        .answer(&mut show)
        .map_err(|error| error.context(format!("the conversation in {}", path.display())))?;
    if args.json {
        let fields = json!({ "text": reply.text, "prompt_ids": prompt });
        output::json(&reply.json(conversation.answerer.seed(), fields))?;
    } else {
        output::line("")?;
    }
    reply.close(args.stats)
}
