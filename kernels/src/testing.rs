//! Shapes, values and comparisons for the tests.

use std::ops::Range;

use half::f16;
use proptest::prelude::*;

use crate::format::{GroupForm, Shape};
use crate::quantize::{pack_panel, pack_scales, quantize_row};
use crate::{BLOCK, Isa, Q8Rows};

/// `n` values distributed like activations: mostly small, a few large, some zero. They are generated from one random seed,
/// because a proptest strategy per value, for up to a hundred thousand values, takes longer than the test itself.
pub(crate) fn values(n: usize) -> impl Strategy<Value = Vec<f32>> {
    any::<u64>().prop_map(move |mut state| {
        // SplitMix64.
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        let value = |bits: u64| {
            let unit = (bits >> 40) as f32 / (1 << 23) as f32 - 1.0;
            match bits % 23 {
                0 | 1 => 0.0,
                2 => 40.0 * unit,
                _ => 2.0 * unit,
            }
        };
        (0..n).map(|_| value(next())).collect()
    })
}

/// Asserts `|y − expected| ≤ tolerance · max(|expected|, 1)` for all elements. An element that was not written is NaN and fails.
#[track_caller]
pub(crate) fn close(y: &[f32], expected: &[f32], tolerance: f32, isa: Isa) {
    let scale: Vec<_> = expected.iter().map(|e| e.abs().max(1.0)).collect();
    close_to(y, expected, &scale, tolerance, isa);
}

/// Asserts `|y − expected| ≤ tolerance · scale` for all elements.
#[track_caller]
pub(crate) fn close_to(y: &[f32], expected: &[f32], scale: &[f32], tolerance: f32, isa: Isa) {
    assert_eq!(y.len(), expected.len());
    for (i, ((y, e), scale)) in y.iter().zip(expected).zip(scale).enumerate() {
        let error = (y - e).abs() / scale;
        assert!(error <= tolerance, "{isa}: [{i}] is {y}, should be {e} (error {error:e})");
    }
}

/// Every `n`-th `f32` of a range, in order of bit patterns, with both signs. If `PROPTEST_CASES` is less than the default of 256,
/// the number of values is reduced in proportion.
pub(crate) fn every_nth_f32(range: Range<f32>, n: usize) -> impl Iterator<Item = f32> {
    // An odd step, so that all patterns of low bits occur.
    let n = (n * (256 / ProptestConfig::default().cases.max(1)).max(1) as usize) | 1;
    let positive = (0..=f32::MAX.to_bits()).step_by(n).map(f32::from_bits);
    positive.flat_map(|x| [x, -x]).filter(move |x| range.contains(x))
}

/// Quantizes a matrix; returns the bytes and scales of its panels. Zero points are all of 0..=16 in turn, whatever the weights are.
pub(crate) fn quantize(shape: &Shape, weights: &[f32]) -> (Vec<u8>, Vec<f16>) {
    if shape.form == GroupForm::ZeroPoint {
        let (bytes, scales) = quantize(&shape.with_form(GroupForm::Scale), weights);
        let zeros = |group| {
            [0, 1, 2, 3, 4, 5, 6, 7].map(|row| -f16::from_f32(((group * 5 + row) % 17) as f32))
        };
        let groups = scales.as_chunks::<8>().0.iter().enumerate();
        return (
            bytes,
            groups.flat_map(|(index, scales)| [*scales, zeros(index)]).flatten().collect(),
        );
    }
    let mut bytes = vec![0; shape.bytes()];
    let mut scales = vec![f16::NAN; shape.scales()];
    let panels = bytes
        .chunks_mut(shape.panel_bytes())
        .zip(scales.chunks_mut(shape.row_scales() * 8))
        .zip(weights.chunks(8 * shape.cols));
    for ((bytes, panel_scales), weights) in panels {
        let mut integers = vec![0; weights.len()];
        let mut scales = vec![f16::NAN; weights.len() / shape.cols * shape.row_scales()];
        let rows = weights.chunks(shape.cols).zip(integers.chunks_mut(shape.cols));
        for ((row, integers), scales) in rows.zip(scales.chunks_mut(shape.row_scales())) {
            quantize_row(shape, row, integers, scales).unwrap();
        }
        pack_panel(shape, &integers, bytes);
        pack_scales(shape.row_scales(), &scales, panel_scales);
    }
    (bytes, scales)
}

/// The dequantized values of quantized activations, rotated back.
pub(crate) fn dequantize(q: &Q8Rows) -> Vec<f32> {
    let mut x = Vec::new();
    for row in 0..q.rows() {
        for col in 0..q.cols() {
            let block = q.block(row, col / BLOCK);
            x.push(block.scale * f32::from(block.values[col % BLOCK]));
        }
    }
    q.rotation().apply(&mut x);
    x
}
