//! The second moments of the inputs of a matrix, and their Cholesky factor.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{
    LltParams, LltRegularization, cholesky_in_place, cholesky_in_place_scratch,
};
use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::prelude::*;
use faer::{Accum, Par, Spec};
use glm_kernels::{BLOCK, Rotation, Shape};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::memory::{no_memory, zeros};

/// Columns of the moments that are summed together.
const COLUMNS: usize = 256;

/// `Σ xᵀ·x` over rows of inputs: a symmetric matrix, of which the upper triangle is kept.
pub(super) struct Moments {
    inputs: usize,
    /// Column-major.
    sums: Vec<f32>,
}

impl Moments {
    /// No inputs yet of the matrix `name`.
    ///
    /// # Errors
    /// If the memory cannot be allocated.
    pub(super) fn new(name: &str, inputs: usize) -> Result<Self> {
        Ok(Self { inputs, sums: zeros(inputs * inputs, name)? })
    }

    /// Bytes of the moments, and of their factor, which takes their memory.
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

    /// Makes them the moments of rotated inputs.
    pub(super) fn rotate(&mut self, rotation: Rotation) {
        let n = self.inputs;
        if rotation == Rotation::None || n == 0 {
            return;
        }
        for j in 0..n {
            for i in j + 1..n {
                self.sums[j * n + i] = self.at(i, j);
            }
        }
        // R·M, and R·(R·M)ᵀ = R·M·Rᵀ, because M is symmetric.
        self.sums.par_chunks_exact_mut(n).for_each(|column| rotation.apply(column));
        for j in 0..n {
            for i in j + 1..n {
                self.sums.swap(j * n + i, i * n + j);
            }
        }
        self.sums.par_chunks_exact_mut(n).for_each(|column| rotation.apply(column));
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
    /// the diagonal. It takes the memory of the moments.
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
        // Without any inputs the weights are rounded to the nearest levels.
        let added = if sum > 0.0 { (sum / n as f64 * f64::from(damping)) as f32 } else { 1.0 };
        // From the upper triangle to the lower one.
        for j in 0..n {
            self.sums[j * n + j] = diagonal[order[j]] + added;
            for i in j + 1..n {
                self.sums[j * n + i] = self.at(order[i], order[j]);
            }
        }
        factorize(MatMut::from_column_major_slice_mut(&mut self.sums, n, n), added)?;
        Ok(Factor::Cholesky { inputs: n, values: self.sums })
    }
}

/// The Cholesky factor `L` of moments.
pub(super) enum Factor {
    /// In the lower triangle, column-major, `[inputs, inputs]`.
    Cholesky { inputs: usize, values: Vec<f32> },
    /// `Lₘₘ²` of a diagonal factor, `[inputs]`.
    Diagonal(Vec<f32>),
}

impl Factor {
    /// The factor, if it is not diagonal.
    pub(super) fn matrix(&self) -> Option<MatRef<'_, f32>> {
        match self {
            Self::Cholesky { inputs, values } => {
                Some(MatRef::from_column_major_slice(values, *inputs, *inputs))
            }
            Self::Diagonal(_) => None,
        }
    }

    /// The factor, if it is diagonal; else nothing.
    pub(super) fn diagonal(&self) -> &[f32] {
        match self {
            Self::Cholesky { .. } => &[],
            Self::Diagonal(squares) => squares,
        }
    }
}

