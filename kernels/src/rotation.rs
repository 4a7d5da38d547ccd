//! Walsh–Hadamard rotations of heads, of activations and of weights.
//!
//! An orthonormal rotation keeps the product of two vectors that are both rotated, and spreads an outlier over all elements: so it does
//! not set the scale with which the others are quantized.
//!
//! Only sums and differences of two numbers in a fixed order, and one product at the end: the bits are the same on every instruction set.

use crate::simd::scalar::Scalar;
use crate::simd::{BLOCK, LANES, Vectors};

/// How the columns of a matrix, or the inputs of a linear layer, are rotated before they are quantized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rotation {
    /// They are not.
    #[default]
    None,
    /// Each block of 32 columns is [rotated](crate::reference::rotated).
    Blocks,
}

impl Rotation {
    /// Rotates rows, or rotates them back, in plain Rust.
    ///
    /// # Panics
    /// If blocks are rotated and `x` is not a whole number of them.
    #[track_caller]
    pub fn apply(self, x: &mut [f32]) {
        if self == Self::Blocks {
            let (blocks, rest) = x.as_chunks_mut::<BLOCK>();
            assert!(rest.is_empty(), "a rotation of part of a block");
            blocks.iter_mut().for_each(|block| rotate(Scalar, block.as_chunks_mut().0));
        }
    }
}

/// Multiplies a vector with an orthonormal Walsh–Hadamard matrix; a vector whose size is no power of two, in equal parts whose size is the
/// largest possible. The rotation is its own inverse.
#[inline(always)]
pub(crate) fn rotate<S: Vectors>(simd: S, x: &mut [[f32; LANES]]) {
    rotate_parts(simd, x, part(x.len()));
}

/// How many of `vectors` vectors [`rotate`] rotates together.
#[inline(always)]
pub(crate) fn part(vectors: usize) -> usize {
    1 << vectors.trailing_zeros()
}

/// Rotates each `part` vectors, a power of two.
#[inline(always)]
pub(crate) fn rotate_parts<S: Vectors>(simd: S, x: &mut [[f32; LANES]], part: usize) {
    for x in x.chunks_exact_mut(part) {
        let mut step = 1;
        while step < part {
            for first in (0..part).step_by(2 * step) {
                for i in first..first + step {
                    let (a, b) = (simd.load(&x[i]), simd.load(&x[i + step]));
                    simd.store(simd.add(a, b), &mut x[i]);
                    simd.store(simd.sub(a, b), &mut x[i + step]);
                }
            }
            step *= 2;
        }
        let scale = 1.0 / ((LANES * part) as f32).sqrt();
        for x in x {
            simd.store(simd.mul(simd.hadamard(simd.load(x)), simd.splat(scale)), x);
        }
    }
}

/// Rotates 32 columns of eight rows: each lane as [`rotate`] does. The product at the end is left to the caller, see
/// [`BLOCK_SCALE`].
#[inline(always)]
pub(crate) fn rotate_columns<S: Vectors>(simd: S, columns: &mut [S::F32; BLOCK]) {
    let mut step = 1;
    while step < BLOCK {
        for first in (0..BLOCK).step_by(2 * step) {
            for i in first..first + step {
                let (a, b) = (columns[i], columns[i + step]);
                columns[i] = simd.add(a, b);
                columns[i + step] = simd.sub(a, b);
            }
        }
        step *= 2;
    }
}

/// `1 / √32`: the factor that makes the rotation of a block orthonormal.
pub(crate) const BLOCK_SCALE: f32 = 0.176_776_7;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{close_to, values};
    use crate::{Isa, Kernel, reference};

    struct Rotate<'a>(&'a mut [[f32; LANES]]);

    impl Kernel for Rotate<'_> {
        type Output = ();
        fn run<S: Vectors>(self, simd: S) {
            rotate(simd, self.0);
        }
    }

    struct RotateColumns<'a>(&'a mut [[f32; LANES]; BLOCK]);

    impl Kernel for RotateColumns<'_> {
        type Output = ();
        fn run<S: Vectors>(self, simd: S) {
            let mut columns = [simd.splat(f32::NAN); BLOCK];
            columns.iter_mut().zip(&*self.0).for_each(|(to, from)| *to = simd.load(from));
            rotate_columns(simd, &mut columns);
            for (to, from) in self.0.iter_mut().zip(columns) {
                simd.store(simd.mul(from, simd.splat(BLOCK_SCALE)), to);
            }
        }
    }

    fn length(x: &[f32]) -> f32 {
        x.iter().map(|x| x * x).sum::<f32>().sqrt().max(1.0)
    }

    proptest! {
        #[test]
        fn all_isas_rotate_as_defined(eighths in 1usize..=32, x in values(256)) {
            let x = &x[..eighths * LANES];
            let mut first: Option<Vec<[f32; LANES]>> = None;
            for isa in Isa::available() {
                let mut rotated: Vec<[f32; LANES]> = x.as_chunks().0.to_vec();
                isa.run(Rotate(&mut rotated));
                let bound = vec![length(x); x.len()];
                close_to(rotated.as_flattened(), &reference::rotated(x), &bound, 2e-7, isa);
                prop_assert_eq!(first.get_or_insert_with(|| rotated.clone()), &rotated, "{}", isa);
            }
        }

        #[test]
        fn all_isas_rotate_columns_as_defined(x in values(BLOCK * LANES)) {
            let x: &[[f32; LANES]; BLOCK] = x.as_chunks().0.try_into().unwrap();
            for isa in Isa::available() {
                let mut rotated = *x;
                isa.run(RotateColumns(&mut rotated));
                for lane in 0..LANES {
                    let row = x.map(|column| column[lane]);
                    let found = rotated.map(|column| column[lane]);
                    let bound = [length(&row); BLOCK];
                    close_to(&found, &reference::rotated(&row), &bound, 2e-7, isa);
                }
            }
        }
    }
}
