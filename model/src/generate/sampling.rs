//! Sampling: logits → the next id.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::error::{Error, Result};
use crate::files::fields::Fields;

/// Sampling parameters.
///
/// They are applied in this order: repetition penalty, temperature, `top_k`, `top_p`, `min_p`. Each of the last three filters the
/// candidates that remain after the previous one.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 is greedy sampling.
    pub temperature: f32,
    /// Keeps this many of the most probable candidates; 0 keeps all.
    pub top_k: usize,
    /// Keeps the most probable candidates until their probabilities sum to this value; 1 keeps all.
    pub top_p: f32,
    /// Keeps candidates with at least this fraction of the largest probability; 0 keeps all.
    pub min_p: f32,
    /// Divides positive logits and multiplies negative logits of ids that occurred before; 1 has no effect.
    pub repetition_penalty: f32,
    /// Seed of the random numbers.
    pub seed: u64,
}

impl Sampling {
    /// Greedy sampling: always the most probable id.
    pub fn greedy() -> Self {
        let (top_k, top_p, min_p) = (0, 1.0, 0.0);
        Self { temperature: 0.0, top_k, top_p, min_p, repetition_penalty: 1.0, seed: 0 }
    }

    /// The sampling of the published code: its library, transformers, has a default `top_k` of 50.
    pub(crate) fn published(temperature: f32, top_p: f32) -> Self {
        Self { temperature, top_p, top_k: 50, ..Self::greedy() }
    }

    /// Overrides the parameters that are present in `generation_config.json`.
    ///
    /// # Errors
    /// If a value is outside its range.
    pub(crate) fn with_overrides(mut self, file: &Fields) -> Result<Self> {
        for (name, number) in [
            ("temperature", &mut self.temperature),
            ("top_p", &mut self.top_p),
            ("min_p", &mut self.min_p),
            ("repetition_penalty", &mut self.repetition_penalty),
        ] {
            *number = file.number_or(name, *number)?;
        }
        self.top_k = file.number_or("top_k", self.top_k as f32)? as usize;
        if !file.flag("do_sample", true)? {
            self.temperature = 0.0;
        }
        self.validate().map_err(|error| file.error(error.to_string()))?;
        Ok(self)
    }

    /// Checks that every parameter is in its range.
    ///
    /// # Errors
    /// For the first parameter that is not, with its range.
    pub fn validate(&self) -> Result<()> {
        let check = |setting, value: f32, range: std::ops::RangeInclusive<f32>| {
            if range.contains(&value) {
                return Ok(());
            }
            let range = format!("from {} to {}", range.start(), range.end());
            Err(Error::Setting { setting, range, found: value.to_string() })
        };
        check("temperature", self.temperature, 0.0..=100.0)?;
        check("top-p", self.top_p, f32::MIN_POSITIVE..=1.0).map_err(|_| Error::Setting {
            setting: "top-p",
            range: "above 0 and at most 1".to_owned(),
            found: self.top_p.to_string(),
        })?;
        check("min-p", self.min_p, 0.0..=1.0)?;
        check("repetition penalty", self.repetition_penalty, 0.01..=100.0)
    }
}

/// Samples the ids of an answer.
pub struct Sampler {
    sampling: Sampling,
    random: ChaCha8Rng,
    /// `[vocab]`: whether the id occurred in the prompt or the answer.
    seen: Vec<bool>,
    /// Buffer of the candidates, `[vocab]`.
    candidates: Vec<Candidate>,
}

#[derive(Clone, Copy)]
struct Candidate {
    id: u32,
    /// First the logit, then the weight `e^(logit − max)`.
    weight: f32,
}

impl Sampler {
    /// A sampler for rows of `vocab` logits that follow `prompt`.
    ///
    /// # Errors
    /// If a parameter of `sampling` is outside its range.
    pub fn new(sampling: &Sampling, vocab: usize, prompt: &[u32]) -> Result<Self> {
        sampling.validate()?;
        let mut sampler = Self {
            sampling: sampling.clone(),
            random: ChaCha8Rng::seed_from_u64(sampling.seed),
            seen: vec![false; vocab],
            candidates: Vec::with_capacity(vocab),
        };
        prompt.iter().for_each(|&id| sampler.see(id));
        Ok(sampler)
    }

    fn see(&mut self, id: u32) {
        if let Some(seen) = self.seen.get_mut(id as usize) {
            *seen = true;
        }
    }

    /// Samples the next id from `logits`, one value per id of the vocabulary.
    ///
    /// # Errors
    /// If a logit is not finite, or the number of logits is not that of the vocabulary.
    pub fn choose(&mut self, logits: &[f32]) -> Result<u32> {
        let penalty = self.sampling.repetition_penalty;
        let penalized = |logit: f32| if logit > 0.0 { logit / penalty } else { logit * penalty };
        self.candidates.clear();
        if logits.is_empty() || logits.len() != self.seen.len() {
            return Err(Error::NotFinite);
        }
        for ((id, &logit), &seen) in (0..).zip(logits).zip(&self.seen) {
            let weight = if seen { penalized(logit) } else { logit };
            if !weight.is_finite() {
                return Err(Error::NotFinite);
            }
            self.candidates.push(Candidate { id, weight });
        }
        let id = match self.sampling.temperature {
            0.0 => most_probable(&self.candidates),
            temperature => {
                self.weigh(temperature);
                let kept = self.narrow();
                self.draw(kept)
            }
        };
        self.see(id);
        Ok(id)
    }

