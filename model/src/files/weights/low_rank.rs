//! A low-rank update that is added to weights while they are read.

use std::ops::Range;

use super::widen_into;
use crate::files::checkpoint::Tensor;

/// The update `s·B·A` of some rows of a matrix.
pub(crate) struct LowRankRows {
    rows: Range<usize>,
    rank: usize,
    /// `[rank, columns]`
    a: Vec<f32>,
    /// `s·B`, `[rows, rank]`
    b: Vec<f32>,
}

impl LowRankRows {
    /// The update of `rows` by `a`, `[rank, columns]`, and `b`, `[rows, rank]`, whose types and shapes are checked.
    pub(crate) fn new(rows: Range<usize>, scale: f32, a: &Tensor, b: &Tensor) -> Self {
        let widen = |tensor: &Tensor| {
            let mut values = vec![0.0; tensor.shape().iter().product()];
            widen_into(tensor.dtype(), tensor.bytes(), &mut values);
            values
        };
        let (rank, a, mut b) = (a.shape()[0], widen(a), widen(b));
        b.iter_mut().for_each(|b| *b *= scale);
        Self { rows, rank, a, b }
    }

    /// Adds the update to `values`, which are row `row` of the matrix.
    pub(super) fn add(&self, row: usize, values: &mut [f32]) {
        if !self.rows.contains(&row) {
            return;
        }
        let b = &self.b[(row - self.rows.start) * self.rank..][..self.rank];
        let mut update = vec![0.0; values.len()];
        for (b, a) in b.iter().zip(self.a.chunks_exact(values.len())) {
            update.iter_mut().zip(a).for_each(|(update, a)| *update += b * a);
        }
        values.iter_mut().zip(&update).for_each(|(value, update)| *value += update);
    }
}