/// Replaces the lower triangle by its Cholesky factor. `least` was added to the diagonal of a matrix without negative eigenvalues: so the
/// squares of the diagonal of the factor are not less, and where rounding has made one less, `least` is taken.
fn factorize(mut matrix: MatMut<'_, f32>, least: f32) -> Result<()> {
    let params: Spec<LltParams, f32> = Spec::default();
    let scratch = cholesky_in_place_scratch::<f32>(matrix.nrows(), Par::rayon(0), params);
    let mut buffer = MemBuffer::try_new(scratch)
        .map_err(|_| no_memory(scratch.size_bytes() as u64, "the Cholesky factor"))?;
    let stack = MemStack::new(&mut buffer);
    let regularization = LltRegularization {
        dynamic_regularization_delta: least,
        dynamic_regularization_epsilon: least / 2.0,
    };
    let done = cholesky_in_place(matrix.rb_mut(), regularization, Par::rayon(0), stack, params);
    done.map_err(|_| Error::NotFinite)?;
    // The library divides by the root of `least`, but does not write it.
    for i in 0..matrix.nrows() {
        if matrix[(i, i)] < (least / 2.0).sqrt() {
            matrix[(i, i)] = least.sqrt();
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use glm_kernels::Bits;

    use super::*;

    /// Values that look random, from -1 to 1.
    pub(in crate::calibrate) fn noise(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    #[test]
    fn the_factor_is_that_of_the_damped_moments_in_order() {
        // More than a part of columns, more than a block of the library, and a group that is not whole.
        for (inputs, rows) in [(1, 3), (48, 7), (80, 200), (300, 400)] {
            let x = noise(rows * inputs, 7);
            let mut moments = Moments::new("x", inputs).unwrap();
            let (first, second) = x.split_at(rows / 2 * inputs);
            moments.add(first);
            moments.add(second);
            let expected = |i: usize, j: usize| -> f64 {
                x.chunks_exact(inputs).map(|x| f64::from(x[i]) * f64::from(x[j])).sum()
            };
            let mean = (0..inputs).map(|i| expected(i, i)).sum::<f64>() / inputs as f64;

            let shape = Shape::grouped(8, inputs, Bits::Four, 64);
            let order = moments.order(&shape);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert!(sorted.iter().copied().eq(0..inputs), "{order:?}");
            for group in order.chunks(64) {
                assert!(group.iter().all(|col| col / 64 == group[0] / 64), "{order:?}");
            }

            let factor = moments.factor(&order, 0.01).unwrap();
            let factor = factor.matrix().unwrap();
            for i in 0..inputs {
                for j in 0..=i {
                    let product: f64 = (0..=j)
                        .map(|k| f64::from(factor[(i, k)]) * f64::from(factor[(j, k)]))
                        .sum();
                    let damping = if i == j { 0.01 * mean } else { 0.0 };
                    let expected = expected(order[i], order[j]) + damping;
                    assert!((product - expected).abs() < 1e-4 * mean, "{product} {expected}");
                }
            }
        }
    }

    #[test]
    fn rotated_moments_are_those_of_rotated_inputs() {
        for (inputs, rows) in [(32, 3), (96, 50), (320, 400)] {
            let mut x = noise(rows * inputs, 7);
            let [mut moments, mut expected] = [0, 1].map(|_| Moments::new("x", inputs).unwrap());
            moments.add(&x);
            moments.rotate(Rotation::Blocks);
            Rotation::Blocks.apply(&mut x);
            expected.add(&x);
            for i in 0..inputs {
                for j in 0..inputs {
                    let (found, expected) = (moments.at(i, j), expected.at(i, j));
                    assert!((found - expected).abs() < 1e-5 * rows as f32, "{found} {expected}");
                }
            }
        }
    }

    #[test]
    fn moments_that_are_not_definite_have_a_factor() {
        // As rounding might make it: no factor, even with the damping.
        let mut moments = Moments::new("x", 2).unwrap();
        moments.sums = vec![1.0, 0.0, 1.5, 1.0];
        let factor = moments.factor(&[1, 0], 0.01).unwrap();
        let factor = factor.matrix().unwrap();
        assert!((factor[(0, 0)] - 1.01f32.sqrt()).abs() < 1e-6);
        assert!((factor[(1, 0)] * factor[(0, 0)] - 1.5).abs() < 1e-6);
        assert!((factor[(1, 1)] - 0.1).abs() < 1e-6);
        // The same inputs everywhere: one direction.
        let mut moments = Moments::new("x", 200).unwrap();
        moments.add(&[0.3; 200 * 500]);
        let order: Vec<_> = (0..200).collect();
        let factor = moments.factor(&order, 0.01).unwrap();
        let least = 500.0 * 0.09 * 0.01;
        let is_damped = |i| factor.matrix().unwrap()[(i, i)].powi(2) > 0.45 * least;
        assert!((0..200).all(is_damped));

        let zeros = Moments::new("x", 3).unwrap().factor(&[0, 1, 2], 0.01).unwrap();
        assert_eq!(zeros.matrix().unwrap()[(2, 2)], 1.0);
        let mut infinite = Moments::new("x", 2).unwrap();
        infinite.add(&[f32::INFINITY, 1.0]);
        assert!(matches!(infinite.factor(&[0, 1], 0.01), Err(Error::NotFinite)));
    }
}
