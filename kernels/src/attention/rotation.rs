//! The rotation of quantized heads.

use crate::simd::{LANES, Vectors};

/// Multiplies a head with an orthonormal Walsh–Hadamard matrix; a head whose size is no power of two, in equal parts whose size is the
/// largest possible. The rotation is its own inverse and keeps products of two heads.
///
/// Only sums and differences of two numbers, and one product at the end: the bits are the same on every instruction set.
#[inline(always)]
pub(super) fn rotate<S: Vectors>(simd: S, head: &mut [[f32; LANES]]) {
    let part = 1 << head.len().trailing_zeros();
    for head in head.chunks_exact_mut(part) {
        let mut step = 1;
        while step < part {
            for first in (0..part).step_by(2 * step) {
                for i in first..first + step {
                    let (a, b) = (simd.load(&head[i]), simd.load(&head[i + step]));
                    simd.store(simd.add(a, b), &mut head[i]);
                    simd.store(simd.sub(a, b), &mut head[i + step]);
                }
            }
            step *= 2;
        }
        let scale = 1.0 / ((LANES * part) as f32).sqrt();
        for x in head {
            *x = rotate_lanes(*x).map(|x| x * scale);
        }
    }
}

/// The Walsh–Hadamard transform of eight numbers, without its scale.
#[inline(always)]
fn rotate_lanes(mut x: [f32; LANES]) -> [f32; LANES] {
    let mut step = LANES / 2;
    while step > 0 {
        x = std::array::from_fn(|i| {
            if i & step == 0 { x[i] + x[i + step] } else { x[i - step] - x[i] }
        });
        step /= 2;
    }
    x
}
