//! A matrix that keeps the file it lies in mapped.

use glm_kernels::{Matrix, Panels, Shape, Storage};
use half::{bf16, f16};

use crate::files::checkpoint::{Bytes, Dtype};

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

    /// Where its numbers are, scales not counted.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::Plain(_, bytes) | Data::Panels { bytes, .. } => bytes,
        }
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

    /// Columns.
    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// Whether it lies in panels, and so takes quantised activations.
    pub(crate) fn is_quantised(&self) -> bool {
        matches!(self.data, Data::Panels { .. })
    }
}
