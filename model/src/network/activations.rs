//! The type of activations.

/// The type of activations in products with quantized weights. Unquantized weights always use `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activations {
    /// Not quantized; for comparison with other implementations.
    F32,
    /// 8-bit integers with one scale per 32: several times faster.
    Int8,
}
