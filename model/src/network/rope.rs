//! Rotary position embedding (RoPE): the angles of each token, and the rotation of a head.

use glm_kernels::{Angle, angles, rotate_halves, rotate_pairs};
use half::f16;

use crate::files::config::{Config, Rope};

/// The RoPE of a model.
pub(crate) struct Rotation {
    rope: Rope,
    /// Inverse frequencies.
    frequencies: Vec<f32>,
}

/// Number of angles per token.
pub(crate) fn angles_per_token(config: &Config) -> usize {
    match config.rope {
        Rope::None => 0,
        // 2D: each half of a head is rotated by one of the two positions.
        Rope::TwoD { .. } | Rope::NeoX { .. } => config.head_size / 2,
        Rope::Interleaved { rotary_dim, .. } | Rope::Halves { rotary_dim, .. } => rotary_dim / 2,
    }
}

impl Rotation {
    pub(crate) fn new(config: &Config) -> Self {
        Self { rope: config.rope, frequencies: frequencies(config) }
    }

    /// Writes the [`angles_per_token`] angles of a token at `positions` (position and block position) to `out`.
    pub(crate) fn angles(&self, positions: [usize; 2], out: &mut [Angle]) {
        if self.frequencies.is_empty() {
            return;
        }
        let scaling_factor = match self.rope {
            Rope::Interleaved { scaling_factor, .. } | Rope::Halves { scaling_factor, .. } => {
                scaling_factor
            }
            _ => 1.0,
        };
        for (out, position) in out.chunks_exact_mut(self.frequencies.len()).zip(positions) {
            angles(&self.frequencies, position as f32 / scaling_factor, out);
        }
    }

    /// Rotates a head by the angles of its token.
    pub(crate) fn rotate(&self, angles: &[Angle], head: &mut [f32]) {
        match self.rope {
            Rope::None => {}
            Rope::NeoX { .. } => rotate_halves(head, angles),
            Rope::Interleaved { rotary_dim, .. } => rotate_pairs(&mut head[..rotary_dim], angles),
            Rope::Halves { rotary_dim, .. } => rotate_halves(&mut head[..rotary_dim], angles),
            Rope::TwoD { .. } => {
                let half = head.len() / 2;
                let both = head.chunks_exact_mut(half).zip(angles.chunks_exact(angles.len() / 2));
                both.for_each(|(half, angles)| rotate_halves(half, angles));
            }
        }
    }
}

fn frequencies(config: &Config) -> Vec<f32> {
    let (base, elements, rounded) = match config.rope {
        Rope::None => return Vec::new(),
        Rope::TwoD { base } => (base, config.head_size / 2, true),
        Rope::NeoX { base } => (base, config.head_size, true),
        Rope::Interleaved { base, rotary_dim, .. } | Rope::Halves { base, rotary_dim, .. } => {
            (base, rotary_dim, false)
        }
    };
    let frequency = |i| {
        let exponent = (2 * i) as f32 / elements as f32;
        let power = libm::pow(f64::from(base), f64::from(exponent)) as f32;
        let exact = 1.0 / power;
        if rounded { f16::from_f32(exact).to_f32() } else { exact }
    };
    (0..elements / 2).map(frequency).collect()
}
