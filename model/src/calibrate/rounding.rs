//! A matrix of weights → integers and scales in panels, as [`glm_kernels::feedback`] rounds them.

use std::ops::{ControlFlow, Range};
use std::sync::{Mutex, PoisonError};

use faer::linalg::matmul::matmul;
use faer::prelude::*;
use faer::{Accum, Par};
use glm_kernels::feedback::{MAX_COLUMNS, RoundRow};
use glm_kernels::quantize::{Unquantizable, pack_panel, pack_scales};
use glm_kernels::{BLOCK, Isa, LANES, Rotation, Shape};
use half::f16;
use rayon::prelude::*;

use super::moments::Factor;
use crate::error::{Error, Result};
use crate::files::weights::StoredMatrix;
use crate::memory::zeros;

/// A quantized matrix in panels.
pub(crate) struct Packed {
    pub(crate) bytes: Vec<u8>,
    pub(crate) scales: Vec<f16>,
}

/// Rows that a task rounds: whole panels.
const ROWS: usize = 16 * LANES;

/// Bytes of memory for rounding a matrix of `cols` columns on `threads` threads.
pub(super) fn bytes(cols: usize, threads: usize) -> u64 {
    // Weights, errors and integers; and of a panel, weights as they are stored and what an adapter adds to them.
    (threads * cols * (ROWS * (4 + 4 + 1) + LANES * (4 + 4))) as u64
}

/// Rounds a matrix for inputs whose moments, with the columns in `order`, have the Cholesky factor `factor`. The columns of a group
/// must be together in `order`. Works on the threads of the current pool; a task rounds whole rows, so that any number of threads
/// gives the same bits. `progress` gets the part that is done, and can cancel.
///
/// # Errors
/// If a weight is not finite, the memory cannot be allocated, or `progress` cancels.
pub(super) fn round(
    isa: Isa,
    shape: &Shape,
    matrix: &StoredMatrix,
    order: &[usize],
    factor: &Factor,
    progress: &mut (dyn FnMut(f32) -> ControlFlow<()> + Send),
) -> Result<Packed> {
    let mut bytes = zeros::<u8>(shape.bytes(), &matrix.name)?;
    let mut scales = zeros::<f16>(shape.scales(), &matrix.name)?;
    let panels = ROWS / LANES;
    let progress = Mutex::new((0, progress));
    bytes
        .par_chunks_mut(panels * shape.panel_bytes())
        .zip(scales.par_chunks_mut(panels * shape.row_scales() * LANES))
        .enumerate()
        .try_for_each(|(task, (bytes, scales))| {
            let first = task * ROWS;
            let rows = ROWS.min(shape.rows - first);
            let mut weights = zeros(rows * shape.cols, &matrix.name)?;
            matrix.values(first, shape.rotation, order, &mut weights)?;
            let rounded = Rounded::new(isa, shape, &weights, factor, &matrix.name)?;
            if let Some((row, group)) = rounded.too_large(shape) {
                // As it is stored, and not rotated.
                let weights = &mut weights[..shape.cols];
                matrix.values(first + row, Rotation::None, order, weights)?;
                let size = |&at: &usize| weights[at].abs();
                let largest = group.max_by(|a, b| size(a).total_cmp(&size(b))).unwrap_or(0);
                let bad = Unquantizable { col: order[largest], value: weights[largest] };
                return Err(matrix.unquantizable(first + row, bad));
            }
            rounded.pack(shape, order, bytes, scales, &matrix.name)?;
            let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
            let (done, progress) = &mut *progress;
            *done += rows;
            match progress(*done as f32 / shape.rows as f32) {
                ControlFlow::Break(()) => Err(Error::Cancelled),
                ControlFlow::Continue(()) => Ok(()),
            }
        })?;
    Ok(Packed { bytes, scales })
}

/// Rounds up to eight rows, with the columns in their order, for inputs whose moments have this factor.
///
/// # Errors
/// If the memory cannot be allocated.
pub(super) fn round_panel(
    isa: Isa,
    shape: &Shape,
    weights: &[f32],
    factor: &Factor,
    name: &str,
) -> Result<Packed> {
    let order: Vec<_> = (0..shape.cols).collect();
    let (mut bytes, mut scales) = (zeros(shape.bytes(), name)?, zeros(shape.scales(), name)?);
    let rounded = Rounded::new(isa, shape, weights, factor, name)?;
    rounded.pack(shape, &order, &mut bytes, &mut scales, name)?;
    Ok(Packed { bytes, scales })
}

