//! Adapters of LoRA: low-rank updates of linear layers, as the peft library saves them.
//!
//! An update of a layer with the weight `W`, `[outputs, inputs]`, is `W + s·B·A`: `A` has the shape `[rank, inputs]`, `B` has
//! `[outputs, rank]`. The tensors are named like the weight. Where the published model has query, key and value apart, each has an
//! update of its own: of some rows of the one matrix that this program has.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

use super::checkpoint::{Checkpoint, Tensor};
use super::config::{Config, Dialect, Rope};
use super::model_dir::ModelDir;
use super::peft::{LoraConfig, MERGE, PEFT_CONFIG};
use super::weights::{LowRankRows, Map, PLAIN, Source, StoredNetwork, check_apart};
use crate::error::{Error, Result};
use crate::limits::adapter::MAX_PATH;
use crate::network::layer::LinearRole;
use sha2::{Digest, Sha256};

/// The file with the tensors, in order of preference.
const FILES: [&str; 2] = ["adapter_model.safetensors", "adapter_model.bin"];

/// Parts that the names of modules may begin with, before those of the published model.
const WRAPPERS: [&str; 4] = ["base_model", "model", "module", "glm"];

/// The linear layers of a transformer layer that may have updates.
const UPDATED: [LinearRole; 5] = [
    LinearRole::Qkv,
    LinearRole::QueryUp,
    LinearRole::AttentionOutput,
    LinearRole::Up,
    LinearRole::Down,
];

/// Which linear layer of a network: the number of the layer and its role. The head has number 0.
pub(crate) type Place = (usize, LinearRole);

/// An update of some rows of a linear layer.
pub(crate) struct StoredUpdate {
    pub(crate) place: Place,
    /// The outputs that it belongs to.
    pub(crate) rows: Range<usize>,
    pub(crate) scale: f32,
    /// `[rank, inputs]`
    pub(crate) a: Tensor,
    /// `[outputs, rank]`
    pub(crate) b: Tensor,
}

/// Reads an adapter for models like `config`.
///
/// # Errors
/// If a file is missing or damaged, the adapter is of another kind, or it was trained for another model.
pub(crate) fn open(folder: &ModelDir, config: &Config) -> Result<Vec<StoredUpdate>> {
    let lora = LoraConfig::open(folder)?;
    let Some(name) = FILES.into_iter().find(|name| folder.has(name)) else {
        return Err(folder.error(FILES[0], "is missing, or no regular file"));
    };
    read(&Checkpoint::open(folder.path_of(name))?, &lora, config)
}

/// A hash of all updates.
pub(crate) fn fingerprint(stored: &[StoredUpdate]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for StoredUpdate { place, rows, scale, a, b } in stored {
        hash.update(format!("LoRA {place:?} {rows:?} {:08x}", scale.to_bits()));
        for tensor in [a, b] {
            hash.update(format!(" {} {:?} ", tensor.dtype(), tensor.shape()));
            hash.update(tensor.bytes());
        }
    }
    hash.finalize().into()
}

/// Adds the updates of the adapter in `folder` to the weights of `network`, which a model like `config` has. They are added when the
/// weights are read. Returns the [`fingerprint`].
///
/// # Errors
/// As [`open`]; if the folder has an adapter of another kind, or weights with an update are quantized.
pub(crate) fn merge(
    folder: &Path,
    config: &Config,
    network: &mut StoredNetwork,
) -> Result<[u8; 32]> {
    let folder = ModelDir::on_disk(folder)?;
    if !folder.has(PEFT_CONFIG) {
        let problem = "is missing: only an adapter of LoRA can be merged into weights";
        return Err(folder.error(PEFT_CONFIG, problem));
    }
    let updates = open(&folder, config)?;
    for StoredUpdate { place: (layer, role), rows, scale, a, b } in &updates {
        let linear = match role {
            LinearRole::Head => network.head.as_mut(),
            role => network.layers[*layer].linear_mut(*role),
        };
        let Some(linear) = linear else {
            let problem = "belongs to the head, which is the embedding in this model, so it cannot be merged: use the \
                           adapter with --adapter";
            return Err(b.error(problem));
        };
        if linear.weight.is_quantized() {
            return Err(b.error(format!(
                "cannot be merged into {}, which is quantized: merge it into the original weights",
                linear.weight.name
            )));
        }
        linear.weight.update(LowRankRows::new(rows.clone(), *scale, a, b));
    }
    Ok(fingerprint(&updates))
}

