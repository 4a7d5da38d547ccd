//! Questions and answers in numbered rounds: ChatGLM-6B and ChatGLM2.

use super::message::{Message, Role};
use crate::error::{Error, Result};
use std::fmt::Write;

/// How rounds are written.
#[derive(Debug)]
pub(super) struct Rounds {
    /// The template's name.
    pub(super) name: &'static str,
    model: &'static str,
    /// The number of the first round.
    first: usize,
    /// Between question and answer and after the number.
    gap: &'static str,
    /// Between rounds.
    rest: &'static str,
    /// Whether a first question is the prompt as it is.
    bare: bool,
    /// Whether punctuation in answers is made full-width.
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
/// and a first question is the prompt as it is.
pub(super) const CHATGLM: Rounds = Rounds {
    name: "chatglm",
    model: "ChatGLM-6B",
    first: 0,
    gap: "\n",
    rest: "\n",
    bare: true,
    widens: true,
};

/// The same from 1 on, with an empty line after every line, and for a first question, too.
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
    pub(super) fn text(&self, messages: &[Message]) -> Result<String> {
        self.check(messages)?;
        if let ([question], true) = (messages, self.bare) {
            return Ok(question.content.clone());
        }
        let mut text = String::new();
        for (round, turn) in (self.first..).zip(messages.chunks(2)) {
            let (gap, question) = (self.gap, &turn[0].content);
            // Writing to a String cannot fail.
            let _ = write!(text, "[Round {round}]{gap}问：{question}{gap}答：");
            if let Some(answer) = turn.get(1) {
                text.extend([&answer.content, self.rest]);
            }
        }
        Ok(text)
    }

    fn check(&self, messages: &[Message]) -> Result<()> {
        let model = self.model;
        let problem = |what: String| Err(Error::Prompt(what));
        for (i, message) in messages.iter().enumerate() {
            let role = message.role;
            if message.tools.is_some() {
                return problem(format!("message {i}: {model} knows no tools"));
            }
            match (role, i % 2) {
                (Role::User, 0) | (Role::Assistant, 1) => {}
                (Role::User, _) => {
                    return problem(format!("message {i}: the user speaks twice in a row"));
                }
                (Role::Assistant, _) if i == 0 => {
                    return problem("the user must speak first".into());
                }
                (Role::Assistant, _) => {
                    return problem(format!("message {i}: the assistant speaks twice in a row"));
                }
                _ => {
                    return problem(format!(
                        "message {i}: {model} takes no {} messages",
                        role.name()
                    ));
                }
            }
        }
        match messages.len() {
            0 => problem("the conversation is empty".into()),
            n if n % 2 == 0 => {
                problem("the conversation must end with a message by the user".into())
            }
            _ => Ok(()),
        }
    }
}
