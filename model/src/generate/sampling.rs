//! Sampling: logits → the next id.

use std::cell::RefCell;
use std::collections::HashMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::files::fields::{Fields, shown};
use crate::generate::constraint::IdSet;

/// Sampling parameters.
///
/// They are applied in this order: repetition penalty, presence and frequency penalty, temperature, `top_k`, `top_p`, `min_p`. Each of
/// the last three filters the candidates that remain after the previous one.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Sampling {
    /// Divides the logits; 0 is greedy sampling.
    pub temperature: f32,
    /// Keeps this many of the most probable candidates; 0 keeps all.
    pub top_k: usize,
    /// Keeps the most probable candidates until their probabilities sum to this value; 1 keeps all, and 0 keeps one.
    pub top_p: f32,
    /// Keeps candidates with at least this fraction of the largest probability; 0 keeps all.
    pub min_p: f32,
    /// Divides positive logits and multiplies negative logits of ids that occurred before; 1 has no effect.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of ids that occurred in the answer, as in OpenAI's API; 0 has no effect.
    pub presence_penalty: f32,
    /// Subtracted from the logit of an id for each of its occurrences in the answer, as in OpenAI's API; 0 has no effect.
    pub frequency_penalty: f32,
    /// Seed of the random numbers.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self::greedy()
    }
}

impl Sampling {
    /// Greedy sampling: always the most probable id.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
        }
    }

    /// The sampling of the published code: its library, transformers, has a default `top_k` of 50.
    pub(crate) fn published(temperature: f32, top_p: f32) -> Self {
        Self { temperature, top_p, top_k: 50, ..Self::greedy() }
    }

    /// Overrides the parameters that are present in `generation_config.json`, with the meaning that they have in transformers: a `top_p`
    /// above 1 keeps all candidates. Those that have no meaning are left as they are, and returned, so that nobody
    /// is stopped by a file that others wrote.
    #[must_use]
    pub(crate) fn with_overrides(mut self, file: &Fields) -> (Self, Vec<UnusableDefault>) {
        let mut unusable = Vec::new();
        // What is no number is outside every range.
        let number = |value: &Value| value.as_f64().map_or(f32::NAN, |number| number as f32);
        type Set = fn(&mut Sampling, f32);
        let parameters: [(&str, Set); 4] = [
            ("temperature", |sampling, x| sampling.temperature = x),
            ("top_p", |sampling, x| sampling.top_p = if x > 1.0 { 1.0 } else { x }),
            ("min_p", |sampling, x| sampling.min_p = x),
            ("repetition_penalty", |sampling, x| sampling.repetition_penalty = x),
        ];
        for (name, set) in parameters {
            let Some(value) = file.get(name) else { continue };
            let mut changed = self.clone();
            set(&mut changed, number(value));
            match changed.validate() {
                Err(Error::Setting { setting, range, .. }) => {
                    unusable.push(UnusableDefault { setting, range, found: shown(value) });
                }
                _ => self = changed,
            }
        }
        if let Some(value) = file.get("top_k") {
            match number(value) {
                top_k if top_k.is_nan() => {
                    let (range, found) = ("a number".to_owned(), shown(value));
                    unusable.push(UnusableDefault { setting: "top-k", range, found });
                }
                // Some programs write -1 for all candidates.
                top_k => self.top_k = top_k as usize,
            }
        }
        if file.get("do_sample").is_some_and(|flag| *flag == false || *flag == 0) {
            self.temperature = 0.0;
        }
        (self, unusable)
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
        check("top-p", self.top_p, 0.0..=1.0)?;
        check("min-p", self.min_p, 0.0..=1.0)?;
        check("repetition penalty", self.repetition_penalty, 0.01..=100.0)?;
        check("presence penalty", self.presence_penalty, -2.0..=2.0)?;
        check("frequency penalty", self.frequency_penalty, -2.0..=2.0)
    }
}

/// A parameter in `generation_config.json` that is outside its range. The default of the library takes its place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnusableDefault {
    /// The parameter.
    pub setting: &'static str,
    /// The values that it may have.
    pub range: String,
    /// The value in the file, as JSON; its beginning, if it is long.
    pub found: String,
}