    /// Logits → unnormalized probabilities `e^((logit − max) / temperature)`.
    fn weigh(&mut self, temperature: f32) {
        let max = self.candidates.iter().map(|c| c.weight).fold(f32::NEG_INFINITY, f32::max);
        for candidate in &mut self.candidates {
            candidate.weight = libm::expf((candidate.weight - max) / temperature);
        }
    }

    /// Applies `top_k`, `top_p` and `min_p`: moves the remaining candidates to the front, sorted, and returns their number.
    fn narrow(&mut self) -> usize {
        let Sampling { top_k, top_p, min_p, .. } = self.sampling;
        let all = self.candidates.len();
        let most = if top_k == 0 { all } else { top_k.min(all) };
        if most < all {
            self.candidates.select_nth_unstable_by(most - 1, order);
        }
        let total = sum(&self.candidates[..most]);
        let mut kept = most;
        if top_p < 1.0 {
            kept = self.nucleus(most, f64::from(top_p) * total);
        } else if most < all || min_p > 0.0 {
            self.candidates[..most].sort_unstable_by(order);
        }
        if min_p > 0.0 {
            kept = self.candidates[..kept].partition_point(|c| c.weight >= min_p);
        }
        kept
    }

    /// The number of most probable candidates, among the first `most`, whose weights sum to `sum`. Sorts only as many candidates
    /// as needed.
    fn nucleus(&mut self, most: usize, sum: f64) -> usize {
        let (mut sorted, mut reached) = (0, 0.0);
        let mut step = 64;
        while sorted < most {
            let end = (sorted + step).min(most);
            let rest = &mut self.candidates[sorted..most];
            if end < most {
                rest.select_nth_unstable_by(end - sorted - 1, order);
            }
            rest[..end - sorted].sort_unstable_by(order);
            for (index, candidate) in self.candidates[..end].iter().enumerate().skip(sorted) {
                reached += f64::from(candidate.weight);
                if reached >= sum {
                    return index + 1;
                }
            }
            (sorted, step) = (end, step * 8);
        }
        most
    }

    fn draw(&mut self, kept: usize) -> u32 {
        let candidates = &self.candidates[..kept];
        // The upper 53 bits: a multiple of 2⁻⁵³, uniform in [0, 1).
        let uniform = (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut left = uniform * sum(candidates);
        for candidate in candidates {
            left -= f64::from(candidate.weight);
            if left < 0.0 {
                return candidate.id;
            }
        }
        candidates[kept - 1].id
    }
}

/// Descending weight, then ascending id: a total order, so the result does not depend on the sorting algorithm.
fn order(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.weight.total_cmp(&a.weight).then(a.id.cmp(&b.id))
}

fn most_probable(candidates: &[Candidate]) -> u32 {
    let first = Candidate { id: 0, weight: f32::NEG_INFINITY };
    candidates.iter().fold(first, |best, &c| if c.weight > best.weight { c } else { best }).id
}

fn sum(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|c| f64::from(c.weight)).sum()
}

#[cfg(test)]
mod tests {
    use crate::files::model_dir::ModelDir;
    use proptest::prelude::*;

    use super::*;

