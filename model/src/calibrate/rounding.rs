//! A matrix of weights → integers and scales, with the error feedback of [`glm_kernels::feedback`].

use faer::linalg::matmul::matmul;
use faer::prelude::*;
use faer::{Accum, Par};
use glm_kernels::feedback::{MAX_COLUMNS, RoundRow};
use glm_kernels::{Isa, Shape, BLOCK};
use half::f16;
use rayon::prelude::*;

/// A rounded matrix, its columns in the order of the factor.
pub(super) struct Rounded {
    /// `[rows, cols]`
    pub(super) integers: Vec<i8>,
    /// `[rows, groups]`
    pub(super) scales: Vec<f16>,
    /// The squared error of the outputs.
    pub(super) loss: f64,
}

/// Rounds `weights`, `[rows, cols]`, in which the columns of a group are together, for inputs whose moments have the Cholesky factor
/// `factor`, `[cols, cols]`. Works on the threads of the current pool.
pub(super) fn round(isa: Isa, shape: &Shape, weights: &[f32], factor: &Mat<f32>) -> Rounded {
    let (rows, cols) = (shape.rows, shape.cols);
    let group = (shape.group_blocks * BLOCK).min(cols);
    let (groups, step) = (shape.groups(), MAX_COLUMNS / group * group);
    let mut integers = vec![0; rows * cols];
    let mut scales = vec![f16::ZERO; rows * groups];
    let mut errors = vec![0f32; rows * cols];
    let mut feedback = vec![0f32; rows * step];
    let mut losses = vec![0f32; rows];
    for start in (0..cols).step_by(step).rev() {
        let end = (start + step).min(cols);
        let n = end - start;
        // Row-major, so transposed for the library.
        let known = MatRef::from_column_major_slice(&errors, cols, rows).subrows(end, cols - end);
        let mut behind = MatMut::from_column_major_slice_mut(&mut feedback[..rows * n], n, rows);
        let part = factor.as_ref().submatrix(end, start, cols - end, n);
        matmul(behind.as_mut(), Accum::Replace, part.transpose(), known, 1.0, Par::rayon(0));
        let local = Local::new(factor, start, n);
        integers
            .par_chunks_mut(cols)
            .zip(scales.par_chunks_mut(groups))
            .zip(errors.par_chunks_mut(cols))
            .zip(feedback.par_chunks_mut(n))
            .zip(&mut losses)
            .zip(weights.par_chunks(cols))
            .for_each(|(((((integers, scales), errors), feedback), loss), weights)| {
                feedback.iter_mut().zip(&local.inverse).for_each(|(sum, inverse)| *sum *= inverse);
                *loss += isa.run(RoundRow {
                    bits: shape.bits,
                    group,
                    weights: &weights[start..end],
                    feedback,
                    factor: &local.factor,
                    squares: &local.squares,
                    integers: &mut integers[start..end],
                    errors: &mut errors[start..end],
                    scales: &mut scales[start / group..end.div_ceil(group)],
                });
            });
    }
    Rounded { integers, scales, loss: losses.iter().map(|&loss| f64::from(loss)).sum() }
}

/// The factor of some columns, as [`RoundRow`] takes it.
struct Local {
    factor: Vec<f32>,
    squares: Vec<f32>,
    /// `1 / Lₘₘ`
    inverse: Vec<f32>,
}

impl Local {
    fn new(factor: &Mat<f32>, start: usize, n: usize) -> Self {
        let part = factor.as_ref().submatrix(start, start, n, n);
        let squares = (0..n).map(|m| part[(m, m)] * part[(m, m)]).collect();
        let inverse: Vec<_> = (0..n).map(|m| 1.0 / part[(m, m)]).collect();
        let column = |m: usize| (0..n).map(move |i| (m, i));
        let normed = |(m, i): (usize, usize)| if i > m { part[(i, m)] * inverse[m] } else { 0.0 };
        let factor = (0..n).flat_map(column).map(normed).collect();
        Self { factor, squares, inverse }
    }
}
