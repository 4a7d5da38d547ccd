//! The formats that matrices can have in a model of mixed bits, and the choice among them.
//!
//! A [`Bucket`] is a set of matrices that share a format. Each format takes some bytes and loses something: an estimate of the
//! divergence of the model's predictions that the bucket causes in this format. Losses of buckets add up. All buckets begin with the
//! format of the fewest bytes, and then the step of the greatest gain per byte is taken, again and again, while the bytes allow it.

use std::collections::BTreeMap;

use glm_kernels::{Bits, GroupForm, Shape};
use serde::{Deserialize, Serialize};

use crate::files::weights::StoredMatrix;

/// The format of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MatrixFormat {
    /// Bits of a weight: 4 or 8.
    bits: usize,
    /// Columns of a group.
    group: usize,
    /// Whether a group stores a minimum. Only with four bits.
    minimum: bool,
}

/// The formats to choose from.
pub(crate) const FORMATS: [MatrixFormat; 4] = [
    MatrixFormat { bits: 4, group: 128, minimum: true },
    MatrixFormat { bits: 4, group: 64, minimum: true },
    MatrixFormat { bits: 4, group: 32, minimum: true },
    MatrixFormat { bits: 8, group: 32, minimum: false },
];

/// The format of each matrix, by name.
pub(crate) type Formats = BTreeMap<String, MatrixFormat>;

impl MatrixFormat {
    /// A matrix of this format.
    pub(crate) fn shape(self, [rows, cols]: [usize; 2]) -> Shape {
        let bits = if self.bits == 8 { Bits::Eight } else { Bits::Four };
        let form = if self.minimum { GroupForm::Minimum } else { GroupForm::Scale };
        Shape::grouped(rows, cols, bits, self.group).with_form(form).rotated()
    }

    /// Bytes of a matrix of this format, with scales and minima.
    pub(crate) fn bytes(self, matrix: &StoredMatrix) -> u64 {
        let shape = self.shape(matrix.size());
        (shape.bytes() + 2 * shape.scales()) as u64
    }
}

/// Matrices that share a format, in each of [`FORMATS`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    pub(super) bytes: [u64; FORMATS.len()],
    pub(super) losses: [f64; FORMATS.len()],
}

/// The index of the format of each bucket. All together take at most `most` bytes, if there is a format for each with which they do.
pub(super) fn choose(buckets: &[Bucket], most: u64) -> Vec<usize> {
    let paths: Vec<_> = buckets.iter().map(Bucket::path).collect();
    let mut chosen: Vec<_> = paths.iter().map(|path| path[0]).collect();
    let mut bytes: u64 = buckets.iter().zip(&chosen).map(|(bucket, &at)| bucket.bytes[at]).sum();
    let mut steps: Vec<_> = (0..buckets.len())
        .flat_map(|index| paths[index].windows(2).map(move |step| (index, step[0], step[1])))
        .collect();
    // Along a path the gain falls, and the order of equal ones stays: so the steps of a bucket come in their order.
    steps.sort_by(|a, b| {
        let gain = |&(index, from, to): &(usize, usize, usize)| buckets[index].gain(from, to);
        gain(b).total_cmp(&gain(a))
    });
    for (index, from, to) in steps {
        let bucket = &buckets[index];
        let more = bucket.bytes[to] - bucket.bytes[from];
        // What follows a step that is too large is left out, too; smaller ones of other buckets may fit.
        if chosen[index] == from && bytes + more <= most {
            chosen[index] = to;
            bytes += more;
        }
    }
    chosen
}

impl Bucket {
    /// Loss that is saved for each byte that `to` takes more than `from`.
    fn gain(&self, from: usize, to: usize) -> f64 {
        (self.losses[from] - self.losses[to]) / (self.bytes[to] - self.bytes[from]) as f64
    }

