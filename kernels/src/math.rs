//! `exp` for eight lanes.

use crate::simd::Vectors;

/// Below this `exp` is 0: `e^-87.3` is the last value above the subnormals.
const LOWEST: f32 = -87.3;
/// Above this `exp` is `e^88.3`, below infinity.
const HIGHEST: f32 = 88.3;

// ln 2 = LN2_HIGH + LN2_LOW. LN2_HIGH has so few bits that n · LN2_HIGH is exact for |n| ≤ 128.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// `e^x`, relative error below [`EXP_ERROR`] on −87.3 ≤ x ≤ 88.3; 0 below that range and `e^88.3` above it.
///
/// `x = n·ln 2 + r` with |r| ≤ ln 2 / 2; `e^r` is the Taylor polynomial of degree 7, and `2ⁿ` is built from its exponent bits.
#[inline(always)]
pub(crate) fn exp<S: Vectors>(simd: S, x: S::F32) -> S::F32 {
    let clamped = simd.min(simd.max(x, simd.splat(LOWEST)), simd.splat(HIGHEST));
    let n = simd.round(simd.mul(clamped, simd.splat(std::f32::consts::LOG2_E)));
    let r = simd.fma(n, simd.splat(-LN2_HIGH), clamped);
    let r = simd.fma(n, simd.splat(-LN2_LOW), r);
    let mut e = simd.splat(1.0 / 5040.0);
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        e = simd.fma(e, r, simd.splat(coefficient));
    }
    simd.keep_ge(x, simd.splat(LOWEST), simd.mul(e, simd.exp2_integral(n)))
}

/// Largest relative error of [`exp`] in a sweep over every 64th `f32` of its range (scalar 1.0e-7, AVX2 0.8e-7).
#[cfg(test)]
pub(crate) const EXP_ERROR: f32 = 1.2e-7;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Element, Kernel, LANES};
    use crate::{Isa, testing};

    struct Exp<'a>(&'a mut [f32; LANES]);

    impl Kernel for Exp<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Vectors>(self, simd: S) {
            let x = f32::load(simd, self.0);
            simd.store(exp(simd, x), self.0);
        }
    }

    #[test]
    fn exp_is_within_its_error_over_its_range() {
        for isa in Isa::available() {
            let mut worst = 0.0f64;
            for x in testing::every_nth_f32(LOWEST..HIGHEST, 67) {
                let mut lanes = [x; LANES];
                isa.run(Exp(&mut lanes));
                let exact = f64::from(x).exp();
                worst = worst.max((f64::from(lanes[3]) - exact).abs() / exact);
            }
            assert!(worst < f64::from(EXP_ERROR), "{isa}: {worst:e}");
        }
    }

    #[test]
    fn exp_outside_its_range() {
        for isa in Isa::available() {
            let mut x = [f32::NEG_INFINITY, -1e9, -88.0, 0.0, 88.3, 1e9, f32::INFINITY, -87.3];
            isa.run(Exp(&mut x));
            assert_eq!(&x[..4], &[0.0, 0.0, 0.0, 1.0], "{isa}");
            assert!(x[4..].iter().all(|x| x.is_finite() && *x > 0.0), "{isa}: {x:?}");
        }
    }
}
