//! What was said so far, and the next answer.

use anyhow::Result;
use glm_model::{Finish, Message, Role, Template, Tokenizer};

use crate::answer::{Answerer, Reply};
use crate::args::Overflow;
use crate::output::note;
use crate::units::count;

/// Shows pieces of an answer.
pub type Show<'a> = dyn FnMut(&str) -> Result<()> + 'a;

/// A conversation; between its answers user and assistant have spoken in turn.
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

    /// Answers a question. If that fails, it was not asked; what was said of an answer that Ctrl-C stopped stays.
    pub fn ask(&mut self, question: String, show: &mut Show<'_>) -> Result<Reply> {
        let before = self.messages.clone();
        self.messages.push(Message::new(Role::User, question));
        self.answer_or(before, show)
    }

    /// Answers the last question once more, or returns `None` where there is none. If that fails, the answer stays.
    pub fn again(&mut self, show: &mut Show<'_>) -> Option<Result<Reply>> {
        let before = self.messages.clone();
        self.messages.pop()?;
        Some(self.answer_or(before, show))
    }

    /// Takes back the last question and its answer, or returns `false` where there is none.
    pub fn undo(&mut self) -> bool {
        let rest = self.messages.len().saturating_sub(2);
        let had = rest < self.messages.len();
        self.messages.truncate(rest);
        had
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
        let mut first = 0;
        while prompt.len() > most && first + 2 < self.messages.len() {
            first += 2;
            prompt = ids(&self.messages[first..])?;
        }
        if first > 0 {
            note(&format!(
                "the conversation has become too long: {} dropped at its beginning",
                count(first / 2, "round")
            ));
            self.messages.drain(..first);
        }
        Ok(prompt)
    }
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
    fn there_is_room_for_an_answer() {
        assert_eq!(longest_prompt(2048, None), 1536);
        assert_eq!(longest_prompt(2048, Some(40)), 2008);
        assert_eq!(longest_prompt(2048, Some(5000)), 1536);
        assert_eq!(longest_prompt(1, None), 0);
    }
}
