//! Filling of blanks.

use crate::error::{Error, Result};
use crate::generate::bundle::Bundle;
use crate::generate::generation::{FinishReason, Generation, Request};
use crate::text::chat::Fill;

/// A text whose blanks were filled.
#[derive(Debug)]
#[non_exhaustive]
pub struct Filled {
    /// The whole text. Blanks that were not filled are unchanged.
    pub text: String,
    /// The text of each filled blank, from left to right.
    pub spans: Vec<String>,
    /// Why the last answer ended. After [`FinishReason::Cancelled`] and [`FinishReason::Context`] there may be unfilled blanks.
    pub finish: FinishReason,
    /// The error that prevented filling the remaining blanks.
    pub problem: Option<Error>,
}

/// Fills the blanks of `text` from left to right; the prompt of each contains the text of those before it. To stream the answers,
/// pass the prompts of a [`Fill`] to a [`Generation`] one by one. `context` as in [`Model::sequence`](crate::Model::sequence).
///
/// # Errors
/// As [`Fill::new`], and for the first blank as [`Generation::new`]. Errors at later blanks are in [`Filled::problem`].
pub fn fill(
    bundle: &Bundle,
    text: &str,
    request: &Request,
    context: Option<usize>,
) -> Result<Filled> {
    let (model, tokenizer) = (bundle.model(), bundle.tokenizer());
    let mut fill = Fill::new(tokenizer, text)?;
    let mut request = request.clone();
    let (mut finish, mut problem) = (FinishReason::Stop, None);
    while let Some(prompt) = fill.prompt() {
        let answer = || {
            let sequence = model.sequence(context)?;
            let mut generation = Generation::new(model, sequence, &prompt, request.clone())?;
            let ids = generation.by_ref().collect::<Result<Vec<_>>>()?;
            Ok((ids, generation.finish_reason().unwrap_or(FinishReason::Stop)))
        };
        let filled = match answer() {
            Err(error) if fill.spans().is_empty() => return Err(error),
            answered => answered.and_then(|(ids, ended)| {
                finish = ended;
                // A blank whose filling was cancelled before its first id stays.
                if ended == FinishReason::Cancelled && ids.is_empty() {
                    return Ok(());
                }
                fill.fill(tokenizer, &ids)
            }),
        };
        problem = filled.err();
        if problem.is_some() || matches!(finish, FinishReason::Cancelled | FinishReason::Context) {
            break;
        }
        // A different seed for each blank.
        request.sampling.seed = request.sampling.seed.wrapping_add(1);
    }
    Ok(Filled { text: fill.written(), spans: fill.spans().to_vec(), finish, problem })
}
