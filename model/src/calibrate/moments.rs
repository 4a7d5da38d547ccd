//! The second moments of the inputs of a matrix, and their Cholesky factor.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{
    LltParams, LltRegularization, cholesky_in_place, cholesky_in_place_scratch,
};
use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::prelude::*;
use faer::{Accum, Par, Spec};
use glm_kernels::{BLOCK, Shape};
use rayon::prelude::*;

use crate::error::{Error, Result};

/// Columns of the moments that are summed together.
const COLUMNS: usize = 256;

/// `Σ xᵀ·x` over rows of inputs: a symmetric matrix, of which the upper triangle is kept.
pub(super) struct Moments {
    inputs: usize,
    /// Column-major.
    sums: Vec<f32>,
}

impl Moments {
    pub(super) fn new(inputs: usize) -> Result<Self> {
        Ok(Self { inputs, sums: zeros(inputs * inputs)? })
    }

    /// Bytes of the moments, and of their factor, which takes their place.
    pub(super) fn bytes(inputs: usize) -> u64 {
        4 * (inputs as u64).pow(2)
    }

    /// Inputs of a row.
    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    /// Adds rows of inputs, `[rows, inputs]`, on the threads of the current pool. Any number of threads gives the same bits: each sum
    /// is computed by one.
    pub(super) fn add(&mut self, x: &[f32]) {
        let n = self.inputs;
        let x = MatRef::from_column_major_slice(x, n, x.len() / n);
        self.sums.par_chunks_mut(COLUMNS * n).enumerate().for_each(|(index, sums)| {
            let (first, columns) = (index * COLUMNS, sums.len() / n);
            let sums = MatMut::from_column_major_slice_mut(sums, n, columns);
            let (above, below) = sums.split_at_row_mut(first);
            let mut triangle = below.subrows_mut(0, columns);
            let own = x.subrows(first, columns);
            let transposed = own.transpose();
            let (rectangular, upper) =
                (BlockStructure::Rectangular, BlockStructure::TriangularUpper);
            matmul(above, Accum::Add, x.subrows(0, first), transposed, 1.0, Par::Seq);
            triangular::matmul(
                &mut triangle,
                upper,
                Accum::Add,
                own,
                rectangular,
                transposed,
                rectangular,
                1.0,
                Par::Seq,
            );
        });
    }

    fn at(&self, i: usize, j: usize) -> f32 {
        self.sums[i.max(j) * self.inputs + i.min(j)]
    }

    /// The columns, those of the least moments first. The groups of `shape` stay together, and one that is shorter is the last.
    pub(super) fn order(&self, shape: &Shape) -> Vec<usize> {
        let group = shape.group_blocks * BLOCK;
        let moment = |&col: &usize| self.at(col, col);
        let mut groups: Vec<Vec<usize>> = (0..self.inputs)
            .collect::<Vec<_>>()
            .chunks(group)
            .map(|group| {
                let mut group = group.to_vec();
                group.sort_by(|a, b| moment(a).total_cmp(&moment(b)));
                group
            })
            .collect();
        let whole = self.inputs / group;
        groups[..whole].sort_by(|a, b| {
            let sum = |group: &[usize]| group.iter().map(moment).sum::<f32>();
            sum(a).total_cmp(&sum(b))
        });
        groups.concat()
    }

    /// The Cholesky factor of the moments, with rows and columns in `order`, and with `damping` of the mean of the diagonal added to
    /// the diagonal. If rounding has made them indefinite, with more of it.
    ///
    /// # Errors
    /// If the memory cannot be allocated, or the moments are not finite.
    pub(super) fn factor(mut self, order: &[usize], damping: f32) -> Result<Factor> {
        let n = self.inputs;
        let diagonal: Vec<f32> = (0..n).map(|i| self.at(i, i)).collect();
        let sum: f64 = diagonal.iter().copied().map(f64::from).sum();
        if !sum.is_finite() {
            return Err(Error::NotFinite);
        }
        let mut damping = f64::from(damping);
        loop {
            // Without any inputs the weights are rounded to the nearest levels.
            let added = if sum > 0.0 { (sum / n as f64 * damping) as f32 } else { 1.0 };
            // The factor is computed in the lower triangle, so the moments are there if more damping is needed.
            for j in 0..n {
                self.sums[j * n + j] = diagonal[order[j]] + added;
                for i in j + 1..n {
                    self.sums[j * n + i] = self.at(order[i], order[j]);
                }
            }
            if factorize(MatMut::from_column_major_slice_mut(&mut self.sums, n, n))? {
                return Ok(Factor { inputs: n, values: self.sums });
            }
            damping *= 10.0;
        }
    }
}

/// A Cholesky factor, in the lower triangle.
pub(super) struct Factor {
    inputs: usize,
    /// Column-major.
    values: Vec<f32>,
}

impl Factor {
    pub(super) fn matrix(&self) -> MatRef<'_, f32> {
        MatRef::from_column_major_slice(&self.values, self.inputs, self.inputs)
    }
}

/// Replaces the lower triangle by its Cholesky factor, and leaves what is above. `false` if there is none.
fn factorize(matrix: MatMut<'_, f32>) -> Result<bool> {
    let params: Spec<LltParams, f32> = Spec::default();
    let scratch = cholesky_in_place_scratch::<f32>(matrix.nrows(), Par::rayon(0), params);
    let mut buffer = MemBuffer::try_new(scratch).map_err(|_| no_memory(scratch.size_bytes()))?;
    let stack = MemStack::new(&mut buffer);
    let regularization = LltRegularization::default();
    Ok(cholesky_in_place(matrix, regularization, Par::rayon(0), stack, params).is_ok())
}

pub(super) fn zeros<T: bytemuck::Zeroable>(n: usize) -> Result<Vec<T>> {
    bytemuck::allocation::try_zeroed_vec(n).map_err(|()| no_memory(n * size_of::<T>()))
}

fn no_memory(bytes: usize) -> Error {
    Error::OutOfMemory { bytes: bytes as u64 }
}
