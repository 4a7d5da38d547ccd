//! A conversation in a terminal.

use std::ops::ControlFlow;

use anyhow::Result;
use glm_model::{CancelToken, Error};

use super::command::{Command, help};
use super::edit::edited;
use super::editor::{Editor, Input};
use super::session::Session;
use super::settings::{self, HISTORY, SYSTEM};
use super::style::note;
use crate::failure::{is_broken_pipe, is_cancelled, message};
use crate::{messages, tty};

/// Reads questions and answers them until Ctrl-D.
pub fn talk(session: &mut Session, cancel: &CancelToken, has_history: bool) -> Result<()> {
    let _quiet = tty::Quiet::begin()?;
    let mut editor = Editor::new(has_history)?;
    note(&messages::how_to_begin());
    let begun = session.answer_open_question();
    // Whether the next Ctrl-C leaves.
    let mut is_leaving = report(session, cancel, begun)?;
    loop {
        // A Ctrl-C that came when there was nothing left to stop is one at the prompt.
        let input = if cancel.is_cancelled() { Input::Interrupted } else { editor.read(cancel)? };
        // It must not stop the next answer either.
        cancel.reset();
        let text = match input {
            Input::Text(text) => text,
            Input::Interrupted if !is_leaving => {
                note(&messages::how_to_leave());
                is_leaving = true;
                continue;
            }
            // If it comes soon after the first, the program has ended already, with the same code.
            Input::Interrupted if editor.is_plain() => return Err(Error::Cancelled.into()),
            Input::Interrupted | Input::End => return Ok(()),
        };
        let done = obey(session, &mut editor, Command::parse(&text));
        if matches!(done, Ok(ControlFlow::Break(()))) {
            return Ok(());
        }
        is_leaving = report(session, cancel, done.map(|_| ()))?;
    }
}

/// Reports an error after which the conversation goes on, and returns whether Ctrl-C was the cause.
fn report(session: &Session, cancel: &CancelToken, done: Result<()>) -> Result<bool> {
    match done {
        Ok(()) => Ok(false),
        Err(error) if is_cancelled(&error) => {
            cancel.reset();
            note(&messages::answer_stopped());
            Ok(true)
        }
        // The reader of stdout is gone.
        Err(error) if is_broken_pipe(&error) => Err(error),
        Err(error) => {
            note(&messages::error(message(&error)));
            session.advice(&error).iter().for_each(|advice| note(advice));
            Ok(false)
        }
    }
}

fn obey(
    session: &mut Session,
    editor: &mut Editor,
    command: Command<'_>,
) -> Result<ControlFlow<()>> {
    match command {
        Command::Nothing => {}
        Command::Say(question) => session.ask(question)?,
        Command::Set(HISTORY, value) => set_history(editor, value)?,
        Command::Set(SYSTEM, "") | Command::System(None) => show_system(session),
        Command::Set(SYSTEM, text) | Command::System(Some(text)) => {
            session.set_system(if text == "none" { "" } else { text })?;
            show_system(session);
        }
        Command::Set(name, value) => session.set(name, value)?,
        Command::Show => session.show(on_or_off(editor.has_history()))?,
        Command::Regenerate => session.regenerate()?,
        Command::Edit => edit(session)?,
        Command::Undo => session.undo(),
        Command::Clear => session.clear(),
        Command::Save(path) => session.save(path)?,
        Command::Load(path) => session.load(&path)?,
        Command::Adapter(name) => session.adapter(name)?,
        Command::Stats(is_on) => {
            session.stats = is_on.unwrap_or(!session.stats);
            note(&format!("stats {}", on_or_off(session.stats)));
        }
        Command::Thoughts => session.show_thoughts(),
        Command::Help => note(&help(tty::columns().unwrap_or(usize::MAX))),
        Command::Leave => return Ok(ControlFlow::Break(())),
        Command::Misused(name, argument) => {
            note(&messages::usage(format!("{name} {argument}").trim_end()));
        }
        Command::Unknown(line) => note(&messages::no_such_command(line)),
    }
    Ok(ControlFlow::Continue(()))
}

fn set_history(editor: &mut Editor, value: &str) -> Result<()> {
    match value {
        "" => {}
        "on" => editor.set_history(true),
        "off" => editor.set_history(false),
        _ => return Err(settings::wrong(HISTORY, &messages::one_of("on, off"), value)),
    }
    note(&format!("{HISTORY} {}", on_or_off(editor.has_history())));
    Ok(())
}

fn show_system(session: &Session) {
    note(&format!("{SYSTEM} {}", session.system().unwrap_or("none")));
}

/// Asks the last question again as it was changed in the user's editor; a new one if there is none.
fn edit(session: &mut Session) -> Result<()> {
    let question = session.last_question().unwrap_or_default();
    let Some(changed) = edited(question)? else {
        note(&messages::nothing_changed());
        return Ok(());
    };
    note(&format!("> {changed}"));
    session.ask_instead(&changed)
}

fn on_or_off(is_on: bool) -> &'static str {
    if is_on { "on" } else { "off" }
}
