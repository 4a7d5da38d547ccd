//! One matrix as a checkpoint stores it.
//!
//! | stored as | `name` | `name` with `weight_scale` |
//! |---|---|---|
//! | plain | F32, F16 or BF16 `[rows, cols]` | |
//! | official INT8 | I8 `[rows, cols]` | F16 `[rows]` |
//! | official INT4 | I8 `[rows, cols / 2]`, the even column in the high nibble, two's complement | F16 `[rows]` |
//! | panels | U8 `[panels, blocks, block bytes]` | F16 `[panels, groups, 8]` |
//!
//! Panels are the kernels' layout (see `glm_kernels::Panels`). A file that holds them says so in its metadata, with the
//! number of columns that share a scale.

use glm_kernels::quantize::{Unquantizable, pack_panel, pack_scales, quantize_row};
use glm_kernels::{BLOCK, Bits, LANES, Shape};
use half::f16;

use super::widen_into;
use crate::checkpoint::{Checkpoint, Dtype, Tensor};
use crate::error::Result;
use crate::layer::Weight;

/// The metadata key that marks a file in the kernels' layout.
pub(crate) const LAYOUT_KEY: &str = "glm.layout";
/// Its value: the layout and its version.
pub(crate) const LAYOUT_NAME: &str = "panels-1";
/// The metadata key for the columns that share a scale: a number, or `row`.
pub(crate) const GROUP_KEY: &str = "glm.group";

/// The scale that belongs to a matrix: `….weight` → `….weight_scale`.
pub(crate) fn scale_name(name: &str) -> String {
    format!("{name}_scale")
}

/// The metadata value for a group; `None` is the whole row.
pub(crate) fn group_value(group: Option<usize>) -> String {
    group.map_or_else(|| ROW.to_owned(), |group| group.to_string())
}

const ROW: &str = "row";

/// A matrix in a checkpoint, its types and shapes checked.
pub(crate) enum Stored<'a> {
    Plain(&'a Tensor),
    /// The official formats: integers row after row, one scale a row.
    Rows {
        shape: Shape,
        integers: &'a Tensor,
        scales: &'a Tensor,
    },
    Panels {
        shape: Shape,
        bytes: &'a Tensor,
        scales: &'a Tensor,
    },
}

impl<'a> Stored<'a> {
    /// Finds the matrix `name` of `rows` × `cols`.
    ///
    /// # Errors
    /// If it or its scales are missing, or of a type or shape that is none of the above.
    pub(crate) fn find(
        checkpoint: &'a Checkpoint,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Self> {
        let tensor = checkpoint.tensor(name)?;
        match tensor.dtype() {
            Dtype::I8 => Self::official(checkpoint, tensor, rows, cols),
            Dtype::U8 => Self::panels(checkpoint, tensor, rows, cols),
            _ => {
                tensor.expect(&[Dtype::F32, Dtype::F16, Dtype::BF16], &[rows, cols])?;
                Ok(Stored::Plain(tensor))
            }
        }
    }

    fn official(
        checkpoint: &'a Checkpoint,
        integers: &'a Tensor,
        rows: usize,
        cols: usize,
    ) -> Result<Self> {
        let bits = if integers.shape() == [rows, cols / 2] && cols.is_multiple_of(2) {
            Bits::Four
        } else {
            integers.expect(&[Dtype::I8], &[rows, cols])?;
            Bits::Eight
        };
        let scales = checkpoint.tensor(&scale_name(integers.name()))?;
        scales.expect(&[Dtype::F16], &[rows])?;
        Ok(Stored::Rows { shape: Shape::per_row(rows, cols, bits), integers, scales })
    }

    fn panels(
        checkpoint: &'a Checkpoint,
        bytes: &'a Tensor,
        rows: usize,
        cols: usize,
    ) -> Result<Self> {
        let metadata = checkpoint.metadata();
        let layout = metadata.get(LAYOUT_KEY).map(String::as_str);
        if layout != Some(LAYOUT_NAME) {
            return Err(bytes.error(format!(
                "is quantised in the layout {}, and this version reads {LAYOUT_NAME:?}: quantise the original again",
                layout.map_or_else(|| "of no name".to_owned(), |layout| format!("{layout:?}"))
            )));
        }
        let bits = match bytes.shape().last() {
            Some(&n) if n == Bits::Eight.block_bytes() => Bits::Eight,
            _ => Bits::Four,
        };
        let group = metadata.get(GROUP_KEY).map_or("missing", String::as_str);
        let shape = match group.parse::<usize>() {
            Ok(group) if matches!(group, 32 | 64 | 128) => Shape::grouped(rows, cols, bits, group),
            _ if group == ROW => Shape::per_row(rows, cols, bits),
            _ => {
                return Err(
                    bytes.error(format!("{GROUP_KEY} must be 32, 64, 128 or row, found {group}"))
                );
            }
        };
        bytes.expect(&[Dtype::U8], &panel_shape(&shape))?;
        let scales = checkpoint.tensor(&scale_name(bytes.name()))?;
        scales.expect(&[Dtype::F16], &scale_shape(&shape))?;
        Ok(Stored::Panels { shape, bytes, scales })
    }

