//! The prompts of ChatGLM-6B and ChatGLM2: questions and answers in numbered rounds.

use super::message::{Message, Role};
use super::prompt::SpecialNames;
use crate::error::{Error, Result};
use std::borrow::Cow;
use std::fmt::Write;

/// The format of the rounds.
#[derive(Debug)]
pub(super) struct Rounds {
    /// The name of the template.
    pub(super) name: &'static str,
    model: &'static str,
    /// The number of the first round.
    first: usize,
    /// The text between question and answer, and after the number.
    gap: &'static str,
    /// The text between rounds.
    rest: &'static str,
    /// Whether a first question alone is the whole prompt.
    bare: bool,
    /// Whether punctuation in answers becomes full-width.
    pub(super) widens: bool,
}

/// ```text
/// [Round 0]
/// 问：question
/// 答：answer
/// [Round 1]
/// 问：question
/// 答：
/// ```
/// A first question alone is the whole prompt.
pub(super) const CHATGLM: Rounds = Rounds {
    name: "chatglm",
    model: "ChatGLM-6B",
    first: 0,
    gap: "\n",
    rest: "\n",
    bare: true,
    widens: true,
};

/// The same numbered from 1, with an empty line after every line. A first question has the same form.
pub(super) const CHATGLM2: Rounds = Rounds {
    name: "chatglm2",
    model: "ChatGLM2-6B",
    first: 1,
    gap: "\n\n",
    rest: "\n\n",
    bare: false,
    widens: false,
};

impl Rounds {
    /// The roles have no ids here, only a form. With [`SpecialNames::Text`], a line of a message that begins with this form is
    /// indented by a blank, so that it differs from those of the template.
    pub(super) fn text(&self, messages: &[Message], names: SpecialNames) -> Result<String> {
        self.check(messages)?;
        let said = |content| match names {
            SpecialNames::Ids => Cow::Borrowed(content),
            SpecialNames::Text => indented(content),
        };
        if let ([question], true) = (messages, self.bare) {
            return Ok(said(&question.content).into_owned());
        }
        let mut text = String::new();
        for (round, turn) in (self.first..).zip(messages.chunks(2)) {
            let (gap, question) = (self.gap, said(&turn[0].content));
            // Writing to a String cannot fail.
            let _ = write!(text, "[Round {round}]{gap}问：{question}{gap}答：");
            if let Some(answer) = turn.get(1) {
                text.extend([&said(&answer.content), self.rest]);
            }
        }
        Ok(text)
    }

    fn check(&self, messages: &[Message]) -> Result<()> {
        let model = self.model;
        let problem = |what: String| Err(Error::Prompt(what));
        for (i, message) in messages.iter().enumerate() {
            let role = message.role;
            if message.tools.is_some() || !message.tool_calls.is_empty() {
                return problem(format!("message {i}: {model} does not support tools"));
            }
            match (role, i % 2) {
                (Role::User, 0) | (Role::Assistant, 1) => {}
                (Role::User, _) => {
                    return problem(format!("message {i}: two messages of the user in a row"));
                }
                (Role::Assistant, _) if i == 0 => {
                    return problem("the first message must be of the user".into());
                }
                (Role::Assistant, _) => {
                    return problem(format!("message {i}: two messages of the assistant in a row"));
                }
                _ => {
                    return problem(format!(
                        "message {i}: {model} does not support {} messages",
                        role.name()
                    ));
                }
            }
        }
        match messages.len() {
            0 => problem("the conversation is empty".into()),
            n if n % 2 == 0 => {
                problem("the conversation must end with a message of the user".into())
            }
            _ => Ok(()),
        }
    }
}

/// A text without lines that begin as those of a round do.
fn indented(text: &str) -> Cow<'_, str> {
    if !text.lines().any(begins_as_round) {
        return text.into();
    }
    let lines = text.split_inclusive('\n');
    lines.flat_map(|line| [if begins_as_round(line) { " " } else { "" }, line]).collect()
}

fn begins_as_round(line: &str) -> bool {
    let is_number = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    line.starts_with("问：")
        || line.starts_with("答：")
        || line.strip_prefix("[Round ").is_some_and(is_number)
}
