//! A matrix that keeps the file it lies in mapped.

use glm_kernels::{Bits, Matrix, Panels, Shape, Storage};
use half::{bf16, f16};

use crate::checkpoint::{Bytes, Dtype};

/// A matrix and what keeps its bytes alive. A clone shares them.
#[derive(Clone)]
pub(crate) struct Weight {
    rows: usize,
    cols: usize,
    data: Data,
}

#[derive(Clone)]
enum Data {
    /// F32, F16 or BF16, aligned for it.
    Plain(Dtype, Bytes),
    Panels {
        shape: Shape,
        bytes: Bytes,
        scales: Bytes,
    },
}

impl Weight {
    /// A plain matrix, where it lies; copied only if it is misaligned. `dtype` is F32, F16 or BF16.
    pub(crate) fn plain(dtype: Dtype, [rows, cols]: [usize; 2], bytes: &Bytes) -> Self {
        Self { rows, cols, data: Data::Plain(dtype, bytes.aligned(dtype.size())) }
    }

    /// A matrix in panels; `scales` are little-endian F16.
    pub(crate) fn panels(shape: Shape, bytes: Bytes, scales: &Bytes) -> Self {
        let data = Data::Panels { shape, bytes, scales: scales.aligned(align_of::<f16>()) };
        Self { rows: shape.rows, cols: shape.cols, data }
    }

    /// The matrix as kernels take it.
    pub(crate) fn matrix(&self) -> Matrix<'_> {
        let storage = match &self.data {
            Data::Plain(Dtype::F32, bytes) => Storage::F32(bytemuck::cast_slice::<u8, f32>(bytes)),
            Data::Plain(Dtype::F16, bytes) => Storage::F16(bytemuck::cast_slice::<u8, f16>(bytes)),
            Data::Plain(_, bytes) => Storage::BF16(bytemuck::cast_slice::<u8, bf16>(bytes)),
            Data::Panels { shape, bytes, scales } => {
                Storage::Panels(Panels::new(*shape, bytes, bytemuck::cast_slice(scales)))
            }
        };
        Matrix::new(self.rows, self.cols, storage)
    }

    /// Bytes of weights and scales: what one token reads.
    pub(crate) fn bytes(&self) -> u64 {
        match &self.data {
            Data::Plain(_, bytes) => bytes.len() as u64,
            Data::Panels { bytes, scales, .. } => (bytes.len() + scales.len()) as u64,
        }
    }

    /// Whether both are one matrix in memory.
    pub(crate) fn shares(&self, other: &Self) -> bool {
        self.start() == other.start()
    }

    fn start(&self) -> *const u8 {
        match &self.data {
            Data::Plain(_, bytes) | Data::Panels { bytes, .. } => bytes.as_ptr(),
        }
    }

    /// Rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// How the weights are stored, in words.
    pub(crate) fn format(&self) -> String {
        match &self.data {
            Data::Plain(dtype, _) => dtype.to_string(),
            Data::Panels { shape, .. } => {
                let bits = match shape.bits {
                    Bits::Four => "INT4",
                    Bits::Eight => "INT8",
                };
                match shape.groups() {
                    1 => format!("{bits}, a scale a row"),
                    _ => format!("{bits}, groups of {}", shape.group_blocks * glm_kernels::BLOCK),
                }
            }
        }
    }

    /// Whether it lies in panels, and so takes quantised activations.
    pub(crate) fn is_quantised(&self) -> bool {
        matches!(self.data, Data::Panels { .. })
    }
}
