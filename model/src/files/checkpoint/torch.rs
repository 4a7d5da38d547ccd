//! The format of `torch.save`: a zip archive of storages, and a pickle that describes the tensors in them.
//!
//! ```text
//! archive/data.pkl     {"lm_head.weight": _rebuild_tensor_v2(('storage', HalfStorage, "0", …), offset, shape, strides), …}
//! archive/byteorder    "little"
//! archive/data/0       the bytes of storage "0", uncompressed, so that a tensor is a part of the file
//! ```
//!
//! [`zip`] reads the archive and [`pickle`] the pickle; this module combines both.

mod pickle;
mod zip;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use self::pickle::{Global, Pickle, Value};
use self::zip::Archive;
use super::tensor::elements;
use super::{Bytes, Contents, Dtype, Tensor};
use crate::error::{self, Error};
use crate::limits::checkpoint::MAX_RANK;
use crate::limits::checkpoint::{MAX_DEPTH, MAX_PICKLE, MAX_TENSOR_NAME};
use crate::memory::copy;

/// Reads the archive and its pickle, and returns the tensors.
pub(super) fn read(path: &Arc<Path>, file: &Bytes) -> error::Result<Contents> {
    let fail = |problem| Error::file(path, problem);
    let archive = open(file).map_err(fail)?;
    // Copied, so that no other process can change it between check and use.
    let pickle = copy(pickle_of(&archive, file).map_err(fail)?, path.display())?;
    let pickle = pickle::read(&pickle).map_err(|problem| fail(format!("data.pkl, {problem}")))?;
    let mut tensors = Vec::new();
    for (name, arguments) in named_tensors(&pickle).map_err(fail)? {
        let place = locate(&pickle, &archive, arguments)
            .map_err(|problem| Error::tensor(path, &name, problem))?;
        tensors.push(Tensor::new(path, &name, place.dtype, place.shape, file, place.range)?);
    }
    Ok(Contents { tensors, metadata: BTreeMap::new() })
}

/// The place of the zip directory in a file of which only the end needs to be there.
pub(super) fn directory(file: &[u8]) -> Result<Range<u64>, String> {
    zip::directory(file)
}

/// An entry of the archive, as far as the zip directory tells.
pub(super) struct Entry {
    /// From its local header to the begin of the next entry.
    pub(super) range: Range<u64>,
    /// Whether it describes the tensors, or the file.
    pub(super) is_header: bool,
    /// A local header that agrees with the directory.
    pub(super) local_header: Vec<u8>,
}

/// The entries of a file of which only the zip directory needs to be there.
pub(super) fn entries(file: &[u8]) -> Result<Vec<Entry>, String> {
    let entries = zip::entries(file)?.into_iter().map(|entry| {
        let name = entry.name.split_once('/').map_or("", |(_, name)| name);
        let is_header = ["data.pkl", "byteorder"].contains(&name);
        // Local headers are short; torch aligns data to 64 bytes.
        if is_header && entry.range.end - entry.range.start > MAX_PICKLE as u64 + (1 << 17) {
            return Err(format!("zip entry {:?} is too large", entry.name));
        }
        Ok(Entry { range: entry.range, is_header, local_header: entry.local_header })
    });
    entries.collect()
}

fn open(file: &[u8]) -> Result<Archive, String> {
    if file.starts_with(&[0x80]) {
        return Err("was written by torch before 1.6 or in its old format. Resave it in Python: \
            torch.save(torch.load(path, map_location='cpu', weights_only=True), path)"
            .into());
    }
    let archive = zip::read(file)?;
    match archive.find("byteorder").and_then(|range| file.get(range)) {
        None | Some(b"little") => Ok(archive),
        Some(_) => Err("is not stored in little-endian order".into()),
    }
}

fn pickle_of<'f>(archive: &Archive, file: &'f [u8]) -> Result<&'f [u8], String> {
    let range = archive.find("data.pkl");
    let pickle = range.and_then(|range| file.get(range)).ok_or("is a zip file without data.pkl")?;
    if pickle.len() > MAX_PICKLE {
        return Err(format!("data.pkl has {} bytes, more than {MAX_PICKLE}", pickle.len()));
    }
    Ok(pickle)
}

/// Finds the tensors in nested dictionaries. Each dictionary is visited at most once. Otherwise a cycle, or dictionaries that each
/// contain the next one twice, would take far more steps than the pickle is long.
fn named_tensors<'a>(pickle: &'a Pickle) -> Result<Vec<(String, &'a [Value<'a>])>, String> {
    let Value::Dict(root) = pickle.root else {
        return Err("data.pkl is not a dictionary of tensors".into());
    };
    let mut tensors = Vec::new();
    let mut names = BTreeSet::new();
    let mut entered = vec![false; pickle.dict_count()];
    let mut open = vec![(String::new(), 0, root)];
    while let Some((prefix, depth, dict)) = open.pop() {
        if depth > MAX_DEPTH {
            return Err(format!("dictionaries lie more than {MAX_DEPTH} deep"));
        }
        match entered.get_mut(dict) {
            Some(entered) if !*entered => *entered = true,
            _ => return Err(format!("the dictionary {prefix:?} appears in more than one place")),
        }
        for &(key, value) in pickle.dict(dict) {
            match (key, value) {
                (Value::Str(key), Value::Dict(inner)) => {
                    open.push((name(&prefix, key)? + ".", depth + 1, inner));
                }
                (Value::Str(key), Value::Tensor(arguments)) => {
                    let name = name(&prefix, key)?;
                    // Repeated names are an error here already, so that a short pickle cannot fill the memory with them.
                    if !names.insert(name.clone()) {
                        return Err(format!("tensor {name}: appears twice"));
                    }
                    tensors.push((name, pickle.tuple(arguments)));
                }
                _ => {} // For example step counts and versions.
            }
        }
    }
    Ok(tensors)
}

