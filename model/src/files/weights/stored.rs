//! One matrix as a checkpoint stores it.
//!
//! | stored as | `name` | `name` with `weight_scale` |
//! |---|---|---|
//! | plain | F32, F16 or BF16 `[rows, cols]` | |
//! | official INT8 | I8 `[rows, cols]` | F16 `[rows]`, or the same numbers as F32 or BF16 |
//! | official INT4 | I8 `[rows, cols / 2]`, the even column in the high nibble, two's complement | the same |
//! | GGUF | blocks `[rows, cols]`, see [`BlockType`](crate::BlockType) | |
//! | GPTQ, AWQ and others | see [`packed`](crate::files::packed) | |
//! | panels | U8 `[panels, blocks, block bytes]` | F16 `[panels, groups, 8]`, or `[panels, groups, 2, 8]` with a minimum or zero points |
//!
//! Panels are the kernels' layout (see `glm_kernels::Panels`). A file that holds them says so in its metadata. The shapes of the two
//! tensors give the bits, the columns that share a scale and the form of the groups, so that the matrices of a file may differ; where all of them agree on
//! the columns, the metadata say the number, too. All formats but panels may be split into several tensors, see [`Source`]. Tensors
//! side by side have a scale each for the same row.
//!
//! The metadata name one of three layouts. In `panels-2`, every matrix of eight bits whose columns are a multiple of 32 is rotated, see
//! `glm_kernels::Rotation`. In `panels-1` none is: official INT8 keeps its integers, and old files their meaning. A program that reads
//! only `panels-1` refuses rotated weights. In `panels-3`, which is as `panels-1` otherwise, the second number of a group is a zero point,
//! and a matrix may have `name` with `weight_order`, I32 `[cols]`: the input of each of its columns.

use std::ops::Range;

use glm_kernels::quantize::{Unquantizable, pack_panel, pack_scales, quantize_row};
use glm_kernels::{BLOCK, Bits, GroupForm, LANES, Rotation, Shape};
use half::f16;
use rayon::prelude::*;

use super::low_rank::LowRankRows;
use super::map::{Piece, Source};
use super::piece::PieceRows;
use crate::error::{Error, Result};
use crate::files::checkpoint::{Bytes, Checkpoint, Dtype, Tensor};
use crate::files::gguf::GROUP;
use crate::files::packed::{Order, Packing, stored_order};
use crate::memory::zeros;
use crate::network::layer::Weight;

/// The metadata key that marks a file in the kernels' layout.
pub(crate) const LAYOUT_KEY: &str = "glm.layout";
/// Its value: the layout and its version.
const LAYOUT_NAME: &str = "panels-1";
/// Its value where the matrices of eight bits are rotated.
const ROTATED_LAYOUT_NAME: &str = "panels-2";
/// Its value where the second number of a group is a zero point, and columns may have an order.
const ORDERED_LAYOUT_NAME: &str = "panels-3";
/// The metadata key for the columns that share a scale, if all matrices agree: a number, or `row`.
const GROUP_KEY: &str = "glm.group";

/// Columns that may share a scale.
pub const GROUPS: [usize; 3] = [32, 64, 128];

/// The name of the scales of a matrix: `….weight` → `….weight_scale`.
pub(crate) fn scale_name(name: &str) -> String {
    format!("{name}_scale")
}

/// The name of the order of the columns of a matrix: `….weight` → `….weight_order`.
pub(crate) fn order_name(name: &str) -> String {
    format!("{name}_order")
}

/// The metadata key for the bits of a weight that were asked for, if the matrices have different formats.
pub(crate) const TARGET_BITS_KEY: &str = "glm.target_bits";

/// What shares a scale in a file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Groups {
    /// The whole row, or its part of a shard.
    Rows,
    /// As many columns in all matrices.
    Columns(usize),
    /// Different numbers of columns.
    Mixed,
}

