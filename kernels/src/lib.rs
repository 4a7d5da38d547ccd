//! CPU kernels for GLM models. They take and return slices of numbers; nothing here depends on a file or a model.
//!
//! ```
//! use glm_kernels::{Activation, Input, Isa, Linear, Matrix, Storage};
//!
//! let weight = Matrix::new(2, 3, Storage::F32(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
//! let linear = Linear { weight, bias: Some(&[0.5, -0.5]), activation: Activation::None };
//! let mut y = [0.0; 2];
//! linear.forward(Isa::choose()?, Input::F32(&[1.0, 1.0, 1.0]), &mut y);
//! assert_eq!(y, [6.5, 14.5]);
//! # Ok::<(), glm_kernels::UnknownIsa>(())
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `format` | the memory layouts of weights, and their quantization |
//! | `rotation` | Walsh–Hadamard rotations of what is quantized |
//! | `reference` | the definition of every operation |
//! | `simd`, `isa` | the vector operations that kernels are written in, and the instruction sets that implement them |
//! | `parallel`, `probe` | the threads, and the limits of the machine |
//! | `quantized` | activations as 8-bit integers |
//! | `norm`, `rope`, `activation`, `linear`, `attention` | the operations |

// Index loops on purpose: a closure that is not inlined loses the enclosing `target_feature`.
#![allow(clippy::needless_range_loop)]

mod format;
mod rotation;
#[cfg(test)]
mod testing;

pub mod reference;
mod simd;

mod isa;
mod parallel;

pub mod probe;

mod activation;
mod attention;
mod linear;
mod math;
mod norm;
mod quantized;
mod rope;

pub use activation::{Activation, Gate};
pub use attention::{
    Attention, Cached, HeadRows, Heads, Int4, KEYS, KvCache, KvPage, KvShape, MAX_HEAD_SIZE, Mask,
    OutOfMemory, Partials, Values,
};
pub use format::{Bits, GroupForm, Matrix, Panels, Shape, Storage, feedback, quantize};
pub use isa::{ISA_VARIABLE, Isa, UnknownIsa};
pub use linear::{Input, Linear, Output};
pub use norm::{LayerNorm, RmsNorm};
pub use parallel::{SharedRows, for_each, for_each_row, parallel_region};
pub use quantized::Q8Rows;
pub use rope::{Angle, angles, rotate_halves, rotate_pairs};
pub use rotation::Rotation;
pub use simd::{BLOCK, Element, Kernel, LANES, PairKernel, Simd, Vectors};
