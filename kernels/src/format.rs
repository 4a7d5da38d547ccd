//! The memory layouts of weights.
//!
//! Unquantized matrices keep the row-major order of published checkpoints and are read from the mapped file. Quantized matrices
//! are stored in **panels** of eight rows, so that a vector holds eight outputs and needs no shuffles or sums across lanes. A
//! panel is a sequence of 32-byte **runs**, each four bytes of row 0, four of row 1, … four of row 7:
//!
//! ```text
//! Q8   byte 4·r + j          weight [row r][k + j]                    a run covers 4 columns
//! Q4   byte 4·r + j, low     weight [row r][k + j]     + 8            a run covers 8 columns
//!      byte 4·r + j, high    weight [row r][k + j + 4] + 8
//! ```
//!
//! Integers of 0 pad the columns to a multiple of 32 and the rows to a multiple of 8. What a row stores for a group of columns is
//! `f16`, in one of three forms:
//!
//! ```text
//! Scale       weight = scale · integer                [panel][group][8]       the scales of the rows
//! Minimum     weight = scale · integer + offset       [panel][group][2][8]    the scales, then the offsets
//! ZeroPoint   weight = scale · (integer + 8 − zero)   [panel][group][2][8]    the scales, then the numbers −zero
//! ```
//!
//! A nibble of 0 is the integer −8 and gives the minimum of the group, so `offset = minimum + 8 · scale`. With the offset in place of
//! the minimum, both forms have the same integers. The products of quantized inputs use the minimum: `scale · Σ nibble · x` and
//! `minimum · Σ x`. A zero point is the nibble that stands for 0. Its minimum is `−zero · scale`, which `f32` represents exactly and
//! `f16` does not.
//!
//! What is stored is the row as it is, or, with [`Rotation::Blocks`], the row whose blocks of 32 columns are each multiplied with the
//! orthonormal [Walsh–Hadamard matrix](crate::reference::rotated). Blocks of inputs that are rotated, too, have the same products, and
//! lose less as 8-bit integers: an outlier is spread over its block and does not round the others away. That is for eight bits, where
//! the loss of the inputs is the larger part; four bits are not rotated, because columns are no longer of unequal importance.

use std::ops::Range;

use half::{bf16, f16};

use crate::rotation::Rotation;
use crate::simd::{BLOCK, LANES, Q4_BLOCK_BYTES, Q8_BLOCK_BYTES};

pub mod feedback;
mod minimum;
pub mod quantize;

/// Bits of a quantized weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// −8..=7, stored as a nibble of 0..=15.
    Four,
    /// −128..=127; [`quantize`] writes −127..=127.
    Eight,
}

impl Bits {
    /// Bytes of a block: 32 columns of eight rows.
    pub fn block_bytes(self) -> usize {
        match self {
            Bits::Four => Q4_BLOCK_BYTES,
            Bits::Eight => Q8_BLOCK_BYTES,
        }
    }
}

/// What a row stores for a group of columns, beside the integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupForm {
    /// A scale: `weight = scale · integer`.
    #[default]
    Scale,
    /// A scale and an offset: `weight = scale · integer + offset`, for weights that are not symmetric about 0. Only for four bits.
    Minimum,
    /// A scale and a zero point, the nibble that stands for 0: `weight = scale · (integer + 8 − zero)`. Stored is `−zero`, so that the
    /// product with the scale is the minimum. Only for four bits.
    ZeroPoint,
}

impl GroupForm {
    /// Numbers that are stored.
    pub fn numbers(self) -> usize {
        match self {
            GroupForm::Scale => 1,
            GroupForm::Minimum | GroupForm::ZeroPoint => 2,
        }
    }
}

/// The sizes of a quantized matrix, and which of its columns share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows, the outputs of a linear layer.
    pub rows: usize,
    /// Columns, its inputs.
    pub cols: usize,
    /// Bits of a weight.
    pub bits: Bits,
    /// Blocks of 32 columns that share a scale; the last group of a row may have fewer.
    pub group_blocks: usize,
    /// What is stored for a group.
    pub form: GroupForm,
    /// How the columns are rotated; only whole blocks of eight bits can be.
    pub rotation: Rotation,
}