    /// Relative frequencies of `n` samples from the same logits.
    fn shares(sampling: &Sampling, logits: &[f32], n: usize) -> Vec<f64> {
        let mut sampler = Sampler::new(sampling, logits.len(), &[]).unwrap();
        let mut counts = vec![0.0; logits.len()];
        for _ in 0..n {
            sampler.seen.fill(false);
            counts[sampler.choose(logits).unwrap() as usize] += 1.0 / n as f64;
        }
        counts
    }

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, -1.0, 0.0];

    #[test]
    fn draws_follow_the_softmax() {
        let sampling = Sampling { temperature: 1.0, ..Sampling::greedy() };
        let total: f64 = LOGITS.iter().map(|&l| f64::from(l).exp()).sum();
        for (share, logit) in shares(&sampling, &LOGITS, 100_000).into_iter().zip(LOGITS) {
            assert!((share - f64::from(logit).exp() / total).abs() < 0.005);
        }
    }

    #[test]
    fn top_k_top_p_and_min_p_filter_candidates() {
        let base = Sampling { temperature: 1.0, ..Sampling::greedy() };
        let kept = |sampling: Sampling| {
            let shares = shares(&sampling, &LOGITS, 5000);
            (0..5).filter(|&i| shares[i] > 0.0).collect::<Vec<_>>()
        };
        // Probabilities: 0.086, 0.636, 0.234, 0.012, 0.032.
        assert_eq!(kept(Sampling { top_k: 2, ..base.clone() }), [1, 2]);
        assert_eq!(kept(Sampling { top_p: 0.6, ..base.clone() }), [1]);
        assert_eq!(kept(Sampling { top_p: 0.7, ..base.clone() }), [1, 2]);
        assert_eq!(kept(Sampling { top_p: 0.9, ..base.clone() }), [0, 1, 2]);
        assert_eq!(kept(Sampling { min_p: 0.2, ..base.clone() }), [1, 2]);
        assert_eq!(kept(Sampling { top_k: 2, top_p: 0.75, ..base.clone() }), [1, 2]);
        assert_eq!(kept(Sampling { top_k: 2, top_p: 0.7, ..base }), [1]);
    }

    #[test]
    fn greedy_takes_the_first_maximum_after_the_penalty() {
        let mut greedy = Sampler::new(&Sampling::greedy(), 3, &[]).unwrap();
        assert_eq!(greedy.choose(&[1.0, 2.0, 2.0]).unwrap(), 1);
        let penalty = Sampling { repetition_penalty: 2.0, ..Sampling::greedy() };
        let mut sampler = Sampler::new(&penalty, 3, &[2]).unwrap();
        assert_eq!(sampler.choose(&[1.0, -1.0, 1.9]).unwrap(), 0);
        assert_eq!(sampler.choose(&[-0.9, -1.0, -0.9]).unwrap(), 1);
    }

    #[test]
    fn errors_name_parameters_out_of_range() {
        let base = Sampling::greedy();
        for (sampling, expected) in [
            (Sampling { temperature: -1.0, ..base.clone() }, "temperature must be from 0 to 100"),
            (Sampling { temperature: f32::NAN, ..base.clone() }, "temperature"),
            (Sampling { top_p: 0.0, ..base.clone() }, "top-p must be above 0 and at most 1"),
            (Sampling { min_p: 1.5, ..base.clone() }, "min-p must be from 0 to 1"),
            (Sampling { repetition_penalty: 0.0, ..base }, "repetition penalty"),
        ] {
            let error = sampling.validate().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        let mut greedy = Sampler::new(&Sampling::greedy(), 2, &[]).unwrap();
        assert!(matches!(greedy.choose(&[1.0, f32::NAN]), Err(Error::NotFinite)));
        let base = Sampling { repetition_penalty: 0.01, temperature: 1.0, ..Sampling::greedy() };
        let mut sampler = Sampler::new(&base, 2, &[0]).unwrap();
        assert!(matches!(sampler.choose(&[1e37, 0.0]), Err(Error::NotFinite)));
    }

    #[test]
    fn generation_config_overrides_defaults() {
        const FILE: &str = "generation_config.json";
        let read = |text: &str| {
            let files = [(FILE, text.as_bytes())];
            Sampling::published(0.95, 0.7)
                .with_overrides(&Fields::open(&ModelDir::of(&files), FILE)?)
        };
        assert_eq!(read("{}").unwrap(), Sampling::published(0.95, 0.7));
        let sampling = read(
            r#"{"do_sample": true, "temperature": 0.6, "top_p": 0.9, "top_k": 40, "eos_token_id": 2}"#,
        )
        .unwrap();
        assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k), (0.6, 0.9, 40));
        assert_eq!(read(r#"{"do_sample": false, "temperature": 0.6}"#).unwrap().temperature, 0.0);
        for (text, expected) in [
            (r#"{"temperature": -1}"#, "temperature must be from 0"),
            (r#"{"top_p": "a"}"#, "top_p must be a number"),
            ("{", "JSON"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(FILE) && error.contains(expected), "{error}");
        }
    }

    proptest! {
        /// The incremental nucleus is that of a full sort.
        #[test]
        fn nucleus_equals_full_sort(
            logits in prop::collection::vec(-8.0f32..8.0, 1..700), top_p in 0.01f32..1.0, top_k in 0usize..300,
        ) {
            let sampling = Sampling { temperature: 1.0, top_p, top_k, ..Sampling::greedy() };
            let mut sampler = Sampler::new(&sampling, logits.len(), &[]).unwrap();
            sampler.candidates = (0..).zip(&logits).map(|(id, &weight)| Candidate { id, weight }).collect();
            sampler.weigh(1.0);
            let mut sorted = sampler.candidates.clone();
            sorted.sort_by(order);
            sorted.truncate(if top_k == 0 { usize::MAX } else { top_k });
            let total = sum(&sorted);
            let kept = sampler.narrow();
            let mass = |n: usize| sum(&sorted[..n]) / total;
            prop_assert!(mass(kept) >= f64::from(top_p) - 1e-9);
            prop_assert!(kept == 1 || mass(kept - 1) < f64::from(top_p) + 1e-9);
            let ids = |c: &[Candidate]| c.iter().map(|c| c.id).collect::<Vec<_>>();
            prop_assert_eq!(ids(&sampler.candidates[..kept]), ids(&sorted[..kept]));
        }
    }
}