fn name(prefix: &str, key: &str) -> Result<String, String> {
    if prefix.len() + key.len() >= MAX_TENSOR_NAME {
        return Err(format!("a tensor's name is longer than {MAX_TENSOR_NAME} bytes"));
    }
    Ok(format!("{prefix}{key}"))
}

/// A tensor as pickle and archive describe it.
struct Place {
    dtype: Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

/// The place of a tensor in the file, from the arguments of `_rebuild_tensor_v2`.
fn locate(pickle: &Pickle, archive: &Archive, arguments: &[Value]) -> Result<Place, String> {
    let &[Value::Storage(storage), Value::Int(offset), shape, strides, ..] = arguments else {
        return Err("is not made from a storage, an offset, a shape and strides".into());
    };
    let (dtype, storage) = find_storage(archive, pickle.tuple(storage))?;
    let (shape, strides) = (sizes(pickle, shape)?, sizes(pickle, strides)?);
    if !is_row_major(&shape, &strides) {
        return Err(format!(
            "shape {shape:?} has strides {strides:?}: call .contiguous() on it and resave the file"
        ));
    }
    let outside = || format!("{dtype} {shape:?} at {offset} reaches beyond its storage");
    let start = usize::try_from(offset).ok().and_then(|offset| offset.checked_mul(dtype.size()));
    let start = start.and_then(|start| start.checked_add(storage.start)).ok_or_else(outside)?;
    let len = elements(&shape).and_then(|n| n.checked_mul(dtype.size())).ok_or_else(outside)?;
    let end = start.checked_add(len).filter(|&end| end <= storage.end).ok_or_else(outside)?;
    Ok(Place { dtype, shape, range: start..end })
}

/// The bytes of a storage, from the tuple `('storage', type, key, device, number of elements)`.
fn find_storage(archive: &Archive, id: &[Value]) -> Result<(Dtype, Range<usize>), String> {
    let &[_, Value::Global(Global::Storage(dtype)), Value::Str(key), _, Value::Int(count)] = id
    else {
        return Err("its storage is not a type, a key, a device and a size".into());
    };
    // Many tensors may have the same key, and a long key must not be copied for each of them.
    let entry =
        (key.len() <= MAX_TENSOR_NAME).then(|| archive.find(&format!("data/{key}"))).flatten();
    let entry = entry.ok_or("its storage is not in the file")?;
    let len = usize::try_from(count).ok().and_then(|count| count.checked_mul(dtype.size()));
    let len = len.filter(|&len| len <= entry.len()).ok_or_else(|| {
        format!("its storage of {count} {dtype} is cut off: {} bytes", entry.len())
    })?;
    Ok((dtype, entry.start..entry.start + len))
}

fn sizes(pickle: &Pickle, value: Value) -> Result<Vec<usize>, String> {
    let Value::Tuple(tuple) = value else {
        return Err("its shape or strides are not a tuple".into());
    };
    let items = pickle.tuple(tuple);
    if items.len() > MAX_RANK {
        return Err(format!("has {} axes, more than {MAX_RANK}", items.len()));
    }
    let size = |item: &Value| match *item {
        Value::Int(size) => usize::try_from(size).map_err(|_| format!("has a size of {size}")),
        _ => Err("its shape or strides are not integers".into()),
    };
    items.iter().map(size).collect()
}

/// Whether the elements are row-major without gaps.
fn is_row_major(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = Some(1usize);
    let follows = |(&size, &stride): (&usize, &usize)| {
        let fits = size == 1 || expected == Some(stride);
        expected = expected.and_then(|expected| expected.checked_mul(size));
        fits
    };
    // The strides of an empty tensor do not matter.
    shape.len() == strides.len()
        && (shape.contains(&0) || shape.iter().zip(strides).rev().all(follows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_major_strides() {
        assert!(is_row_major(&[], &[]));
        assert!(is_row_major(&[3, 4, 5], &[20, 5, 1]));
        assert!(is_row_major(&[3, 1, 5], &[5, 77, 1]));
        assert!(is_row_major(&[3, 0, 5], &[9, 9, 9]));
        assert!(!is_row_major(&[4, 3], &[1, 4]));
        assert!(!is_row_major(&[4, 3], &[4, 1]));
        assert!(!is_row_major(&[4, 3], &[0, 0]));
        assert!(!is_row_major(&[4, 3], &[1]));
        assert!(!is_row_major(&[usize::MAX, usize::MAX, 2], &[2, 2, 1]));
    }
}