impl Shape {
    /// A matrix with one scale for every `group` columns of a row.
    ///
    /// # Panics
    /// If `group` is not a positive multiple of 32.
    pub fn grouped(rows: usize, cols: usize, bits: Bits, group: usize) -> Self {
        assert!(group > 0 && group.is_multiple_of(BLOCK), "group of {group} columns");
        let (form, rotation) = (GroupForm::Scale, Rotation::None);
        Self { rows, cols, bits, group_blocks: group / BLOCK, form, rotation }
    }

    /// A matrix with one scale per row, as in the official quantized checkpoints.
    pub fn per_row(rows: usize, cols: usize, bits: Bits) -> Self {
        let group_blocks = cols.div_ceil(BLOCK).max(1);
        let (form, rotation) = (GroupForm::Scale, Rotation::None);
        Self { rows, cols, bits, group_blocks, form, rotation }
    }

    /// The same matrix with another form of groups.
    pub fn with_form(self, form: GroupForm) -> Self {
        Self { form, ..self }
    }

    /// The same matrix with rotated columns, if they can be: eight bits, and whole blocks. Others stay as they are.
    pub fn rotated(self) -> Self {
        let can = self.bits == Bits::Eight && self.cols.is_multiple_of(BLOCK);
        Self { rotation: if can { Rotation::Blocks } else { Rotation::None }, ..self }
    }

    /// Panels of eight rows.
    pub fn panels(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    /// Blocks of 32 columns in a row.
    pub fn blocks(&self) -> usize {
        self.cols.div_ceil(BLOCK)
    }

    /// Groups of columns in a row.
    ///
    /// # Panics
    /// If `group_blocks` is 0.
    #[track_caller]
    pub fn groups(&self) -> usize {
        assert!(self.group_blocks > 0, "groups of no columns");
        self.blocks().div_ceil(self.group_blocks)
    }

    /// Bytes of one panel.
    ///
    /// # Panics
    /// If the result overflows.
    #[track_caller]
    pub fn panel_bytes(&self) -> usize {
        self.blocks().checked_mul(self.bits.block_bytes()).expect("bytes of a panel overflow")
    }

    /// Bytes of all panels.
    ///
    /// # Panics
    /// If the result overflows.
    #[track_caller]
    pub fn bytes(&self) -> usize {
        self.panels().checked_mul(self.panel_bytes()).expect("bytes of the panels overflow")
    }

    /// Scales of a row, and offsets or zero points if the groups have them: those of the first group, those of the second, and so on.
    ///
    /// # Panics
    /// If `group_blocks` is 0.
    #[track_caller]
    pub fn row_scales(&self) -> usize {
        // No overflow: a group has at least 32 columns.
        self.groups() * self.form.numbers()
    }

    /// Scales, offsets and zero points of all panels.
    ///
    /// # Panics
    /// If `group_blocks` is 0, or the result overflows.
    #[track_caller]
    pub fn scales(&self) -> usize {
        let row = self.row_scales();
        let scales = self.panels().checked_mul(row).and_then(|n| n.checked_mul(LANES));
        scales.expect("scales of the panels overflow")
    }
}

/// A quantized matrix in panels.
#[derive(Clone, Copy, Debug)]
pub struct Panels<'a> {
    shape: Shape,
    bytes: &'a [u8],
    scales: &'a [f16],
}

