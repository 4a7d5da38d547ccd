//! Norms, gates, rotations and the quantization of activations take any numbers, and are what their definitions say of usual ones. The
//! sampler takes any logits and parameters: it fails, or its id is one of the vocabulary.

#![no_main]

use std::iter::repeat;

use glm_kernels::{Activation, Gate, Isa, LayerNorm, Q8Rows, RmsNorm, Rotation, reference};
use glm_kernels::{angles, rotate_halves, rotate_pairs};
use glm_model::{IdSet, Sampler, Sampling};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Case {
    /// Small numbers.
    numbers: Vec<Number>,
    /// How many there are; the list is repeated.
    count: u16,
    /// Any floats in places of numbers.
    odd: Vec<(u16, f32)>,
    eps: f32,
    position: f32,
    sampling: Parameters,
    /// Which ids are allowed.
    allowed: Option<u64>,
    logprobs: Option<u8>,
    prompt: Vec<u16>,
    /// Logits more or fewer than ids.
    wrong: bool,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Number {
    Integer(i8),
    Fraction(i16),
}

impl Case {
    fn numbers(&self) -> Vec<f32> {
        let value = |number: &Number| match *number {
            Number::Integer(x) => f32::from(x) / 16.0,
            Number::Fraction(x) => f32::from(x) / 328.0,
        };
        let count = usize::from(self.count % 300);
        let mut numbers: Vec<_> = self.numbers.iter().map(value).cycle().take(count).collect();
        for &(place, value) in &self.odd {
            if let Some(number) = numbers.get_mut(usize::from(place) % count.max(1)) {
                *number = value;
            }
        }
        numbers
    }
}

/// Parts of the ranges of parameters, and any number for one of them.
#[derive(Debug, Arbitrary)]
struct Parameters {
    temperature: u8,
    top_k: u16,
    top_p: u8,
    min_p: u8,
    repetition: u8,
    presence: i8,
    frequency: i8,
    seed: u64,
    any: Option<(u8, f32)>,
}

impl Parameters {
    fn sampling(&self) -> Sampling {
        let mut sampling = Sampling::greedy();
        sampling.temperature = f32::from(self.temperature) / 64.0;
        sampling.top_k = self.top_k.into();
        sampling.top_p = f32::from(self.top_p) / 255.0;
        sampling.min_p = f32::from(self.min_p) / 255.0;
        sampling.repetition_penalty = (f32::from(self.repetition) + 1.0) / 64.0;
        sampling.presence_penalty = f32::from(self.presence) / 64.0;
        sampling.frequency_penalty = f32::from(self.frequency) / 64.0;
        sampling.seed = self.seed;
        let parameters = [
            &mut sampling.temperature,
            &mut sampling.top_p,
            &mut sampling.min_p,
            &mut sampling.repetition_penalty,
            &mut sampling.presence_penalty,
            &mut sampling.frequency_penalty,
        ];
        if let Some((which, value)) = self.any {
            let which = usize::from(which) % parameters.len();
            parameters.into_iter().skip(which).take(1).for_each(|parameter| *parameter = value);
        }
        sampling
    }
}

/// Asserts that what was computed is finite and near its definition. `scales`: the sizes of the numbers whose rounding errors it has.
fn check(found: &[f32], defined: &[f32], scales: impl IntoIterator<Item = f32>, isa: Isa) {
    for ((found, defined), scale) in found.iter().zip(defined).zip(scales) {
        let bound = 1e-5 * (1.0 + defined.abs() + scale);
        assert!((found - defined).abs() <= bound, "{isa}: {found} should be {defined}");
    }
}

/// The scales of LayerNorm's rounding errors, as in the tests of the kernels: the mean has the rounding error of the largest input, and
/// the division by a small deviation magnifies it.
fn layer_norm_scales(x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> Vec<f32> {
    let n = x.len() as f32;
    let mean = x.iter().sum::<f32>() / n;
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n;
    let largest = x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    let magnified = largest / (variance + eps).sqrt();
    weight.iter().zip(bias).map(|(w, b)| b.abs() + w.abs() * magnified).collect()
}

fn kernels(x: &[f32], case: &Case) {
    let n = x.len();
    let (weight, bias): (Vec<_>, Vec<_>) = x.iter().map(|x| (0.5 - x, x * 0.25)).unzip();
    let is_usual = x.iter().all(|x| x.is_finite() && x.abs() <= 100.0);
    let eps = if is_usual { 1e-3 } else { case.eps };
    for isa in Isa::available() {
        let mut y = vec![f32::NAN; n];
        isa.run(LayerNorm { x, weight: &weight, bias: &bias, eps, y: &mut y });
        if is_usual && n > 0 {
            let scales = layer_norm_scales(x, &weight, &bias, eps);
            check(&y, &reference::layer_norm(x, &weight, &bias, eps), scales, isa);
        }
        isa.run(RmsNorm { x, weight: &weight, eps, y: &mut y });
        if is_usual && n > 0 {
            check(&y, &reference::rms_norm(x, &weight, eps), repeat(0.0), isa);
        }
        for activation in
            [Activation::None, Activation::GeluTanh, Activation::GeluErf, Activation::Silu]
        {
            isa.run(Gate { activation, gate: x, up: &weight, y: &mut y });
            if is_usual {
                let defined = |(&gate, &up): (&f32, &f32)| {
                    (reference::activation(activation, gate.into()) * f64::from(up)) as f32
                };
                let defined: Vec<_> = x.iter().zip(&weight).map(defined).collect();
                check(&y, &defined, repeat(0.0), isa);
            }
        }
        if n > 0 {
            let mut rows = Q8Rows::default();
            rows.quantize(isa, x, n, Rotation::None);
            let mut padded = x.to_vec();
            padded.resize(n.next_multiple_of(32), 0.0);
            rows.quantize(isa, &padded, padded.len(), Rotation::Blocks);
            assert_eq!((rows.rows(), rows.cols()), (1, padded.len()));
        }
    }
    let half = &x[..n / 2];
    let mut angle = vec![[0.0; 2]; half.len()];
    angles(half, case.position, &mut angle);
    for rotate in [rotate_halves, rotate_pairs] {
        let mut y = x[..2 * half.len()].to_vec();
        rotate(&mut y, &angle);
        if is_usual && case.position.abs() < 1e6 {
            let length = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>().sqrt();
            let (found, defined) = (length(&y), length(&x[..2 * half.len()]));
            assert!(
                (found - defined).abs() <= 1e-4 * defined.max(1.0),
                "{found} should be {defined}"
            );
        }
    }
}

fn sampler(logits: &[f32], case: &Case) {
    let vocab = logits.len() + usize::from(case.wrong);
    let prompt: Vec<u32> =
        case.prompt.iter().map(|&id| u32::from(id) % (vocab.max(1) as u32)).collect();
    let Ok(mut sampler) = Sampler::new(&case.sampling.sampling(), vocab, &prompt) else { return };
    let allowed = case.allowed.map(|bits| {
        let mut set = IdSet::new(vocab);
        (0..vocab as u32).filter(|id| bits >> (id % 64) & 1 > 0).for_each(|id| set.insert(id));
        set
    });
    for _ in 0..3 {
        let logprobs = case.logprobs.map(usize::from);
        match sampler.sample(logits, allowed.as_ref(), logprobs) {
            Ok(token) => {
                assert!((token.id as usize) < vocab && !case.wrong);
                assert!(allowed.as_ref().is_none_or(|allowed| allowed.contains(token.id)));
                assert!(logits.iter().all(|x| x.is_finite()));
                assert_eq!(token.top.len(), logprobs.unwrap_or(0).min(vocab));
                assert!(token.top.iter().all(|(id, p)| (*id as usize) < vocab && *p <= 1e-3));
            }
            Err(_) => {
                let fails =
                    logits.is_empty() || case.wrong || logits.iter().any(|x| !x.is_finite());
                assert!(fails || allowed.is_some(), "usual logits are refused");
            }
        }
        let _ = sampler.choose(logits);
    }
}

fuzz_target!(|case: Case| {
    let x = case.numbers();
    kernels(&x, &case);
    sampler(&x, &case);
});
