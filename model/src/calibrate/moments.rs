//! The second moments of the inputs of a matrix, and their factors.

use faer::linalg::cholesky::llt::factor::{
    LltParams, LltRegularization, cholesky_in_place, cholesky_in_place_scratch,
};
use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::prelude::*;
use faer::{Accum, Par, Spec};
use faer::dyn_stack::{MemBuffer, MemStack};

use crate::error::{Error, Result};

/// `Σ xᵀ·x` of rows of inputs: a symmetric matrix, of which the lower triangle is kept.
pub(crate) struct Moments {
    sum: Mat<f32>,
    rows: usize,
}

impl Moments {
    pub(crate) fn new(inputs: usize) -> Self {
        Self { sum: Mat::zeros(inputs, inputs), rows: 0 }
    }

    /// Adds rows of inputs, `[rows, inputs]`.
    pub(crate) fn add(&mut self, x: &[f32], par: Par) {
        let inputs = self.sum.nrows();
        let rows = x.len() / inputs;
        let columns = MatRef::from_column_major_slice(x, inputs, rows);
        matmul(
            &mut self.sum,
            BlockStructure::TriangularLower,
            Accum::Add,
            columns,
            BlockStructure::Rectangular,
            columns.transpose(),
            BlockStructure::Rectangular,
            1.0,
            par,
        );
        self.rows += rows;
    }

    pub(crate) fn diagonal(&self) -> Vec<f32> {
        (0..self.sum.nrows()).map(|i| self.sum[(i, i)]).collect()
    }

    fn at(&self, i: usize, j: usize) -> f32 {
        if i >= j { self.sum[(i, j)] } else { self.sum[(j, i)] }
    }

    /// The Cholesky factor of the moments with rows and columns in `order`, and `damping` of the mean of the diagonal added to it.
    pub(crate) fn factor(&self, order: &[usize], damping: f32, par: Par) -> Result<Mat<f32>> {
        let n = self.sum.nrows();
        let mean = self.diagonal().iter().map(|&d| f64::from(d)).sum::<f64>() / n as f64;
        let mut damping = damping;
        loop {
            let mut factor = Mat::from_fn(n, n, |i, j| match i >= j {
                true => self.at(order[i], order[j]),
                false => 0.0,
            });
            let added = (mean * f64::from(damping)).max(f64::from(f32::MIN_POSITIVE)) as f32;
            for i in 0..n {
                factor[(i, i)] += added;
            }
            let params: Spec<LltParams, f32> = Spec::default();
            let scratch = cholesky_in_place_scratch::<f32>(n, par, params);
            let mut buffer = MemBuffer::try_new(scratch).map_err(|_| Error::NotFinite)?;
            let stack = MemStack::new(&mut buffer);
            let done = cholesky_in_place(factor.as_mut(), LltRegularization::default(), par, stack, params);
            match done {
                Ok(_) => return Ok(factor),
                // Rounding has made the sum indefinite.
                Err(_) if damping < 1.0 => damping *= 10.0,
                Err(_) => return Err(Error::NotFinite),
            }
        }
    }
}
