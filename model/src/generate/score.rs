//! How likely given answers are.

use crate::error::{Error, Result};
use crate::generate::generation::check_prompt;
use crate::network::chunk::Chunk;
use crate::network::hook::{CancelToken, RunOptions};
use crate::network::model::Model;
use crate::network::sequence::Sequence;

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

/// Most tokens of answers that are scored in one pass, unless a single answer is longer.
const PASS_TOKENS: usize = 128;

/// Most answers that are scored in one pass: each has a copy of the last page of the prompt.
const PASS_ANSWERS: usize = 8;

/// Scores each of `answers` to `prompt`, which is read once, into `sequence`; any of `ends` ends an answer. Several answers are
/// scored in one pass.
///
/// # Errors
/// If the prompt is not one that can be answered, an answer has no ids or one outside the vocabulary, prompt and an answer do
/// not fit in the context together, or it was cancelled.
pub fn score(
    model: &Model,
    sequence: &mut Sequence,
    prompt: &[u32],
    answers: &[Vec<u32>],
    ends: &[u32],
    cancel: &CancelToken,
) -> Result<Vec<Score>> {
    check_prompt(model, prompt, sequence.capacity())?;
    if answers.iter().any(Vec::is_empty) {
        return Err(Error::Prompt("an answer without any ids cannot be scored".to_owned()));
    }
    sequence.truncate(model.reusable(prompt, sequence));
    model.with_workspace(|workspace| {
        let rest = &prompt[sequence.len()..];
        let options = RunOptions::default().cancelled_by(cancel);
        let first = model.run(workspace, &mut [Chunk::last(sequence, rest)], options)?;
        let first = first.last(0).to_vec();
        let mut scores = Vec::with_capacity(answers.len());
        while scores.len() < answers.len() {
            let batch = &answers[scores.len()..];
            let mut tokens = 0;
            let fits = |answer: &&Vec<u32>| {
                tokens += answer.len();
                tokens <= PASS_TOKENS
            };
            let count = batch.iter().take(PASS_ANSWERS).take_while(fits).count().max(1);
            let batch = &batch[..count];
            let mut batch_scores = batch
                .iter()
                .map(|answer| {
                    let log_probability = log_probability(&first, &answer[..1])?;
                    Ok(Score { log_probability, end: 0.0, tokens: answer.len() })
                })
                .collect::<Result<Vec<_>>>()?;
            let mut failed = Ok(());
            let mut sink = |answer: usize, token: usize, logits: &[f32]| {
                let score = &mut batch_scores[answer];
                // The logits of a token are those of the one that follows it.
                let scored = match batch[answer].get(token + 1) {
                    Some(&next) => log_probability(logits, &[next]).map(|log| {
                        score.log_probability += log;
                    }),
                    None => log_probability(logits, ends).map(|end| score.end = end),
                };
                if failed.is_ok() {
                    failed = scored;
                }
            };
            let mut forks: Vec<_> = batch.iter().map(|_| sequence.fork(prompt.len())).collect();
            let mut chunks: Vec<_> = forks
                .iter_mut()
                .zip(batch)
                .map(|(fork, answer)| Chunk::all(fork, answer))
                .collect();
            let options = RunOptions::default().cancelled_by(cancel).with_logits(&mut sink);
            model.run(workspace, &mut chunks, options)?;
            failed?;
            scores.extend(batch_scores);
        }
        Ok(scores)
    })
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