/// The metadata of a file in the kernels' layout. Either all of `shapes` that can be rotated are, or none; either all that have two numbers
/// for a group have zero points, or none, and none if some are rotated. `has_order` says whether a matrix has an order of columns.
pub(crate) fn layout_metadata<'a>(
    groups: Groups,
    shapes: impl IntoIterator<Item = &'a Shape> + Clone,
    has_order: bool,
) -> Vec<(&'static str, String)> {
    let group = match groups {
        Groups::Rows => Some(ROW.to_owned()),
        Groups::Columns(group) => Some(group.to_string()),
        Groups::Mixed => None,
    };
    let format = [("format", "glm".to_owned())].into_iter();
    let any = |is: fn(&Shape) -> bool| shapes.clone().into_iter().any(is);
    let layout = match any(|shape| shape.rotation != Rotation::None) {
        true => ROTATED_LAYOUT_NAME,
        false if has_order || any(|shape| shape.form == GroupForm::ZeroPoint) => {
            ORDERED_LAYOUT_NAME
        }
        false => LAYOUT_NAME,
    };
    let layout = [(LAYOUT_KEY, layout.to_owned())];
    format.chain(group.map(|group| (GROUP_KEY, group))).chain(layout).collect()
}

/// The value of [`GROUP_KEY`] for whole rows.
const ROW: &str = "row";

/// A matrix in a checkpoint, its types and shapes checked.
pub(crate) struct StoredMatrix {
    pub(crate) name: String,
    rows: usize,
    cols: usize,
    form: Form,
    /// What is added to the weights when they are read; only to plain ones.
    updates: Vec<LowRankRows>,
}

enum Form {
    Plain(Vec<PieceRows>),
    /// The official formats: integers in rows, and a scale for each row of each part; packed weights; and blocks of GGUF files. The shape is `None` if
    /// parts side by side are not a multiple of the kernels' block, or some parts are blocks and others are not; then the matrix is
    /// loaded as numbers. No published model has such parts.
    Rows(Option<Shape>, Vec<PieceRows>),
    Panels {
        shape: Shape,
        bytes: Tensor,
        scales: Tensor,
        /// The tensor of the order of the columns, and what it says.
        order: Option<Box<(Tensor, Order)>>,
    },
}

impl StoredMatrix {
    /// Finds a matrix.
    ///
    /// # Errors
    /// If it or its scales are missing, or of a type or shape that is none of the above.
    pub(crate) fn find(
        checkpoint: &Checkpoint,
        source: &Source,
        packing: Option<&Packing>,
    ) -> Result<Self> {
        let form = match checkpoint.get(&source.name) {
            Some(tensor) if tensor.dtype() == Dtype::U8 => panels(checkpoint, tensor, source)?,
            Some(_) => parts(checkpoint, source, &[source.whole()], packing)?,
            None => parts(checkpoint, source, &source.pieces, packing)?,
        };
        let (name, rows, cols) = (source.name.clone(), source.rows, source.cols);
        Ok(Self { name, rows, cols, form, updates: Vec::new() })
    }

    /// Adds an update to the weights, which are not quantized.
    pub(crate) fn update(&mut self, update: LowRankRows) {
        debug_assert!(!self.is_quantized());
        self.updates.push(update);
    }

    /// The tensors that hold its numbers, each once.
    pub(crate) fn tensors(&self) -> Vec<&Tensor> {
        let mut tensors: Vec<&Tensor> = match &self.form {
            Form::Panels { bytes, .. } => vec![bytes],
            Form::Plain(parts) | Form::Rows(_, parts) => parts.iter().map(|p| &p.tensor).collect(),
        };
        tensors.dedup_by_key(|tensor| tensor.name());
        tensors
    }

    /// The tensors that hold its scales, and what else belongs to it.
    pub(crate) fn companions(&self) -> Vec<&Tensor> {
        match &self.form {
            Form::Panels { scales, order, .. } => {
                [scales].into_iter().chain(order.iter().map(|order| &order.0)).collect()
            }
            Form::Plain(parts) | Form::Rows(_, parts) => {
                parts.iter().flat_map(PieceRows::companions).collect()
            }
        }
    }

