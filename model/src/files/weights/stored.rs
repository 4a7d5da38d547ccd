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
//! Panels are the kernels' layout (see `glm_kernels::Panels`). A file that holds them says so in its metadata, see [`layout`]. The shapes of the two
//! tensors give the bits, the columns that share a scale and the form of the groups, so that the matrices of a file may differ; where all of them agree on
//! the columns, the metadata say the number, too. All formats but panels may be split into several tensors, see [`Source`]. Tensors
//! side by side have a scale each for the same row.

use glm_kernels::{BLOCK, Bits, GroupForm, Rotation, Shape};

use super::low_rank::LowRankRows;
use super::map::{Piece, Source};
use super::piece::PieceRows;
use crate::error::Result;
use crate::files::checkpoint::{Bytes, Checkpoint, Dtype, Tensor};
use crate::files::gguf::GROUP;
use crate::files::packed::{Order, Packing};
use crate::network::layer::Weight;

mod convert;
mod layout;

pub use layout::GROUPS;
use layout::panels;
pub(crate) use layout::{
    Groups, LAYOUT_KEY, TARGET_BITS_KEY, layout_metadata, order_name, panel_shape, scale_name,
    scale_shape,
};

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