/// Rounded rows, with the columns in the order of the factor.
struct Rounded {
    /// `[rows, columns]`
    integers: Vec<i8>,
    /// `[rows, groups]`, or `[rows, groups, 2]` with the offsets
    scales: Vec<f16>,
}

impl Rounded {
    fn new(isa: Isa, shape: &Shape, weights: &[f32], factor: &Factor, name: &str) -> Result<Self> {
        let (cols, row_scales) = (shape.cols, shape.row_scales());
        let numbers = shape.form.numbers();
        let rows = weights.len() / cols;
        let group = (shape.group_blocks * BLOCK).min(cols);
        let step = MAX_COLUMNS / group * group;
        let mut integers = zeros(rows * cols, name)?;
        let mut scales = zeros::<f16>(rows * row_scales, name)?;
        let mut errors = zeros(rows * cols, name)?;
        let mut feedback = zeros::<f32>(rows * step.min(cols), name)?;
        for start in (0..cols).step_by(step).rev() {
            let end = (start + step).min(cols);
            let n = end - start;
            let feedback = &mut feedback[..rows * n];
            let local = Local::new(factor, start, n);
            if let Some(factor) = factor.matrix() {
                feedback_of(&errors, factor, start..end, feedback);
            }
            for (row, feedback) in feedback.chunks_exact_mut(n).enumerate() {
                feedback.iter_mut().zip(&local.inverse).for_each(|(sum, inverse)| *sum *= inverse);
                let row = RoundRow {
                    bits: shape.bits,
                    form: shape.form,
                    group,
                    weights: &weights[row * cols..][start..end],
                    feedback,
                    factor: &local.factor,
                    squares: &local.squares,
                    integers: &mut integers[row * cols..][start..end],
                    errors: &mut errors[row * cols..][start..end],
                    scales: &mut scales[row * row_scales..]
                        [start / group * numbers..end.div_ceil(group) * numbers],
                };
                row.round(isa);
            }
        }
        Ok(Self { integers, scales })
    }

    /// The row and the columns, in their order, of a group whose scale is not finite. Groups are rounded from the last to the first, and
    /// what is not finite is fed back to those before it.
    fn too_large(&self, shape: &Shape) -> Option<(usize, Range<usize>)> {
        let (cols, group) = (shape.cols, shape.group_blocks * BLOCK);
        let at = self.scales.iter().rposition(|scale| !scale.is_finite())?;
        let (row, number) = (at / shape.row_scales(), at % shape.row_scales());
        let first = number / shape.form.numbers() * group;
        Some((row, first..cols.min(first + group)))
    }

    /// Writes panels, with the columns in the order of the matrix.
    fn pack(
        &self,
        shape: &Shape,
        order: &[usize],
        bytes: &mut [u8],
        scales: &mut [f16],
        name: &str,
    ) -> Result<()> {
        let (cols, group) = (shape.cols, shape.group_blocks * BLOCK);
        let (row_scales, numbers) = (shape.row_scales(), shape.form.numbers());
        bytes
            .chunks_exact_mut(shape.panel_bytes())
            .zip(scales.chunks_exact_mut(row_scales * LANES))
            .zip(self.integers.chunks(LANES * cols).zip(self.scales.chunks(LANES * row_scales)))
            .try_for_each(|((bytes, packed), (integers, scales))| {
                let mut own = zeros(integers.len(), name)?;
                let mut own_scales = zeros(scales.len(), name)?;
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
                Ok(())
            })
    }
}

/// `Σ (wᵢ − ŵᵢ)·Lᵢₘ` over the columns `i` behind `columns`, `[rows, columns]`.
fn feedback_of(
    errors: &[f32],
    factor: MatRef<'_, f32>,
    columns: Range<usize>,
    feedback: &mut [f32],
) {
    let (cols, n) = (factor.nrows(), columns.len());
    let (rows, behind) = (feedback.len() / n, cols - columns.end);
    let part = factor.submatrix(columns.end, columns.start, behind, n);
    // Row-major, so transposed for the library.
    let errors = MatRef::from_column_major_slice(errors, cols, rows);
    let errors = errors.subrows(columns.end, behind);
    let feedback = MatMut::from_column_major_slice_mut(feedback, n, rows);
    matmul(feedback, Accum::Replace, part.transpose(), errors, 1.0, Par::Seq);
}

