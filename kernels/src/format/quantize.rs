//! Quantization of weights: `f32` → integers and scales → panels.

use half::f16;

use super::minimum::FitRow;
use super::{Bits, GroupForm, Shape};
use crate::Isa;
use crate::rotation::Rotation;
use crate::simd::scalar::Scalar;
use crate::simd::{BLOCK, LANES};

/// A weight that cannot be quantized: it is not finite, or its scale exceeds `f16`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unquantizable {
    /// Its column.
    pub col: usize,
    /// Its value.
    pub value: f32,
}

/// Quantizes one row: `row[i] ≈ scales[group(i)] · integers[i]`, plus the offset of the group if it has one.
///
/// Eight bits: the scale is the one of the least squared error among those that map `max|w|` to 127, 126, … or 120. Four bits use all of −8..=7: the sign of the scale makes the weight of largest magnitude
/// negative, and the scale is the one of the least squared error among those that map this weight to −8, −7.5, −7 or −6.5. With a
/// minimum, scale and offset are searched by the squared error; it is at most that of the range from the minimum to the maximum.
/// With a rotation, integers and scales are those of the rotated row.
///
/// # Errors
/// If a weight is not finite or too large.
///
/// # Panics
/// If `shape` has zero points, or cannot be rotated and is, `row` or `integers` does not have length `shape.cols`, or `scales` length `shape.row_scales()`.
pub fn quantize_row(
    shape: &Shape,
    row: &[f32],
    integers: &mut [i8],
    scales: &mut [f16],
) -> Result<(), Unquantizable> {
    assert!(row.len() == shape.cols && integers.len() == shape.cols, "columns of the row");
    assert_eq!(scales.len(), shape.row_scales(), "scales of the row");
    assert_ne!(shape.form, GroupForm::ZeroPoint, "zero points are read, not chosen");
    if shape.rotation == Rotation::Blocks {
        return quantize_rotated(shape, row, integers, scales);
    }
    let group = shape.group_blocks.saturating_mul(BLOCK);
    if shape.form == GroupForm::Minimum {
        return quantize_with_minimum(row, group, integers, scales);
    }
    let groups = row.chunks(group).zip(integers.chunks_mut(group)).zip(scales);
    for (index, ((row, integers), scale)) in groups.enumerate() {
        let at = largest(row);
        let (largest, refused) =
            (row[at], Unquantizable { col: index * group + at, value: row[at] });
        if !largest.is_finite() {
            return Err(refused);
        }
        *scale = match shape.bits {
            Bits::Four => best_scale(row, largest, &[-8.0, -7.5, -7.0, -6.5], limits(Bits::Four)),
            Bits::Eight => best_scale(row, largest.abs(), &LARGEST_LEVELS, limits(Bits::Eight)),
        };
        if !scale.is_finite() {
            return Err(refused);
        }
        round_to(row, scale.to_f32(), shape.bits, integers);
    }
    Ok(())
}

fn quantize_rotated(
    shape: &Shape,
    row: &[f32],
    integers: &mut [i8],
    scales: &mut [f16],
) -> Result<(), Unquantizable> {
    assert_eq!(shape.rotated(), *shape, "a rotation of four bits or of part of a block");
    // Errors name a weight of the row, not of the rotated one.
    if let Some(col) = row.iter().position(|w| !w.is_finite()) {
        return Err(Unquantizable { col, value: row[col] });
    }
    let mut rotated = row.to_vec();
    shape.rotation.apply(&mut rotated);
    let shape = Shape { rotation: Rotation::None, ..*shape };
    quantize_row(&shape, &rotated, integers, scales).map_err(|bad| {
        let first = bad.col - bad.col % BLOCK;
        let col = first + largest(&row[first..][..BLOCK]);
        Unquantizable { col, value: row[col] }
    })
}

