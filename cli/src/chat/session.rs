//! A conversation, and what can be done with it from a prompt.

use std::io::{IsTerminal, Write, stdin, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use glm_model::{
    AnswerEvent, Conversation, ConversationOptions, Error, FinishReason, Message, Reply, Role,
    messages_to_json,
};

use super::adapters::Adapters;
use super::settings::{self, SYSTEM};
use super::style::note;
use super::thoughts::Thoughts;
use super::wrap::Wrap;
use crate::answer::{self, Shown};
use crate::output::{self, say};
use crate::{file, input, messages, tty};

/// A conversation that is printed.
pub struct Session {
    pub conversation: Conversation,
    adapters: Adapters,
    /// The options at the beginning.
    start: ConversationOptions,
    /// Whether statistics follow each answer.
    pub stats: bool,
    /// What the model thought last, also before an answer that was stopped.
    thoughts: String,
    /// Where the conversation was loaded from or saved to.
    file: Option<PathBuf>,
    /// What helps when the context is full.
    advice: fn() -> String,
}

impl Session {
    /// `advice` says what helps when the context is full.
    pub fn new(
        conversation: Conversation,
        adapters: Adapters,
        stats: bool,
        advice: fn() -> String,
    ) -> Self {
        let start = conversation.options().clone();
        Self { conversation, adapters, start, stats, thoughts: String::new(), file: None, advice }
    }

    /// Answers a question and prints the answer.
    pub fn ask(&mut self, question: &str) -> Result<()> {
        print(self.conversation.ask(question)?, &mut self.thoughts, self.stats, self.advice)
    }

    /// What helps after this error, if we know it.
    pub fn advice(&self, error: &anyhow::Error) -> Option<String> {
        let is_full = |cause: &(dyn std::error::Error + 'static)| {
            matches!(cause.downcast_ref(), Some(Error::ContextFull { .. }))
        };
        error.chain().any(is_full).then(self.advice)
    }

    /// Answers the last question again, or for the first time if its answer was never begun.
    pub fn regenerate(&mut self) -> Result<()> {
        let (stats, advice) = (self.stats, self.advice);
        match self.conversation.messages().last().map(|last| last.role) {
            Some(Role::Assistant) => {
                print(self.conversation.regenerate()?, &mut self.thoughts, stats, advice)
            }
            None | Some(Role::System) => {
                note(&messages::no_question_yet());
                Ok(())
            }
            Some(_) => print(self.conversation.answer()?, &mut self.thoughts, stats, advice),
        }
    }

    /// Asks `question` in place of the last one. If that fails, the last one stays.
    pub fn ask_instead(&mut self, question: &str) -> Result<()> {
        let before = self.conversation.messages().to_vec();
        self.conversation.undo();
        let shortened = self.conversation.messages().to_vec();
        let asked = self.ask(question);
        if self.conversation.messages() == shortened {
            self.conversation.set_messages(before)?;
        }
        asked
    }

    pub fn undo(&mut self) {
        if !self.conversation.undo() {
            note(&messages::nothing_to_undo());
            return;
        }
        self.thoughts.clear();
        match self.last_question() {
            Some(question) => note(&messages::back_to(excerpt(question))),
            None => note(&messages::back_to_beginning()),
        }
    }

    pub fn last_question(&self) -> Option<&str> {
        let messages = self.conversation.messages().iter();
        let question = messages.rev().find(|message| message.role == Role::User);
        question.map(|question| &*question.content)
    }

    /// Shows what the model thought last: before the answer that was shown last, or before the last one that was loaded.
    pub fn show_thoughts(&self) {
        let messages = self.conversation.messages().iter();
        let answer = messages.rev().find(|message| message.role == Role::Assistant);
        let loaded = answer.and_then(|answer| answer.reasoning_content.as_deref());
        match Some(&*self.thoughts).filter(|thoughts| !thoughts.is_empty()).or(loaded) {
            Some(thoughts) => note(thoughts),
            None => note(&messages::no_thoughts()),
        }
    }

    pub fn clear(&mut self) {
        self.conversation.clear();
        self.thoughts.clear();
        self.file = None;
        note(&messages::cleared());
    }

    /// The instructions at the beginning.
    pub fn system(&self) -> Option<&str> {
        let first = self.conversation.messages().first();
        first.filter(|first| first.role == Role::System).map(|first| &*first.content)
    }

    /// Replaces the instructions at the beginning; an empty text removes them.
    pub fn set_system(&mut self, text: &str) -> Result<()> {
        let messages = self.conversation.messages();
        let old = messages.iter().take_while(|message| message.role == Role::System).count();
        let new = (!text.is_empty()).then(|| Message::new(Role::System, text));
        let changed = new.into_iter().chain(messages[old..].iter().cloned()).collect();
        self.conversation.set_messages(changed)?;
        Ok(())
    }

    /// Changes a setting, or shows it if `value` is empty.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        // People who know the parameter write top_p, and the flag is top-p.
        let name = &name.replace('_', "-");
        let options = self.conversation.options();
        if !value.is_empty() {
            let changed = settings::changed(name, value, options, &self.start)?;
            self.conversation.set_options(changed)?;
        }
        let value = settings::get(name, self.conversation.options())?;
        note(&format!("{name} {value}"));
        Ok(())
    }

    /// Chooses an adapter, or lists them.
    pub fn adapter(&mut self, name: Option<&str>) -> Result<()> {
        match name {
            Some(name) => self.adapters.choose(name, &mut self.conversation)?,
            None => self.adapters.list(&self.conversation),
        }
        Ok(())
    }

    /// All settings, and how much of the context is used.
    pub fn show(&self, history: &str) -> Result<()> {
        let mut list = settings::list(self.conversation.options());
        let system = self.system().map_or_else(|| "none".to_owned(), excerpt);
        list.extend([(SYSTEM, system), (settings::HISTORY, history.to_owned())]);
        for (name, value) in list {
            note(&format!("{name:<19} {value}"));
        }
        let used = match self.conversation.messages() {
            [] => 0,
            _ => self.conversation.prompt_tokens()?,
        };
        let count = self.conversation.messages().len();
        note(&messages::where_we_are(count, used, self.conversation.context()));
        if let Some(file) = &self.file {
            note(&messages::file_of_conversation(file.display()));
        }
        Ok(())
    }

    /// Writes the conversation as JSON. A file that exists is only replaced if it holds this conversation.
    pub fn save(&mut self, path: Option<PathBuf>) -> Result<()> {
        let path = path.or_else(|| self.file.clone());
        let path = path.with_context(messages::save_needs_a_name)?;
        let is_ours = self.file.as_ref() == Some(&path);
        ensure!(is_ours || !path.exists(), messages::exists_already(path.display()));
        let json = messages_to_json(self.conversation.messages());
        file::replace(&path, |out| Ok(writeln!(out, "{json}")?))?;
        note(&messages::written_to(path.display()));
        self.file = Some(path);
        Ok(())
    }

    /// Replaces the conversation with that of a file, and answers its last question if that has no answer.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        self.resume(input::messages(path)?, path)?;
        self.answer_open_question()
    }

    /// Replaces the conversation with the messages of a file.
    pub fn resume(&mut self, loaded: Vec<Message>, path: &Path) -> Result<()> {
        let count = loaded.len();
        self.conversation.set_messages(loaded).with_context(|| path.display().to_string())?;
        self.thoughts.clear();
        self.file = Some(path.to_owned());
        note(&messages::loaded(count, path.display()));
        Ok(())
    }

    /// Answers the last question if it has no answer.
    pub fn answer_open_question(&mut self) -> Result<()> {
        let last = self.conversation.messages().last();
        if last.is_none_or(|last| matches!(last.role, Role::Assistant | Role::System)) {
            return Ok(());
        }
        if let Some(question) = self.last_question() {
            note(&messages::unanswered(excerpt(question)));
        }
        self.regenerate()
    }
}