/// Chooses ids, one after the other. Takes an eighth of a byte for each id of the vocabulary; the memory in which candidates are
/// sorted is the thread's, so that many samplers share it.
pub struct Sampler {
    sampling: Sampling,
    random: ChaCha8Rng,
    /// The ids of prompt and answer.
    seen: IdSet,
    /// How often each id occurs in the answer. Empty without penalties that need it.
    counts: HashMap<u32, u32>,
    vocab: usize,
}

#[derive(Clone, Copy)]
struct Candidate {
    id: u32,
    /// First the logit, then the weight `e^(logit − max)`.
    weight: f32,
}

thread_local! {
    static CANDIDATES: RefCell<Vec<Candidate>> = const { RefCell::new(Vec::new()) };
}

/// A sampled id.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SampledToken {
    /// The id.
    pub id: u32,
    /// Its log probability, if it was requested: the natural logarithm of its softmax, before penalties, temperature and filters.
    pub logprob: Option<f32>,
    /// The most probable ids and their log probabilities, as many as were requested, in descending order.
    pub top: Vec<(u32, f32)>,
}

impl Sampler {
    /// A sampler for rows of `vocab` logits that follow `prompt`.
    ///
    /// # Errors
    /// If a parameter of `sampling` is outside its range.
    pub fn new(sampling: &Sampling, vocab: usize, prompt: &[u32]) -> Result<Self> {
        sampling.validate()?;
        let mut seen = IdSet::new(vocab);
        prompt.iter().for_each(|&id| seen.insert(id));
        let random = ChaCha8Rng::seed_from_u64(sampling.seed);
        Ok(Self { sampling: sampling.clone(), random, seen, counts: HashMap::new(), vocab })
    }

    /// Samples the next id from `logits`, one value per id of the vocabulary.
    ///
    /// # Errors
    /// If a logit is not finite, or there are more or fewer than ids.
    pub fn choose(&mut self, logits: &[f32]) -> Result<u32> {
        self.choose_among(logits, None)
    }

    /// As [`Sampler::choose`], among the `allowed` ids only, and with log probabilities: those of the sampled id and of the
    /// `logprobs` most probable ids.
    ///
    /// # Errors
    /// As [`Sampler::choose`], and if no id is allowed.
    pub fn sample(
        &mut self,
        logits: &[f32],
        allowed: Option<&IdSet>,
        logprobs: Option<usize>,
    ) -> Result<SampledToken> {
        let id = self.choose_among(logits, allowed)?;
        let Some(most) = logprobs else {
            return Ok(SampledToken { id, logprob: None, top: Vec::new() });
        };
        let normalizer = log_sum_exp(logits);
        let logprob = |id: u32| (f64::from(logits[id as usize]) - normalizer) as f32;
        let top = CANDIDATES.with_borrow_mut(|candidates| {
            candidates.clear();
            candidates.extend((0..).zip(logits).map(|(id, &weight)| Candidate { id, weight }));
            let most = most.min(candidates.len());
            if (1..candidates.len()).contains(&most) {
                candidates.select_nth_unstable_by(most - 1, order);
            }
            candidates[..most].sort_unstable_by(order);
            candidates[..most].iter().map(|c| (c.id, logprob(c.id))).collect()
        });
        Ok(SampledToken { id, logprob: Some(logprob(id)), top })
    }

    fn choose_among(&mut self, logits: &[f32], allowed: Option<&IdSet>) -> Result<u32> {
        if logits.len() != self.vocab || logits.is_empty() {
            return Err(Error::Ids(format!("{} logits for {} ids", logits.len(), self.vocab)));
        }
        let Sampling { repetition_penalty, presence_penalty, frequency_penalty, .. } =
            self.sampling;
        let penalized = |logit: f32| {
            if logit > 0.0 { logit / repetition_penalty } else { logit * repetition_penalty }
        };
        let counts_ids = presence_penalty != 0.0 || frequency_penalty != 0.0;
        let id = CANDIDATES.with_borrow_mut(|candidates| {
            candidates.clear();
            for (id, &logit) in (0..).zip(logits) {
                if !logit.is_finite() {
                    return Err(Error::NotFinite);
                }
                if allowed.is_some_and(|allowed| !allowed.contains(id)) {
                    continue;
                }
                let mut weight = if self.seen.contains(id) { penalized(logit) } else { logit };
                if counts_ids && let Some(&count) = self.counts.get(&id) {
                    weight -= presence_penalty + frequency_penalty * count as f32;
                }
                // Penalties may take it out of the range of floats.
                candidates.push(Candidate { id, weight: weight.clamp(f32::MIN, f32::MAX) });
            }
            if candidates.is_empty() {
                return Err(Error::Ids("the constraint allows no id".to_owned()));
            }
            Ok(match self.sampling.temperature {
                0.0 => most_probable(candidates),
                _ => {
                    let kept = narrow(candidates, &self.sampling);
                    draw(&candidates[..kept], &mut self.random)
                }
            })
        })?;
        self.seen.insert(id);
        if counts_ids {
            *self.counts.entry(id).or_default() += 1;
        }
        Ok(id)
    }
}

