//! What is gathered of the inputs of a matrix, and what it gives for rounding.

use glm_kernels::Shape;
use rayon::prelude::*;

use super::moments::{Factor, Moments};
use super::texts::Method;
use crate::error::{Error, Result};
use crate::files::weights::StoredMatrix;
use crate::memory::zeros;

/// Part of the mean moment of an input that is added to each, so that inputs that the texts do not have still count.
const DAMPING: f32 = 0.01;

/// Columns that a task adds.
const COLUMNS: usize = 512;

/// Sums over the inputs of a matrix.
pub(super) enum Inputs {
    /// The second moments, for rounding with error feedback.
    Moments(Moments),
    /// Their diagonal, `Σ x²`, for scales that are searched under these weights.
    Squares(Vec<f32>),
}

impl Inputs {
    /// No inputs yet, of the matrix `name` with `inputs` columns.
    ///
    /// # Errors
    /// If the memory cannot be allocated.
    pub(super) fn new(method: Method, name: &str, inputs: usize) -> Result<Self> {
        Ok(match method {
            Method::Gptq => Self::Moments(Moments::new(name, inputs)?),
            Method::Importance => Self::Squares(zeros(inputs, name)?),
        })
    }

    /// Bytes of the sums, and of what they give.
    pub(super) fn bytes(method: Method, inputs: usize) -> u64 {
        match method {
            Method::Gptq => Moments::bytes(inputs),
            Method::Importance => 4 * inputs as u64,
        }
    }

    /// Inputs of a row.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Moments(moments) => moments.inputs(),
            Self::Squares(sums) => sums.len(),
        }
    }

    /// Adds rows of inputs, `[rows, inputs]`, on the threads of the current pool. Any number of threads gives the same bits: each sum
    /// is computed by one.
    pub(super) fn add(&mut self, x: &[f32]) {
        match self {
            Self::Moments(moments) => moments.add(x),
            Self::Squares(sums) => {
                let inputs = sums.len();
                sums.par_chunks_mut(COLUMNS).enumerate().for_each(|(task, sums)| {
                    for row in x.chunks_exact(inputs) {
                        let row = &row[task * COLUMNS..][..sums.len()];
                        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x * x);
                    }
                });
            }
        }
    }

    /// The order in which the columns of `matrix` are rounded, last first, and the factor of the moments in this order. Columns and moments
    /// are rotated as those of `shape`, whose groups stay together.
    ///
    /// # Errors
    /// If the memory cannot be allocated, or the sums are not finite.
    pub(super) fn factor(
        self,
        matrix: &StoredMatrix,
        shape: &Shape,
    ) -> Result<(Vec<usize>, Factor)> {
        self.of_shape(shape).map_err(|error| match error {
            Error::NotFinite => Error::tensor(
                matrix.tensors()[0].path(),
                &matrix.name,
                "gets inputs that are not finite: weights before it are damaged, or do not match the config",
            ),
            other => other,
        })
    }

    fn of_shape(self, shape: &Shape) -> Result<(Vec<usize>, Factor)> {
        match self {
            Self::Moments(mut moments) => {
                moments.rotate(shape.rotation);
                let order = moments.order(shape);
                let factor = moments.factor(&order, DAMPING)?;
                Ok((order, factor))
            }
            Self::Squares(mut sums) => {
                let mean = sums.iter().copied().map(f64::from).sum::<f64>() / sums.len() as f64;
                if !mean.is_finite() {
                    return Err(Error::NotFinite);
                }
                // Without any inputs all columns count alike.
                let added = if mean > 0.0 { mean as f32 * DAMPING } else { 1.0 };
                sums.iter_mut().for_each(|sum| *sum += added);
                Ok(((0..sums.len()).collect(), Factor::Diagonal(sums)))
            }
        }
    }
}