impl<'a> Panels<'a> {
    /// `bytes`: `[panel][block][block_bytes]`; `scales`: `[panel][group][8]`, or `[panel][group][2][8]` where a group has two numbers.
    ///
    /// # Panics
    /// If a length does not fit `shape`, or `shape` is not possible.
    #[track_caller]
    pub fn new(shape: Shape, bytes: &'a [u8], scales: &'a [f16]) -> Self {
        assert!(
            shape.bits == Bits::Four || shape.form == GroupForm::Scale,
            "a minimum or a zero point of eight bits"
        );
        let is_possible = shape.rotation == Rotation::None || shape.rotated() == shape;
        assert!(is_possible, "a rotation of four bits or of part of a block");
        assert_eq!(bytes.len(), shape.bytes(), "bytes of the panels");
        assert_eq!(scales.len(), shape.scales(), "scales of the panels");
        Self { shape, bytes, scales }
    }

    /// The sizes of the matrix.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The blocks of one panel, and for each group the scales of its rows, each followed by the offsets or zero points if there are any.
    pub(crate) fn panel(&self, panel: usize) -> (&'a [u8], &'a [[f16; LANES]]) {
        let bytes = self.shape.panel_bytes();
        let (scales, _) = self.scales.as_chunks::<LANES>();
        let n = self.shape.row_scales();
        (&self.bytes[panel * bytes..][..bytes], &scales[panel * n..][..n])
    }

    /// The rows `rows`, which begin and end with a panel or with the matrix.
    #[track_caller]
    fn row_range(&self, rows: Range<usize>) -> Self {
        let is_whole = |row: usize| row.is_multiple_of(LANES) || row == self.shape.rows;
        assert!(is_whole(rows.start) && is_whole(rows.end), "rows {rows:?} cut a panel");
        let shape = Shape { rows: rows.len(), ..self.shape };
        let panel = rows.start.div_ceil(LANES);
        let bytes = &self.bytes[panel * shape.panel_bytes()..][..shape.bytes()];
        let scales = &self.scales[panel * shape.row_scales() * LANES..][..shape.scales()];
        Self { shape, bytes, scales }
    }

    /// The integer at `[row][col]`.
    fn integer(&self, row: usize, col: usize) -> i32 {
        let (panel, _) = self.panel(row / LANES);
        let lane = row % LANES;
        match self.shape.bits {
            Bits::Four => {
                let byte = panel[col / 8 * 32 + lane * 4 + col % 4];
                i32::from(if col % 8 < 4 { byte & 15 } else { byte >> 4 }) - 8
            }
            Bits::Eight => i32::from(panel[col / 4 * 32 + lane * 4 + col % 4] as i8),
        }
    }

    /// What is stored for the group of the weight at `[row][col]`: the scale, and the offset if it is not 0 by its form.
    fn numbers(&self, row: usize, col: usize) -> (f32, Option<f32>) {
        let (_, scales) = self.panel(row / LANES);
        let form = self.shape.form;
        let group = &scales[col / BLOCK / self.shape.group_blocks * form.numbers()..];
        let scale = group[0][row % LANES].to_f32();
        let offset = match form {
            GroupForm::Scale => None,
            GroupForm::Minimum => Some(group[1][row % LANES].to_f32()),
            GroupForm::ZeroPoint => Some(scale * (8.0 + group[1][row % LANES].to_f32())),
        };
        (scale, offset)
    }

    /// Writes the weights of a row.
    fn row(&self, row: usize, out: &mut [f32]) {
        for (col, out) in out.iter_mut().enumerate() {
            let (scale, offset) = self.numbers(row, col);
            let scaled = self.integer(row, col) as f32 * scale;
            *out = offset.map_or(scaled, |offset| scaled + offset);
        }
        self.shape.rotation.apply(out);
    }

    /// Writes the magnitudes of the terms of the weights of a row. Where blocks are rotated, every stored weight of a block is a term of
    /// each weight.
    fn magnitudes(&self, row: usize, out: &mut [f32]) {
        for (col, out) in out.iter_mut().enumerate() {
            *out = self.magnitude(row, col);
        }
        if self.shape.rotation == Rotation::Blocks {
            for block in out.as_chunks_mut::<BLOCK>().0 {
                *block = [block.iter().sum::<f32>() / (BLOCK as f32).sqrt(); BLOCK];
            }
        }
    }