/// The logarithm of the sum of the exponentials.
fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    max + libm::log(logits.iter().map(|&logit| libm::exp(f64::from(logit) - max)).sum())
}

/// Logits → weights relative to the likeliest, which gets 1.
fn weigh(candidates: &mut [Candidate], temperature: f32) {
    let max = candidates.iter().map(|c| c.weight).fold(f32::NEG_INFINITY, f32::max);
    for candidate in candidates {
        candidate.weight = libm::expf((candidate.weight - max) / temperature);
    }
}

/// Turns logits into weights, and sorts the likeliest candidates that may be drawn to the front; returns their number.
fn narrow(candidates: &mut Vec<Candidate>, sampling: &Sampling) -> usize {
    let Sampling { temperature, top_k, top_p, min_p, .. } = *sampling;
    let is_cut = (1..candidates.len()).contains(&top_k);
    if is_cut {
        // Before the weights, each of which takes an exponential.
        candidates.select_nth_unstable_by(top_k - 1, order);
        candidates.truncate(top_k);
    }
    weigh(candidates, temperature);
    let mut kept = candidates.len();
    if top_p < 1.0 {
        let share = f64::from(top_p) * sum(candidates);
        kept = nucleus(candidates, share);
    } else if is_cut || min_p > 0.0 {
        candidates.sort_unstable_by(order);
    }
    if min_p > 0.0 {
        kept = candidates[..kept].partition_point(|c| c.weight >= min_p);
    }
    kept
}

/// How many of the likeliest candidates together reach `sum`. Sorts no more of them than needed.
fn nucleus(candidates: &mut [Candidate], sum: f64) -> usize {
    let most = candidates.len();
    let (mut sorted, mut reached) = (0, 0.0);
    let mut step = 64;
    while sorted < most {
        let end = (sorted + step).min(most);
        let rest = &mut candidates[sorted..];
        if end < most {
            rest.select_nth_unstable_by(end - sorted - 1, order);
        }
        rest[..end - sorted].sort_unstable_by(order);
        for (index, candidate) in candidates[..end].iter().enumerate().skip(sorted) {
            reached += f64::from(candidate.weight);
            if reached >= sum {
                return index + 1;
            }
        }
        (sorted, step) = (end, step * 8);
    }
    most
}

