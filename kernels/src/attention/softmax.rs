//! Softmax weights of the keys of a page.

use super::Cached;
use super::cache::CachedHead;
use super::element::Number;
use super::partial::partial_head;
use super::product::Pair;
use crate::math::exp;
use crate::simd::{LANES, Vectors};

/// Turns the scores of a row into softmax weights relative to the largest score; returns that score and the sum of the weights as
/// the first pair of a partial result, and the weighted sum of the values' minima.
///
/// `weights` holds scores of the first `most` keys. The row attends to the first `visible` of them; the others get weight 0.
#[inline(always)]
pub(super) fn softmax<S: Vectors, E: Cached>(
    simd: S,
    scale: f32,
    query: &[[f32; LANES]],
    cached: &CachedHead<'_, E>,
    [visible, most]: [usize; 2],
    weights: &mut [[f32; LANES]],
) -> (Pair, f32) {
    let panels = &mut weights[..most.div_ceil(LANES)];
    if visible == 0 {
        panels.fill([0.0; LANES]);
        return (partial_head(f32::NEG_INFINITY, 0.0), 0.0);
    }
    let scale = simd.splat(scale);
    let [key_grids, _] = cached.grids;
    // What the minimum of a key is multiplied with, and what the anchor adds to each score.
    let (elements, anchor) = match E::Key::MINIMUM {
        true => (simd.splat(sum(simd, query)), simd.splat(dot(simd, query, cached.anchor))),
        false => (simd.splat(0.0), simd.splat(0.0)),
    };
    for (i, panel) in panels.iter_mut().enumerate() {
        let mut score = simd.load(panel);
        if E::Key::QUANTIZED {
            let [scales, minima] = E::Key::grids(simd, &key_grids[i]);
            score = match E::Key::MINIMUM {
                true => simd.fma(score, scales, simd.fma(elements, minima, anchor)),
                false => simd.mul(score, scales),
            };
        }
        simd.store(simd.mul(score, scale), panel);
    }
    panels.as_flattened_mut()[visible..].fill(f32::NEG_INFINITY);
    let mut max = simd.splat(f32::NEG_INFINITY);
    for panel in &*panels {
        max = simd.max(simd.load(panel), max);
    }
    let max = simd.max_lane(max);
    let mut sum = simd.splat(0.0);
    let mut minimum = simd.splat(0.0);
    for (i, panel) in panels.iter_mut().enumerate() {
        let mut weight = exp(simd, simd.sub(simd.load(panel), simd.splat(max)));
        sum = simd.add(sum, weight);
        if E::Value::QUANTIZED {
            let [scales, mut minima] = cached.value_grids(simd, i);
            if E::Value::MINIMUM {
                if (i + 1) * LANES > most {
                    // Nothing is stored yet behind the last key that a row of the task attends to.
                    let mut lanes = [0.0; LANES];
                    simd.store(minima, &mut lanes);
                    lanes[most % LANES..].fill(0.0);
                    minima = simd.load(&lanes);
                }
                minimum = simd.fma(weight, minima, minimum);
            }
            weight = simd.mul(weight, scales);
        }
        simd.store(weight, panel);
    }
    (partial_head(max, simd.sum(sum)), simd.sum(minimum))
}

/// `Σ x[i]`
#[inline(always)]
fn sum<S: Vectors>(simd: S, x: &[[f32; LANES]]) -> f32 {
    let mut sum = simd.splat(0.0);
    for x in x {
        sum = simd.add(simd.load(x), sum);
    }
    simd.sum(sum)
}

/// `Σ a[i] · b[i]`, of as many elements as `b` has.
#[inline(always)]
fn dot<S: Vectors>(simd: S, a: &[[f32; LANES]], b: &[[f32; LANES]]) -> f32 {
    let mut sum = simd.splat(0.0);
    for i in 0..b.len() {
        sum = simd.fma(simd.load(&a[i]), simd.load(&b[i]), sum);
    }
    simd.sum(sum)
}
