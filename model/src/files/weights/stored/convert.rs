//! Converting the rows of a matrix: joined as they are, or packed in the kernels' layout.

use std::ops::Range;

use glm_kernels::quantize::{Unquantizable, pack_panel, pack_scales, quantize_row};
use glm_kernels::{BLOCK, LANES, Rotation, Shape};
use half::f16;
use rayon::prelude::*;

use super::super::piece::PieceRows;
use super::{Form, StoredMatrix};
use crate::error::{Error, Result};
use crate::files::checkpoint::{Bytes, Dtype};
use crate::memory::zeros;
use crate::network::layer::Weight;

impl StoredMatrix {
    /// A copy in memory, as the kernels read it.
    pub(super) fn copied(&self) -> Result<Weight> {
        let Some(shape) = self.shape() else {
            let dtype = self.joined_dtype();
            let mut bytes = zeros(self.rows * self.cols * dtype.size(), &self.name)?;
            self.join(0, &mut bytes)?;
            return Weight::plain(&self.name, dtype, self.size(), &Bytes::from(bytes));
        };
        let mut bytes = zeros(shape.bytes(), &self.name)?;
        let mut scales = zeros::<f16>(shape.scales(), &self.name)?;
        self.pack(&shape, 0, &mut bytes, &mut scales)?;
        let weight = Weight::panels(&self.name, shape, bytes.into(), &scales.into())?;
        Ok(weight.with_order(self.order().cloned()))
    }

    /// The type of the joined matrix: that of its parts if they agree, else F32, which represents all of them. F32 with updates, too.
    pub(crate) fn joined_dtype(&self) -> Dtype {
        match &self.form {
            Form::Plain(parts) => {
                let dtype = parts[0].tensor.dtype();
                let agree = parts.iter().all(|part| part.tensor.dtype() == dtype);
                if agree && self.updates.is_empty() { dtype } else { Dtype::F32 }
            }
            // An 8-bit integer times an f16 scale is exact in f32, and so is a difference of two. That of a block is f32 by definition.
            _ => Dtype::F32,
        }
    }

    /// Writes the rows from `first` on, as many as `bytes` holds, in [`joined_dtype`](Self::joined_dtype).
    ///
    /// # Errors
    /// If the memory for some rows cannot be allocated.
    pub(crate) fn join(&self, first: usize, bytes: &mut [u8]) -> Result<()> {
        let dtype = self.joined_dtype();
        if !self.updates.is_empty() {
            let rows = bytes.par_chunks_mut(LANES * self.cols * dtype.size()).enumerate();
            return rows.try_for_each(|(i, bytes)| {
                let mut values = zeros(bytes.len() / dtype.size(), &self.name)?;
                self.weights(first + i * LANES, &mut values)?;
                bytes.copy_from_slice(bytemuck::cast_slice(&values));
                Ok(())
            });
        }
        let rows = bytes.par_chunks_exact_mut(self.cols * dtype.size()).enumerate();
        rows.try_for_each(|(row, bytes)| {
            for part in self.parts_of(first + row) {
                let cols = &part.piece.cols;
                let to = &mut bytes[cols.start * dtype.size()..cols.end * dtype.size()];
                match part.tensor.dtype() {
                    same if same == dtype => part.copy_row(first + row, to),
                    _ => {
                        let mut values = zeros(cols.len(), &self.name)?;
                        part.values(first + row, &mut values)?;
                        to.copy_from_slice(bytemuck::cast_slice(&values));
                    }
                }
            }
            Ok(())
        })
    }

    /// Writes the panels from `first` on, as many as `bytes` and `scales` hold, on the threads of the current pool.
    ///
    /// Official and packed integers and scales are reordered without change, and blocks if `shape` holds them. Others are quantized to `shape`.
    ///
    /// # Errors
    /// If a weight cannot be quantized.
    pub(crate) fn pack(
        &self,
        shape: &Shape,
        first: usize,
        bytes: &mut [u8],
        scales: &mut [f16],
    ) -> Result<()> {
        bytes
            .par_chunks_mut(shape.panel_bytes())
            .zip(scales.par_chunks_mut(shape.row_scales() * LANES))
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
        let mut integers = zeros(rows * shape.cols, &self.name)?;
        let mut row_scales = zeros(rows * shape.row_scales(), &self.name)?;
        match self.is_quantized() {
            true => self.integers(shape, first..first + rows, &mut integers, &mut row_scales)?,
            false => {
                let mut values = zeros(rows * shape.cols, &self.name)?;
                self.weights(first, &mut values)?;
                let targets =
                    integers.chunks_mut(shape.cols).zip(row_scales.chunks_mut(shape.row_scales()));
                let rows = (first..).zip(values.chunks_exact(shape.cols));
                for ((row, values), (integers, scales)) in rows.zip(targets) {
                    quantize_row(shape, values, integers, scales)
                        .map_err(|bad| self.unquantizable(row, bad))?;
                }
            }
        }
        pack_panel(shape, &integers, bytes);
        pack_scales(shape.row_scales(), &row_scales, scales);
        Ok(())
    }