/// Draws one of `candidates` with a probability proportional to its weight.
fn draw(candidates: &[Candidate], random: &mut ChaCha8Rng) -> u32 {
    // The upper 53 bits: every multiple of 2⁻⁵³ in [0, 1) with the same probability.
    let uniform = (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let mut left = uniform * sum(candidates);
    for candidate in candidates {
        left -= f64::from(candidate.weight);
        if left < 0.0 {
            return candidate.id;
        }
    }
    candidates[candidates.len() - 1].id
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
            sampler.seen = IdSet::new(logits.len());
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
    fn penalties_of_presence_and_frequency_count_the_answer() {
        let penalties =
            Sampling { presence_penalty: 0.5, frequency_penalty: 0.25, ..Sampling::greedy() };
        // The prompt does not count.
        let mut sampler = Sampler::new(&penalties, 2, &[0, 0, 0]).unwrap();
        // 1; then 1 − 0.75, 1 − 1, 1 − 1.25
        let drawn = [0.1f32, 0.24, -0.01, -0.2].map(|other| sampler.choose(&[1.0, other]).unwrap());
        assert_eq!(drawn, [0, 0, 0, 1]);
        let mut rewarded =
            Sampler::new(&Sampling { frequency_penalty: -2.0, ..Sampling::greedy() }, 2, &[])
                .unwrap();
        let drawn = [[0.0, 1.0], [2.9, 1.0], [5.1, 1.0]].map(|l| rewarded.choose(&l).unwrap());
        assert_eq!(drawn, [1, 1, 0]);
    }

    #[test]
    fn only_allowed_ids_are_drawn() {
        let mut allowed = IdSet::new(5);
        [0, 2, 70].into_iter().for_each(|id| allowed.insert(id));
        assert!(allowed.contains(2) && !allowed.contains(1) && !allowed.contains(70));
        for temperature in [0.0, 1.0] {
            let sampling = Sampling { temperature, ..Sampling::greedy() };
            let mut sampler = Sampler::new(&sampling, 5, &[]).unwrap();
            for _ in 0..50 {
                let id = sampler.sample(&LOGITS, Some(&allowed), None).unwrap().id;
                assert!(id == 2 || (id == 0 && temperature > 0.0));
            }
        }
        allowed.clear();
        let mut sampler = Sampler::new(&Sampling::greedy(), 5, &[]).unwrap();
        assert_eq!(sampler.sample(&LOGITS, Some(&allowed), None).unwrap_err().code(), "ids");
    }

    #[test]
    fn errors_name_parameters_out_of_range() {
        let base = Sampling::greedy();
        for (sampling, expected) in [
            (Sampling { temperature: -1.0, ..base.clone() }, "temperature must be from 0 to 100"),
            (Sampling { temperature: f32::NAN, ..base.clone() }, "temperature"),
            (Sampling { top_p: -0.1, ..base.clone() }, "top-p must be from 0 to 1"),
            (Sampling { min_p: 1.5, ..base.clone() }, "min-p must be from 0 to 1"),
            (
                Sampling { presence_penalty: -2.5, ..base.clone() },
                "presence penalty must be from -2",
            ),
            (Sampling { frequency_penalty: f32::NAN, ..base.clone() }, "frequency penalty"),
            (Sampling { repetition_penalty: 0.0, ..base }, "repetition penalty"),
        ] {
            let error = sampling.validate().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        let mut greedy = Sampler::new(&Sampling::greedy(), 2, &[]).unwrap();
        assert!(matches!(greedy.choose(&[1.0, f32::NAN]), Err(Error::NotFinite)));
    }

    #[test]
    fn a_penalty_may_leave_the_range_of_floats() {
        for (repetition_penalty, logit, expected) in [(0.01, 1e37, 0), (100.0, -1e37, 1)] {
            for temperature in [0.0, 1.0] {
                let sampling = Sampling { repetition_penalty, temperature, ..Sampling::greedy() };
                let mut sampler = Sampler::new(&sampling, 2, &[0]).unwrap();
                assert_eq!(sampler.choose(&[logit, 0.0]).unwrap(), expected);
            }
        }
    }

    #[test]
    fn generation_config_overrides_defaults() {
        const FILE: &str = "generation_config.json";
        let read = |text: &str| {
            let files = [(FILE, text.as_bytes())];
            let folder = ModelDir::of(&files);
            Sampling::published(0.95, 0.7).with_overrides(&Fields::open(&folder, FILE).unwrap())
        };
        let all = read;
        let refused = |text: &str| all(text).1;
        let read = |text: &str| {
            let (sampling, unusable) = read(text);
            assert_eq!(unusable, [], "{text}");
            sampling
        };
        let published = Sampling::published(0.95, 0.7);
        assert_eq!(read("{}"), published);
        assert_eq!(read(r#"{"temperature": null, "top_p": null, "top_k": null}"#), published);
        let sampling = read(
            r#"{"do_sample": true, "temperature": 0.6, "top_p": 0.9, "top_k": 40, "eos_token_id": 2}"#,
        );
        assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k), (0.6, 0.9, 40));
        assert_eq!(read(r#"{"do_sample": false, "temperature": 0.6}"#).temperature, 0.0);
        assert_eq!(read(r#"{"temperature": 0}"#).temperature, 0.0);
        assert_eq!((read(r#"{"top_k": 0}"#).top_k, read(r#"{"top_k": -1}"#).top_k), (0, 0));
        assert_eq!(read(r#"{"top_p": 1.5}"#).top_p, 1.0);
        let first = read(r#"{"top_p": 0, "top_k": 0, "temperature": 100}"#);
        first.validate().unwrap();
        for seed in 0..100 {
            let mut sampler = Sampler::new(&Sampling { seed, ..first.clone() }, 5, &[]).unwrap();
            assert_eq!(sampler.choose(&LOGITS).unwrap(), most_probable_of(&LOGITS));
        }
        // The defaults of the library take the place of these.
        for (name, value, setting, range) in [
            ("temperature", "-1", "temperature", "from 0 to 100"),
            ("top_p", r#""a""#, "top-p", "from 0 to 1"),
            ("top_p", "-1", "top-p", "from 0 to 1"),
            ("top_k", r#""many""#, "top-k", "a number"),
            ("repetition_penalty", "0", "repetition penalty", "from 0.01 to 100"),
        ] {
            let unusable = refused(&format!(r#"{{"{name}": {value}}}"#));
            let expected = UnusableDefault { setting, range: range.into(), found: value.into() };
            assert_eq!(unusable, [expected]);
        }
        // A value of any length is shown in a few words.
        let long = "9".repeat(1 << 20);
        let [unusable] = &refused(&format!(r#"{{"top_k": "{long}"}}"#))[..] else { panic!() };
        assert!(unusable.found.len() < 100 && unusable.found.ends_with("..."), "{unusable:?}");
        let (sampling, unusable) = all(r#"{"temperature": -1, "top_p": 0.5, "min_p": 2}"#);
        assert_eq!((sampling, unusable.len()), (Sampling { top_p: 0.5, ..published }, 2));
    }

    fn most_probable_of(logits: &[f32]) -> u32 {
        (0..).zip(logits).max_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap().0
    }

    proptest! {
        /// Log probabilities are those of the softmax of the logits as they are, whatever is sampled.
        #[test]
        fn log_probabilities_equal_the_softmax(
            logits in prop::collection::vec(-30.0f32..30.0, 1..60), most in 0usize..8, seed: u64,
        ) {
            let sampling = Sampling { temperature: 2.0, top_k: 3, presence_penalty: 1.0, seed, ..Sampling::greedy() };
            let mut sampler = Sampler::new(&sampling, logits.len(), &[]).unwrap();
            let token = sampler.sample(&logits, None, Some(most)).unwrap();
            let total: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
            let mut expected: Vec<_> =
                (0..).zip(&logits).map(|(id, &logit)| (id, f64::from(logit) - total.ln())).collect();
            let close = |value: f32, expected: f64| (f64::from(value) - expected).abs() < 1e-5;
            prop_assert!(close(token.logprob.unwrap(), expected[token.id as usize].1));
            expected.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            prop_assert_eq!(token.top.len(), most.min(logits.len()));
            for ((id, logprob), expected) in token.top.iter().zip(expected) {
                prop_assert!(*id == expected.0 && close(*logprob, expected.1));
            }
            let plain = Sampler::new(&sampling, logits.len(), &[]).unwrap().choose(&logits).unwrap();
            prop_assert_eq!(plain, token.id);
        }
    }

    proptest! {
        /// The incremental nucleus is that of a full sort.
        #[test]
        fn nucleus_equals_full_sort(
            logits in prop::collection::vec(-8.0f32..8.0, 1..700), top_p in 0.01f32..1.0, top_k in 0usize..300,
        ) {
            let sampling = Sampling { temperature: 1.0, top_p, top_k, ..Sampling::greedy() };
            let mut candidates: Vec<_> = (0..).zip(&logits).map(|(id, &weight)| Candidate { id, weight }).collect();
            let mut sorted = candidates.clone();
            sorted.sort_by(order);
            sorted.truncate(if top_k == 0 { usize::MAX } else { top_k });
            weigh(&mut sorted, 1.0);
            sorted.sort_by(order);
            let total = sum(&sorted);
            let kept = narrow(&mut candidates, &sampling);
            let mass = |n: usize| sum(&sorted[..n]) / total;
            prop_assert!(mass(kept) >= f64::from(top_p) - 1e-9);
            prop_assert!(kept == 1 || mass(kept - 1) < f64::from(top_p) + 1e-9);
            let ids = |c: &[Candidate]| c.iter().map(|c| c.id).collect::<Vec<_>>();
            prop_assert_eq!(ids(&candidates[..kept]), ids(&sorted[..kept]));
        }
    }
}
