//! A piece of a matrix: rows of one tensor, in one of the formats of [`stored`](super::stored) but panels.

use std::ops::Range;

use glm_kernels::quantize::quantize_row;
use glm_kernels::{Bits, Shape};
use half::f16;

use super::map::Piece;
use super::stored::scale_name;
use super::{PLAIN, widen_into};
use crate::error::Result;
use crate::files::checkpoint::{Checkpoint, Dtype, Tensor};
use crate::files::gguf::{BlockType, GROUP};
use crate::files::packed::{PackedMatrix, Packing, integers_of};
use crate::memory::zeros;

/// A piece of a matrix in a checkpoint.
pub(super) struct PieceRows {
    pub(super) tensor: Tensor,
    pub(super) piece: Piece,
    kind: Kind,
}

enum Kind {
    Plain,
    /// Integers in rows, and a scale for each row.
    Official(Bits, Tensor),
    Blocks(BlockType),
    Packed(Box<PackedMatrix>),
}

impl PieceRows {
    /// # Errors
    /// If the tensor or its scales are missing, or of another type or shape.
    pub(super) fn find(
        checkpoint: &Checkpoint,
        piece: &Piece,
        packing: Option<&Packing>,
    ) -> Result<Self> {
        if let Some(packed) = find_packed(checkpoint, piece, packing)? {
            let (tensor, piece) = (packed.tensor().clone(), piece.clone());
            return Ok(Self { tensor, piece, kind: Kind::Packed(packed.into()) });
        }
        let tensor = checkpoint.tensor(&piece.name)?;
        let [rows, cols] = piece.shape();
        if piece.is_transposed && !PLAIN.contains(&tensor.dtype()) {
            let problem = "is quantized, and it must be transposed for latent attention: take a model in which it is not";
            return Err(tensor.error(problem));
        }
        let kind = match tensor.dtype() {
            Dtype::I8 => {
                let bits = if tensor.shape() == [rows, cols / 2] && cols.is_multiple_of(2) {
                    Bits::Four
                } else {
                    tensor.expect(&[Dtype::I8], &[rows, cols])?;
                    Bits::Eight
                };
                let scales = checkpoint.tensor(&scale_name(tensor.name()))?;
                // The published code computes them in f16, and some programs save them as F32.
                scales.expect(&PLAIN, &[rows])?;
                Kind::Official(bits, scales.clone())
            }
            dtype @ Dtype::Block(block) => {
                tensor.expect(&[dtype], &[rows, cols])?;
                Kind::Blocks(block)
            }
            _ => {
                tensor.expect(&PLAIN, &[rows, cols])?;
                Kind::Plain
            }
        };
        Ok(Self { tensor: tensor.clone(), piece: piece.clone(), kind })
    }

    /// The bits of the official format.
    pub(super) fn bits(&self) -> Option<Bits> {
        match self.kind {
            Kind::Official(bits, _) => Some(bits),
            _ => None,
        }
    }

    /// The tensors beside that of the integers.
    pub(super) fn companions(&self) -> Vec<&Tensor> {
        match &self.kind {
            Kind::Official(_, scales) => vec![scales],
            Kind::Packed(packed) => packed.companions().collect(),
            _ => Vec::new(),
        }
    }

    /// The packed matrix.
    pub(super) fn packed(&self) -> Option<&PackedMatrix> {
        match &self.kind {
            Kind::Packed(packed) => Some(&**packed),
            _ => None,
        }
    }

    /// The type of the blocks.
    pub(super) fn block(&self) -> Option<BlockType> {
        match self.kind {
            Kind::Blocks(block) => Some(block),
            _ => None,
        }
    }

    pub(super) fn is_of_blocks(&self) -> bool {
        self.block().is_some()
    }

    /// The row of the tensor that is row `row` of the matrix.
    pub(super) fn own_row(&self, row: usize) -> usize {
        row - self.piece.rows.start + self.piece.first
    }

    /// Copies the bytes of row `row` of the matrix, which is plain.
    pub(super) fn copy_row(&self, row: usize, to: &mut [u8]) {
        if !self.piece.is_transposed {
            return to.copy_from_slice(self.row(row));
        }
        let (Piece { first, rows, .. }, size) = (&self.piece, self.tensor.dtype().size());
        let (width, column) = (rows.len() * size, (row - rows.start) * size);
        let stored = self.tensor.bytes()[first * width..].chunks_exact(width);
        let elements = to.chunks_exact_mut(size).zip(stored);
        elements.for_each(|(to, stored)| to.copy_from_slice(&stored[column..][..size]));
    }

    /// The bytes of row `row` of the matrix, which is not transposed.
    fn row(&self, row: usize) -> &[u8] {
        let bytes = self.tensor.bytes();
        let n = bytes.len() / self.piece.height;
        &bytes[self.own_row(row) * n..][..n]
    }

