//! Every operation straight from its definition, in `f64`: what tests, benches and fuzz targets compare with.

use crate::attention::{KvShape, Mask};
use crate::{Activation, Linear, Matrix, Output};

/// `0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))`
pub fn gelu_tanh(x: f64) -> f64 {
    const SQRT_2_PI: f64 = 0.797_884_560_802_865_4;
    0.5 * x * (1.0 + (SQRT_2_PI * (x + 0.044_715 * x * x * x)).tanh())
}

/// An activation function. `erfc` instead of `1 + erf` keeps the digits of the lower tail.
pub fn activation(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::None => x,
        Activation::GeluTanh => gelu_tanh(x),
        Activation::GeluErf => 0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
        Activation::Silu => x / (1.0 + (-x).exp()),
    }
}

/// `Σ a[i]·b[i]`
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// [`LayerNorm`](crate::LayerNorm) of one row.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> Vec<f32> {
    let n = x.len() as f64;
    let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    let scale = 1.0 / (variance + f64::from(eps)).sqrt();
    let terms = x.iter().zip(weight).zip(bias);
    terms
        .map(|((&x, &w), &b)| ((f64::from(x) - mean) * scale * f64::from(w) + f64::from(b)) as f32)
        .collect()
}

/// [`RmsNorm`](crate::RmsNorm) of one row.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let squares = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / x.len() as f64;
    let scale = 1.0 / (squares + f64::from(eps)).sqrt();
    x.iter().zip(weight).map(|(&x, &w)| (f64::from(x) * scale * f64::from(w)) as f32).collect()
}

/// [`Linear::forward`] of `x`, `[tokens][inputs]`, with the values of the stored weights.
pub fn linear(linear: &Linear<'_>, x: &[f32]) -> Vec<f32> {
    each_output(linear, x, Matrix::row, |products, bias| {
        let sum: f64 = products.sum::<f64>() + bias;
        activation(linear.activation, sum) as f32
    })
}

/// [`Linear::forward_into`] `y`, `[tokens][outputs]`. As there, an output is rounded to `f32` before it is added.
pub fn linear_into(layer: &Linear<'_>, x: &[f32], output: Output, y: &mut [f32]) {
    for (y, value) in y.iter_mut().zip(linear(layer, x)) {
        *y = match output {
            Output::Store => value,
            Output::Add => *y + value,
        };
    }
}

/// `1 + Σ|w·x| + |b|` of every output: the scale of its rounding error. Where a weight is the sum of two terms that are multiplied by
/// `x` one by one, each counts.
pub fn magnitude(linear: &Linear<'_>, x: &[f32]) -> Vec<f32> {
    each_output(linear, x, Matrix::magnitudes, |products, bias| {
        (1.0 + products.map(f64::abs).sum::<f64>() + bias.abs()) as f32
    })
}

fn each_output<'a>(
    linear: &Linear<'a>,
    x: &[f32],
    read: impl Fn(&Matrix<'a>, usize, &mut [f32]),
    output: impl Fn(&mut dyn Iterator<Item = f64>, f64) -> f32,
) -> Vec<f32> {
    let (rows, cols) = (linear.weight.rows(), linear.weight.cols());
    let mut y = vec![0.0; x.len() / cols * rows];
    let mut weights = vec![0.0; cols];
    for row in 0..rows {
        read(&linear.weight, row, &mut weights);
        let bias = linear.bias.map_or(0.0, |bias| f64::from(bias[row]));
        for (token, x) in x.chunks(cols).enumerate() {
            let mut products = weights.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
            y[token * rows + row] = output(&mut products, bias);
        }
    }
    y
}

/// A quantized head as it is cached: multiplied with an orthonormal Walsh–Hadamard matrix, `H[i][j] = (−1)^|i & j| / √n`. A head whose
/// size is no power of two is rotated in equal parts whose size is the largest possible.
pub fn rotated(head: &[f32]) -> Vec<f32> {
    let n = 1 << head.len().trailing_zeros();
    let mut out = Vec::with_capacity(head.len());
    for part in head.chunks(n) {
        out.extend((0..n).map(|i| {
            let signed = |(j, &x): (usize, &f32)| {
                if (i & j).count_ones() % 2 == 0 { f64::from(x) } else { -f64::from(x) }
            };
            (part.iter().enumerate().map(signed).sum::<f64>() / (n as f64).sqrt()) as f32
        }));
    }
    out
}

/// [`Attention`](crate::Attention): queries `[n][heads · share][size]`, keys and values `[positions][heads][size]`;
/// the outputs have the [size of a value](KvShape::value_size).
#[allow(clippy::too_many_arguments)] // A definition, spelled out.
pub fn attention(
    queries: &[f32],
    keys: &[f32],
    values: &[f32],
    shape: KvShape,
    share: usize,
    position: usize,
    mask: Mask,
    scale: f32,
) -> Vec<f32> {
    let size = shape.head_size;
    let kv = |x: &[f32], at: usize, head: usize, i: usize| {
        f64::from(x[(at * shape.heads + head / share) * size + i])
    };
    let mut out = Vec::with_capacity(queries.len());
    for (index, query) in queries.chunks(size).enumerate() {
        let (query_index, head) = (index / (shape.heads * share), index % (shape.heads * share));
        let visible = 0..mask.visible(position + query_index);
        let score = |at| {
            let dot: f64 = (0..size).map(|i| f64::from(query[i]) * kv(keys, at, head, i)).sum();
            dot * f64::from(scale)
        };
        let scores: Vec<f64> = visible.clone().map(score).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
        let total: f64 = weights.iter().sum();
        out.extend((0..shape.value_size()).map(|i| {
            let sum: f64 = visible.clone().map(|at| weights[at] * kv(values, at, head, i)).sum();
            (sum / total) as f32
        }));
    }
    out
}
