//! Blanks, filled.

use crate::chat::Fill;
use crate::error::Result;
use crate::session::{Finish, Request, Session};
use crate::tokenizer::Tokenizer;

/// A text whose blanks were filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filled {
    /// The whole text.
    pub text: String,
    /// What each blank was filled with, from left to right.
    pub spans: Vec<String>,
    /// Why the last answer ended. If that is not [`Finish::Stop`] or [`Finish::Length`], blanks may be left.
    pub finish: Finish,
}

impl Session {
    /// Fills the blanks of `text` from left to right, each knowing what was put in those before it. To see the answers while
    /// they come, give the prompts of a [`Fill`] to [`Session::generate`] one by one.
    ///
    /// # Errors
    /// As [`Fill::new`], [`Session::generate`] and [`Fill::fill`].
    pub fn fill(&mut self, tokenizer: &Tokenizer, text: &str, request: &Request) -> Result<Filled> {
        let mut fill = Fill::new(tokenizer, text)?;
        let mut request = request.clone();
        let mut finish = Finish::Stop;
        while let Some(prompt) = fill.prompt() {
            let mut answer = self.generate(&prompt, &request)?;
            let ids = answer.by_ref().collect::<Result<Vec<_>>>()?;
            finish = answer.finish().unwrap_or(Finish::Stop);
            fill.fill(tokenizer, &ids)?;
            if matches!(finish, Finish::Cancelled | Finish::Context) {
                break;
            }
            // Each blank draws numbers of its own.
            request.sampling.seed = request.sampling.seed.wrapping_add(1);
        }
        Ok(Filled { text: fill.written(), spans: fill.spans().to_vec(), finish })
    }
}
