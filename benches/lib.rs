//! The true shapes of the models, and random data for them.
//!
//! `cargo bench -p glm-benches -- gemv` measures. `cargo test -p glm-benches --benches` runs every benchmark once: it compares some
//! outputs of a linear layer with the reference and checks the range of attention and gates. The kernels' own tests check the rest.
//!
//! Benchmarks build their data on first use, so that a filter costs nothing for what it leaves out.

use glm_kernels::quantize::{pack_panel, pack_scales, quantize_row};
use glm_kernels::{Bits, GroupForm, LANES, Matrix, Panels, Shape, Storage};
use half::f16;

/// A linear layer of a model.
#[derive(Debug, Clone, Copy)]
pub struct LinearShape {
    /// What it is in the model.
    pub name: &'static str,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
}

/// The linear layers of ChatGLM-6B.
pub const CHATGLM_6B: [LinearShape; 5] = [
    LinearShape { name: "qkv", rows: 12288, cols: 4096 },
    LinearShape { name: "dense", rows: 4096, cols: 4096 },
    LinearShape { name: "up", rows: 16384, cols: 4096 },
    LinearShape { name: "down", rows: 4096, cols: 16384 },
    LinearShape { name: "head", rows: 130_528, cols: 4096 },
];

/// The linear layers of GLM-4-9B.
pub const GLM_4_9B: [LinearShape; 5] = [
    LinearShape { name: "qkv", rows: 4608, cols: 4096 },
    LinearShape { name: "dense", rows: 4096, cols: 4096 },
    LinearShape { name: "up", rows: 27392, cols: 4096 },
    LinearShape { name: "down", rows: 4096, cols: 13696 },
    LinearShape { name: "head", rows: 151_552, cols: 4096 },
];

/// Numbers of roughly normal distribution with standard deviation `scale`, the same every time.
pub fn random(n: usize, scale: f32) -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    // The sum of four uniform numbers has a variance of 1/3.
    (0..n).map(|_| (uniform() + uniform() + uniform() + uniform()) * 1.732 * scale).collect()
}

/// A quantized matrix.
pub struct Quantized {
    shape: Shape,
    bytes: Vec<u8>,
    scales: Vec<f16>,
}

impl Quantized {
    /// Random weights. Speed does not depend on the values, so one panel is quantized and repeated.
    ///
    /// # Panics
    /// Never: random weights can be quantized.
    pub fn random(shape: Shape) -> Self {
        let weights = random(LANES * shape.cols, 0.02);
        // Any number is a zero point, also an offset.
        let chosen = match shape.form {
            GroupForm::ZeroPoint => shape.with_form(GroupForm::Minimum),
            _ => shape,
        };
        let mut integers = vec![0; weights.len()];
        let mut scales = vec![f16::ZERO; LANES * shape.row_scales()];
        let rows = weights.chunks(shape.cols).zip(integers.chunks_mut(shape.cols));
        for ((row, integers), scales) in rows.zip(scales.chunks_mut(shape.row_scales())) {
            quantize_row(&chosen, row, integers, scales).expect("finite weights");
        }
        let mut panel = vec![0; shape.panel_bytes()];
        pack_panel(&shape, &integers, &mut panel);
        let mut panel_scales = vec![f16::ZERO; scales.len()];
        pack_scales(shape.row_scales(), &scales, &mut panel_scales);
        let (bytes, scales) = (panel.repeat(shape.panels()), panel_scales.repeat(shape.panels()));
        Self { shape, bytes, scales }
    }

    /// The matrix.
    pub fn matrix(&self) -> Matrix<'_> {
        let panels = Panels::new(self.shape, &self.bytes, &self.scales);
        Matrix::new(self.shape.rows, self.shape.cols, Storage::Panels(panels))
    }

    /// Its integers.
    pub fn panels(&self) -> &[u8] {
        &self.bytes
    }
}

/// Four bits with a scale for 32 columns, as those of llama.cpp's Q4_0.
pub fn q4(shape: LinearShape) -> Shape {
    Shape::grouped(shape.rows, shape.cols, Bits::Four, 32)
}

/// Bytes of weights and scales that one pass reads.
pub fn bytes(shape: &Shape) -> u64 {
    (shape.bytes() + shape.scales() * size_of::<f16>()) as u64
}
