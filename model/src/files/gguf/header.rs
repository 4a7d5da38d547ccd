//! The header of a GGUF file: metadata, and the name, type, shape and place of each tensor.
//!
//! ```text
//! "GGUF"  version u32  tensors u64  keys u64
//! keys ×     key: string            type u32    value
//! tensors ×  name: string           axes u32    axes × u64 (fastest first)    type u32    offset u64
//! padding to a multiple of general.alignment
//! data of the tensors, each at its offset
//! ```
//!
//! A string is its length, `u64`, and UTF-8. Everything is little-endian. Versions 2 and 3 are the same in this.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::Path;

use super::block::BlockType;
use super::value::Value;
use crate::error::{self, Error};
use crate::files::checkpoint::Dtype;
use crate::files::cursor::Cursor;
use crate::limits::checkpoint::MAX_RANK;
use crate::limits::gguf::{MAX_HEADER, MAX_KEYS, MAX_NAME, MAX_TENSORS};
use crate::memory::copy;

/// The first bytes of a file.
pub(crate) const MAGIC: &[u8; 4] = b"GGUF";

/// Bytes that are copied at first.
const FIRST_COPY: usize = 1 << 20;

/// The least bytes of a key with its value, and of a tensor.
const LEAST: [usize; 2] = [8 + 1 + 4 + 1, 8 + 1 + 4 + 8 + 4 + 8];

/// The alignment of a file that names none.
const ALIGNMENT: u64 = 32;

/// A checked header.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) metadata: BTreeMap<String, Value>,
    pub(crate) tensors: Vec<Info>,
}

/// A tensor as the header has it. Its bytes lie in the file, and no other tensor has any of them.
#[derive(Debug)]
pub(crate) struct Info {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    /// Slowest axis first.
    pub(crate) shape: Vec<usize>,
    /// Bytes of the file.
    pub(crate) range: Range<usize>,
}

/// What is wrong with a file, and the tensor if it is about one.
#[derive(Debug)]
struct Problem {
    tensor: Option<String>,
    text: String,
}

impl Problem {
    fn error(self, path: &Path) -> Error {
        match self.tensor {
            Some(tensor) => Error::tensor(path, &tensor, self.text),
            None => Error::file(path, self.text),
        }
    }
}

impl From<String> for Problem {
    fn from(text: String) -> Self {
        Self { tensor: None, text }
    }
}

impl Header {
    /// Reads the header of the file at `path`. It is copied before it is read, so that no other process can change it between check and use. How
    /// long it is, is known at its end: more is copied until it is all there.
    ///
    /// # Errors
    /// If the header is not valid or exceeds a limit, or there is no memory for its copy.
    pub(crate) fn read(path: &Path, file: &[u8]) -> error::Result<Self> {
        let most = file.len().min(MAX_HEADER);
        let mut size = FIRST_COPY.min(most);
        loop {
            let copy = copy(&file[..size], path.display())?;
            match Self::parse(&copy, file.len()) {
                Err(_) if size < most => size = size.saturating_mul(4).min(most),
                parsed => return parsed.map_err(|problem| problem.error(path)),
            }
        }
    }

    /// Parses the header at the start of `bytes`, which are the first of a file of `len` bytes.
    fn parse(bytes: &[u8], len: usize) -> Result<Self, Problem> {
        let mut cursor = Cursor::new(bytes);
        check_version(&mut cursor)?;
        let tensors = cursor.count(LEAST[1], "tensors")?;
        let keys = cursor.count(LEAST[0], "keys")?;
        for (count, most, what) in [(tensors, MAX_TENSORS, "tensors"), (keys, MAX_KEYS, "keys")] {
            if count > most {
                return Err(format!("has more than {most} {what}").into());
            }
        }
        let mut metadata = BTreeMap::new();
        for _ in 0..keys {
            let key = name(&mut cursor, "a key")?;
            let value = Value::read(&mut cursor).map_err(|problem| format!("{key}: {problem}"))?;
            if metadata.insert(key.to_owned(), value).is_some() {
                return Err(format!("has the key {key} twice").into());
            }
        }
        let alignment = alignment(&metadata)?;
        let mut names = HashSet::new();
        let mut infos = Vec::new();
        for _ in 0..tensors {
            let name = name(&mut cursor, "a tensor")?;
            let problem = |text: String| Problem { tensor: Some(name.to_owned()), text };
            if !names.insert(name) {
                return Err(problem("appears twice".to_owned()));
            }
            infos.push(info(name, &mut cursor, alignment).map_err(problem)?);
        }
        let data = cursor.position().checked_next_multiple_of(alignment);
        let data = data.ok_or_else(|| "is too large".to_owned())?;
        place(&mut infos, data, len)?;
        Ok(Self { metadata, tensors: infos })
    }

