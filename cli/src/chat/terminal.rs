//! A conversation in a terminal.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use glm_model::{CancelToken, Message};
use rustyline::error::ReadlineError;
use rustyline::{Behavior, Config, DefaultEditor};

use super::command::{Command, HELP};
use super::conversation::Conversation;
use crate::answer::Reply;
use crate::failure::{is_cancelled, message};
use crate::file;
use crate::output::{self, note, say};

/// Reads questions and answers them until Ctrl-D.
pub fn talk(conversation: &mut Conversation<'_>, cancel: &CancelToken, stats: bool) -> Result<()> {
    note("/help lists what can be done besides asking");
    // The terminal itself, so that stdout has the answers alone even where it is no terminal.
    let config = Config::builder().auto_add_history(true).behavior(Behavior::PreferTerm).build();
    let mut editor = DefaultEditor::with_config(config).context("the terminal")?;
    let mut warned = false;
    loop {
        let line = match editor.readline("> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) if !warned => {
                note("Ctrl-C once more, or Ctrl-D, leaves");
                warned = true;
                continue;
            }
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error).context("the terminal"),
        };
        warned = false;
        // A Ctrl-C that came too late for the last answer is not meant for the next.
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
    conversation: &mut Conversation<'_>,
    command: Command<'_>,
    stats: bool,
) -> Result<ControlFlow<()>> {
    match command {
        Command::Nothing => {}
        Command::Say(question) => {
            let reply = conversation.ask(question.to_owned(), &mut say);
            close(reply, stats)?;
        }
        Command::Again => match conversation.again(&mut say) {
            Some(reply) => close(reply, stats)?,
            None => note("there is no question yet"),
        },
        Command::Undo => match conversation.undo() {
            true => note(&last(&conversation.messages)),
            false => note("there is nothing to take back"),
        },
        Command::Clear => {
            conversation.clear();
            note("a new conversation");
        }
        Command::Save(path) => save(Path::new(path), &conversation.messages)?,
        Command::Help => note(HELP),
        Command::Exit => return Ok(ControlFlow::Break(())),
        Command::Unknown(line) => note(&format!(
            "{line}: no such command. /help lists them; a question that begins with / needs a blank before it"
        )),
    }
    Ok(ControlFlow::Continue(()))
}

/// Ends the line of an answer.
fn close(reply: Result<Reply>, stats: bool) -> Result<()> {
    let reply = reply?;
    output::line("")?;
    reply.close(stats)
}

/// Where the conversation stands after something was taken back.
fn last(messages: &[Message]) -> String {
    match messages {
        [.., question, _] => format!("back to the answer to: {}", question.content),
        _ => "back to the beginning".to_owned(),
    }
}

fn save(path: &Path, messages: &[Message]) -> Result<()> {
    ensure!(!path.exists(), "{} is there already", path.display());
    let json = serde_json::to_string_pretty(messages)?;
    file::replace(path, |out| Ok(writeln!(out, "{json}")?))?;
    note(&format!("written to {}", path.display()));
    Ok(())
}