fn read(checkpoint: &Checkpoint, lora: &LoraConfig, config: &Config) -> Result<Vec<StoredUpdate>> {
    let (modules, map) = (modules(config), Map::new(config, &Checkpoint::empty()));
    let (mut updates, mut left_out) = (BTreeMap::new(), None);
    for name in checkpoint.names() {
        let tensor = checkpoint.tensor(name)?;
        let Some((path, half)) = parse(name) else {
            return Err(tensor.error(format!("is no part of an adapter that can be read: {MERGE}")));
        };
        if of_published(path).any(|path| map.is_left_out(path)) {
            left_out = Some(tensor);
            continue;
        }
        let Some(module) = of_published(path).find_map(|path| modules.get(path)) else {
            let Config { architecture, layers, .. } = config;
            if config.experts.is_some() && is_of_experts(path) {
                let problem = "belongs to the experts, their router or kv_b_proj, of which no updates are supported";
                return Err(tensor.error(problem));
            }
            return Err(tensor.error(format!(
                "belongs to no linear layer of {architecture} with {layers} layers: the adapter was trained for another \
                 model{}",
                lora.base
            )));
        };
        let (_, pair) = updates.entry(path).or_insert((module, [None, None]));
        if let Some(other) = pair[half as usize].replace(tensor) {
            return Err(tensor.error(format!("is there twice: also as {}", other.name())));
        }
    }
    if let (true, Some(tensor)) = (updates.is_empty(), left_out) {
        return Err(tensor.error(
            "belongs to the vision part of the model, as all others of the adapter do, and only the text part is read",
        ));
    }
    if updates.is_empty() {
        return Err(Error::file(checkpoint.path(), "has no tensors"));
    }
    let update =
        |(path, (module, pair))| Module::update(module, path, pair, checkpoint.path(), lora);
    let updates: Vec<_> = updates.into_iter().map(update).collect::<Result<_>>()?;
    check_apart(updates.iter().flat_map(|update| [&update.a, &update.b]), |_| false)?;
    check_once(checkpoint.path(), &updates)?;
    // The rows of the heads are in another order than in the published model.
    if let (Dialect::Gguf, Rope::Halves { .. }) = (config.dialect, config.rope)
        && let Some(update) = updates.iter().find(|update| update.place.1 == LinearRole::Qkv)
    {
        let problem = "belongs to query, key or value, which GGUF files of vision models have in another order: use the \
                       original model";
        return Err(update.b.error(problem));
    }
    Ok(updates)
}

/// Whether the module at a path is one of those that have no updates in models with experts.
fn is_of_experts(path: &str) -> bool {
    let parts = ["experts", "shared_experts", "gate", "kv_b_proj"];
    path.split('.').any(|part| parts.contains(&part))
}

/// The two matrices of an update.
#[derive(Clone, Copy)]
enum Half {
    A,
    B,
}

/// The path of the module that a tensor belongs to, and which half of its update it is: `PATH.lora_A.weight`, or with the name of the
/// adapter before `weight`.
fn parse(name: &str) -> Option<(&str, Half)> {
    let path = name.strip_suffix(".weight")?;
    [(".lora_A", Half::A), (".lora_B", Half::B)].into_iter().find_map(|(part, half)| {
        let (path, adapter) = path.rsplit_once(part)?;
        let adapter = adapter.strip_prefix('.').unwrap_or(adapter);
        (!adapter.contains('.')).then_some((path, half))
    })
}

/// A linear layer of the published model, or its query, key or value.
struct Module {
    place: Place,
    rows: Range<usize>,
    /// Rows and columns of the whole matrix.
    size: [usize; 2],
}

