//! Norms, gates, rotations and the quantization of activations take any numbers, and are what their definitions say of usual ones. The
//! sampler takes any logits and parameters: it fails, or its id is one of the vocabulary.

#![no_main]

use glm_kernels::{Activation, Gate, Isa, LayerNorm, Q8Rows, RmsNorm, Rotation, reference};
use glm_kernels::{angles, rotate_halves, rotate_pairs};
use glm_model::{IdSet, Sampler, Sampling};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Case {
    /// Floats by their bits, so that all occur; or small integers.
    numbers: Vec<Number>,
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
    Small(i8),
    Float(f32),
    NaN,
    Infinity(bool),
}

impl Number {
    fn value(self) -> f32 {
        match self {
            Number::Small(x) => f32::from(x) / 16.0,
            Number::Float(x) => x,
            Number::NaN => f32::NAN,
            Number::Infinity(true) => f32::INFINITY,
            Number::Infinity(false) => f32::NEG_INFINITY,
        }
    }
}

#[derive(Debug, Arbitrary)]
struct Parameters {
    temperature: Number,
    top_k: u16,
    top_p: Number,
    min_p: Number,
    repetition: Number,
    presence: Number,
    frequency: Number,
    seed: u64,
}

impl Parameters {
    fn sampling(&self) -> Sampling {
        let mut sampling = Sampling::greedy();
        sampling.temperature = self.temperature.value();
        sampling.top_k = self.top_k.into();
        sampling.top_p = self.top_p.value();
        sampling.min_p = self.min_p.value();
        sampling.repetition_penalty = self.repetition.value();
        sampling.presence_penalty = self.presence.value();
        sampling.frequency_penalty = self.frequency.value();
        sampling.seed = self.seed;
        sampling
    }
}

/// The first is a usual number that is near the second.
fn check(found: &[f32], defined: &[f32], isa: Isa) {
    for (found, defined) in found.iter().zip(defined) {
        let bound = 1e-4 * defined.abs().max(1.0);
        assert!((found - defined).abs() <= bound, "{isa}: {found} should be {defined}");
    }
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
            check(&y, &reference::layer_norm(x, &weight, &bias, eps), isa);
        }
        isa.run(RmsNorm { x, weight: &weight, eps, y: &mut y });
        if is_usual && n > 0 {
            check(&y, &reference::rms_norm(x, &weight, eps), isa);
        }
        for activation in
            [Activation::None, Activation::GeluTanh, Activation::GeluErf, Activation::Silu]
        {
            isa.run(Gate { activation, gate: x, up: &weight, y: &mut y });
            if is_usual {
                let defined = |(&gate, &up): (&f32, &f32)| {
                    (reference::activation(activation, gate.into()) * f64::from(up)) as f32
                };
                check(&y, &x.iter().zip(&weight).map(defined).collect::<Vec<_>>(), isa);
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
    let x: Vec<f32> = case.numbers.iter().take(300).map(|x| x.value()).collect();
    kernels(&x, &case);
    sampler(&x, &case);
});
