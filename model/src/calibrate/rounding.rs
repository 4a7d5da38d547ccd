//! A matrix of weights → integers and scales in panels, with the error feedback of [`glm_kernels::feedback`].

use faer::linalg::matmul::matmul;
use faer::prelude::*;
use faer::{Accum, Par};
use glm_kernels::feedback::{MAX_COLUMNS, RoundRow};
use glm_kernels::quantize::{pack_panel, pack_scales};
use glm_kernels::{BLOCK, Isa, LANES, Shape};
use half::f16;
use rayon::prelude::*;

use super::moments::no_memory;
use crate::error::Result;
use crate::files::weights::StoredMatrix;

/// A quantized matrix in panels.
pub(crate) struct Packed {
    pub(crate) bytes: Vec<u8>,
    pub(crate) scales: Vec<f16>,
}

/// Bytes of memory for rounding a matrix.
pub(super) fn bytes(rows: usize, cols: usize) -> u64 {
    // Weights, errors, integers and panels.
    rows as u64 * cols as u64 * (4 + 4 + 1 + 1) + rows as u64 * MAX_COLUMNS as u64 * 4
}

/// Rounds a matrix for inputs whose moments, with the columns in `order`, have the Cholesky factor `factor`. The columns of a group
/// must be together in `order`. Works on the threads of the current pool.
///
/// # Errors
/// If a weight is not finite, or the memory cannot be allocated.
pub(super) fn round(
    isa: Isa,
    shape: &Shape,
    matrix: &StoredMatrix,
    order: &[usize],
    factor: &Mat<f32>,
) -> Result<Packed> {
    let (rows, cols) = (shape.rows, shape.cols);
    let group = (shape.group_blocks * BLOCK).min(cols);
    let (row_scales, step) = (shape.row_scales(), MAX_COLUMNS / group * group);
    let numbers = shape.form.numbers();
    let weights = matrix.values(order)?;
    let mut integers = zeros::<i8>(rows * cols)?;
    let mut scales = vec![f16::ZERO; rows * row_scales];
    let mut errors = zeros::<f32>(rows * cols)?;
    let mut feedback = zeros::<f32>(rows * step.min(cols))?;
    for start in (0..cols).step_by(step).rev() {
        let end = (start + step).min(cols);
        let n = end - start;
        feedback_of(&errors, factor, start..end, &mut feedback[..rows * n]);
        let local = Local::new(factor, start, n);
        integers
            .par_chunks_mut(cols)
            .zip(scales.par_chunks_mut(row_scales))
            .zip(errors.par_chunks_mut(cols))
            .zip(feedback.par_chunks_mut(n))
            .zip(weights.par_chunks(cols))
            .for_each(|((((integers, scales), errors), feedback), weights)| {
                feedback.iter_mut().zip(&local.inverse).for_each(|(sum, inverse)| *sum *= inverse);
                isa.run(RoundRow {
                    bits: shape.bits,
                    form: shape.form,
                    group,
                    weights: &weights[start..end],
                    feedback,
                    factor: &local.factor,
                    squares: &local.squares,
                    integers: &mut integers[start..end],
                    errors: &mut errors[start..end],
                    scales: &mut scales[start / group * numbers..end.div_ceil(group) * numbers],
                });
            });
    }
    drop((weights, errors));
    pack(shape, order, &integers, &scales)
}

/// Rows of feedback that a task computes.
const ROWS: usize = 256;

/// `Σ (wᵢ − ŵᵢ)·Lᵢₘ` over the columns `i` behind `columns`, `[rows, columns]`. A task computes whole rows, so that any number of threads
/// gives the same bits.
fn feedback_of(
    errors: &[f32],
    factor: &Mat<f32>,
    columns: std::ops::Range<usize>,
    feedback: &mut [f32],
) {
    let (cols, n) = (factor.nrows(), columns.len());
    let behind = cols - columns.end;
    let part = factor.as_ref().submatrix(columns.end, columns.start, behind, n);
    let tasks = feedback.par_chunks_mut(ROWS * n).zip(errors.par_chunks(ROWS * cols));
    tasks.for_each(|(feedback, errors)| {
        let rows = feedback.len() / n;
        // Row-major, so transposed for the library.
        let errors = MatRef::from_column_major_slice(errors, cols, rows);
        let errors = errors.subrows(columns.end, behind);
        let mut feedback = MatMut::from_column_major_slice_mut(feedback, n, rows);
        matmul(feedback.as_mut(), Accum::Replace, part.transpose(), errors, 1.0, Par::Seq);
    });
}

/// The panels of integers and scales whose columns are in `order`.
fn pack(shape: &Shape, order: &[usize], integers: &[i8], scales: &[f16]) -> Result<Packed> {
    let (cols, group) = (shape.cols, shape.group_blocks * BLOCK);
    let (row_scales, numbers) = (shape.row_scales(), shape.form.numbers());
    let mut bytes = zeros::<u8>(shape.bytes())?;
    let mut packed = vec![f16::ZERO; shape.scales()];
    bytes
        .par_chunks_mut(shape.panel_bytes())
        .zip(packed.par_chunks_mut(row_scales * LANES))
        .zip(integers.par_chunks(LANES * cols).zip(scales.par_chunks(LANES * row_scales)))
        .for_each(|((bytes, packed), (integers, scales))| {
            let mut own = vec![0; integers.len()];
            let mut own_scales = vec![f16::ZERO; scales.len()];
            for (row, integers) in integers.chunks_exact(cols).enumerate() {
                for (at, &col) in order.iter().enumerate() {
                    own[row * cols + col] = integers[at];
                    let of_group = |col: usize| {
                        let first = row * row_scales + col / group * numbers;
                        first..first + numbers
                    };
                    own_scales[of_group(col)].copy_from_slice(&scales[of_group(at)]);
                }
            }
            pack_panel(shape, &own, bytes);
            pack_scales(row_scales, &own_scales, packed);
        });
    Ok(Packed { bytes, scales: packed })
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
        let inverse: Vec<_> = (0..n).map(|m| 1.0 / part[(m, m)]).collect();
        let mut normed = vec![0.0; n * n];
        for m in 0..n {
            for i in m + 1..n {
                normed[m * n + i] = part[(i, m)] * inverse[m];
            }
        }
        let squares = (0..n).map(|m| part[(m, m)] * part[(m, m)]).collect();
        Self { factor: normed, squares, inverse }
    }
}

fn zeros<T: bytemuck::Zeroable>(n: usize) -> Result<Vec<T>> {
    bytemuck::allocation::try_zeroed_vec(n).map_err(|()| no_memory(n * size_of::<T>()))
}