    /// The formats on the lower convex hull of bytes and losses, those of the fewest bytes first.
    fn path(&self) -> Vec<usize> {
        let mut order: Vec<_> = (0..FORMATS.len()).collect();
        order.sort_by(|&a, &b| {
            let by_loss = || self.losses[a].total_cmp(&self.losses[b]);
            self.bytes[a].cmp(&self.bytes[b]).then_with(by_loss)
        });
        let mut path: Vec<usize> = Vec::new();
        for next in order {
            let is_better = |&last: &usize| self.losses[next] < self.losses[last];
            if !path.last().is_none_or(is_better) {
                continue;
            }
            // Of equal bytes, the first has the least loss.
            while let [.., before, last] = path[..]
                && self.gain(before, last) <= self.gain(last, next)
            {
                path.pop();
            }
            path.push(next);
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bucket(bytes: u64, loss: f64) -> Bucket {
        // As measured: bytes in eighths of a bit, losses relative to the second format.
        let bytes = [34, 36, 40, 68].map(|eighths| eighths * bytes);
        Bucket { bytes, losses: [1.27, 1.0, 0.62, 0.006].map(|part| part * loss) }
    }

    #[test]
    fn sensitive_matrices_get_better_formats() {
        let buckets = [bucket(100, 0.01), bucket(100, 0.1), bucket(100, 0.03)];
        let chosen = choose(&buckets, 3 * 3600);
        assert!(chosen[1] > chosen[2] && chosen[2] >= chosen[0], "{chosen:?}");
        // The same loss in fewer bytes counts more.
        let chosen = choose(&[bucket(1000, 0.05), bucket(100, 0.05)], 1100 * 36);
        assert!(chosen[1] > chosen[0], "{chosen:?}");
        assert_eq!(choose(&buckets, 0), [0; 3]);
        assert_eq!(choose(&buckets, u64::MAX), [3; 3]);
    }

    #[test]
    fn what_is_no_gain_is_not_chosen() {
        let bytes = [34, 36, 40, 68];
        let of = |losses| choose(&[Bucket { bytes, losses }], 1000);
        assert_eq!(of([0.0; 4]), [0]);
        assert_eq!(of([1.0, 0.5, 0.7, 0.5]), [1]);
        // Small matrices take the same bytes in several formats.
        let bucket = Bucket { bytes: [8, 10, 10, 16], losses: [1.0, 0.5, 0.4, 0.3] };
        assert_eq!(choose(&[bucket], 15), [2]);
        assert_eq!(choose(&[bucket], 16), [3]);
    }

    proptest! {
        /// Against every combination: the budget is kept, and on a budget that the steps meet exactly, no combination is better.
        #[test]
        fn no_combination_of_as_many_bytes_loses_less(
            buckets in prop::collection::vec((1u64..20, prop::array::uniform4(0f64..1.0)), 1..5),
            most in 30u64..1500,
        ) {
            let buckets: Vec<_> = buckets
                .into_iter()
                .map(|(size, losses)| Bucket { losses, ..bucket(size, 0.0) })
                .collect();
            let chosen = choose(&buckets, most);
            let sums = |formats: &[usize]| {
                let each = || buckets.iter().zip(formats);
                let bytes: u64 = each().map(|(bucket, &at)| bucket.bytes[at]).sum();
                (bytes, each().map(|(bucket, &at)| bucket.losses[at]).sum::<f64>())
            };
            let (bytes, loss) = sums(&chosen);
            let least: u64 = buckets.iter().map(|bucket| bucket.bytes[0]).sum();
            prop_assert!(bytes <= most.max(least), "{bytes} {most}");
            // The largest step may have been too large; without it, nothing of fewer bytes is better.
            let largest = buckets.iter().map(|bucket| bucket.bytes[3] - bucket.bytes[0]).max();
            let count = FORMATS.len().pow(buckets.len() as u32);
            for code in 0..count {
                let digit = |at: usize| code / FORMATS.len().pow(at as u32) % FORMATS.len();
                let other: Vec<_> = (0..buckets.len()).map(digit).collect();
                let (other_bytes, other_loss) = sums(&other);
                if other_bytes + largest.unwrap_or(0) <= most {
                    prop_assert!(loss <= other_loss + 1e-9, "{chosen:?} {other:?}");
                }
            }
        }
    }
}
