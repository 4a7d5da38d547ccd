//! Checkpoints: a folder or a file → named tensors. This module only knows bytes; `weights` gives them a meaning.
//!
//! Three formats are read, each in one file or in several:
//!
//! | format | one file | several |
//! |---|---|---|
//! | safetensors | `model.safetensors` | `model.safetensors.index.json` |
//! | torch, zip with a pickle | `pytorch_model.bin` | `pytorch_model.bin.index.json` |
//! | GGUF | `NAME.gguf` | `NAME-00001-of-00003.gguf` and so on |
//!
//! A GGUF file also has what other models have in small files, see [`gguf`](crate::files::gguf).
//!
//! GLM-130B is a folder of SwissArmyTransformer: `latest` names a folder of torch files, one for each rank of tensor parallelism. The
//! names of the tensors begin with the name of the rank, see [`Checkpoint::ranks`].
//!
//! Files are not trusted. Every length is compared with the size of the file before it is used, and a pickle is read as data:
//! nothing in it is executed. Reading any file gives tensors or an error that names the file. Time and memory are linear in the size
//! of the file's headers.

mod bytes;
mod safetensors;
mod shards;
mod skeleton;
mod tensor;
mod tensor_parallel;
mod torch;
mod writer;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::files::gguf::Gguf;
use crate::files::model_dir::{IS_LFS_POINTER, is_lfs_pointer, is_there};
use crate::files::peft::PEFT_CONFIG;

pub use bytes::Bytes;
pub use skeleton::write_skeleton;
pub use tensor::{Dtype, Tensor};
pub use writer::{SafetensorsLayout, TensorSpec};

/// How a file stores its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `.safetensors`
    Safetensors,
    /// What `torch.save` has written since version 1.6: `.bin`, `.pt`, `.pth`.
    Torch,
    /// One file of the format of llama.cpp: `.gguf`.
    Gguf,
}

