//! The layout of a safetensors file that is to be written: which bytes each tensor gets, and the header that says so.
//!
//! The header is written here and not by the `safetensors` crate, whose writer needs all data in memory, aligns to 8 bytes only
//! and keeps the metadata in a hash map, so that the same model would not always give the same bytes.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::{Value, json};

use super::Dtype;

/// The data of a file begin on a multiple of this: a cache line, and the widest vector register.
const ALIGNMENT: usize = 64;

/// A tensor that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorSpec {
    /// Name.
    pub name: String,
    /// Type of the elements.
    pub dtype: Dtype,
    /// Sizes of the axes.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// A tensor of this name, type and shape.
    pub fn new(name: impl Into<String>, dtype: Dtype, shape: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), dtype, shape: shape.into() }
    }

    /// Bytes of its data.
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }
}

/// Where the header and the tensors of a safetensors file lie. Whoever writes the file puts the header at its begin and the data of
/// each tensor at its range; together they cover the file without a gap.
///
/// The same tensors and metadata always give the same header.
///
/// ```
/// use glm_model::{Checkpoint, Dtype, Format, SafetensorsLayout, TensorSpec};
///
/// let layout = SafetensorsLayout::new(&[TensorSpec::new("x", Dtype::F32, [2])], &[]);
/// let mut file = layout.header().to_vec();
/// file.resize(layout.file_len(), 0);
/// file[layout.range(0)].copy_from_slice(bytemuck::bytes_of(&[1f32, 2.0]));
/// let checkpoint = Checkpoint::from_bytes(Format::Safetensors, file)?;
/// assert_eq!(checkpoint.tensor("x")?.shape(), [2]);
/// # Ok::<(), glm_model::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct SafetensorsLayout {
    header: Vec<u8>,
    ranges: Vec<Range<usize>>,
    file_len: usize,
}

impl SafetensorsLayout {
    /// Lays out `tensors`, which must have different names; `metadata` are the pairs of `__metadata__`.
    ///
    /// Data begin on a multiple of 64. The format allows no gaps, so tensors after which the next one would not begin on a multiple
    /// of 64 come last, those with the widest elements first.
    pub fn new(tensors: &[TensorSpec], metadata: &[(&str, String)]) -> Self {
        let mut order: Vec<_> = tensors.iter().enumerate().collect();
        order.sort_by_key(|(_, tensor)| {
            let last = !tensor.bytes().is_multiple_of(ALIGNMENT);
            (last, if last { ALIGNMENT - tensor.dtype.size() } else { 0 })
        });
        let (mut ranges, mut end) = (vec![0..0; tensors.len()], 0);
        for (index, tensor) in order {
            ranges[index] = end..end + tensor.bytes();
            end = ranges[index].end;
        }
        let header = header(tensors, &ranges, metadata);
        for range in &mut ranges {
            *range = header.len() + range.start..header.len() + range.end;
        }
        Self { file_len: header.len() + end, header, ranges }
    }

    /// The first bytes of the file, up to the data.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// The bytes of the file that hold the data of tensor `index`, little-endian and row-major.
    ///
    /// # Panics
    /// If there are not so many tensors.
    pub fn range(&self, index: usize) -> Range<usize> {
        self.ranges[index].clone()
    }

    /// Bytes of the whole file.
    pub fn file_len(&self) -> usize {
        self.file_len
    }
}

/// The length of the JSON, the JSON, and blanks up to a multiple of [`ALIGNMENT`].
fn header(tensors: &[TensorSpec], ranges: &[Range<usize>], metadata: &[(&str, String)]) -> Vec<u8> {
    // Sorted by name, whatever order the maps of the JSON library keep.
    let mut entries = BTreeMap::new();
    if !metadata.is_empty() {
        let sorted: BTreeMap<_, _> = metadata.iter().map(|(key, value)| (*key, value)).collect();
        entries.insert("__metadata__".to_owned(), json!(sorted));
    }
    for (tensor, range) in tensors.iter().zip(ranges) {
        let entry = json!({
            "data_offsets": [range.start, range.end],
            "dtype": dtype_name(tensor.dtype),
            "shape": tensor.shape,
        });
        entries.insert(tensor.name.clone(), entry);
    }
    let mut json = Value::Object(entries.into_iter().collect()).to_string().into_bytes();
    json.resize((json.len() + 8).next_multiple_of(ALIGNMENT) - 8, b' ');
    [(json.len() as u64).to_le_bytes().as_slice(), &json].concat()
}

fn dtype_name(dtype: Dtype) -> String {
    match dtype {
        Dtype::Bool => "BOOL".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;

    #[test]
    fn the_format_s_own_library_reads_the_header() {
        let tensors = [
            TensorSpec::new("odd bytes", Dtype::U8, [3]),
            TensorSpec::new("odd halves", Dtype::F16, [5]),
            TensorSpec::new("odd \"floats\"", Dtype::F32, [7]),
            TensorSpec::new("whole", Dtype::U8, [2, 32]),
            TensorSpec::new("flags", Dtype::Bool, [1]),
        ];
        let metadata = [("format", "glm".to_owned())];
        let layout = SafetensorsLayout::new(&tensors, &metadata);
        assert!(layout.header().len().is_multiple_of(ALIGNMENT));
        let mut file = layout.header().to_vec();
        file.resize(layout.file_len(), 0);
        for index in 0..tensors.len() {
            file[layout.range(index)].fill(index as u8);
        }
        let read = SafeTensors::deserialize(&file).unwrap();
        for (index, tensor) in tensors.iter().enumerate() {
            let found = read.tensor(&tensor.name).unwrap();
            assert_eq!(found.shape(), tensor.shape);
            assert!(found.data().iter().all(|&byte| byte == index as u8), "{}", tensor.name);
            assert!(layout.range(index).start.is_multiple_of(tensor.dtype.size()));
        }
        let (_, read) = SafeTensors::read_metadata(&file).unwrap();
        assert_eq!(read.metadata().as_ref().unwrap()["format"], "glm");
    }
}
