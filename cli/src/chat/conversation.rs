//! What was said so far, and the next answer.

use std::ops::Range;

use anyhow::Result;
use glm_model::{Finish, Message, Role, Template, Tokenizer};

use crate::answer::{Answerer, Reply};
use crate::args::Overflow;
use crate::output::note;
use crate::units::count;

/// Shows pieces of an answer.
pub type Show<'a> = dyn FnMut(&str) -> Result<()> + 'a;

/// A conversation.
pub struct Conversation<'t> {
    pub answerer: Answerer,
    tokenizer: &'t Tokenizer,
    template: Template,
    overflow: Overflow,
    pub messages: Vec<Message>,
}

impl<'t> Conversation<'t> {
    pub fn new(
        answerer: Answerer,
        tokenizer: &'t Tokenizer,
        template: Template,
        overflow: Overflow,
    ) -> Self {
        let answerer = answerer.conversing(template.clone(), tokenizer);
        Self { answerer, tokenizer, template, overflow, messages: Vec::new() }
    }

    /// Fails now if the first question would, because the model knows no instructions.
    pub fn check(&self) -> Result<()> {
        let question = Message::new(Role::User, "");
        let messages = [&self.messages[..], &[question]].concat();
        self.template.prompt_ids(self.tokenizer, &messages)?;
        Ok(())
    }

    /// Begins anew, but for instructions.
    pub fn clear(&mut self) {
        self.messages.truncate(instructions(&self.messages));
    }

    /// Answers a question. If that fails, it was not asked; what was said of an answer that Ctrl-C stopped stays.
    pub fn ask(&mut self, question: String, show: &mut Show<'_>) -> Result<Reply> {
        let before = self.messages.clone();
        self.messages.push(Message::new(Role::User, question));
        self.answer_or(before, show)
    }

    /// Answers the last question once more, or returns `None` where there is none. If that fails, the answer stays.
    pub fn again(&mut self, show: &mut Show<'_>) -> Option<Result<Reply>> {
        let before = self.messages.clone();
        self.messages.pop_if(|last| last.role == Role::Assistant)?;
        Some(self.answer_or(before, show))
    }

    /// Takes back the last question and its answer, or returns `false` where there is none.
    pub fn undo(&mut self) -> bool {
        let question = self.messages.iter().rposition(|message| message.role == Role::User);
        question.inspect(|&at| self.messages.truncate(at)).is_some()
    }

    fn answer_or(&mut self, before: Vec<Message>, show: &mut Show<'_>) -> Result<Reply> {
        let answer = self.answer(show);
        match answer {
            // Stopped before its first word: nothing was said.
            Ok((_, reply)) if reply.text.is_empty() && reply.finish == Finish::Cancelled => {
                self.messages = before;
                Ok(reply)
            }
            Ok((_, reply)) => {
                self.messages.push(Message::new(Role::Assistant, reply.text.clone()));
                self.answerer.next_seed();
                Ok(reply)
            }
            Err(error) => {
                self.messages = before;
                Err(error)
            }
        }
    }

    /// Answers the messages as they are; returns the prompt, too.
    pub fn answer(&mut self, show: &mut Show<'_>) -> Result<(Vec<u32>, Reply)> {
        let prompt = self.prompt()?;
        let reply = self.answerer.answer(&prompt, Some(self.tokenizer), show)?;
        Ok((prompt, reply))
    }

    /// The ids of the messages, without the oldest rounds if they do not fit and that is wanted.
    fn prompt(&mut self) -> Result<Vec<u32>> {
        let (tokenizer, template) = (self.tokenizer, &self.template);
        let ids = |messages: &[Message]| template.prompt_ids(tokenizer, messages);
        let mut prompt = ids(&self.messages)?;
        if self.overflow == Overflow::Error {
            return Ok(prompt);
        }
        let most = longest_prompt(self.answerer.context(), self.answerer.max_new_tokens());
        let mut dropped = 0;
        while prompt.len() > most
            && let Some(round) = oldest_round(&self.messages)
        {
            self.messages.drain(round);
            dropped += 1;
            prompt = ids(&self.messages)?;
        }
        if dropped > 0 {
            note(&format!(
                "the conversation has become too long: {} dropped at its beginning",
                count(dropped, "round")
            ));
        }
        Ok(prompt)
    }
}

/// How many messages at the beginning are instructions.
fn instructions(messages: &[Message]) -> usize {
    messages.iter().take_while(|message| message.role == Role::System).count()
}

/// The first question with all that answers it, if another question follows.
fn oldest_round(messages: &[Message]) -> Option<Range<usize>> {
    let first = instructions(messages);
    let asks = |message: &Message| message.role == Role::User;
    let next = messages.iter().skip(first + 1).position(asks)?;
    Some(first..first + 1 + next)
}

/// Tokens of a prompt that leaves room for an answer.
fn longest_prompt(context: usize, max_new_tokens: Option<usize>) -> usize {
    let quarter = context / 4;
    context - max_new_tokens.unwrap_or(quarter).min(quarter).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_end_where_the_next_question_begins() {
        use Role::{Assistant, Observation, System, User};
        let of = |roles: &[Role]| {
            oldest_round(&roles.iter().map(|&role| Message::new(role, "")).collect::<Vec<_>>())
        };
        assert_eq!(of(&[User, Assistant, User]), Some(0..2));
        assert_eq!(of(&[System, User, Assistant, Observation, Assistant, User]), Some(1..5));
        assert_eq!(of(&[System, User, Assistant]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn there_is_room_for_an_answer() {
        assert_eq!(longest_prompt(2048, None), 1536);
        assert_eq!(longest_prompt(2048, Some(40)), 2008);
        assert_eq!(longest_prompt(2048, Some(5000)), 1536);
        assert_eq!(longest_prompt(1, None), 0);
    }
}