/// Whether the messages end with the answer to a question.
pub fn is_answered(messages: &[Message]) -> bool {
    messages.last().is_some_and(|last| last.role == Role::Assistant)
        && messages.iter().any(|message| message.role == Role::User)
}

/// The beginning of a text, in one line.
fn excerpt(text: &str) -> String {
    const LONGEST: usize = 60;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line,
    }
}

/// Shows a reply and appends it to the conversation.
pub fn finish(mut reply: Reply<'_>, show: &mut answer::Show<'_>) -> Result<Shown> {
    let dropped = reply.dropped_rounds();
    if dropped > 0 {
        note(&messages::rounds_dropped(dropped));
    }
    let shown = answer::show(&mut reply, true, show)?;
    reply.finish()?;
    Ok(shown)
}

/// Prints a reply, ends its line and reports on it; `thought` becomes what the model thought before it. In a terminal, lines are broken between words.
fn print(
    reply: Reply<'_>,
    thought: &mut String,
    stats: bool,
    advice: fn() -> String,
) -> Result<()> {
    let is_wrapped = stdout().is_terminal();
    let mut wrap = Wrap::new();
    let mut thoughts = Thoughts::new(stdin().is_terminal());
    thought.clear();
    let mut has_begun = false;
    let mut show = |event: &AnswerEvent| {
        thoughts.show(event)?;
        if let AnswerEvent::Reasoning(piece) = event {
            thought.push_str(piece);
        }
        has_begun |= matches!(event, AnswerEvent::Text(_));
        match event {
            AnswerEvent::Text(piece) if is_wrapped => say(&wrap.push(piece, tty::columns())),
            event => answer::say_text(event),
        }
    };
    let shown = finish(reply, &mut show);
    thoughts.end()?;
    if shown.is_ok() || has_begun {
        output::line(&wrap.end())?;
    }
    let shown = shown?;
    shown.close(stats)?;
    if shown.finish == FinishReason::Context {
        note(&advice());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_one_short_line() {
        assert_eq!(excerpt("a\n b"), "a b");
        let long = "好".repeat(100);
        assert_eq!(excerpt(&long), format!("{} ...", "好".repeat(60)));
    }
}
