//! Ids → where each token stands, in two dimensions, and what it sees.

use glm_kernels::Mask;

use crate::config::SpecialIds;
use crate::error::{Error, Result};

/// How the tokens of a prompt, and of the answer that follows it, are placed.
///
/// The context is all before the first `bos`. Its tokens stand at 0, 1, 2, … with block position 0. `bos` and all that
/// follow stand where the blank is that they fill, at block positions 1, 2, 3, …
///
/// The blank is the first `[gMASK]` or, if there is none, the first `[MASK]` of the prompt. (The published code looks again
/// at every step, so that an answer containing `[gMASK]` would move itself; here the prompt decides.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    context: usize,
    blank: usize,
}

impl Placement {
    /// The placement of a prompt. Without `bos`, all of it is context.
    ///
    /// # Errors
    /// If there is a `bos` but no blank for it to fill.
    pub fn of(prompt: &[u32], special: &SpecialIds) -> Result<Self> {
        let first = |id| prompt.iter().position(|&other| other == id);
        let Some(context) = first(special.bos) else {
            return Ok(Self { context: prompt.len(), blank: 0 });
        };
        let blank = first(special.gmask).or_else(|| first(special.mask)).ok_or_else(|| {
            let SpecialIds { bos, mask, gmask, .. } = special;
            Error::Ids(format!(
                "the prompt starts its answer with {bos}, but has no blank for it to fill: neither [gMASK] ({gmask}) nor [MASK] ({mask})"
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
        match index.checked_sub(self.context) {
            None => [index, 0],
            Some(answered) => [self.blank, answered + 1],
        }
    }

    /// What each token sees.
    pub fn mask(&self) -> Mask {
        Mask { prefix: self.context }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECIAL: SpecialIds = SpecialIds { bos: 94, eos: 95, mask: 90, gmask: 91, pad: 3 };

    fn rows(prompt: &[u32]) -> [Vec<usize>; 2] {
        let placement = Placement::of(prompt, &SPECIAL).unwrap();
        [0, 1].map(|row| (0..prompt.len()).map(|i| placement.at(i)[row]).collect())
    }

    #[test]
    fn positions_are_those_of_the_published_code() {
        assert_eq!(rows(&[7, 8, 91, 94, 5]), [vec![0, 1, 2, 2, 2], vec![0, 0, 0, 1, 2]]);
        assert_eq!(rows(&[7, 90, 8, 94]), [vec![0, 1, 2, 1], vec![0, 0, 0, 1]]);
        assert_eq!(rows(&[90, 8, 91, 94]), [vec![0, 1, 2, 2], vec![0, 0, 0, 1]]);
        assert_eq!(rows(&[5, 6, 7]), [vec![0, 1, 2], vec![0, 0, 0]]);
    }

    #[test]
    fn an_answer_needs_a_blank() {
        let error = Placement::of(&[1, 94], &SPECIAL).unwrap_err().to_string();
        assert!(error.contains("94") && error.contains("91"), "{error}");
    }
}
