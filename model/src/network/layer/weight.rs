//! A weight matrix, which may be a view of a mapped file.

use glm_kernels::{Matrix, Panels, Rotation, Shape, Storage};
use half::{bf16, f16};

use crate::error::Result;
use crate::files::checkpoint::{Bytes, Dtype};
use crate::files::packed::Order;

/// A matrix with shared ownership of its bytes. Clones share them.
#[derive(Clone)]
pub(crate) struct Weight {
    rows: usize,
    cols: usize,
    data: Data,
    /// The input of each column, if they have an order of their own.
    order: Option<Order>,
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
    /// A matrix without rows.
    pub(crate) fn empty() -> Self {
        let data = Data::Plain(Dtype::F32, Bytes::from(&[][..]));
        Self { rows: 0, cols: 0, data, order: None }
    }

    /// The unquantized matrix `name`. It is copied only if `bytes` is misaligned. `dtype` is F32, F16 or BF16.
    ///
    /// # Errors
    /// If the memory for the copy cannot be allocated.
    pub(crate) fn plain(
        name: &str,
        dtype: Dtype,
        [rows, cols]: [usize; 2],
        bytes: &Bytes,
    ) -> Result<Self> {
        let data = Data::Plain(dtype, bytes.aligned(dtype.size(), name)?);
        Ok(Self { rows, cols, data, order: None })
    }

    /// The matrix `name` in panels; `scales` are little-endian F16.
    ///
    /// # Errors
    /// As [`Weight::plain`], for the scales.
    pub(crate) fn panels(name: &str, shape: Shape, bytes: Bytes, scales: &Bytes) -> Result<Self> {
        let scales = scales.aligned(align_of::<f16>(), name)?;
        let data = Data::Panels { shape, bytes, scales };
        Ok(Self { rows: shape.rows, cols: shape.cols, data, order: None })
    }

    /// The same with an order of columns, a permutation.
    pub(crate) fn with_order(self, order: Option<Order>) -> Self {
        Self { order, ..self }
    }

    /// The input of each column, if they are not in order.
    pub(crate) fn order(&self) -> Option<&Order> {
        self.order.as_ref()
    }

    /// Its bytes, without scales.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::Plain(_, bytes) | Data::Panels { bytes, .. } => bytes,
        }
    }

    /// All bytes that it is read from.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Bytes> {
        let (bytes, scales) = match &self.data {
            Data::Plain(_, bytes) => (bytes, None),
            Data::Panels { bytes, scales, .. } => (bytes, Some(scales)),
        };
        [bytes].into_iter().chain(scales)
    }

    /// A view for the kernels.
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

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// How its inputs are rotated if they are quantized.
    pub(crate) fn rotation(&self) -> Rotation {
        match &self.data {
            Data::Plain(..) => Rotation::None,
            Data::Panels { shape, .. } => shape.rotation,
        }
    }

    /// Whether it is quantized (stored in panels), so that its inputs may be quantized, too.
    pub(crate) fn is_quantized(&self) -> bool {
        matches!(self.data, Data::Panels { .. })
    }
}