/// The factor of some columns, as [`RoundRow`] takes it.
struct Local {
    factor: Vec<f32>,
    squares: Vec<f32>,
    /// `1 / Lₘₘ`
    inverse: Vec<f32>,
}

impl Local {
    fn new(factor: &Factor, start: usize, n: usize) -> Self {
        let factor = match factor {
            Factor::Cholesky { inputs, values } => {
                MatRef::from_column_major_slice(values, *inputs, *inputs)
            }
            Factor::Diagonal(squares) => {
                let squares = squares[start..start + n].to_vec();
                return Self { factor: Vec::new(), squares, inverse: Vec::new() };
            }
        };
        let part = factor.submatrix(start, start, n, n);
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

#[cfg(test)]
mod tests {
    use glm_kernels::quantize::quantize_row;
    use glm_kernels::{Bits, Matrix, Panels, Storage};

    use super::super::moments::{Moments, tests::noise};
    use super::*;

    /// `Σ ((w − ŵ)·x)²` over all rows of weights and of inputs.
    fn loss(weights: &[f32], rounded: &[f32], x: &[f32], cols: usize) -> f64 {
        let rows = weights.chunks_exact(cols).zip(rounded.chunks_exact(cols));
        let of = |(w, r): (&[f32], &[f32]), x: &[f32]| -> f64 {
            let errors = w.iter().zip(r).map(|(w, r)| f64::from(w - r));
            errors.zip(x).map(|(error, x)| error * f64::from(*x)).sum()
        };
        rows.flat_map(|row| x.chunks_exact(cols).map(move |x| of(row, x).powi(2))).sum()
    }

    #[test]
    fn any_shape_is_nearer_than_the_nearest_levels() {
        let isa = Isa::choose().unwrap();
        for (rows, cols, group) in
            [(13, 48, 64), (8, 80, 64), (3, 200, 32), (21, 300, 128), (5, 7, 32)]
        {
            for bits in [Bits::Four, Bits::Eight] {
                let shape = Shape::grouped(rows, cols, bits, group);
                let weights = noise(rows * cols, 3);
                // Few directions, as in models, so that errors can make up for each other.
                let (directions, mixed) = (noise(cols * 3, 5), noise(400 * 3, 9));
                let x: Vec<f32> = (0..400 * cols)
                    .map(|at| {
                        let (direction, mixed) =
                            (&directions[at % cols * 3..][..3], &mixed[at / cols * 3..][..3]);
                        direction.iter().zip(mixed).map(|(a, b)| a * b).sum()
                    })
                    .collect();
                let mut moments = Moments::new("x", cols).unwrap();
                moments.add(&x);
                let order = moments.order(&shape);
                let factor = moments.factor(&order, 0.01).unwrap();
                let row = |row: usize| order.iter().map(move |col| (row, *col));
                let ordered: Vec<f32> =
                    (0..rows).flat_map(row).map(|(row, col)| weights[row * cols + col]).collect();
                let rounded = Rounded::new(isa, &shape, &ordered, &factor, "x").unwrap();
                let (mut bytes, mut scales) =
                    (vec![0xaa; shape.bytes()], vec![f16::NAN; shape.scales()]);
                rounded.pack(&shape, &order, &mut bytes, &mut scales, "x").unwrap();
                let panels = Panels::new(shape, &bytes, &scales);
                let matrix = Matrix::new(rows, cols, Storage::Panels(panels));
                let (mut found, mut nearest) =
                    (vec![f32::NAN; rows * cols], vec![0.0; rows * cols]);
                for (row, found) in found.chunks_exact_mut(cols).enumerate() {
                    matrix.row(row, found);
                    let (mut integers, mut scales) =
                        (vec![0; cols], vec![f16::ZERO; shape.groups()]);
                    quantize_row(
                        &shape,
                        &weights[row * cols..][..cols],
                        &mut integers,
                        &mut scales,
                    )
                    .unwrap();
                    for (col, integer) in integers.iter().enumerate() {
                        nearest[row * cols + col] =
                            f32::from(*integer) * scales[col / group].to_f32();
                    }
                }
                let [found, nearest] =
                    [&found, &nearest].map(|rounded| loss(&weights, rounded, &x, cols));
                assert!(
                    found < 0.7 * nearest,
                    "{rows} × {cols}, {group}, {bits:?}: {found} {nearest}"
                );
            }
        }
    }
}
