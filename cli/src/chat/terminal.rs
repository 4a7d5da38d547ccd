//! A conversation in a terminal.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use glm_model::{CancelToken, Conversation, Message, Role, messages_to_json};
use rustyline::error::ReadlineError;
use rustyline::{Behavior, Config, DefaultEditor};

use super::command::{Command, HELP};
use super::print;
use crate::failure::{is_cancelled, message};
use crate::file;
use crate::output::note;

/// Reads questions and answers them until Ctrl-D.
pub fn talk(conversation: &mut Conversation, cancel: &CancelToken, stats: bool) -> Result<()> {
    note("/help lists the commands");
    // The editor uses the terminal itself, so that only answers are written to stdout.
    let config = Config::builder().auto_add_history(true).behavior(Behavior::PreferTerm).build();
    let mut editor = DefaultEditor::with_config(config).context("the terminal")?;
    let mut warned = false;
    loop {
        let line = match editor.readline("> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) if !warned => {
                note("press Ctrl-C again, or Ctrl-D, to leave");
                warned = true;
                continue;
            }
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error).context("the terminal"),
        };
        warned = false;
        // A Ctrl-C after the end of the last answer must not stop the next.
        cancel.reset();
        match obey(conversation, Command::parse(&line), stats) {
            Ok(ControlFlow::Break(())) => return Ok(()),
            Ok(ControlFlow::Continue(())) => {}
            Err(error) if is_cancelled(&error) => note("[stopped]"),
            Err(error) if error.is::<std::io::Error>() => return Err(error),
            Err(error) => note(&format!("error: {}", message(&error))),
        }
    }
}

fn obey(
    conversation: &mut Conversation,
    command: Command<'_>,
    stats: bool,
) -> Result<ControlFlow<()>> {
    match command {
        Command::Nothing => {}
        Command::Say(question) => print(conversation.ask(question)?, stats)?,
        Command::Again => match conversation.messages().last() {
            Some(last) if last.role == Role::Assistant => {
                print(conversation.regenerate()?, stats)?;
            }
            _ => note("there is no question yet"),
        },
        Command::Undo => match conversation.undo() {
            true => note(&last(conversation.messages())),
            false => note("there is no question to remove"),
        },
        Command::Clear => {
            conversation.clear();
            note("a new conversation");
        }
        Command::Save(path) => save(Path::new(path), conversation.messages())?,
        Command::Help => note(HELP),
        Command::Exit => return Ok(ControlFlow::Break(())),
        Command::Unknown(line) => note(&format!(
            "{line}: no such command. /help lists the commands; type a space before a question that begins with /"
        )),
    }
    Ok(ControlFlow::Continue(()))
}

/// The last question that is left after an undo.
fn last(messages: &[Message]) -> String {
    match messages.iter().rfind(|message| message.role == Role::User) {
        Some(question) => format!("back to the answer to: {}", question.content),
        None => "back to the beginning".to_owned(),
    }
}

fn save(path: &Path, messages: &[Message]) -> Result<()> {
    ensure!(!path.exists(), "{} exists already", path.display());
    let json = messages_to_json(messages);
    file::replace(path, |out| Ok(writeln!(out, "{json}")?))?;
    note(&format!("written to {}", path.display()));
    Ok(())
}