    /// The bytes of everything that it is read from.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Bytes> {
        let updates = self.updates.iter().flat_map(LowRankRows::tensors);
        let own = self.tensors().into_iter().chain(self.companions());
        own.chain(updates).map(Tensor::data)
    }

    /// The order of the columns in [its shape](Self::shape), if they have one: the input of each.
    pub(crate) fn order(&self) -> Option<&Order> {
        match &self.form {
            Form::Panels { order, .. } => order.as_ref().map(|order| &order.1),
            Form::Rows(Some(_), parts) => parts[0].packed()?.order(),
            Form::Plain(_) | Form::Rows(None, _) => None,
        }
    }

    /// Rows and columns.
    pub(crate) fn size(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    /// The kernel shape that keeps the stored integers and scales, if the matrix is quantized and there is such a shape.
    pub(crate) fn shape(&self) -> Option<Shape> {
        match self.form {
            Form::Plain(_) => None,
            Form::Rows(shape, _) => shape,
            Form::Panels { shape, .. } => Some(shape),
        }
    }

    /// Whether it is stored quantized, in an official format or in panels.
    pub(crate) fn is_quantized(&self) -> bool {
        !matches!(self.form, Form::Plain(_))
    }

    /// The tensor, if the matrix is one plain tensor, with exactly its weights.
    pub(crate) fn plain(&self) -> Option<&Tensor> {
        match &self.form {
            Form::Plain(parts) if parts.len() == 1 && self.updates.is_empty() => {
                Some(&parts[0].tensor)
            }
            _ => None,
        }
    }

    /// Whether loading copies it into memory. Otherwise the kernels read it in the mapped file.
    pub(crate) fn is_copied(&self) -> bool {
        match self.plain() {
            Some(tensor) => !tensor.data().is_aligned(tensor.dtype().size()),
            None => !matches!(self.form, Form::Panels { .. }),
        }
    }

    /// Bytes of its tensors as they are stored, scales not counted.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.tensors().iter().map(|tensor| tensor.bytes().len() as u64).sum()
    }

    /// Bytes of weights and scales once it is loaded.
    pub(crate) fn loaded_bytes(&self) -> u64 {
        let bytes = match self.shape() {
            Some(shape) => {
                let order = self.order().map_or(0, |order| size_of_val(&**order));
                shape.bytes() + 2 * shape.scales() + order
            }
            None => self.rows * self.cols * self.joined_dtype().size(),
        };
        bytes as u64
    }

    /// The format of its weights, for people.
    pub(crate) fn format(&self) -> String {
        let Some(shape) = self.shape() else { return self.joined_dtype().to_string() };
        let bits = match shape.bits {
            Bits::Four => "INT4",
            Bits::Eight => "INT8",
        };
        let minimum = match shape.form {
            GroupForm::Scale => "",
            GroupForm::Minimum => " with minimum",
            GroupForm::ZeroPoint => " with zero points",
        };
        let rotated = match shape.rotation {
            Rotation::None => "",
            Rotation::Blocks => " rotated",
        };
        let order = if self.order().is_some() { ", reordered" } else { "" };
        match shape.groups() {
            1 => format!("{bits}{rotated}{minimum}, a scale a row{order}"),
            _ => {
                let group = shape.group_blocks * BLOCK;
                format!("{bits}{rotated}{minimum}, groups of {group}{order}")
            }
        }
    }

    /// The matrix as the kernels read it: in the mapped file if possible, else as a copy in memory.
    pub(crate) fn load(&self) -> Result<Weight> {
        self.load_with(&mut |stored| Ok(stored.clone()))
    }

    /// As [`load`](Self::load); `place` gets the stored bytes that the kernels can read, and returns the same bytes where they are to
    /// be read.
    ///
    /// # Errors
    /// As [`load`](Self::load), and those of `place`.
    pub(crate) fn load_with(
        &self,
        place: &mut dyn FnMut(&Bytes) -> Result<Bytes>,
    ) -> Result<Weight> {
        if let Form::Panels { shape, bytes, scales, .. } = &self.form {
            let (bytes, scales) = (place(bytes.data())?, place(scales.data())?);
            let weight = Weight::panels(&self.name, *shape, bytes, &scales)?;
            return Ok(weight.with_order(self.order().cloned()));
        }
        if self.is_copied() {
            let tensors = [self.tensors(), self.companions()].concat();
            tensors.iter().for_each(|tensor| tensor.data().use_small_pages());
        }
        let weight = match self.plain() {
            Some(tensor) => {
                Weight::plain(&self.name, tensor.dtype(), self.size(), &place(tensor.data())?)?
            }
            None => self.copied()?,
        };
        self.release_copied();
        Ok(weight)
    }

    /// Releases the stored bytes if there is a copy of them, which is read from now on. Otherwise both would be in memory.
    pub(crate) fn release_copied(&self) {
        if self.is_copied() {
            let tensors = [self.tensors(), self.companions()].concat();
            tensors.iter().for_each(|tensor| tensor.data().release());
        }
    }

    fn copied(&self) -> Result<Weight> {
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
                    same if same == dtype => to.copy_from_slice(part.row(first + row)),
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

fn parts(
    checkpoint: &Checkpoint,
    source: &Source,
    pieces: &[Piece],
    packing: Option<&Packing>,
) -> Result<Form> {
    let find = |piece| PieceRows::find(checkpoint, piece, packing);
    let parts: Vec<_> = pieces.iter().map(find).collect::<Result<_>>()?;
    if parts.iter().any(|part| part.packed().is_some()) {
        return Ok(Form::Rows(packed_shape(source, &parts), parts));
    }
    if parts.iter().any(PieceRows::is_of_blocks) {
        return Ok(Form::Rows(block_shape(source, &parts), parts));
    }
    let bits = parts[0].bits();
    if let Some(other) = parts.iter().find(|part| part.bits() != bits) {
        let first = parts[0].tensor.name();
        return Err(other
            .tensor
            .error(format!("is not quantized as {first} is, and both are one matrix")));
    }
    let Some(bits) = bits else { return Ok(Form::Plain(parts)) };
    let width = pieces[0].cols.len();
    let shape = if width == source.cols {
        Some(Shape::per_row(source.rows, source.cols, bits))
    } else {
        let whole_blocks = width.is_multiple_of(BLOCK) && source.cols.is_multiple_of(width);
        whole_blocks.then(|| Shape::grouped(source.rows, source.cols, bits, width))
    };
    Ok(Form::Rows(shape, parts))
}

/// The shape that holds packed parts, one below the other. `None` if not all are packed, or their groups or the orders of their columns
/// differ: query, key and value may.
fn packed_shape(source: &Source, parts: &[PieceRows]) -> Option<Shape> {
    let parts: Vec<_> = parts.iter().map(PieceRows::packed).collect::<Option<_>>()?;
    let shapes = || parts.iter().map(|part| part.shape(source.rows));
    let order = parts.first()?.order();
    // Symmetric weights have zero points, too.
    let form = shapes().map(|shape| shape.form).find(|form| *form == GroupForm::ZeroPoint);
    let mut shapes = shapes().map(|shape| shape.with_form(form.unwrap_or_default()));
    let first = shapes.next()?;
    let agree =
        shapes.all(|shape| shape == first) && parts.iter().all(|part| part.order() == order);
    let is_possible = first.bits == Bits::Four || form.is_none();
    (agree && is_possible && first.cols == source.cols).then_some(first)
}

/// The smallest groups of 32 columns that hold the blocks of all parts. `None` if a part is not quantized.
fn block_shape(source: &Source, parts: &[PieceRows]) -> Option<Shape> {
    let smallest = [
        (Bits::Four, GroupForm::Scale),
        (Bits::Four, GroupForm::Minimum),
        (Bits::Eight, GroupForm::Scale),
    ];
    let types: Vec<_> = parts.iter().map(PieceRows::block).collect::<Option<_>>()?;
    let fits = |(bits, form): &(Bits, GroupForm)| types.iter().all(|t| t.fits(*bits, *form));
    // Whatever fits in none is quantized again with eight bits, which lose the least.
    let (bits, form) = smallest.into_iter().find(fits).unwrap_or(smallest[2]);
    Some(Shape::grouped(source.rows, source.cols, bits, GROUP).with_form(form))
}

fn panels(checkpoint: &Checkpoint, bytes: &Tensor, source: &Source) -> Result<Form> {
    let (rows, cols) = (source.rows, source.cols);
    let metadata = checkpoint.metadata();
    let layout = metadata.get(LAYOUT_KEY).map(String::as_str);
    let known = [LAYOUT_NAME, ROTATED_LAYOUT_NAME, ORDERED_LAYOUT_NAME];
    if !layout.is_some_and(|layout| known.contains(&layout)) {
        let known = known.map(|name| format!("{name:?}")).join(", ");
        return Err(bytes.error(format!(
            "is quantized in the layout {}, and this version reads {known}: quantize the original again",
            layout.map_or_else(|| "of no name".to_owned(), |layout| format!("{layout:?}"))
        )));
    }
    let bits = match bytes.shape().last() {
        Some(&n) if n == Bits::Eight.block_bytes() => Bits::Eight,
        _ => Bits::Four,
    };
    let scales = checkpoint.tensor(&scale_name(bytes.name()))?;
    let shape = match metadata.get(GROUP_KEY).map(String::as_str) {
        None => shape_of(rows, cols, bits, scales),
        Some(ROW) => equal_groups(rows, cols, bits, scales),
        Some(group) => match group.parse() {
            Ok(group) if GROUPS.contains(&group) => Shape::grouped(rows, cols, bits, group),
            _ => {
                return Err(
                    bytes.error(format!("{GROUP_KEY} must be 32, 64, 128 or row, found {group}"))
                );
            }
        },
    };
    let is_ordered = layout == Some(ORDERED_LAYOUT_NAME);
    let form = match (bits, scales.shape().len()) {
        (Bits::Four, 4) if is_ordered => GroupForm::ZeroPoint,
        (Bits::Four, 4) => GroupForm::Minimum,
        _ => GroupForm::Scale,
    };
    let shape = shape.with_form(form);
    let shape = if layout == Some(ROTATED_LAYOUT_NAME) { shape.rotated() } else { shape };
    bytes.expect(&[Dtype::U8], &panel_shape(&shape))?;
    scales.expect(&[Dtype::F16], &scale_shape(&shape))?;
    let order = checkpoint.get(&order_name(bytes.name())).filter(|_| is_ordered);
    let with_columns =
        |tensor: &Tensor| Ok(Box::new((tensor.clone(), stored_order(tensor, cols)?)));
    let order = order.map(with_columns).transpose()?;
    Ok(Form::Panels { shape, bytes: bytes.clone(), scales: scales.clone(), order })
}

/// The shape that has as many groups in a row as there are scales.
fn shape_of(rows: usize, cols: usize, bits: Bits, scales: &Tensor) -> Shape {
    let mut shapes = GROUPS.map(|group| Shape::grouped(rows, cols, bits, group)).into_iter();
    let fitting = shapes.find(|shape| Some(&shape.groups()) == scales.shape().get(1));
    fitting.unwrap_or_else(|| equal_groups(rows, cols, bits, scales))
}

/// The shape for whole rows: a row has one scale, or one for each shard that it came from.
fn equal_groups(rows: usize, cols: usize, bits: Bits, scales: &Tensor) -> Shape {
    match scales.shape().get(1) {
        Some(&n) if n > 1 && cols.is_multiple_of(n) && (cols / n).is_multiple_of(BLOCK) => {
            Shape::grouped(rows, cols, bits, cols / n)
        }
        _ => Shape::per_row(rows, cols, bits),
    }
}

/// Shape of the tensor that holds a matrix in panels.
pub(crate) fn panel_shape(shape: &Shape) -> [usize; 3] {
    [shape.panels(), shape.cols.div_ceil(BLOCK), shape.bits.block_bytes()]
}

/// Shape of the tensor that holds its scales.
pub(crate) fn scale_shape(shape: &Shape) -> Vec<usize> {
    match shape.form {
        GroupForm::Scale => vec![shape.panels(), shape.groups(), LANES],
        GroupForm::Minimum | GroupForm::ZeroPoint => {
            vec![shape.panels(), shape.groups(), 2, LANES]
        }
    }
}
