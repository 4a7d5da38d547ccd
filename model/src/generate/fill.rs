//! Blanks, filled.

use crate::error::{Error, Result};
use crate::generate::session::{Finish, Request, Session};
use crate::text::chat::Fill;
use crate::text::tokenizer::Tokenizer;

/// A text whose blanks were filled.
#[derive(Debug)]
pub struct Filled {
    /// The whole text. Blanks that were not filled stand in it as they were.
    pub text: String,
    /// What each blank was filled with, from left to right.
    pub spans: Vec<String>,
    /// Why the last answer ended. After [`Finish::Cancelled`] and [`Finish::Context`] blanks may be left.
    pub finish: Finish,
    /// Why blanks are left, where an answer came that could not be put in.
    pub problem: Option<Error>,
}

impl Session {
    /// Fills the blanks of `text` from left to right, each knowing what was put in those before it. To see the answers while
    /// they come, give the prompts of a [`Fill`] to [`Session::generate`] one by one.
    ///
    /// # Errors
    /// As [`Fill::new`], and for the first blank as [`Session::generate`]. What goes wrong after it is in [`Filled::problem`].
    pub fn fill(&mut self, tokenizer: &Tokenizer, text: &str, request: &Request) -> Result<Filled> {
        let mut fill = Fill::new(tokenizer, text)?;
        let mut request = request.clone();
        let (mut finish, mut problem) = (Finish::Stop, None);
        while let Some(prompt) = fill.prompt() {
            let answered = self.generate(&prompt, &request).and_then(|mut answer| {
                let ids = answer.by_ref().collect::<Result<Vec<_>>>()?;
                Ok((ids, answer.finish().unwrap_or(Finish::Stop)))
            });
            let filled = match answered {
                Err(error) if fill.spans().is_empty() => return Err(error),
                answered => answered.and_then(|(ids, ended)| {
                    finish = ended;
                    fill.fill(tokenizer, &ids)
                }),
            };
            problem = filled.err();
            if problem.is_some() || matches!(finish, Finish::Cancelled | Finish::Context) {
                break;
            }
            // Each blank draws numbers of its own.
            request.sampling.seed = request.sampling.seed.wrapping_add(1);
        }
        Ok(Filled { text: fill.written(), spans: fill.spans().to_vec(), finish, problem })
    }
}
