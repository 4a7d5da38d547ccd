//! Log probabilities of given answers.

use crate::error::{Error, Result};
use crate::generate::generation::check_prompt;
use crate::network::chunk::Chunk;
use crate::network::hook::{CancelToken, RunOptions};
use crate::network::model::Model;
use crate::network::sequence::Sequence;

/// Score of an answer; probabilities are natural logarithms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Sum over the ids of the answer, each conditioned on the prompt and the ids before it.
    pub log_probability: f64,
    /// Log probability that the answer ends after these ids. The complete answer has the sum of both.
    pub end: f64,
    /// Number of ids.
    pub tokens: usize,
}

/// Most tokens of answers in a pass, unless a single answer is longer.
const PASS_TOKENS: usize = 128;

/// Most answers in a pass: each has a copy of the last KV page of the prompt.
const PASS_ANSWERS: usize = 8;

/// Scores each of `answers` to `prompt`. The prefill of `prompt` runs once, in `sequence`; a pass then scores several answers. Any
/// id of `ends` ends an answer.
///
/// # Errors
/// If the prompt is invalid, an answer has no ids or an id outside the vocabulary, prompt and answer exceed the context, or it was
/// cancelled.
pub fn score(
    model: &Model,
    sequence: &mut Sequence,
    prompt: &[u32],
    answers: &[Vec<u32>],
    ends: &[u32],
    cancel: &CancelToken,
) -> Result<Vec<Score>> {
    model.check_sequence(sequence)?;
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
                // The logits of a token predict the next one.
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

/// Log probability of the set `ids`.
fn log_probability(logits: &[f32], ids: &[u32]) -> Result<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum = |logits: &mut dyn Iterator<Item = f32>| -> f64 {
        logits.map(|logit| libm::exp(f64::from(logit) - f64::from(max))).sum()
    };
    let all = sum(&mut logits.iter().copied());
    if !all.is_finite() {
        return Err(Error::NotFinite);
    }
    let selected = sum(&mut ids.iter().filter_map(|&id| logits.get(id as usize).copied()));
    Ok(libm::log(selected / all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_probability_is_that_of_the_softmax() {
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
