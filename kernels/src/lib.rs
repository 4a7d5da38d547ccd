//! Kernels for running GLM models on a CPU: numbers in, numbers out. Nothing here knows a file or a model.
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
//! | `format` | how weights lie in memory, and how they are quantised |
//! | `reference` | every operation straight from its definition |
//! | `simd`, `isa` | the words kernels are written in, and who speaks them |
//! | `parallel`, `probe` | the threads, and what the machine can do at best |
//! | `quantized` | activations as 8-bit integers |
//! | `norm`, `rope`, `activation`, `linear`, `attention` | the operations |

// Hot loops count with indices: what iterator adaptors and closures need to be inlined for, the compiler does not always inline,
// and what it does not is compiled without the instructions of the kernel around it.
#![allow(clippy::needless_range_loop)]

mod format;
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
    Attention, Cached, HeadRows, Heads, KEYS, KvCache, KvShape, MAX_HEAD_SIZE, Mask, OutOfMemory,
};
pub use format::{Bits, Matrix, Panels, Shape, Storage, quantize};
pub use isa::{ISA_VARIABLE, Isa, UnknownIsa};
pub use linear::{Input, Linear};
pub use norm::{LayerNorm, RmsNorm};
pub use parallel::{SharedRows, for_each, for_each_row, parallel_region};
pub use quantized::Q8Rows;
pub use rope::{Angle, angles, rotate_halves, rotate_pairs};
pub use simd::{BLOCK, Element, Kernel, LANES, PairKernel, Simd, Vectors};
