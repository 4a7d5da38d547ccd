//! A vector as a checkpoint stores it: a bias or the weights of a norm.

use super::map::{Piece, Source};
use super::{PLAIN, widen_into};
use crate::error::Result;
use crate::files::checkpoint::{Checkpoint, Tensor};
use crate::memory::zeros;

/// A vector in a checkpoint, its types and shapes checked.
pub(crate) struct StoredVector {
    pub(crate) name: String,
    pub(crate) len: usize,
    /// One tensor with the name of the vector, or the pieces that it is published in.
    pieces: Vec<(Tensor, Piece)>,
}

impl StoredVector {
    /// Finds a vector.
    ///
    /// # Errors
    /// If a piece or a copy of it is missing, or of another type or shape.
    pub(crate) fn find(checkpoint: &Checkpoint, source: &Source) -> Result<Self> {
        for name in &source.copies {
            checkpoint.tensor(name)?.expect(&PLAIN, &[source.rows])?;
        }
        let whole = [source.whole()];
        let pieces =
            if checkpoint.get(&source.name).is_some() { &whole[..] } else { &source.pieces };
        let find = |piece: &Piece| {
            let tensor = checkpoint.tensor(&piece.name)?;
            tensor.expect(&PLAIN, &[piece.height])?;
            Ok((tensor.clone(), piece.clone()))
        };
        let pieces = pieces.iter().map(find).collect::<Result<_>>()?;
        Ok(Self { name: source.name.clone(), len: source.rows, pieces })
    }

    /// The tensors that hold its numbers, each once.
    pub(crate) fn tensors(&self) -> Vec<&Tensor> {
        let mut tensors: Vec<_> = self.pieces.iter().map(|(tensor, _)| tensor).collect();
        tensors.dedup_by_key(|tensor| tensor.name());
        tensors
    }

    /// The tensor with the name of the vector, if there is one.
    pub(crate) fn whole(&self) -> Option<&Tensor> {
        let (tensor, _) = self.pieces.first()?;
        (tensor.name() == self.name).then_some(tensor)
    }

    /// Its numbers.
    ///
    /// # Errors
    /// If the memory cannot be allocated.
    pub(crate) fn load(&self) -> Result<Vec<f32>> {
        let mut out = zeros(self.len, &self.name)?;
        for (tensor, piece) in &self.pieces {
            let mut values = zeros(piece.height, &self.name)?;
            widen_into(tensor.dtype(), tensor.bytes(), &mut values);
            out[piece.rows.clone()].copy_from_slice(&values[piece.first..][..piece.rows.len()]);
        }
        Ok(out)
    }
}
