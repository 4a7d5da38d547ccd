//! What a model's weights are and where their bytes lie, found without loading them.

use std::path::Path;

use crate::error::Result;
use crate::files::checkpoint::Checkpoint;
use crate::files::config::Config;
use crate::files::weights::{Map, Source, Stored};
use crate::network::activations::Activations;
use crate::network::kv::KvFormat;
use crate::network::layer::LinearRole;
use crate::network::workspace::Workspace;

/// A matrix of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatrixInfo {
    /// What it is.
    pub name: &'static str,
    /// How many there are of it.
    pub count: usize,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// How its weights are stored.
    pub format: String,
    /// Bytes of all of them, once loaded.
    pub bytes: u64,
}

/// All matrices of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Inventory {
    /// Sizes and kinds.
    pub config: Config,
    /// Each matrix; those of a block once for all blocks.
    pub matrices: Vec<MatrixInfo>,
    /// Bytes that do not lie as the kernels read them, and are copied into memory when the model is opened.
    pub copied_bytes: u64,
    /// Bytes of weights that every generated token reads.
    pub bytes_per_token: u64,
    /// Whether blocks have quantised matrices that the kernels can read.
    pub is_quantised: bool,
    /// Whether the embedding serves as the head, too.
    pub is_head_tied: bool,
}

impl Inventory {
    /// Looks into the model in a folder, which costs no more than its files' headers whatever the model's size.
    ///
    /// # Errors
    /// If a file is missing or damaged, or the weights are not those that `config.json` describes.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let config = Config::open(dir)?;
        let checkpoint = Checkpoint::open(dir)?;
        let map = Map::of(&config, &checkpoint)?;
        Self::of(&config, &map, &checkpoint)
    }

    /// That of a map that was checked.
    pub(crate) fn of(config: &Config, map: &Map, checkpoint: &Checkpoint) -> Result<Self> {
        let mut list = List { checkpoint, matrices: Vec::new(), copied: 0 };
        let network = &map.network;
        let embedding = list.add("word embeddings", [&network.embedding])?;
        let positions = network.positions.iter().flatten();
        for (name, table) in ["positions", "block positions"].into_iter().zip(positions) {
            list.add(name, [table])?;
        }
        let is_head_tied = match &network.head {
            None => true,
            Some(head) => same_bytes(checkpoint, &head.weight, &network.embedding)?,
        };
        let mut per_token = if is_head_tied { embedding } else { 0 };
        for role in LinearRole::ALL {
            if role == LinearRole::Head && is_head_tied {
                continue;
            }
            let linears = network.linears().filter(|(other, _)| *other == role);
            per_token += list.add(role.name(), linears.map(|(_, linear)| &linear.weight))?;
        }
        let is_quantised = network.linears().any(|(role, linear)| {
            role == LinearRole::Qkv
                && Stored::find(checkpoint, &linear.weight)
                    .is_ok_and(|stored| stored.shape().is_some())
        });
        Ok(Self {
            config: config.clone(),
            matrices: list.matrices,
            copied_bytes: list.copied,
            bytes_per_token: per_token,
            is_quantised,
            is_head_tied,
        })
    }

    /// Multiplications with weights by which a prompt of `tokens`, at least one, is read for the logits of the last:
    /// [`Model::run`](crate::Model::run).
    pub fn prefill_products(&self, tokens: usize) -> u64 {
        let config = &self.config;
        let (hidden, width) = (config.hidden, config.attention_width());
        let (layers, tokens) = (config.layers as u64, tokens as u64);
        let qkv = (hidden * config.qkv_rows()) as u64;
        let rest = (hidden * (width + config.up_rows() + config.intermediate_size)) as u64;
        let head = (hidden * config.vocab) as u64;
        tokens * layers * qkv + (tokens * (layers - 1) + 1) * rest + head
    }

    /// Bytes of all matrices.
    pub fn bytes(&self) -> u64 {
        self.matrices.iter().map(|matrix| matrix.bytes).sum()
    }

    /// The type of activations that suits the weights: 8-bit where there are quantised ones to meet.
    pub fn activations(&self) -> Activations {
        if self.is_quantised { Activations::Int8 } else { Activations::F32 }
    }

    /// Bytes that a context of `capacity` tokens takes when it is full: keys and values of the default type, and the workspace.
    pub fn context_bytes(&self, capacity: usize) -> (u64, u64) {
        let kv = KvFormat::of(self.activations());
        (kv.bytes(&self.config, capacity), Workspace::bytes(&self.config, capacity))
    }
}

fn same_bytes(checkpoint: &Checkpoint, a: &Source, b: &Source) -> Result<bool> {
    let [a, b] = [Stored::find(checkpoint, a)?, Stored::find(checkpoint, b)?];
    let first = |stored: &Stored<'_>| stored.tensors()[0].bytes().as_ptr();
    Ok(first(&a) == first(&b))
}

struct List<'a> {
    checkpoint: &'a Checkpoint,
    matrices: Vec<MatrixInfo>,
    copied: u64,
}

impl<'a> List<'a> {
    /// Adds a kind of matrix; returns the bytes of all of them.
    fn add(
        &mut self,
        name: &'static str,
        sources: impl IntoIterator<Item = &'a Source>,
    ) -> Result<u64> {
        let mut info: Option<MatrixInfo> = None;
        for source in sources {
            let stored = Stored::find(self.checkpoint, source)?;
            let bytes = stored.loaded_bytes();
            if stored.is_copied() {
                self.copied += bytes;
            }
            let (shape, format) = (stored.size(), stored.format());
            let info = info.get_or_insert(MatrixInfo { name, count: 0, shape, format, bytes: 0 });
            info.count += 1;
            info.bytes += bytes;
        }
        let bytes = info.as_ref().map_or(0, |info| info.bytes);
        self.matrices.extend(info);
        Ok(bytes)
    }
}