fn quantize_with_minimum(
    row: &[f32],
    group: usize,
    integers: &mut [i8],
    scales: &mut [f16],
) -> Result<(), Unquantizable> {
    let refused = |col: usize| Err(Unquantizable { col, value: row[col] });
    if let Some(col) = row.iter().position(|w| !w.is_finite()) {
        return refused(col);
    }
    // All instruction sets give the same.
    let isa = Isa::choose().unwrap_or(Isa::Scalar(Scalar));
    isa.run(FitRow { row, group, scales });
    let groups = row.chunks(group).zip(integers.chunks_mut(group)).zip(scales.as_chunks().0);
    for (index, ((row, integers), &[scale, offset])) in groups.enumerate() {
        if !(scale.is_finite() && offset.is_finite()) {
            return refused(index * group + largest(row));
        }
        let (scale, offset) = (scale.to_f32(), offset.to_f32());
        let inverse = inverse(scale);
        for (integer, w) in integers.iter_mut().zip(row) {
            *integer = ((w - offset) * inverse).round_ties_even().clamp(-8.0, 7.0) as i8;
        }
    }
    Ok(())
}

/// The index of the first weight that is not finite, or else of the one of largest magnitude.
fn largest(row: &[f32]) -> usize {
    let mut at = 0;
    for (col, w) in row.iter().enumerate() {
        if !w.is_finite() {
            return col;
        }
        if w.abs() > row[at].abs() {
            at = col;
        }
    }
    at
}

/// The levels that the weight of largest magnitude may have with eight bits. The steps differ little, so the rounding errors of the other
/// weights are as if drawn anew, and the least of eight sums of squares is about a fifth less than one.
const LARGEST_LEVELS: [f32; 8] = [127.0, 126.0, 125.0, 124.0, 123.0, 122.0, 121.0, 120.0];

/// The scale of the least squared error among those that map `largest` to one of `levels`.
fn best_scale<const N: usize>(
    row: &[f32],
    largest: f32,
    levels: &[f32; N],
    limits: (f32, f32),
) -> f16 {
    let candidates = levels.map(|level| f16::from_f32(largest / level));
    let mut best = (f32::INFINITY, candidates[0]);
    for scale in candidates {
        let error = squared_error(row, scale.to_f32(), limits);
        if error < best.0 {
            best = (error, scale);
        }
    }
    best.1
}

