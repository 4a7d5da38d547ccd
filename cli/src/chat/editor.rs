//! Reads what is entered at the prompt: a line, or several.

use std::io::{self, Write, stderr};
use std::time::Duration;

use anyhow::{Context, Result};
use glm_model::CancelToken;
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;
use rustyline::{
    Behavior, Cmd, ConditionalEventHandler, Config, Event, EventContext, EventHandler, KeyCode,
    KeyEvent, Modifiers, RepeatCount,
};

use super::command::is_open;
use super::complete::Helper;
use super::history::{History, is_kept};
use super::style;
use crate::limits::input::MAX_ENTRIES;
use crate::{input, messages, tty};

const PROMPT: &str = "> ";
const CONTINUED: &str = "... ";

/// How often is looked whether Ctrl-C was pressed.
const TICK: Duration = Duration::from_millis(50);

/// What came from the prompt.
pub enum Input {
    Text(String),
    /// Ctrl-C.
    Interrupted,
    /// Ctrl-D, or the end of the terminal.
    End,
}

/// The editor of the prompt. Answers are written to stdout, and the prompt is not.
pub enum Editor {
    Full {
        editor: Box<rustyline::Editor<Helper, MemHistory>>,
        history: History,
    },
    /// For terminals without escape sequences. The system edits the line.
    Plain,
}

impl Editor {
    pub fn new(has_history: bool) -> Result<Self> {
        if tty::is_dumb() {
            return Ok(Self::Plain);
        }
        // The editor uses the terminal itself, so that only answers are written to stdout.
        let config = Config::builder()
            .max_history_size(MAX_ENTRIES)
            .and_then(|config| config.history_ignore_dups(true))
            .context("the terminal")?
            .behavior(Behavior::PreferTerm)
            .completion_type(rustyline::CompletionType::List)
            .build();
        let mut memory = MemHistory::with_config(&config);
        let history = History::open(has_history, &config, &mut memory);
        let editor = rustyline::Editor::with_history(config, memory);
        let mut editor = editor.context("the terminal")?;
        editor.set_helper(Some(Helper::default()));
        for (code, modifiers) in [
            (KeyCode::Enter, Modifiers::NONE),
            (KeyCode::Char('J'), Modifiers::CTRL),
            (KeyCode::Char('M'), Modifiers::CTRL),
        ] {
            editor.bind_sequence(KeyEvent(code, modifiers), conditional(enter));
        }
        editor.bind_sequence(KeyEvent(KeyCode::Enter, Modifiers::ALT), Cmd::Newline);
        editor.bind_sequence(KeyEvent(KeyCode::Tab, Modifiers::NONE), conditional(tab));
        editor.bind_sequence(KeyEvent::ctrl('Z'), conditional(suspend));
        Ok(Self::Full { editor: Box::new(editor), history })
    }

    /// Reads one input, of several lines if `"""` is open or a line of a question ends with `\`. It is remembered. Ctrl-C is a key, or
    /// cancels `cancel`.
    pub fn read(&mut self, cancel: &CancelToken) -> Result<Input> {
        let mut text = String::new();
        let mut prompt = PROMPT;
        loop {
            match self.line(prompt, cancel)? {
                Input::Text(line) => text.push_str(&line),
                Input::Interrupted => return Ok(Input::Interrupted),
                Input::End if text.is_empty() => return Ok(Input::End),
                Input::End => break,
            }
            if !is_open(&text) {
                // A path of Windows after `/load` may end so, too.
                if !text.ends_with('\\') || text.starts_with('/') {
                    break;
                }
                text.pop();
            }
            text.push('\n');
            prompt = CONTINUED;
        }
        if let Self::Full { editor, history } = self
            && is_kept(&text)
        {
            let _ = editor.add_history_entry(&*text);
            history.add(&text);
        }
        Ok(Input::Text(text))
    }

    fn line(&mut self, prompt: &str, cancel: &CancelToken) -> Result<Input> {
        tty::wait_for_end();
        match self {
            Self::Full { editor, .. } => full_line(editor, prompt),
            Self::Plain => tty::with_restored(|| {
                let mut terminal = stderr().lock();
                let _ = write!(terminal, "{prompt}").and_then(|()| terminal.flush());
                // Reading would go on after a signal.
                while !tty::has_input(TICK) {
                    if cancel.is_cancelled() {
                        let _ = writeln!(terminal);
                        return Ok(Input::Interrupted);
                    }
                }
                let line = input::lossy_line(&mut io::stdin().lock())?;
                Ok(line.map_or(Input::End, |line| Input::Text(line.text)))
            }),
        }
    }

    /// Whether the system edits the line.
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Plain)
    }

    /// Whether questions are remembered for the next run.
    pub fn has_history(&self) -> bool {
        matches!(self, Self::Full { history, .. } if history.is_on)
    }

    /// Turns the history on or off. A terminal without escape sequences has none.
    pub fn set_history(&mut self, is_on: bool) {
        if let Self::Full { history, .. } = self {
            history.is_on = is_on;
        }
    }
}

/// Reads a line. The editor ends it at a byte that is not UTF-8, and drops what has arrived after it. The line is begun again with
/// U+FFFD at that place, which is noted once.
fn full_line(editor: &mut rustyline::Editor<Helper, MemHistory>, prompt: &str) -> Result<Input> {
    let prompt = style::prompt(prompt);
    let (mut before, mut after) = (String::new(), String::new());
    let mut is_noted = false;
    loop {
        match editor.readline_with_initial(&prompt, (&before, &after)) {
            Ok(line) => return Ok(Input::Text(line)),
            Err(ReadlineError::Interrupted) => return Ok(Input::Interrupted),
            Err(ReadlineError::Eof) => return Ok(Input::End),
            Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                (before, after) = editor.helper().map(Helper::line).unwrap_or_default();
                before.push(char::REPLACEMENT_CHARACTER);
                if !is_noted {
                    style::note(&messages::input_not_utf8());
                    is_noted = true;
                }
            }
            Err(error) => return Err(error).context("the terminal"),
        }
    }
}

/// What a key does with the line as it is; `None` is what it does by itself.
struct Conditional(fn(&str) -> Option<Cmd>);

impl ConditionalEventHandler for Conditional {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext) -> Option<Cmd> {
        self.0(context.line())
    }
}

fn conditional(command: fn(&str) -> Option<Cmd>) -> EventHandler {
    EventHandler::Conditional(Box::new(Conditional(command)))
}

/// Enter begins a new line where `"""` is open.
fn enter(line: &str) -> Option<Cmd> {
    is_open(line).then_some(Cmd::Newline)
}

/// Tab completes commands. In a question it is a character, as pasted text may have it.
fn tab(line: &str) -> Option<Cmd> {
    (!line.starts_with('/')).then(|| Cmd::Insert(1, "\t".to_owned()))
}

/// Ctrl-Z stops the program. The prompt is drawn again when it goes on.
fn suspend(_: &str) -> Option<Cmd> {
    tty::suspend();
    Some(Cmd::Repaint)
}
