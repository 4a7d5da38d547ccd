//! Token ids → the position ids of each token (one or two dimensions) and the attention mask.

use glm_kernels::Mask;

use crate::error::{Error, Result};
use crate::files::config::{BlankChoice, MaskKind, SpecialIds};

/// The position ids of a prompt and of the answer that follows it.
///
/// In a model that fills blanks, the context is everything before the first `sop`. Its tokens have positions 0, 1, 2, … and block
/// position 0. `sop` and the tokens after it have the position of the blank that they fill, and block positions 1, 2, 3, ….
/// [`BlankChoice`] selects the blank. (ChatGLM-6B's published code searches for the blank again at every step, so an answer that
/// contains `[gMASK]` changes its own positions; here only the prompt is searched.)
///
/// A causal model has no context, and its tokens have positions 0, 1, 2, …
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    context: usize,
    /// Position of all tokens after the context. With `None` they have consecutive positions.
    blank: Option<usize>,
}

impl Placement {
    /// The placement of every prompt of a causal model.
    pub(crate) const CAUSAL: Self = Self { context: 0, blank: None };

    /// The placement of a prompt with `context` tokens of bidirectional context.
    pub(crate) fn with_context(context: usize) -> Self {
        Self { context, blank: None }
    }

    /// The placement of a prompt. Without `sop`, all of it is context.
    ///
    /// # Errors
    /// If there is a `sop` but no blank to fill, or the ids of the blanks of the model are unknown.
    pub fn of(prompt: &[u32], mask: MaskKind, special: &SpecialIds) -> Result<Self> {
        let first = |id: Option<u32>| prompt.iter().position(|&other| Some(other) == id);
        let MaskKind::Prefix(filled) = mask else { return Ok(Self::CAUSAL) };
        if special.sop.is_none() {
            let problem = "the ids of the blanks and of sop are unknown: config.json has no sop_token_id, \
                           and its directory has no added_tokens.json with <|startofpiece|>";
            return Err(Error::Ids(problem.to_owned()));
        }
        let Some(context) = first(special.sop) else {
            return Ok(Self { context: prompt.len(), blank: None });
        };
        let [mask_at, smask_at, gmask_at] = special.blanks().map(|(_, id)| first(id));
        let blank = match filled {
            BlankChoice::GmaskFirst => gmask_at.or(mask_at).map(Some),
            BlankChoice::Leftmost => {
                [mask_at, smask_at, gmask_at].into_iter().flatten().min().map(Some)
            }
            BlankChoice::MaskFirst => {
                mask_at.or(smask_at).map(Some).or_else(|| gmask_at.map(|_| None))
            }
        };
        let blank = blank.ok_or_else(|| {
            let names = special.blanks();
            let names = names.iter().filter_map(|(name, id)| Some(format!("{name} ({})", (*id)?)));
            Error::Ids(format!(
                "the prompt starts an answer with {}, but has no blank to fill: looked for {}",
                prompt[context],
                names.collect::<Vec<_>>().join(", ")
            ))
        })?;
        Ok(Self { context, blank })
    }

    /// Tokens before the answer.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Position and block position of token `index`.
    pub fn at(&self, index: usize) -> [usize; 2] {
        match (index.checked_sub(self.context), self.blank) {
            (Some(answered), Some(blank)) => [blank, answered + 1],
            _ => [index, 0],
        }
    }

    /// The attention mask of a cache whose first `prefix` positions every token attends to.
    pub fn mask(&self, prefix: usize) -> Mask {
        Mask { prefix: prefix + self.context }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn special() -> SpecialIds {
        let (sop, mask, smask, gmask) = (Some(94), Some(90), Some(92), Some(91));
        SpecialIds { sop, mask, smask, gmask, ..SpecialIds::default() }
    }

    fn rows(filled: BlankChoice, prompt: &[u32]) -> [Vec<usize>; 2] {
        let placement = Placement::of(prompt, MaskKind::Prefix(filled), &special()).unwrap();
        [0, 1].map(|row| (0..prompt.len()).map(|i| placement.at(i)[row]).collect())
    }

    #[test]
    fn positions_match_the_published_code() {
        use BlankChoice::{GmaskFirst, Leftmost, MaskFirst};
        let counted = |n: usize| vec![0; n];
        for (filled, prompt, expected) in [
            (GmaskFirst, &[7, 8, 91, 94, 5][..], [vec![0, 1, 2, 2, 2], vec![0, 0, 0, 1, 2]]),
            (GmaskFirst, &[7, 90, 8, 94], [vec![0, 1, 2, 1], vec![0, 0, 0, 1]]),
            (GmaskFirst, &[90, 8, 91, 94], [vec![0, 1, 2, 2], vec![0, 0, 0, 1]]),
            (GmaskFirst, &[5, 6, 7], [vec![0, 1, 2], counted(3)]),
            (Leftmost, &[92, 8, 90, 94, 5], [vec![0, 1, 2, 0, 0], vec![0, 0, 0, 1, 2]]),
            (MaskFirst, &[92, 8, 90, 94, 5], [vec![0, 1, 2, 2, 2], vec![0, 0, 0, 1, 2]]),
            (MaskFirst, &[91, 92, 94, 5], [vec![0, 1, 1, 1], vec![0, 0, 1, 2]]),
            (MaskFirst, &[8, 91, 94, 5], [vec![0, 1, 2, 3], counted(4)]),
        ] {
            assert_eq!(rows(filled, prompt), expected, "{filled:?} {prompt:?}");
        }
    }

    #[test]
    fn causal_tokens_have_consecutive_positions() {
        let causal = Placement::of(&[91, 94, 5], MaskKind::Causal, &special()).unwrap();
        assert_eq!((causal.at(0), causal.at(2), causal.mask(5).prefix), ([0, 0], [2, 0], 5));
    }

    #[test]
    fn an_answer_needs_a_blank() {
        for filled in [BlankChoice::GmaskFirst, BlankChoice::Leftmost, BlankChoice::MaskFirst] {
            let error = Placement::of(&[1, 94], MaskKind::Prefix(filled), &special()).unwrap_err();
            let error = error.to_string();
            assert!(error.contains("94") && error.contains("[gMASK] (91)"), "{error}");
        }
        let mask = MaskKind::Prefix(BlankChoice::Leftmost);
        let unknown = Placement::of(&[1], mask, &SpecialIds::default()).unwrap_err().to_string();
        assert!(unknown.contains("added_tokens.json"), "{unknown}");
    }
}