fn squared_error(row: &[f32], scale: f32, (low, high): (f32, f32)) -> f32 {
    let inverse = inverse(scale);
    // Added and subtracted, it rounds to the nearest integer, ties to even; unlike a call, the compiler vectorizes that.
    const ROUND: f32 = 12_582_912.0;
    let square = |w: f32| {
        let level = ((w * inverse).clamp(low, high) + ROUND) - ROUND;
        (w - level * scale) * (w - level * scale)
    };
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for chunk in chunks {
        for i in 0..LANES {
            sums[i] += square(chunk[i]);
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|&w| square(w)).sum::<f32>()
}

/// The least and the largest integer that are written.
fn limits(bits: Bits) -> (f32, f32) {
    match bits {
        Bits::Four => (-8.0, 7.0),
        Bits::Eight => (-127.0, 127.0),
    }
}

fn round_to(row: &[f32], scale: f32, bits: Bits, integers: &mut [i8]) {
    let (low, high) = limits(bits);
    let inverse = inverse(scale);
    for (integer, w) in integers.iter_mut().zip(row) {
        *integer = (w * inverse).round_ties_even().clamp(low, high) as i8;
    }
}

/// `1 / scale`, or 0 for a scale that `f16` rounded to 0.
pub(super) fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// Writes up to eight rows of integers, `[rows][cols]`, as one panel; missing rows and columns become zero weights.
///
/// # Panics
/// If `shape.cols` is 0, `panel` does not have length `shape.panel_bytes()`, or `integers` is not a whole number of rows, at most
/// eight.
pub fn pack_panel(shape: &Shape, integers: &[i8], panel: &mut [u8]) {
    let whole = shape.cols > 0 && integers.len().is_multiple_of(shape.cols);
    assert!(whole && integers.len() / shape.cols <= LANES, "rows of the panel");
    assert_eq!(panel.len(), shape.panel_bytes(), "bytes of the panel");
    panel.fill(match shape.bits {
        Bits::Four => 0x88,
        Bits::Eight => 0,
    });
    let (runs, _) = panel.as_chunks_mut::<32>();
    for (lane, row) in integers.chunks_exact(shape.cols).enumerate() {
        match shape.bits {
            Bits::Four => {
                for (run, columns) in runs.iter_mut().zip(row.chunks(8)) {
                    for (j, &integer) in columns.iter().enumerate() {
                        // Adding the offset 8 turns −8..=7 into 0..=15; in four bits, that flips the top bit.
                        let nibble = (integer as u8 & 15) ^ 8;
                        let byte = &mut run[4 * lane + j % 4];
                        *byte =
                            if j < 4 { *byte & 0xf0 | nibble } else { *byte & 15 | nibble << 4 };
                    }
                }
            }
            Bits::Eight => {
                for (run, columns) in runs.iter_mut().zip(row.chunks(4)) {
                    for (byte, &integer) in run[4 * lane..].iter_mut().zip(columns) {
                        *byte = integer as u8;
                    }
                }
            }
        }
    }
}

/// Writes the scales of up to eight rows, `[rows][groups]`, as one panel's `[groups][8]`; missing rows get 0. If there are offsets, they
/// and the scales of a row are [`Shape::row_scales`] in place of `groups`.
///
/// # Panics
/// If `groups` is 0 or the lengths do not fit.
pub fn pack_scales(groups: usize, scales: &[f16], panel: &mut [f16]) {
    let whole = groups > 0 && scales.len().is_multiple_of(groups);
    assert!(whole && scales.len() / groups <= LANES, "scales of the panel's rows");
    assert_eq!(Some(panel.len()), groups.checked_mul(LANES), "scales of the panel");
    panel.fill(f16::ZERO);
    for (lane, row) in scales.chunks_exact(groups).enumerate() {
        for (group, &scale) in row.iter().enumerate() {
            panel[group * LANES + lane] = scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::values;
    use crate::{Matrix, Panels, Storage};

    fn shapes() -> impl Strategy<Value = Shape> {
        let group = prop_oneof![Just(32), Just(64), Just(128), Just(0)];
        let four = |form| Just((Bits::Four, form));
        let kind = prop_oneof![
            four(GroupForm::Scale),
            four(GroupForm::Minimum),
            Just((Bits::Eight, GroupForm::Scale))
        ];
        let sizes = (1usize..20, 1usize..300, any::<bool>());
        (sizes, kind, group).prop_map(|((rows, cols, rotated), (bits, form), group)| {
            let rotated = rotated && bits == Bits::Eight;
            let cols = if rotated { cols.next_multiple_of(BLOCK) } else { cols };
            let shape = match group {
                0 => Shape::per_row(rows, cols, bits),
                group => Shape::grouped(rows, cols, bits, group),
            };
            let shape = shape.with_form(form);
            if rotated { shape.rotated() } else { shape }
        })
    }

    proptest! {
        /// The error is at most half a step, or the one step that four bits lack at +8; of rotated weights, before they are rotated back. With a minimum, the sum of the squared errors is
        /// at most that of half steps of the range.
        #[test]
        fn a_quantized_matrix_is_close_to_its_source(
            (shape, weights) in shapes().prop_flat_map(|s| (Just(s), values(s.rows * s.cols))),
        ) {
            let (bytes, scales) = crate::testing::quantize(&shape, &weights);
            let panels = Panels::new(shape, &bytes, &scales);
            let matrix = Matrix::new(shape.rows, shape.cols, Storage::Panels(panels));
            let mut row = vec![f32::NAN; shape.cols];
            for (index, expected) in weights.chunks(shape.cols).enumerate() {
                matrix.row(index, &mut row);
                let mut expected = expected.to_vec();
                shape.rotation.apply(&mut row);
                shape.rotation.apply(&mut expected);
                for (group, expected) in expected.chunks(shape.group_blocks * BLOCK).enumerate() {
                    let largest = expected.iter().fold(0.0f32, |m, w| m.max(w.abs()));
                    let found = &row[group * shape.group_blocks * BLOCK..][..expected.len()];
                    let low = expected.iter().copied().fold(f32::INFINITY, f32::min);
                    let high = expected.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let bound = match (shape.bits, shape.form) {
                        (Bits::Four, GroupForm::Scale) => largest * 1.1 / 6.5,
                        (Bits::Eight, _) => largest * 0.531 / 127.0,
                        _ => {
                            // Also half a step of the `f16` of the minimum.
                            let half = (high - low) / 30.0 + largest / 1000.0;
                            (expected.len() as f32).sqrt() * half
                        }
                    };
                    for (found, expected) in found.iter().zip(expected) {
                        prop_assert!((found - expected).abs() <= bound + 1e-7, "{found} {expected}");
                    }
                }
            }
        }
    }

    proptest! {
        /// Eight bits: the squared error is at most that of the scale `max|w| / 127`.
        #[test]
        fn a_searched_scale_is_not_worse(row in values(64)) {
            let shape = Shape::grouped(1, 64, Bits::Eight, 32);
            let (mut integers, mut scales) = ([0; 64], [f16::NAN; 2]);
            quantize_row(&shape, &row, &mut integers, &mut scales).unwrap();
            let groups = row.chunks(32).zip(integers.chunks_mut(32)).zip(scales);
            for ((row, integers), scale) in groups {
                let error = |integers: &[i8], scale: f16| -> f64 {
                    let weights = row.iter().zip(integers);
                    weights
                        .map(|(&w, &q)| (f64::from(w) - f64::from(q) * f64::from(scale)).powi(2))
                        .sum()
                };
                let found = error(integers, scale);
                let largest = row.iter().fold(0.0f32, |m, w| m.max(w.abs()));
                let plain = f16::from_f32(largest / 127.0);
                round_to(row, plain.to_f32(), Bits::Eight, integers);
                let plain = error(integers, plain);
                prop_assert!(found <= plain * 1.0001, "{found} {plain}");
            }
        }
    }

    #[test]
    fn the_layout_is_as_drawn() {
        let shape = Shape::per_row(8, 32, Bits::Four);
        let integers: Vec<i8> = (0..256).map(|i| ((i / 32 + i % 32) % 16 - 8) as i8).collect();
        let mut panel = vec![0; shape.panel_bytes()];
        pack_panel(&shape, &integers, &mut panel);
        let weight = |row: usize, k: usize| (row + k) as u8 % 16;
        for (row, k) in [(0, 0), (3, 2), (7, 8), (5, 27)] {
            let byte = panel[k / 8 * 32 + 4 * row + k % 4];
            assert_eq!((byte & 15, byte >> 4), (weight(row, k), weight(row, k + 4)), "{row} {k}");
        }
    }

    #[test]
    fn what_cannot_be_quantized_is_named() {
        for form in [GroupForm::Scale, GroupForm::Minimum] {
            let shape = Shape::grouped(1, 64, Bits::Four, 32).with_form(form);
            let mut row = vec![1.0; 64];
            let mut integers = vec![0; 64];
            let mut scales = vec![f16::ZERO; shape.row_scales()];
            for bad in [f32::NAN, f32::INFINITY, 1e9] {
                row[40] = bad;
                let error = quantize_row(&shape, &row, &mut integers, &mut scales).unwrap_err();
                assert_eq!(error.col, 40, "{error:?}");
            }
        }
    }
}