/// The contents of one file.
pub(crate) struct Contents {
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// The file in a folder of SwissArmyTransformer that names the folder of the ranks. DeepSpeed writes one beside adapters, too.
const SHARDS: &str = "latest";

/// The file names that are looked for, in order of preference.
const SINGLE: [(&str, Format); 2] =
    [("model.safetensors", Format::Safetensors), ("pytorch_model.bin", Format::Torch)];

/// The files that may hold the weights of a model, or the index of the files that do, in order of preference. A folder with any of
/// them is a checkpoint.
pub fn checkpoint_files() -> impl Iterator<Item = String> {
    SINGLE.iter().flat_map(|(name, _)| [(*name).to_owned(), index_of(name)])
}

/// A folder with any of these files is a checkpoint.
pub(crate) fn entries() -> impl Iterator<Item = String> {
    checkpoint_files().chain([SHARDS.to_owned()])
}

/// Whether a folder has files of weights.
pub(crate) fn has_weights(folder: &Path) -> bool {
    let has = |name: &str| is_there(&folder.join(name));
    checkpoint_files().any(|name| has(&name)) || is_sharded(has)
}

/// Whether a folder with files of these names is one of SwissArmyTransformer, if it has no other files of weights.
pub(crate) fn is_sharded(has: impl Fn(&str) -> bool) -> bool {
    has(SHARDS) && !has(PEFT_CONFIG)
}

fn index_of(name: &str) -> String {
    format!("{name}.index.json")
}

/// Whether a tensor is a buffer that published code computes anew, whatever is stored: rotary frequencies or positions.
pub(crate) fn is_buffer(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    matches!(last, "inv_freq" | "position_ids" | "masked_bias") || name == "rope_freqs.weight"
}

/// Parts that tools for training and compiling put into the names of tensors, at any place.
const WRAPPERS: [&str; 4] =
    ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"];

/// The name of a tensor without [`WRAPPERS`], if it has some.
fn unwrapped(name: &str) -> Option<String> {
    let is_wrapper = |part: &&str| WRAPPERS.contains(part);
    if !name.split('.').any(|part| is_wrapper(&part)) {
        return None;
    }
    Some(name.split('.').filter(|part| !is_wrapper(part)).collect::<Vec<_>>().join("."))
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
    /// The prefix of the tensor names of each shard.
    ranks: Vec<String>,
}

impl Checkpoint {
    /// Opens a folder with a checkpoint, or one file. Of safetensors and torch in the same folder, safetensors is opened.
    ///
    /// The files are mapped, not read: do not change them in place while the checkpoint or any [`Bytes`] of it live. To rename a file,
    /// to delete it, and to replace it by renaming another over it is harmless.
    ///
    /// [`Bytes`] show such a change without a word, and where the file was cut, reading them ends the process, or gives zeros after
    /// [`survive_truncated_files`](crate::survive_truncated_files). What this library computes from a changed file is
    /// [`Error::FileChanged`]: a pass of a [`Model`](crate::Model), and a model that is quantized.
    ///
    /// A torch file may nest its dictionaries; names are then joined by dots, as in
    /// `module.transformer.word_embeddings.weight`. Other values are ignored.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a file cannot be opened, [`Error::File`] or [`Error::Tensor`] if there is no
    /// checkpoint, or a file is damaged, cut off, hostile, or not what the index says.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if let Some(gguf) = Gguf::find(path)? {
            return Self::new(path, gguf.contents()?);
        }
        if !path.is_dir() {
            return Self::new(path, Format::of(path).read(path)?);
        }
        for (name, format) in SINGLE {
            let file = path.join(name);
            if is_there(&file) {
                return Self::new(path, format.read(&file)?);
            }
            let index = path.join(index_of(name));
            if is_there(&index) {
                let tensors = shards::read(&index, format)?;
                return Self::new(path, Contents { tensors, metadata: BTreeMap::new() });
            }
        }
        if is_sharded(|name| is_there(&path.join(name))) {
            let (ranks, tensors) = tensor_parallel::read(path)?;
            let checkpoint = Self::new(path, Contents { tensors, metadata: BTreeMap::new() })?;
            return Ok(Self { ranks, ..checkpoint });
        }
        let names = entries().collect::<Vec<_>>().join(", ");
        Err(Error::file(path, format!("holds no checkpoint: looked for {names}, and a .gguf file")))
    }

    /// Reads a file that is already in memory.
    ///
    /// # Errors
    ///
    /// As [`open`](Checkpoint::open); the file is called `memory`.
    pub fn from_bytes(format: Format, bytes: impl Into<Bytes>) -> Result<Self> {
        let path = Path::new("memory");
        Self::new(path, format.parse(path, &bytes.into())?)
    }

    /// A checkpoint without tensors.
    pub(crate) fn empty() -> Self {
        Self {
            path: PathBuf::new(),
            tensors: BTreeMap::new(),
            metadata: BTreeMap::new(),
            ranks: Vec::new(),
        }
    }

    fn new(path: &Path, contents: Contents) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for tensor in contents.tensors {
            let tensor = match unwrapped(tensor.name()) {
                Some(name) => tensor.renamed(&name),
                None => tensor,
            };
            match tensors.entry(tensor.shared_name()) {
                Entry::Vacant(entry) => entry.insert(tensor),
                Entry::Occupied(_) => return Err(tensor.error("appears twice")),
            };
        }
        let (path, metadata) = (path.to_owned(), contents.metadata);
        Ok(Self { path, tensors, metadata, ranks: Vec::new() })
    }

    /// The same checkpoint with `parts` in place of the tensors whose names are in `wholes`.
    pub(crate) fn split(&self, wholes: &[String], parts: Vec<Tensor>) -> Self {
        let mut tensors = self.tensors.clone();
        wholes.iter().for_each(|name| drop(tensors.remove(&**name)));
        tensors.extend(parts.into_iter().map(|part| (part.shared_name(), part)));
        let (metadata, ranks) = (self.metadata.clone(), self.ranks.clone());
        Self { path: self.path.clone(), tensors, metadata, ranks }
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

    /// The prefixes of the tensor names of each shard, in order, if the tensors are split for tensor parallelism.
    pub fn ranks(&self) -> &[String] {
        &self.ranks
    }

    /// Bytes of all tensors. Bytes that several tensors share are counted for each of them.
    pub fn total_bytes(&self) -> u64 {
        self.tensors.values().fold(0, |sum, tensor| sum.saturating_add(tensor.bytes().len() as u64))
    }
}

impl Format {
    fn of(path: &Path) -> Self {
        match path.extension() {
            Some(extension) if extension == "safetensors" => Format::Safetensors,
            Some(extension) if extension == "gguf" => Format::Gguf,
            _ => Format::Torch,
        }
    }

    fn read(self, path: &Path) -> Result<Contents> {
        let file = Bytes::map(path)?;
        let contents = self.parse(path, &file);
        // What was read may be wrong, or the reason why it could not be parsed.
        file.check()?;
        contents
    }

    fn parse(self, path: &Path, file: &Bytes) -> Result<Contents> {
        if is_lfs_pointer(file) {
            return Err(Error::file(path, IS_LFS_POINTER));
        }
        let path: Arc<Path> = path.into();
        match self {
            Format::Safetensors => safetensors::read(&path, file),
            Format::Torch => torch::read(&path, file),
            Format::Gguf => Gguf::parse(&path, file)?.contents(),
        }
    }
}
