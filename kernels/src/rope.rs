//! Rotary position embedding: each pair of elements is rotated by an angle proportional to the position.

/// Cosine and sine of an angle.
pub type Angle = [f32; 2];

/// Writes the angles of `position`: `out[i]` is the cosine and sine of `position · inverse_frequency[i]`, the product rounded to
/// `f32`.
///
/// # Panics
/// If the lengths differ.
#[track_caller]
pub fn angles(inverse_frequency: &[f32], position: f32, out: &mut [Angle]) {
    assert_eq!(out.len(), inverse_frequency.len(), "angles");
    for (out, frequency) in out.iter_mut().zip(inverse_frequency) {
        // In f64 and from a portable library, so that every platform rounds to the same f32.
        let (sin, cos) = libm::sincos(f64::from(position * frequency));
        *out = [cos as f32, sin as f32];
    }
}

/// Rotates each pair `x[i]`, `x[i + n/2]` by angle `i`, in place; `n` is the length of `x`.
///
/// # Panics
/// Unless `x` is twice as long as `angles`.
#[track_caller]
pub fn rotate_halves(x: &mut [f32], angles: &[Angle]) {
    assert_eq!(x.len(), 2 * angles.len(), "elements of a rotated part");
    let (a, b) = x.split_at_mut(angles.len());
    a.iter_mut().zip(b).zip(angles).for_each(|((a, b), angle)| rotate(a, b, *angle));
}

/// Rotates each pair `x[2i]`, `x[2i + 1]` by angle `i`, in place.
///
/// # Panics
/// Unless `x` is twice as long as `angles`.
#[track_caller]
pub fn rotate_pairs(x: &mut [f32], angles: &[Angle]) {
    assert_eq!(x.len(), 2 * angles.len(), "elements of a rotated part");
    x.as_chunks_mut().0.iter_mut().zip(angles).for_each(|([a, b], angle)| rotate(a, b, *angle));
}

#[inline(always)]
fn rotate(a: &mut f32, b: &mut f32, [cos, sin]: Angle) {
    (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_rotated_by_its_angle_and_keeps_its_length() {
        let mut rotated = [[0.0; 2]; 2];
        angles(&[1.0, 0.25], 8.0, &mut rotated);
        let close = |a: f32, b: f64| assert!((f64::from(a) - b).abs() < 1e-6, "{a} {b}");
        let mut x = [1.0, 3.0, 0.0, 4.0];
        rotate_halves(&mut x, &rotated);
        close(x[0], 8f64.cos());
        close(x[2], 8f64.sin());
        close(x[1], 3.0 * 2f64.cos() - 4.0 * 2f64.sin());
        close(x[1].hypot(x[3]), 5.0);

        let mut pairs = [1.0, 0.0, 3.0, 4.0];
        rotate_pairs(&mut pairs, &rotated);
        assert_eq!(pairs, [x[0], x[2], x[1], x[3]]);
    }
}