    /// An integer of the metadata.
    pub(crate) fn unsigned(&self, key: &str) -> Option<u64> {
        self.metadata.get(key)?.unsigned()
    }
}

fn check_version(cursor: &mut Cursor<'_>) -> Result<(), String> {
    if cursor.array()? != *MAGIC {
        return Err("is no GGUF file".to_owned());
    }
    match cursor.u32()? {
        2 | 3 => Ok(()),
        1 => Err("is a GGUF file of version 1, and 2 and 3 are read: convert the model again".to_owned()),
        version if version & 0xffff == 0 => {
            Err("is a big-endian GGUF file, and only little-endian ones are read: convert the model for this machine".to_owned())
        }
        version => Err(format!("is a GGUF file of version {version}, and 2 and 3 are read")),
    }
}

/// A name that can be printed.
fn name<'b>(cursor: &mut Cursor<'b>, of: &str) -> Result<&'b str, String> {
    let name = cursor.text()?;
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        let shown: String = name.chars().take(40).collect();
        return Err(format!(
            "{of} is called {shown:?}, which is no name of 1 to {MAX_NAME} printable bytes"
        ));
    }
    Ok(name)
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Result<usize, String> {
    const KEY: &str = "general.alignment";
    let value = metadata.get(KEY).map_or(Some(ALIGNMENT), Value::unsigned);
    // No file has more than a page.
    let fitting = value.filter(|value| value.is_power_of_two() && (8..=1 << 16).contains(value));
    fitting.map(|value| value as usize).ok_or_else(|| {
        let found = value.map_or("no integer".to_owned(), |value| value.to_string());
        format!("{KEY} must be a power of two from 8 to 65536, found {found}")
    })
}

/// The tensor that follows in the header. Its range begins at the data.
fn info(name: &str, cursor: &mut Cursor<'_>, alignment: usize) -> Result<Info, String> {
    let axes = cursor.u32()?;
    if axes == 0 || axes as usize > MAX_RANK {
        return Err(format!("has {axes} axes, and 1 to {MAX_RANK} are read"));
    }
    let mut shape = Vec::new();
    for _ in 0..axes {
        let axis = cursor.u64()?;
        let fitting = usize::try_from(axis).ok().filter(|axis| *axis > 0);
        shape.push(fitting.ok_or_else(|| format!("has an axis of {axis}"))?);
    }
    shape.reverse();
    let dtype = dtype(cursor.u32()?)?;
    let bytes = dtype.byte_len(&shape).ok_or_else(|| match dtype {
        Dtype::Block(block) if !shape[shape.len() - 1].is_multiple_of(block.values()) => {
            format!("{dtype} {shape:?} has rows that are no multiple of {}", block.values())
        }
        _ => format!("{dtype} {shape:?} is larger than any memory"),
    })?;
    let offset = cursor.u64()?;
    let start = usize::try_from(offset).ok().filter(|start| start.is_multiple_of(alignment));
    let range = start.and_then(|start| Some(start..start.checked_add(bytes)?));
    let range = range.ok_or_else(|| {
        format!(
            "begins at byte {offset} of the data, which is no multiple of {alignment} in any file"
        )
    })?;
    Ok(Info { name: name.to_owned(), dtype, shape, range })
}

/// Moves the ranges, which begin at the data, to their places in the file.
fn place(infos: &mut [Info], data: usize, len: usize) -> Result<(), Problem> {
    for info in infos.iter_mut() {
        let Range { start, end } = info.range;
        match (start.checked_add(data), end.checked_add(data)) {
            (Some(start), Some(end)) if end <= len => info.range = start..end,
            _ => {
                let found = len.saturating_sub(data);
                let text = format!(
                    "takes bytes {start} to {end} of the data, and the file has {found}: it is cut off, or not downloaded completely"
                );
                return Err(Problem { tensor: Some(info.name.clone()), text });
            }
        }
    }
    let mut order: Vec<_> = infos.iter().collect();
    order.sort_by_key(|info| info.range.start);
    for pair in order.windows(2) {
        if pair[1].range.start < pair[0].range.end {
            let text = format!("shares its bytes with {}", pair[0].name);
            return Err(Problem { tensor: Some(pair[1].name.clone()), text });
        }
    }
    Ok(())
}

fn dtype(code: u32) -> Result<Dtype, String> {
    Ok(match code {
        0 => Dtype::F32,
        1 => Dtype::F16,
        24 => Dtype::I8,
        25 => Dtype::I16,
        26 => Dtype::I32,
        27 => Dtype::I64,
        28 => Dtype::F64,
        30 => Dtype::BF16,
        code => Dtype::Block(BlockType::of(code)?),
    })
}
