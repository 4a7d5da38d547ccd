//! One tensor: name, type, shape and bytes.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::Bytes;
use crate::error::{Error, Result};
use crate::files::gguf::BlockType;
use crate::limits::checkpoint::MAX_RANK;

/// The type of a tensor's elements, little-endian in the file.
///
/// Weights have the first five types. Buffers that no model uses have the others; such a tensor must be readable to be ignored or
/// named in an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the usual ones")]
pub enum Dtype {
    F32,
    F16,
    BF16,
    I8,
    U8,
    F64,
    I64,
    I32,
    I16,
    Bool,
    /// Blocks of quantized weights in a GGUF file. A row is a whole number of blocks.
    Block(BlockType),
}

impl Dtype {
    /// Bytes per element, or per block.
    pub fn size(self) -> usize {
        match self {
            Dtype::I8 | Dtype::U8 | Dtype::Bool => 1,
            Dtype::F16 | Dtype::BF16 | Dtype::I16 => 2,
            Dtype::F32 | Dtype::I32 => 4,
            Dtype::F64 | Dtype::I64 => 8,
            Dtype::Block(block) => block.bytes(),
        }
    }

    /// Bytes of a tensor; `None` if there are too many, or if its rows are no whole number of blocks.
    pub(crate) fn byte_len(self, shape: &[usize]) -> Option<usize> {
        let elements = elements(shape)?;
        let Dtype::Block(block) = self else { return elements.checked_mul(self.size()) };
        let is_whole = shape.last().is_some_and(|row| row.is_multiple_of(block.values()));
        is_whole.then(|| (elements / block.values()).checked_mul(block.bytes()))?
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dtype::Block(block) => fmt::Display::fmt(block, f),
            plain => fmt::Debug::fmt(plain, f),
        }
    }
}

/// A tensor of a checkpoint, contiguous and row-major.
#[derive(Debug, Clone)]
pub struct Tensor {
    path: Arc<Path>,
    name: Arc<str>,
    dtype: Dtype,
    shape: Vec<usize>,
    data: Bytes,
}

impl Tensor {
    /// Cuts a tensor out of `file` at `range`, which must be as long as type and shape say.
    pub(crate) fn new(
        path: &Arc<Path>,
        name: &str,
        dtype: Dtype,
        shape: Vec<usize>,
        file: &Bytes,
        range: Range<usize>,
    ) -> Result<Self> {
        let fail = |problem: String| Error::tensor(path, name, problem);
        if name.chars().any(char::is_control) {
            let problem = format!("a tensor is called {name:?}, which cannot be printed");
            return Err(Error::file(path, problem));
        }
        if shape.len() > MAX_RANK {
            return Err(fail(format!("has {} axes, more than {MAX_RANK}", shape.len())));
        }
        let expected = dtype
            .byte_len(&shape)
            .ok_or_else(|| fail(format!("{dtype} {shape:?} is larger than any memory")))?;
        let data = file
            .slice(range.clone())
            .ok_or_else(|| fail(format!("bytes {range:?} lie outside the file")))?;
        if data.len() != expected {
            let found = data.len();
            return Err(fail(format!("{dtype} {shape:?} takes {expected} bytes, found {found}")));
        }
        Ok(Self { path: Arc::clone(path), name: name.into(), dtype, shape, data })
    }

    /// The tensor's full name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn renamed(self, name: &str) -> Self {
        Self { name: name.into(), ..self }
    }

    pub(super) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// The file that holds it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The type of its elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Its axes, slowest first; at most eight.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its elements, little-endian and row-major. The length follows from type and shape. The bytes may be misaligned for the type,
    /// see [`Bytes`].
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// The same bytes; a clone does not borrow the checkpoint.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Part `index` of `count` equal parts along the first axes, as a tensor of its own with shape `shape`, which has as many elements.
    /// `None` if the parts are not of this size.
    pub(crate) fn part(
        &self,
        name: &str,
        index: usize,
        count: usize,
        shape: [usize; 2],
    ) -> Option<Self> {
        let bytes = self.dtype.byte_len(&shape)?;
        if bytes.checked_mul(count)? != self.data.len() || index >= count {
            return None;
        }
        let data = self.data.slice(index * bytes..(index + 1) * bytes)?;
        let (path, dtype) = (Arc::clone(&self.path), self.dtype);
        Some(Self { path, name: name.into(), dtype, shape: shape.to_vec(), data })
    }

    /// Checks that the tensor has one of these types and exactly this shape.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`], saying what was expected and what was found.
    pub fn expect(&self, dtypes: &[Dtype], shape: &[usize]) -> Result<()> {
        if dtypes.contains(&self.dtype) && self.shape == shape {
            return Ok(());
        }
        let dtypes: Vec<_> = dtypes.iter().map(Dtype::to_string).collect();
        Err(self.error(format!(
            "expected {} {shape:?}, found {} {:?}",
            dtypes.join(" or "),
            self.dtype,
            self.shape
        )))
    }

    /// An error about this tensor.
    pub(crate) fn error(&self, problem: impl Into<String>) -> Error {
        Error::tensor(&self.path, &self.name, problem)
    }
}

/// How many elements a shape has; `None` where the product does not fit.
pub(super) fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dtype: Dtype, shape: &[usize], range: Range<usize>) -> Result<Tensor> {
        let path = Path::new("dir/model.bin").into();
        Tensor::new(&path, "a.weight", dtype, shape.to_vec(), &vec![0; 100].into(), range)
    }

    #[track_caller]
    fn refused(result: Result<Tensor>, problem: &str) {
        let error = result.unwrap_err().to_string();
        assert_eq!(error, format!("dir/model.bin: tensor a.weight: {problem}"));
    }

    #[test]
    fn type_shape_and_bytes_agree() {
        let good = tensor(Dtype::F16, &[5, 3], 7..37).unwrap();
        assert_eq!(good.bytes().len(), 30);
        assert_eq!(tensor(Dtype::F32, &[], 0..4).unwrap().shape(), &[0; 0]);
        assert!(tensor(Dtype::F32, &[3, 0], 9..9).unwrap().bytes().is_empty());
        refused(tensor(Dtype::F16, &[5, 3], 7..36), "F16 [5, 3] takes 30 bytes, found 29");
        refused(tensor(Dtype::I8, &[100], 1..101), "bytes 1..101 lie outside the file");
        refused(tensor(Dtype::I8, &[1; 9], 0..1), "has 9 axes, more than 8");
        let half = 1 << (usize::BITS / 2);
        refused(
            tensor(Dtype::I8, &[half, half], 0..0),
            &format!("I8 [{half}, {half}] is larger than any memory"),
        );
    }

    #[test]
    fn expect_says_what_it_expected() {
        let tensor = tensor(Dtype::F16, &[5, 3], 0..30).unwrap();
        assert!(tensor.expect(&[Dtype::F32, Dtype::F16], &[5, 3]).is_ok());
        let shape = tensor.expect(&[Dtype::F16], &[3, 5]).unwrap_err().to_string();
        assert!(shape.ends_with("a.weight: expected F16 [3, 5], found F16 [5, 3]"), "{shape}");
        let dtype = tensor.expect(&[Dtype::F32, Dtype::I8], &[5, 3]).unwrap_err().to_string();
        assert!(dtype.ends_with("expected F32 or I8 [5, 3], found F16 [5, 3]"), "{dtype}");
    }
}
