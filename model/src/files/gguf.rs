//! GGUF files, the format of llama.cpp: weights, configuration, vocabulary and chat template in one file, or in several parts.
//!
//! ```text
//! header     the container: metadata, names, types, shapes and places of tensors
//! block      the quantized types, and how the kernels' formats hold them
//! model_dir  metadata → the small files that other models have beside their weights
//! ```
//!
//! The weights are a checkpoint like others ([`Checkpoint`](crate::Checkpoint)), with a [dialect](crate::Dialect::Gguf) of its own
//! for names and configuration. Unquantized tensors are read in the mapped file. Blocks are repacked when the model is loaded, or once
//! by `glm quantize`.
//!
//! Files are not trusted, as in [`checkpoint`](crate::files::checkpoint).

mod block;
mod header;
mod model_dir;
mod value;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::files::checkpoint::{self, Bytes, Contents, Tensor};
use crate::files::model_dir::{IS_LFS_POINTER, is_lfs_pointer, is_there};
use crate::files::regular::open_regular;
use crate::limits::gguf::{MAX_PARTS, MAX_TENSORS};
pub use block::BlockType;
pub(crate) use block::GROUP;
use header::{Header, MAGIC};
pub(crate) use value::{Array, Value};

/// The end of the name of a file.
const EXTENSION: &str = "gguf";

/// A model in GGUF files.
pub(crate) struct Gguf {
    /// In the order of their numbers; the first has the metadata.
    parts: Vec<Part>,
}

struct Part {
    path: Arc<Path>,
    bytes: Bytes,
    header: Header,
}

impl Gguf {
    /// Opens the model of a path: a GGUF file with all parts that belong to it, or the only one in a folder without another checkpoint.
    /// `None` if the path is neither.
    ///
    /// # Errors
    /// If a file is not valid, a part is missing, or there are several models.
    pub(crate) fn find(path: &Path) -> Result<Option<Self>> {
        find(path)?.map(|file| Self::open(&file)).transpose()
    }

    /// A file in memory. Parts that belong to it are not looked for.
    pub(crate) fn parse(path: &Arc<Path>, bytes: &Bytes) -> Result<Self> {
        if is_lfs_pointer(bytes) {
            return Err(Error::file(path, IS_LFS_POINTER));
        }
        let header = Header::read(path, bytes)?;
        let part = Part { path: Arc::clone(path), bytes: bytes.clone(), header };
        Ok(Self { parts: vec![part] })
    }

    fn open(path: &Path) -> Result<Self> {
        let read = |path: &Path| {
            let file = Bytes::map(path)?;
            let parsed = Self::parse(&path.into(), &file);
            // What was read may be wrong, or the reason why it could not be parsed.
            file.check()?;
            parsed
        };
        let found = read(path)?;
        let count = found.first().header.unsigned("split.count").unwrap_or(1);
        if count <= 1 {
            return Ok(found);
        }
        if count > MAX_PARTS {
            let problem = format!("split.count is {count}, and at most {MAX_PARTS} parts are read");
            return Err(Error::file(path, problem));
        }
        let Some(start) = part_start(path, count) else {
            let problem = format!(
                "is one of {count} parts, and its name does not end in -00001-of-{count:05}.gguf or the like: give the parts their original names"
            );
            return Err(Error::file(path, problem));
        };
        let (mut parts, mut tensors) = (Vec::<Part>::new(), 0);
        for number in 1..=count {
            let path = path.with_file_name(format!("{start}-{number:05}-of-{count:05}.gguf"));
            if !is_there(&path) {
                let problem = format!("is missing: it is part {number} of {count}");
                return Err(Error::file(&path, problem));
            }
            parts.append(&mut read(&path)?.parts);
            let last = parts.len() - 1;
            let header = &mut parts[last].header;
            let own = [header.unsigned("split.no"), header.unsigned("split.count")];
            if own != [Some(number - 1), Some(count)] {
                let problem =
                    format!("is called part {number} of {count}, and its header says otherwise");
                return Err(Error::file(&path, problem));
            }
            tensors += header.tensors.len();
            if tensors > MAX_TENSORS {
                let problem = format!("has more than {MAX_TENSORS} tensors in its parts so far");
                return Err(Error::file(&path, problem));
            }
            // Only those of the first are used, and a thousand parts could each hold as much as a header may.
            if number > 1 {
                header.metadata.clear();
            }
        }
        Ok(Self { parts })
    }

    fn first(&self) -> &Part {
        // `parse` and `open` make no model without parts.
        &self.parts[0]
    }

    /// The tensors of all parts.
    pub(crate) fn contents(&self) -> Result<Contents> {
        let mut tensors = Vec::new();
        for Part { path, bytes, header } in &self.parts {
            for info in &header.tensors {
                let (shape, range) = (info.shape.clone(), info.range.clone());
                tensors.push(Tensor::new(path, &info.name, info.dtype, shape, bytes, range)?);
            }
        }
        Ok(Contents { tensors, metadata: BTreeMap::new() })
    }

    /// Whether there is a tensor of this name.
    fn has(&self, name: &str) -> bool {
        let mut tensors = self.parts.iter().flat_map(|part| &part.header.tensors);
        tensors.any(|info| info.name == name)
    }
}

/// The first GGUF file of the model at a path, see [`Gguf::find`].
pub(crate) fn find(path: &Path) -> Result<Option<PathBuf>> {
    let Ok(metadata) = fs::metadata(path) else { return Ok(None) };
    if metadata.is_file() {
        let is_gguf = has_extension(path) || begins_as_gguf(path);
        return Ok(is_gguf.then(|| path.to_owned()));
    }
    if !metadata.is_dir() || checkpoint::has_weights(path) {
        return Ok(None);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(Error::io(path))? {
        let file = entry.map_err(Error::io(path))?.path();
        // The vision part of a model is a file beside it.
        let is_vision = stem(&file).contains("mmproj");
        if has_extension(&file) && !is_vision && is_first(&file) {
            files.push(file);
        }
    }
    files.sort();
    if files.len() > 1 {
        let names: Vec<_> = files.iter().filter_map(|file| file.file_name()?.to_str()).collect();
        let problem =
            format!("holds several models in GGUF files: name one of {}", names.join(", "));
        return Err(Error::file(path, problem));
    }
    Ok(files.pop())
}

fn has_extension(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(EXTENSION))
}

fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether a file is no part, or the first.
fn is_first(file: &Path) -> bool {
    split_name(&stem(file)).is_none_or(|(_, number, _)| number == 1)
}

/// What the names of all parts begin with, if the name is that of one of `count`.
fn part_start(path: &Path, count: u64) -> Option<String> {
    let stem = stem(path);
    let (start, _, of) = split_name(&stem)?;
    (of == count).then(|| start.to_owned())
}

/// The start, the number and the count in `START-00001-of-00003`.
fn split_name(stem: &str) -> Option<(&str, u64, u64)> {
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (start, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| {
        let is_number = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().ok()).flatten()
    };
    Some((start, digits(number)?, digits(count)?))
}

/// Reads the first bytes. A file that cannot be read is none.
fn begins_as_gguf(path: &Path) -> bool {
    let mut magic = [0; MAGIC.len()];
    let read = open_regular(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && magic == *MAGIC
}
