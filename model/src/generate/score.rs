//! How likely given answers are.

use crate::error::{Error, Result};
use crate::generate::session::{CancelToken, Session};

/// Natural logarithms of probabilities.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Of the answer's ids, each after the prompt and those before it: their sum.
    pub log_probability: f64,
    /// That the answer ends there, after its ids. What the model can give as an answer has both together.
    pub end: f64,
    /// How many ids it has.
    pub tokens: usize,
}

impl Session {
    /// Scores each of `answers` to `prompt`, which is read once; any of `ends` ends an answer.
    ///
    /// # Errors
    /// If the prompt is not one that can be answered, an answer has no ids or one outside the vocabulary, prompt and an answer do
    /// not fit in the context together, or it was cancelled.
    pub fn score(
        &mut self,
        prompt: &[u32],
        answers: &[Vec<u32>],
        ends: &[u32],
        cancel: &CancelToken,
    ) -> Result<Vec<Score>> {
        let mut watch = |_, _, _: &[f32]| cancel.flow();
        self.check_prompt(prompt)?;
        if answers.iter().any(Vec::is_empty) {
            return Err(Error::Prompt("an answer without any ids cannot be scored".to_owned()));
        }
        let (model, state) = (self.model.clone(), &mut self.state);
        let kept = model.reusable(prompt, state);
        state.truncate(kept);
        model.prefill_observed(&prompt[kept..], state, &mut watch)?;
        let first = model.logits(prompt.len() - kept - 1, state).to_vec();
        let mut scores = Vec::with_capacity(answers.len());
        for answer in answers {
            state.truncate(prompt.len());
            model.forward_observed(answer, state, &mut watch)?;
            let mut log_probability = log_probability(&first, &answer[..1])?;
            for (index, id) in answer[1..].iter().enumerate() {
                log_probability += self::log_probability(model.logits(index, state), &[*id])?;
            }
            let end = self::log_probability(model.logits(answer.len() - 1, state), ends)?;
            scores.push(Score { log_probability, end, tokens: answer.len() });
        }
        Ok(scores)
    }
}

/// The logarithm of the probability of any of `ids`.
fn log_probability(logits: &[f32], ids: &[u32]) -> Result<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum = |logits: &mut dyn Iterator<Item = f32>| -> f64 {
        logits.map(|logit| libm::exp(f64::from(logit) - f64::from(max))).sum()
    };
    let all = sum(&mut logits.iter().copied());
    if !all.is_finite() {
        return Err(Error::NotFinite);
    }
    let these = sum(&mut ids.iter().filter_map(|&id| logits.get(id as usize).copied()));
    Ok(libm::log(these / all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_those_of_the_softmax() {
        let logits = [1.0, 3.0, 2.0];
        let total: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        close(log_probability(&logits, &[1]).unwrap(), 3.0 - total.ln());
        close(log_probability(&logits, &[0, 1, 2]).unwrap(), 0.0);
        assert_eq!(log_probability(&logits, &[]).unwrap(), f64::NEG_INFINITY);
        assert!(log_probability(&[f32::NAN], &[0]).is_err());
        assert!(log_probability(&[f32::INFINITY, 0.0], &[0]).is_err());
    }
}