    /// The tensor that holds its numbers.
    pub(crate) fn tensor(&self) -> &'a Tensor {
        match self {
            Stored::Plain(tensor) => tensor,
            Stored::Rows { integers, .. } => integers,
            Stored::Panels { bytes, .. } => bytes,
        }
    }

    /// Rows and columns.
    pub(crate) fn shape(&self) -> [usize; 2] {
        match self {
            Stored::Plain(tensor) => [tensor.shape()[0], tensor.shape()[1]],
            Stored::Rows { shape, .. } | Stored::Panels { shape, .. } => [shape.rows, shape.cols],
        }
    }

    pub(crate) fn is_quantised(&self) -> bool {
        !matches!(self, Stored::Plain(_))
    }

    /// Whether the kernels cannot read it where it lies.
    pub(crate) fn needs_repacking(&self) -> bool {
        matches!(self, Stored::Rows { .. })
    }

    /// The matrix as the kernels read it: where it lies if possible, else packed in memory.
    pub(crate) fn load(&self) -> Result<Weight> {
        match *self {
            Stored::Plain(tensor) => Ok(Weight::plain(tensor)),
            Stored::Panels { shape, bytes, scales } => {
                Ok(Weight::panels(shape, bytes.data().clone(), scales.data()))
            }
            Stored::Rows { shape, .. } => {
                let mut bytes = vec![0; shape.bytes()];
                let mut scales = vec![f16::ZERO; shape.scales()];
                self.pack(&shape, 0, &mut bytes, &mut scales)?;
                let scales = bytemuck::cast_slice(&scales).to_vec();
                Ok(Weight::panels(shape, bytes.into(), &scales.into()))
            }
        }
    }

    /// Writes the panels from `first` on, as many as `bytes` and `scales` hold, on the threads of the current pool.
    ///
    /// Official integers and scales are moved as they are; plain weights are quantised as `shape` says.
    ///
    /// # Errors
    /// At a weight that cannot be quantised.
    pub(crate) fn pack(
        &self,
        shape: &Shape,
        first: usize,
        bytes: &mut [u8],
        scales: &mut [f16],
    ) -> Result<()> {
        use rayon::prelude::*;
        bytes
            .par_chunks_mut(shape.panel_bytes())
            .zip(scales.par_chunks_mut(shape.groups() * LANES))
            .enumerate()
            .try_for_each(|(i, (bytes, scales))| self.pack_one(shape, first + i, bytes, scales))
    }

    fn pack_one(
        &self,
        shape: &Shape,
        panel: usize,
        bytes: &mut [u8],
        scales: &mut [f16],
    ) -> Result<()> {
        let first = panel * LANES;
        let rows = (shape.rows - first).min(LANES);
        let mut integers = vec![0; rows * shape.cols];
        let mut row_scales = vec![f16::ZERO; rows * shape.groups()];
        let targets = integers.chunks_mut(shape.cols).zip(row_scales.chunks_mut(shape.groups()));
        for (row, (integers, scales)) in (first..).zip(targets) {
            self.integers(shape, row, integers, scales)?;
        }
        pack_panel(shape, &integers, bytes);
        pack_scales(shape.groups(), &row_scales, scales);
        Ok(())
    }

    /// Integers and scales of one row.
    fn integers(
        &self,
        shape: &Shape,
        row: usize,
        integers: &mut [i8],
        scales: &mut [f16],
    ) -> Result<()> {
        match self {
            Stored::Plain(tensor) => {
                let row_bytes = shape.cols * tensor.dtype().size();
                let mut values = vec![0.0; shape.cols];
                let bytes = &tensor.bytes()[row * row_bytes..][..row_bytes];
                widen_into(tensor.dtype(), bytes, &mut values);
                quantize_row(shape, &values, integers, scales).map_err(|bad| {
                    let Unquantizable { col, value } = bad;
                    tensor.error(format!("[{row}, {col}] is {value}, which cannot be quantised"))
                })
            }
            Stored::Rows { integers: tensor, scales: row_scales, .. } => {
                scales.fill(f16::from_le_bytes(row_scales.bytes().as_chunks().0[row]));
                let row_bytes = tensor.bytes().len() / shape.rows;
                let bytes = &tensor.bytes()[row * row_bytes..][..row_bytes];
                match shape.bits {
                    Bits::Eight => integers.copy_from_slice(bytemuck::cast_slice(bytes)),
                    Bits::Four => {
                        for (pair, &byte) in integers.chunks_exact_mut(2).zip(bytes) {
                            pair.copy_from_slice(&[byte as i8 >> 4, (byte << 4) as i8 >> 4]);
                        }
                    }
                }
                Ok(())
            }
            Stored::Panels { .. } => unreachable!("panels are never packed again"),
        }
    }
}

/// Shape of the tensor that holds a matrix in panels.
pub(crate) fn panel_shape(shape: &Shape) -> [usize; 3] {
    [shape.panels(), shape.cols.div_ceil(BLOCK), shape.bits.block_bytes()]
}

/// Shape of the tensor that holds its scales.
pub(crate) fn scale_shape(shape: &Shape) -> [usize; 3] {
    [shape.panels(), shape.groups(), LANES]
}