    /// The magnitude of the weight at `[row][col]`, or of the terms that are multiplied one by one: `scale · nibble` and the minimum.
    fn magnitude(&self, row: usize, col: usize) -> f32 {
        let (scale, offset) = self.numbers(row, col);
        let integer = self.integer(row, col) as f32;
        match offset {
            None => (scale * integer).abs(),
            Some(offset) => (scale * (integer + 8.0)).abs() + (offset - 8.0 * scale).abs(),
        }
    }
}

/// The weights of a matrix.
#[derive(Clone, Copy, Debug)]
pub enum Storage<'a> {
    /// `[rows][cols]`
    F32(&'a [f32]),
    /// `[rows][cols]`
    F16(&'a [f16]),
    /// `[rows][cols]`
    BF16(&'a [bf16]),
    /// Four or eight bits in panels.
    Panels(Panels<'a>),
}

/// A matrix of weights: `rows` outputs, `cols` inputs.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    rows: usize,
    cols: usize,
    storage: Storage<'a>,
}

impl<'a> Matrix<'a> {
    /// A matrix of `rows` × `cols`.
    ///
    /// # Panics
    /// If `storage` holds another number of weights, or `rows · cols` overflows.
    #[track_caller]
    pub fn new(rows: usize, cols: usize, storage: Storage<'a>) -> Self {
        let weights = rows.checked_mul(cols);
        let fits = match storage {
            Storage::F32(w) => Some(w.len()) == weights,
            Storage::F16(w) => Some(w.len()) == weights,
            Storage::BF16(w) => Some(w.len()) == weights,
            Storage::Panels(p) => p.shape.rows == rows && p.shape.cols == cols,
        };
        assert!(fits, "storage does not hold {rows} × {cols} weights");
        Self { rows, cols, storage }
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// How its inputs are rotated if they are quantized.
    pub fn rotation(&self) -> Rotation {
        match self.storage {
            Storage::Panels(p) => p.shape.rotation,
            _ => Rotation::None,
        }
    }

    /// The weights.
    pub fn storage(&self) -> Storage<'a> {
        self.storage
    }

    /// The matrix of the rows `rows`.
    ///
    /// # Panics
    /// If the matrix does not have them, or they begin or end within a panel of eight rows.
    #[must_use]
    #[track_caller]
    pub fn row_range(&self, rows: Range<usize>) -> Self {
        assert!(rows.start <= rows.end && rows.end <= self.rows, "rows {rows:?} of {}", self.rows);
        let weights = rows.start * self.cols..rows.end * self.cols;
        let storage = match self.storage {
            Storage::F32(w) => Storage::F32(&w[weights]),
            Storage::F16(w) => Storage::F16(&w[weights]),
            Storage::BF16(w) => Storage::BF16(&w[weights]),
            Storage::Panels(p) => Storage::Panels(p.row_range(rows.clone())),
        };
        Self { rows: rows.len(), cols: self.cols, storage }
    }

    /// Writes row `row` to `out` as `f32`: an embedding.
    ///
    /// # Panics
    /// If the matrix has no such row, or `out` does not have the length of a row.
    #[track_caller]
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.cols, "row {row} of {}", self.rows);
        let range = row * self.cols..(row + 1) * self.cols;
        match self.storage {
            Storage::F32(w) => out.copy_from_slice(&w[range]),
            Storage::F16(w) => out.iter_mut().zip(&w[range]).for_each(|(o, w)| *o = w.to_f32()),
            Storage::BF16(w) => out.iter_mut().zip(&w[range]).for_each(|(o, w)| *o = w.to_f32()),
            Storage::Panels(p) => p.row(row, out),
        }
    }

    /// The magnitudes of the weights of row `row`, or of the terms that are multiplied one by one.
    pub(crate) fn magnitudes(&self, row: usize, out: &mut [f32]) {
        if let Storage::Panels(p) = self.storage {
            return p.magnitudes(row, out);
        }
        self.row(row, out);
        out.iter_mut().for_each(|weight| *weight = weight.abs());
    }
}
