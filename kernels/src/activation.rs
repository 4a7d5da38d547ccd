//! Activation functions: of the outputs of a linear layer in registers, or of a gate.

use crate::math::exp;
use crate::simd::{Kernel, LANES, Vectors};

/// The activation function of a linear layer or a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activation {
    /// The identity.
    None,
    /// GELU in its tanh form: `0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))`.
    GeluTanh,
    /// GELU: `0.5·x·(1 + erf(x / √2))`.
    GeluErf,
    /// `x / (1 + e^(−x))`
    Silu,
}

impl Activation {
    #[inline(always)]
    pub(crate) fn apply<S: Vectors>(self, simd: S, x: S::F32) -> S::F32 {
        match self {
            Activation::None => x,
            Activation::GeluTanh => gelu_tanh(simd, x),
            Activation::GeluErf => gelu_erf(simd, x),
            Activation::Silu => silu(simd, x),
        }
    }
}

/// With `0.5·(1 + tanh u) = 1 / (1 + e^(−2u))`, the tanh form takes one exponential and one division.
///
/// Below −10.2, where the exponential would overflow, the value is under 1e−36 and becomes 0. NaN stays NaN.
#[inline(always)]
fn gelu_tanh<S: Vectors>(simd: S, x: S::F32) -> S::F32 {
    const MINUS_2_SQRT_2_PI: f32 = -1.595_769;
    let cubic = simd.fma(simd.mul(x, x), simd.splat(0.044_715), simd.splat(1.0));
    let minus_2u = simd.mul(simd.mul(x, simd.splat(MINUS_2_SQRT_2_PI)), cubic);
    let gelu = simd.div(x, simd.add(simd.splat(1.0), exp(simd, minus_2u)));
    simd.fma(x, simd.splat(0.0), simd.keep_ge(x, simd.splat(-10.2), gelu))
}

/// `x·Φ(x)`, with the lower tail of Φ from Abramowitz and Stegun, 7.1.26: `Φ(−a) = ½·t·P(t)·e^(−a²/2)`, `t = 1 / (1 + p·a/√2)`,
/// error at most 7.5e-8. This tail lies in 0..=½, so the result never exceeds `x` and never has the other sign.
#[inline(always)]
fn gelu_erf<S: Vectors>(simd: S, x: S::F32) -> S::F32 {
    const P: f32 = 0.327_591_1;
    let a = simd.mul(simd.abs(x), simd.splat(std::f32::consts::FRAC_1_SQRT_2));
    let one = simd.splat(1.0);
    let t = simd.div(one, simd.fma(a, simd.splat(P), one));
    let mut p = simd.splat(1.061_405_4);
    for coefficient in [-1.453_152_1, 1.421_413_8, -0.284_496_72, 0.254_829_6] {
        p = simd.fma(p, t, simd.splat(coefficient));
    }
    let minus_a = simd.sub(simd.splat(0.0), a);
    let tail = simd.mul(simd.mul(simd.mul(p, t), simd.splat(0.5)), exp(simd, simd.mul(a, minus_a)));
    let rest = simd.keep_ge(x, simd.splat(0.0), simd.fma(tail, simd.splat(-2.0), one));
    simd.mul(x, simd.add(tail, rest))
}

/// Below −87, where the exponential would overflow, the value is under 1e−35 and becomes 0. NaN stays NaN.
#[inline(always)]
fn silu<S: Vectors>(simd: S, x: S::F32) -> S::F32 {
    let minus_x = simd.sub(simd.splat(0.0), x);
    let silu = simd.div(x, simd.add(simd.splat(1.0), exp(simd, minus_x)));
    simd.fma(x, simd.splat(0.0), simd.keep_ge(x, simd.splat(-87.0), silu))
}

/// `y[i] = act(gate[i]) · up[i]`
pub struct Gate<'a> {
    /// Applied to `gate`.
    pub activation: Activation,
    /// `[n]`
    pub gate: &'a [f32],
    /// `[n]`
    pub up: &'a [f32],
    /// `[n]`
    pub y: &'a mut [f32],
}