    /// Integers and scales of the rows `rows` of the matrix, which is quantized, in groups of `shape`.
    ///
    /// # Errors
    /// If a scale is not finite, or a weight cannot be quantized again.
    pub(super) fn integers<'t>(
        &self,
        shape: &Shape,
        rows: Range<usize>,
        targets: impl Iterator<Item = (&'t mut [i8], &'t mut [f16])>,
    ) -> Result<()> {
        let cols = self.piece.cols.len();
        let packed = match self.packed() {
            Some(packed) => packed.rows(self.own_row(rows.start), rows.len())?,
            None => Vec::new(),
        };
        let mut packed = packed.chunks_exact(cols);
        for (row, (out, scales)) in rows.zip(targets) {
            self.row_integers(shape, row, packed.next().unwrap_or_default(), out, scales)?;
        }
        Ok(())
    }

    /// Integers and scales of one row, whose integers are `packed` if the matrix is.
    fn row_integers(
        &self,
        shape: &Shape,
        row: usize,
        packed: &[u8],
        out: &mut [i8],
        scales: &mut [f16],
    ) -> Result<()> {
        match &self.kind {
            Kind::Official(bits, stored) => {
                scales.fill(scale(stored, self.own_row(row)));
                official_integers(*bits, self.row(row), out);
            }
            Kind::Blocks(block) if block.fits(shape.bits, shape.form) => {
                block.pack(self.row(row), shape.form, out, scales);
                if let Some(group) = scales.iter().position(|scale| !scale.is_finite()) {
                    let col = group / shape.form.numbers() * GROUP;
                    let own = self.own_row(row);
                    let problem = format!("the scale of [{own}, {col}] is not finite in F16");
                    return Err(self.tensor.error(problem));
                }
            }
            Kind::Packed(matrix) => {
                matrix.pack(self.own_row(row), packed, shape.form, out, scales)?;
            }
            Kind::Blocks(_) | Kind::Plain => {
                let mut values = zeros(out.len(), self.tensor.name())?;
                self.values(row, &mut values)?;
                let shape = Shape { rows: 1, cols: out.len(), ..*shape };
                quantize_row(&shape, &values, out, scales).map_err(|bad| {
                    let (own, col, value) = (self.own_row(row), bad.col, bad.value);
                    self.tensor
                        .error(format!("[{own}, {col}] is {value}, which cannot be quantized"))
                })?;
            }
        }
        Ok(())
    }

    /// The weights of row `row` of the matrix.
    ///
    /// # Errors
    /// If the memory cannot be allocated.
    pub(super) fn values(&self, row: usize, out: &mut [f32]) -> Result<()> {
        match &self.kind {
            Kind::Plain if self.piece.is_transposed => {
                let dtype = self.tensor.dtype();
                let mut bytes = zeros(out.len() * dtype.size(), self.tensor.name())?;
                self.copy_row(row, &mut bytes);
                widen_into(dtype, &bytes, out);
            }
            Kind::Plain => widen_into(self.tensor.dtype(), self.row(row), out),
            Kind::Blocks(block) => block.widen(self.row(row), out),
            Kind::Packed(packed) => packed.widen(self.own_row(row), out)?,
            Kind::Official(bits, scales) => {
                let mut integers = zeros(out.len(), self.tensor.name())?;
                official_integers(*bits, self.row(row), &mut integers);
                let scale = scale(scales, self.own_row(row)).to_f32();
                out.iter_mut().zip(integers).for_each(|(out, q)| *out = f32::from(q) * scale);
            }
        }
        Ok(())
    }
}

/// The packed matrix of a piece, if it is one.
fn find_packed(
    checkpoint: &Checkpoint,
    piece: &Piece,
    packing: Option<&Packing>,
) -> Result<Option<PackedMatrix>> {
    let layer = piece.name.strip_suffix(".weight").unwrap_or(&piece.name);
    match (packing, integers_of(checkpoint, layer)) {
        (_, None) => Ok(None),
        (Some(packing), Some(integers)) => {
            let size = piece.shape();
            if piece.is_transposed {
                let problem = "is packed, and it must be transposed for latent attention: take a model in which it is not";
                return Err(integers.error(problem));
            }
            let found = PackedMatrix::find(checkpoint, layer, size, packing)?;
            let name = packing.name;
            let other = || integers.error(format!("is not what quantization_config says: {name}"));
            found.map(Some).ok_or_else(other)
        }
        (None, Some(integers)) => Err(integers.error(
            "is packed, and no quantization_config in config.json says how: take the config.json of the same repository",
        )),
    }
}

fn scale(scales: &Tensor, row: usize) -> f16 {
    let size = scales.dtype().size();
    let mut scale = [0.0];
    widen_into(scales.dtype(), &scales.bytes()[row * size..][..size], &mut scale);
    f16::from_f32(scale[0])
}

/// The integers of a row of the official formats.
fn official_integers(bits: Bits, row: &[u8], out: &mut [i8]) {
    match bits {
        Bits::Four => {
            for (pair, &byte) in out.chunks_exact_mut(2).zip(row) {
                pair.copy_from_slice(&[byte as i8 >> 4, (byte << 4) as i8 >> 4]);
            }
        }
        Bits::Eight => out.copy_from_slice(bytemuck::cast_slice(row)),
    }
}
