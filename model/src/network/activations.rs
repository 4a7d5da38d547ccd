//! The type of activations.

/// In what type activations meet quantised weights. Plain weights always take `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activations {
    /// As they are; for comparing with other implementations.
    F32,
    /// 8-bit integers with a scale for every 32: several times faster.
    Int8,
}
