//! Small unsigned integers in words of 32 bits.

use glm_kernels::Bits;

use crate::error::Result;
use crate::files::checkpoint::{Dtype, Tensor};
use crate::memory::zeros;

/// Bits of a word.
const WORD: usize = 32;

/// The place of each of eight values in a word of AWQ, which has the even ones first.
const INTERLEAVED: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// One of the axes of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    First,
    Second,
}

/// A matrix whose neighbours along one axis share a word.
pub(super) struct Words {
    tensor: Tensor,
    bits: Bits,
    packed: Axis,
    interleaved: bool,
    /// Added to each value. A carry goes to the next of the word.
    plus: u32,
}

fn width(bits: Bits) -> usize {
    match bits {
        Bits::Four => 4,
        Bits::Eight => 8,
    }
}

/// The shape of the tensor with values of `axes`.
pub(super) fn shape([first, second]: [usize; 2], packed: Axis, bits: Bits) -> [usize; 2] {
    let values = WORD / width(bits);
    match packed {
        Axis::First => [first.div_ceil(values), second],
        Axis::Second => [first, second.div_ceil(values)],
    }
}

impl Words {
    /// # Errors
    /// If the tensor has another type or shape.
    pub(super) fn find(
        tensor: &Tensor,
        axes: [usize; 2],
        packed: Axis,
        bits: Bits,
        interleaved: bool,
    ) -> Result<Self> {
        tensor.expect(&[Dtype::I32], &shape(axes, packed, bits))?;
        if interleaved && bits == Bits::Eight {
            return Err(tensor.error("has eight bits a weight, and AWQ is supported with four"));
        }
        Ok(Self { tensor: tensor.clone(), bits, packed, interleaved, plus: 0 })
    }

    /// The same with a number added to each value.
    pub(super) fn plus(self, plus: u32) -> Self {
        let each = match self.bits {
            Bits::Four => 0x1111_1111,
            Bits::Eight => 0x0101_0101,
        };
        Self { plus: plus * each, ..self }
    }

    pub(super) fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    pub(super) fn bits(&self) -> Bits {
        self.bits
    }

    /// Where value `index` of a word begins.
    fn shift(&self, index: usize) -> usize {
        width(self.bits) * if self.interleaved { INTERLEAVED[index] } else { index }
    }

    /// Writes the values at index `at` of `axis`, as many as `out` holds.
    ///
    /// # Errors
    /// If the memory cannot be allocated.
    pub(super) fn line(&self, axis: Axis, at: usize, out: &mut [u8]) -> Result<()> {
        let len = out.len();
        self.lines(axis, at, len, out)
    }

    /// Writes `len` values at each index of `axis` from `first` on, as many lines as `out` holds. Lines that share words are read
    /// together.
    ///
    /// # Errors
    /// If the memory cannot be allocated.
    pub(super) fn lines(&self, axis: Axis, first: usize, len: usize, out: &mut [u8]) -> Result<()> {
        let (values, mask) = (WORD / width(self.bits), (1 << width(self.bits)) - 1);
        let stride = self.tensor.shape()[1];
        let words = self.tensor.bytes().as_chunks::<4>().0;
        let word = |fixed: usize, other: usize| {
            let index = match axis {
                Axis::First => fixed * stride + other,
                Axis::Second => other * stride + fixed,
            };
            u32::from_le_bytes(words[index]).wrapping_add(self.plus)
        };
        if axis == self.packed {
            let mut at = first;
            let mut rest = out;
            // Gathered first, so that the loop over each line is vectorized.
            let mut shared = zeros(len, self.tensor.name())?;
            while !rest.is_empty() {
                let (fixed, index) = (at / values, at % values);
                let count = (values - index).min(rest.len() / len);
                let (lines, others) = rest.split_at_mut(count * len);
                shared.iter_mut().enumerate().for_each(|(other, to)| *to = word(fixed, other));
                for (index, line) in (index..values).zip(lines.chunks_exact_mut(len)) {
                    let shift = self.shift(index);
                    let pairs = line.iter_mut().zip(&shared);
                    pairs.for_each(|(out, word)| *out = (word >> shift & mask) as u8);
                }
                (at, rest) = (at + count, others);
            }
            return Ok(());
        }
        for (at, line) in (first..).zip(out.chunks_exact_mut(len)) {
            for (other, out) in line.chunks_mut(values).enumerate() {
                let word = word(at, other);
                for (index, out) in out.iter_mut().enumerate() {
                    *out = (word >> self.shift(index) & mask) as u8;
                }
            }
        }
        Ok(())
    }
}
