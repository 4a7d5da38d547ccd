//! A checkpoint of any numbers is quantized to a model that opens and runs, or refused, and then nothing is left of it.

#![no_main]

use std::fs;
use std::ops::ControlFlow;

use glm_fuzz::{Number, Tiny, logits, one_thread};
use glm_model::{Activations, GROUPS, Model, QuantizeOptions, quantize};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Case {
    model: Tiny,
    bits: u8,
    group: u8,
    minimum: bool,
    target_bits: Option<u8>,
    /// Elements that are not usual: tensor, element, and which number.
    odd: Vec<(u8, u16, Odd)>,
    /// All elements are multiplied by two to this power.
    exponent: i8,
    /// Progress cancels at this call.
    cancelled_at: Option<u8>,
    float_activations: bool,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Odd {
    Bits(u32),
    /// The whole tensor.
    All(u32),
    NaN,
    Infinity,
    Largest,
    Subnormal,
    NegativeZero,
}

impl Odd {
    fn value(self) -> f32 {
        match self {
            Odd::Bits(bits) | Odd::All(bits) => f32::from_bits(bits),
            Odd::NaN => f32::NAN,
            Odd::Infinity => f32::NEG_INFINITY,
            Odd::Largest => f32::MAX,
            Odd::Subnormal => 1e-42,
            Odd::NegativeZero => -0.0,
        }
    }
}

fuzz_target!(|case: Case| {
    let scale = 2f32.powi(i32::from(case.exponent));
    let value = |tensor: usize, element: usize| {
        let is_here = |odd: &&(u8, u16, Odd)| {
            let place = usize::from(odd.1 % 800);
            usize::from(odd.0 % 18) == tensor && (matches!(odd.2, Odd::All(_)) || place == element)
        };
        let odd = case.odd.iter().take(8).find(is_here);
        odd.map_or_else(|| Tiny::usual(tensor, element) * scale, |odd| odd.2.value())
    };
    let folder = tempfile::tempdir().expect("a folder");
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    fs::create_dir(&source).expect("a folder");
    Tiny::write(&source, &case.model.config(), &case.model.tensors(value)).expect("a model");

    let bits = if case.bits % 8 == 7 {
        usize::from(case.bits)
    } else {
        4 + usize::from(case.bits % 2) * 4
    };
    let group = if case.group % 16 == 15 {
        usize::from(case.group)
    } else {
        GROUPS[usize::from(case.group) % GROUPS.len()]
    };
    let mut options = QuantizeOptions::new(bits, group);
    options.minimum = case.minimum;
    options.threads = Some(1);
    options.target_bits = case.target_bits.map(|bits| f64::from(bits) / 16.0);
    // To choose formats takes seconds, so that is only begun.
    let cancelled_at = case.cancelled_at.or(case.target_bits.map(|_| 1));
    let cancelled_at = cancelled_at.map(|at| if case.target_bits.is_some() { at % 2 } else { at });
    let mut calls = 0;
    let done = quantize(&source, &target, &options, &mut |done, total, _| {
        assert!(done <= total);
        calls += 1;
        let is_cancelled = cancelled_at.is_some_and(|at| calls > usize::from(at));
        if is_cancelled { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let left = fs::read_dir(folder.path()).expect("the folder").count();
    match done {
        Err(error) => {
            assert_eq!(left, 1, "after {error}");
            let is_usual = case.odd.is_empty() && (-20..=0).contains(&case.exponent);
            let is_valid = cancelled_at.is_none()
                && options.target_bits.is_none()
                && matches!(bits, 4 | 8)
                && GROUPS.contains(&group)
                && !(bits == 8 && options.minimum)
                && !matches!(case.model.number, Number::F16);
            assert!(!is_usual || !is_valid, "{error}");
        }
        Ok(_) => {
            assert_eq!(left, 2);
            assert_eq!(fs::read_dir(&target).expect("the target").count(), 2);
            let mut options = one_thread();
            options.activations = case.float_activations.then_some(Activations::F32);
            let model = Model::open(&target, &options).expect("what was quantized opens");
            let logits = logits(&model, &[1, 2, 3]).expect("it runs");
            assert_eq!(logits.len(), Tiny::VOCAB);
        }
    }
});
