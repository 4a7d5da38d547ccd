//! Rotary position embedding.

/// `cos` and `sin` of every position's angles.
///
/// `angle[position][i] = position · inverse_frequency[i]`, the product rounded to `f32`, its cosine and sine computed from that.
pub struct RopeTable {
    /// Angles of one position.
    frequencies: usize,
    /// `[positions][frequencies]` of `(cos, sin)`
    angles: Vec<(f32, f32)>,
}

impl RopeTable {
    /// A table of `positions` rows.
    pub fn new(inverse_frequency: &[f32], positions: usize) -> Self {
        let angle = |position: usize, frequency: f32| {
            // In f64 from one portable library, so that every platform rounds to the same f32.
            let angle = f64::from(position as f32 * frequency);
            (libm::cos(angle) as f32, libm::sin(angle) as f32)
        };
        let row = |p| inverse_frequency.iter().map(move |&f| angle(p, f));
        Self {
            frequencies: inverse_frequency.len(),
            angles: (0..positions).flat_map(row).collect(),
        }
    }

    /// Rotates `x[i]` and `x[i + n/2]` against each other by angle `i` of `position`, in place; `n` is the length of `x`.
    ///
    /// # Panics
    /// If `x` is not twice as long as the table has frequencies, or `position` is not in the table.
    #[track_caller]
    pub fn rotate_halves(&self, x: &mut [f32], position: usize) {
        let n = self.frequencies;
        assert_eq!(x.len(), 2 * n, "elements of a rotated part");
        let angles = &self.angles[position * n..][..n];
        let (a, b) = x.split_at_mut(n);
        for ((a, b), (cos, sin)) in a.iter_mut().zip(b).zip(angles) {
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_turns_by_its_angle_and_keeps_its_length() {
        let table = RopeTable::new(&[1.0, 0.25], 9);
        let mut x = [1.0, 3.0, 0.0, 4.0];
        table.rotate_halves(&mut x, 8);
        let close = |a: f32, b: f64| assert!((f64::from(a) - b).abs() < 1e-6, "{a} {b}");
        close(x[0], 8f64.cos());
        close(x[2], 8f64.sin());
        close(x[1], 3.0 * 2f64.cos() - 4.0 * 2f64.sin());
        close(x[1].hypot(x[3]), 5.0);
    }
}
