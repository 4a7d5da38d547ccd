//! Activation functions, applied to eight outputs while they are in registers.

use crate::math::exp;
use crate::simd::Simd;

/// What is done to each output of a linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activation {
    /// Nothing.
    None,
    /// GELU in its tanh form: `0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))`.
    GeluTanh,
}

impl Activation {
    #[inline(always)]
    pub(crate) fn apply<S: Simd>(self, simd: S, x: S::F32) -> S::F32 {
        match self {
            Activation::None => x,
            Activation::GeluTanh => gelu_tanh(simd, x),
        }
    }
}

/// `0.5·(1 + tanh u) = 1 / (1 + e^(−2u))` turns the tanh form into one exponential and one division.
///
/// Below −10.2 the value is under 1e−36 and becomes 0; there the exponential would leave the range of `f32`. NaN stays NaN.
#[inline(always)]
fn gelu_tanh<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    const MINUS_2_SQRT_2_PI: f32 = -1.595_769;
    let cubic = simd.fma(simd.mul(x, x), simd.splat(0.044_715), simd.splat(1.0));
    let minus_2u = simd.mul(simd.mul(x, simd.splat(MINUS_2_SQRT_2_PI)), cubic);
    let gelu = simd.div(x, simd.add(simd.splat(1.0), exp(simd, minus_2u)));
    simd.fma(x, simd.splat(0.0), simd.keep_ge(x, simd.splat(-10.2), gelu))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Element, Kernel, LANES};
    use crate::{Isa, reference, testing};

    struct Apply<'a>(Activation, &'a mut [f32; LANES]);

    impl Kernel for Apply<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let x = f32::load(simd, self.1);
            simd.store(self.0.apply(simd, x), self.1);
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        for isa in Isa::available() {
            let mut lanes = [f32::NAN; LANES];
            isa.run(Apply(Activation::GeluTanh, &mut lanes));
            assert!(lanes.iter().all(|x| x.is_nan()), "{isa}");
        }
    }

    /// Largest `|error| / max(|gelu(x)|, 1)` over every 4096th f32: 1.3e-7 on either instruction set.
    const GELU_ERROR: f64 = 1.5e-7;

    #[test]
    fn gelu_is_its_definition_over_all_f32() {
        for isa in Isa::available() {
            let mut worst = 0.0f64;
            for x in testing::every_nth_f32(f32::MIN..f32::MAX, 4096) {
                let mut lanes = [x; LANES];
                isa.run(Apply(Activation::GeluTanh, &mut lanes));
                let exact = reference::gelu_tanh(f64::from(x));
                let error = (f64::from(lanes[5]) - exact).abs() / exact.abs().max(1.0);
                worst = worst.max(error);
                // Saturating tails: never larger than its argument, never of the other sign.
                assert!(lanes[5].abs() <= x.abs() * 1.000_001, "{isa}: gelu({x}) = {}", lanes[5]);
                assert!(lanes[5] * x >= 0.0, "{isa}: gelu({x}) = {}", lanes[5]);
            }
            assert!(worst < GELU_ERROR, "{isa}: {worst:e}");
        }
    }
}
