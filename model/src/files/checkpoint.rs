//! Checkpoints: a folder or a file → named tensors. Bytes only; what they mean is said elsewhere.
//!
//! Two formats are read, each in one file or in several with an index:
//!
//! | format | one file | several |
//! |---|---|---|
//! | safetensors | `model.safetensors` | `model.safetensors.index.json` |
//! | torch, zip with a pickle | `pytorch_model.bin` | `pytorch_model.bin.index.json` |
//!
//! GLM-130B lies in a folder of SwissArmyTransformer: `latest` names a folder of torch files, one for each shard of the model. The
//! names of their tensors are then those of the shards, see [`Checkpoint::shards`].
//!
//! Files are not trusted. Every length is compared with the file before it is believed, and a pickle
//! is read as data: nothing in it is run. Whatever a file holds, reading it ends with tensors or with
//! an error that names the file, in time and memory that grow with the file's headers and no faster.

mod bytes;
mod safetensors;
mod shards;
mod tensor;
mod tensor_parallel;
mod torch;
mod writer;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};

pub use bytes::Bytes;
pub use tensor::{Dtype, Tensor};
pub use writer::{SafetensorsLayout, TensorSpec};

/// How a file stores its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `.safetensors`
    Safetensors,
    /// What `torch.save` has written since version 1.6: `.bin`, `.pt`, `.pth`.
    Torch,
}

/// What one file holds.
struct Contents {
    tensors: Vec<Tensor>,
    metadata: BTreeMap<String, String>,
}

/// The file in a folder of SwissArmyTransformer that names the folder of its shards.
pub(crate) const SHARDS: &str = "latest";

/// What a folder may hold, most wanted first.
const SINGLE: [(&str, Format); 2] =
    [("model.safetensors", Format::Safetensors), ("pytorch_model.bin", Format::Torch)];

/// The files by any of which a folder is a checkpoint.
pub(crate) fn entries() -> impl Iterator<Item = String> {
    let single = SINGLE.iter().flat_map(|(name, _)| [(*name).to_owned(), index_of(name)]);
    single.chain([SHARDS.to_owned()])
}

fn index_of(name: &str) -> String {
    format!("{name}.index.json")
}

/// The tensors of a model by name.
///
/// ```no_run
/// use glm_model::{Checkpoint, Dtype};
///
/// let checkpoint = Checkpoint::open("chatglm-6b")?;
/// let head = checkpoint.tensor("lm_head.weight")?;
/// head.expect(&[Dtype::F16], &[130528, 4096])?;
/// let kept = head.data().clone(); // outlives the checkpoint
/// # Ok::<(), glm_model::Error>(())
/// ```
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    tensors: BTreeMap<Arc<str>, Tensor>,
    metadata: BTreeMap<String, String>,
    /// What the names of each shard's tensors begin with.
    shards: Vec<String>,
}

impl Checkpoint {
    /// Opens a folder with a checkpoint, safetensors before torch where both are there, or one file.
    ///
    /// The files are mapped, not read: do not change them in place while the checkpoint or any
    /// [`Bytes`] of it live (replacing a file by renaming another over it is harmless).
    ///
    /// A torch file may nest its dictionaries; names are then joined by dots, as in
    /// `module.transformer.word_embeddings.weight`. Whatever else it holds is passed over.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a file cannot be opened, [`Error::File`] or [`Error::Tensor`] if there is no
    /// checkpoint, or a file is damaged, cut off, hostile, or not what the index says.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if !path.is_dir() {
            return Self::new(path, Format::of(path).read(path)?);
        }
        for (name, format) in SINGLE {
            let file = path.join(name);
            if file.exists() {
                return Self::new(path, format.read(&file)?);
            }
            let index = path.join(index_of(name));
            if index.exists() {
                let tensors = shards::read(&index, format)?;
                return Self::new(path, Contents { tensors, metadata: BTreeMap::new() });
            }
        }
        if path.join(SHARDS).exists() {
            let (shards, tensors) = tensor_parallel::read(path)?;
            let checkpoint = Self::new(path, Contents { tensors, metadata: BTreeMap::new() })?;
            return Ok(Self { shards, ..checkpoint });
        }
        let names = entries().collect::<Vec<_>>().join(", ");
        Err(Error::file(path, format!("holds no checkpoint: looked for {names}")))
    }

    /// Reads a file that is already in memory.
    ///
    /// # Errors
    ///
    /// As [`open`](Checkpoint::open), in the name of a file called `memory`.
    pub fn from_bytes(format: Format, bytes: impl Into<Bytes>) -> Result<Self> {
        let path = Path::new("memory");
        Self::new(path, format.parse(path, &bytes.into())?)
    }

    fn new(path: &Path, contents: Contents) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for tensor in contents.tensors {
            match tensors.entry(tensor.shared_name()) {
                Entry::Vacant(entry) => entry.insert(tensor),
                Entry::Occupied(_) => return Err(tensor.error("appears twice")),
            };
        }
        let (path, metadata) = (path.to_owned(), contents.metadata);
        Ok(Self { path, tensors, metadata, shards: Vec::new() })
    }

    /// The folder or file that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.keys().map(|name| &**name)
    }

    /// The tensor of this name, if there is one.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// The tensor of this name.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] if there is none.
    pub fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.get(name).ok_or_else(|| Error::tensor(&self.path, name, "is missing"))
    }

    /// The `__metadata__` of a single safetensors file; otherwise empty.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Where each tensor of the model is cut into shards: what the names of each shard's tensors begin with, in order.
    pub fn shards(&self) -> &[String] {
        &self.shards
    }

    /// The size of all tensors; bytes that several share count for each.
    pub fn total_bytes(&self) -> u64 {
        self.tensors.values().fold(0, |sum, tensor| sum.saturating_add(tensor.bytes().len() as u64))
    }
}

impl Format {
    fn of(path: &Path) -> Self {
        match path.extension() {
            Some(extension) if extension == "safetensors" => Format::Safetensors,
            _ => Format::Torch,
        }
    }

    fn read(self, path: &Path) -> Result<Contents> {
        self.parse(path, &Bytes::map(path)?)
    }

    fn parse(self, path: &Path, file: &Bytes) -> Result<Contents> {
        if file.starts_with(b"version https://git-lfs") {
            let problem = "holds only a pointer to the weights: fetch them with `git lfs pull`";
            return Err(Error::file(path, problem));
        }
        let path: Arc<Path> = path.into();
        match self {
            Format::Safetensors => safetensors::read(&path, file),
            Format::Torch => torch::read(&path, file),
        }
    }
}