impl Kernel for Gate<'_> {
    type Output = ();

    /// # Panics
    /// If the lengths differ.
    #[inline(always)]
    fn run<S: Vectors>(self, simd: S) {
        let n = self.y.len();
        assert!(self.gate.len() == n && self.up.len() == n, "lengths of a gate");
        let (gates, gate_tail) = self.gate.as_chunks::<LANES>();
        let (ups, up_tail) = self.up.as_chunks::<LANES>();
        let (ys, y_tail) = self.y.as_chunks_mut::<LANES>();
        for ((gate, up), y) in gates.iter().zip(ups).zip(ys) {
            gated(simd, self.activation, gate, up, y);
        }
        let rest = y_tail.len();
        let (mut gate, mut up, mut y) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        gate[..rest].copy_from_slice(gate_tail);
        up[..rest].copy_from_slice(up_tail);
        gated(simd, self.activation, &gate, &up, &mut y);
        y_tail.copy_from_slice(&y[..rest]);
    }
}

/// Not a closure: one that is not inlined loses the enclosing `target_feature`.
#[inline(always)]
fn gated<S: Vectors>(
    simd: S,
    activation: Activation,
    gate: &[f32; LANES],
    up: &[f32; LANES],
    y: &mut [f32; LANES],
) {
    let gate = activation.apply(simd, simd.load(gate));
    simd.store(simd.mul(gate, simd.load(up)), y);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::simd::Element;
    use crate::testing::values;
    use crate::{Isa, reference, testing};

    struct Apply<'a>(Activation, &'a mut [f32; LANES]);

    impl Kernel for Apply<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Vectors>(self, simd: S) {
            let x = f32::load(simd, self.1);
            simd.store(self.0.apply(simd, x), self.1);
        }
    }

    const ALL: [Activation; 4] =
        [Activation::None, Activation::GeluTanh, Activation::GeluErf, Activation::Silu];

    #[test]
    fn nan_stays_nan() {
        for (isa, activation) in Isa::available().into_iter().flat_map(|isa| ALL.map(|a| (isa, a)))
        {
            let mut lanes = [f32::NAN; LANES];
            isa.run(Apply(activation, &mut lanes));
            assert!(lanes.iter().all(|x| x.is_nan()), "{isa}: {activation:?}");
        }
    }

    /// Bounds of `|error| / max(|y|, 1)`. The largest over every 4096th f32, on every instruction set: tanh form 1.3e-7, erf
    /// form 2.2e-7, SiLU 1.3e-7.
    fn bound(activation: Activation) -> f64 {
        match activation {
            Activation::None => 0.0,
            Activation::GeluTanh | Activation::Silu => 1.5e-7,
            Activation::GeluErf => 2.5e-7,
        }
    }

    #[test]
    fn activations_are_their_definitions_over_all_f32() {
        for (isa, activation) in Isa::available().into_iter().flat_map(|isa| ALL.map(|a| (isa, a)))
        {
            let mut worst = 0.0f64;
            for x in testing::every_nth_f32(f32::MIN..f32::MAX, 4099) {
                let mut lanes = [x; LANES];
                isa.run(Apply(activation, &mut lanes));
                let (exact, y) = (reference::activation(activation, f64::from(x)), lanes[5]);
                worst = worst.max((f64::from(y) - exact).abs() / exact.abs().max(1.0));
                // In the tails, too: at most as large as the argument, and of its sign.
                assert!(y.abs() <= x.abs() * 1.000_001, "{isa}: {activation:?}({x}) = {y}");
                assert!(y * x >= 0.0, "{isa}: {activation:?}({x}) = {y}");
            }
            assert!(worst <= bound(activation), "{isa}: {activation:?} {worst:e}");
        }
    }

    proptest! {
        #[test]
        fn a_gate_is_its_definition(
            (gate, up) in (0usize..70).prop_flat_map(|n| (values(n), values(n))), which in 0usize..4,
        ) {
            for isa in Isa::available() {
                let mut y = vec![f32::NAN; gate.len()];
                isa.run(Gate { activation: ALL[which], gate: &gate, up: &up, y: &mut y });
                for ((gate, up), y) in gate.iter().zip(&up).zip(y) {
                    let (gate, up) = (f64::from(*gate), f64::from(*up));
                    let gate = reference::activation(ALL[which], gate);
                    // Plus the rounding of the product.
                    let error = bound(ALL[which]) + 6e-8;
                    let bound = error * gate.abs().max(1.0) * up.abs().max(1.0);
                    prop_assert!((f64::from(y) - gate * up).abs() <= bound, "{}", isa);
                }
            }
        }
    }
}