    /// Integers and scales of `rows` of a quantized matrix.
    fn integers(
        &self,
        shape: &Shape,
        rows: Range<usize>,
        integers: &mut [i8],
        scales: &mut [f16],
    ) -> Result<()> {
        for part in self.all_parts() {
            let own = part.piece.rows.start.max(rows.start)..part.piece.rows.end.min(rows.end);
            if own.is_empty() {
                continue;
            }
            let cols = &part.piece.cols;
            let group = shape.group_blocks * BLOCK;
            let numbers = shape.form.numbers();
            let groups = cols.start / group * numbers..cols.end.div_ceil(group) * numbers;
            let targets =
                integers.chunks_mut(shape.cols).zip(scales.chunks_mut(shape.row_scales()));
            let targets = targets.skip(own.start - rows.start);
            let targets = targets.map(|(i, s)| (&mut i[cols.clone()], &mut s[groups.clone()]));
            part.integers(shape, own, targets)?;
        }
        Ok(())
    }

    /// Writes the weights of the rows from `first` on of a plain matrix, as many as `values` holds, rotated, and then with the columns
    /// in `order`.
    ///
    /// # Errors
    /// If a weight is not finite.
    pub(crate) fn values(
        &self,
        first: usize,
        rotation: Rotation,
        order: &[usize],
        values: &mut [f32],
    ) -> Result<()> {
        let panel = LANES * self.cols;
        let mut stored = zeros(panel.min(values.len()), &self.name)?;
        for (first, values) in (first..).step_by(LANES).zip(values.chunks_mut(panel)) {
            let stored = &mut stored[..values.len()];
            self.weights(first, stored)?;
            let rows = stored.chunks_exact_mut(self.cols).zip(values.chunks_exact_mut(self.cols));
            for (row, (stored, values)) in (first..).zip(rows) {
                if let Some(col) = stored.iter().position(|value| !value.is_finite()) {
                    let bad = Unquantizable { col, value: stored[col] };
                    return Err(self.unquantizable(row, bad));
                }
                rotation.apply(stored);
                values.iter_mut().zip(order).for_each(|(value, &col)| *value = stored[col]);
            }
        }
        Ok(())
    }

    /// The weights of the rows from `first` on, as many as `values` holds, with the updates.
    fn weights(&self, first: usize, values: &mut [f32]) -> Result<()> {
        for (row, values) in (first..).zip(values.chunks_exact_mut(self.cols)) {
            for part in self.parts_of(row) {
                part.values(row, &mut values[part.piece.cols.clone()])?;
            }
        }
        self.updates.iter().try_for_each(|update| update.add(first, values))
    }

    /// The error for a weight that cannot be quantized. It names the tensor, and the place in it.
    pub(crate) fn unquantizable(&self, row: usize, bad: Unquantizable) -> Error {
        let Unquantizable { col, value } = bad;
        let part = self.parts_of(row).find(|part| part.piece.cols.contains(&col));
        let (tensor, row, col) = match part {
            Some(part) if part.piece.is_transposed => {
                (&part.tensor, part.piece.first + col, row - part.piece.rows.start)
            }
            Some(part) => (&part.tensor, part.own_row(row), col - part.piece.cols.start),
            None => (self.tensors()[0], row, col),
        };
        tensor.error(format!("[{row}, {col}] is {value}, which cannot be quantized"))
    }

    fn parts_of(&self, row: usize) -> impl Iterator<Item = &PieceRows> {
        self.all_parts().iter().filter(move |part| part.piece.rows.contains(&row))
    }

    fn all_parts(&self) -> &[PieceRows] {
        match &self.form {
            Form::Plain(parts) | Form::Rows(_, parts) => parts,
            Form::Panels { .. } => unreachable!("panels are never taken apart"),
        }
    }
}