/// The linear layers of models like `config` by their paths.
fn modules(config: &Config) -> HashMap<String, Module> {
    let dialects = match config.dialect {
        // Of models with experts, there is no ChatGLM2.
        Dialect::Transformers | Dialect::Glm4v if config.experts.is_some() => {
            &[Dialect::Transformers, Dialect::Glm4v][..]
        }
        // The same matrices, whichever of the programs the files were made for.
        Dialect::ChatGlm2 | Dialect::Transformers | Dialect::Glm4v | Dialect::Gguf => {
            &[Dialect::ChatGlm2, Dialect::Transformers, Dialect::Glm4v][..]
        }
        ref own => std::slice::from_ref(own),
    };
    let mut modules = HashMap::new();
    for &dialect in dialects {
        // A head that is tied to the embedding may have an update, too.
        let config = Config { dialect, tied_head: false, ..config.clone() };
        let network = Map::new(&config, &Checkpoint::empty()).network;
        let layers = network.layers.iter().enumerate();
        // Experts and routers have no updates, nor what latent attention applies to queries and outputs in place of keys and values.
        let layers = layers.flat_map(|(layer, of)| {
            let linears = of.linears().filter(|(role, _)| UPDATED.contains(role));
            linears.map(move |(role, linear)| ((layer, role), &linear.weight))
        });
        let head = network.head.iter().map(|head| ((0, LinearRole::Head), &head.weight));
        for (place, Source { name, rows: whole, cols, pieces, .. }) in layers.chain(head) {
            let whole = *whole;
            let pieces = pieces.iter().map(|piece| (&piece.name, piece.rows.clone()));
            for (name, rows) in pieces.chain([(name, 0..whole)]) {
                let path = name.strip_suffix(".weight").unwrap_or(name).to_owned();
                modules.insert(path, Module { place, rows, size: [whole, *cols] });
            }
        }
    }
    modules
}

/// The path that a module may have in the published model: the path without what the program put before it that trained the model, of
/// which every part may also be one of the model. None if it is too long.
fn of_published(path: &str) -> impl Iterator<Item = &str> {
    let path = Some(path).filter(|path| path.len() <= MAX_PATH);
    std::iter::successors(path, |path| {
        let (first, rest) = path.split_once('.')?;
        WRAPPERS.contains(&first).then_some(rest)
    })
}

impl Module {
    fn update(
        &self,
        path: &str,
        pair: [Option<&Tensor>; 2],
        checkpoint: &Path,
        lora: &LoraConfig,
    ) -> Result<StoredUpdate> {
        let missing =
            |part: &str| Error::tensor(checkpoint, &format!("{path}.{part}.weight"), "is missing");
        let a = pair[0].ok_or_else(|| missing("lora_A"))?;
        let b = pair[1].ok_or_else(|| missing("lora_B"))?;
        let path = path.strip_prefix("base_model.model.").unwrap_or(path);
        let rank = lora.rank(path);
        let [rows, inputs] = self.size;
        let outputs = self.rows.len();
        for (tensor, shape) in [(a, [rank, inputs]), (b, [outputs, rank])] {
            if tensor.shape() != shape {
                return Err(tensor.error(format!(
                    "expected {shape:?}, of rank {rank} by adapter_config.json and for a layer of {outputs} × {inputs}, found \
                     {:?}: the adapter was trained for another model{}, or with another rank",
                    tensor.shape(),
                    lora.base
                )));
            }
            tensor.expect(&PLAIN, &shape)?;
        }
        // It bounds the memory of a pass, see `Scratch::most_rank`.
        if rank > rows.min(inputs) {
            return Err(a.error(format!(
                "has rank {rank}, and it updates a matrix of {rows} × {inputs}: a rank larger than the smaller side gains \
                 nothing and is not supported"
            )));
        }
        let (place, rows, scale) = (self.place, self.rows.clone(), lora.scale(path, rank));
        Ok(StoredUpdate { place, rows, scale, a: a.clone(), b: b.clone() })
    }
}

/// Checks that no rows have two updates, under different names for the same layer.
fn check_once(path: &Path, updates: &[StoredUpdate]) -> Result<()> {
    let mut sorted: Vec<_> = updates.iter().collect();
    sorted.sort_by_key(|update| (update.place.0, update.place.1 as usize, update.rows.start));
    for pair in sorted.windows(2) {
        let [one, other] = pair else { continue };
        if one.place == other.place && other.rows.start < one.rows.end {
            let problem = format!("updates the same weights as {}", other.b.name());
            return Err(Error::tensor(path, one.b.name(), problem));
        }
    }
    Ok(())
}
