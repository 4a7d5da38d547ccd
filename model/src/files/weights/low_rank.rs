//! A low-rank update that is added to weights while they are read.

use std::ops::Range;

use super::widen_into;
use crate::error::Result;
use crate::files::checkpoint::Tensor;
use crate::memory::zeros;

/// The update `s·B·A` of some rows of a matrix. Both tensors stay as they are stored, in a mapped file: those of all layers would take
/// twice their memory in `f32`.
pub(crate) struct LowRankRows {
    rows: Range<usize>,
    scale: f32,
    /// `[rank, columns]`
    a: Tensor,
    /// `[rows, rank]`
    b: Tensor,
}

impl LowRankRows {
    /// The update of `rows` by `a`, `[rank, columns]`, and `b`, `[rows, rank]`, whose types and shapes are checked.
    pub(crate) fn new(rows: Range<usize>, scale: f32, a: &Tensor, b: &Tensor) -> Self {
        Self { rows, scale, a: a.clone(), b: b.clone() }
    }

    /// The two matrices.
    pub(super) fn tensors(&self) -> [&Tensor; 2] {
        [&self.a, &self.b]
    }

    /// Adds the update to `values`, which are the rows of the matrix from `first` on. Each row of `A` is widened once for all of them.
    ///
    /// # Errors
    /// If the memory cannot be allocated.
    pub(super) fn add(&self, first: usize, values: &mut [f32]) -> Result<()> {
        let [rank, cols] = [0, 1].map(|axis| self.a.shape()[axis]);
        let end = first + values.len() / cols;
        let rows = self.rows.start.max(first)..self.rows.end.min(end);
        if rows.is_empty() {
            return Ok(());
        }
        let values = &mut values[(rows.start - first) * cols..(rows.end - first) * cols];
        let mut factors = zeros(rows.len() * rank, self.b.name())?;
        let from = (rows.start - self.rows.start) * rank * self.b.dtype().size();
        widen_into(self.b.dtype(), &self.b.bytes()[from..], &mut factors);
        factors.iter_mut().for_each(|b| *b *= self.scale);
        let mut a = zeros(cols, self.a.name())?;
        let mut updates = zeros::<f32>(values.len(), self.a.name())?;
        for (k, stored) in self.a.bytes().chunks_exact(cols * self.a.dtype().size()).enumerate() {
            widen_into(self.a.dtype(), stored, &mut a);
            for (update, factors) in updates.chunks_exact_mut(cols).zip(factors.chunks_exact(rank))
            {
                update.iter_mut().zip(&a).for_each(|(update, a)| *update += factors[k] * a);
            }
        }
        values.iter_mut().zip(&updates).for_each(|(value, update)| *value += update);
        Ok(())
    }
}
