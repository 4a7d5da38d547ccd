//! Adapters: a trained prefix of keys and values before the tokens of a sequence (P-Tuning v2), or low-rank updates of linear layers
//! (LoRA).
//!
//! Every token attends to the whole prefix. Its keys are not rotated, and the positions of the tokens do not count it. The pages with
//! the prefix are filled once, and all sequences that begin with it share them. Updates are in `lora.rs`.

use std::path::Path;
use std::sync::Arc;

use glm_kernels::{HeadRows, Heads, Isa};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files::checkpoint::Checkpoint;
use crate::files::config::Config;
use crate::files::fields::Fields;
use crate::files::lora;
use crate::files::mapped::MappedFiles;
use crate::files::model_dir::{CONFIG, ModelDir};
use crate::files::peft::PEFT_CONFIG;
use crate::files::prefix::{PrefixEncoder, PrefixRows, StoredPrefix, TrainedPrefix};
use crate::network::kv::{KvPool, SequenceCache};
use crate::network::lora::LowRank;
use crate::network::model::Model;

/// Positions that are computed at a time: those of ChatGLM-6B have 59 MB.
pub(crate) const STEP: usize = 64;

/// What a model was trained for, apart from its weights: keys and values of some positions before the prompt, as P-Tuning v2 of
/// ChatGLM-6B makes them, or low-rank updates of its linear layers, as the peft library saves them (LoRA). Clones share it.
///
/// ```no_run
/// use glm_model::{Adapter, Bundle, Options};
///
/// let bundle = Bundle::open("chatglm-6b-int4", &Options::default())?;
/// let adapter = Adapter::open("output/adgen-chatglm-6b-pt/checkpoint-3000", bundle.model())?;
/// let tuned = bundle.with_adapter(Some(&adapter))?; // shares the weights
/// # Ok::<(), glm_model::Error>(())
/// ```
#[derive(Clone)]
pub struct Adapter(Arc<Inner>);

/// What an adapter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdapterKind {
    /// Keys and values before every prompt (P-Tuning v2).
    Prefix {
        /// Its positions. They do not count as tokens of the context.
        tokens: usize,
    },
    /// Updates of linear layers (LoRA).
    LowRank {
        /// Linear layers with an update.
        layers: usize,
    },
}

struct Inner {
    /// Identity of its model.
    model: u64,
    fingerprint: [u8; 32],
    kind: Kind,
}

enum Kind {
    Prefix(Prefix),
    LowRank(LowRank),
}

struct Prefix {
    pool: KvPool,
    cache: SequenceCache,
    len: usize,
}

impl Adapter {
    /// Reads an adapter of `model`. That is a folder of the peft library, with `adapter_config.json` and the tensors of LoRA. Or it is
    /// the folder of a training checkpoint of P-Tuning v2, which has `config.json` with `pre_seq_len`, and the weights of the prefix
    /// encoder, alone or with all others of the model. The others are not read.
    ///
    /// The tensors of LoRA are mapped, unless the model was opened with [`no_mmap`](crate::Options::no_mmap): do not change their file in
    /// place while the adapter lives. A pass with a changed file is an error, as with one of the model.
    ///
    /// # Errors
    /// If a file is missing or damaged, the folder is an adapter of another kind, it was trained for a model of another shape, or the
    /// memory for its keys and values cannot be allocated.
    pub fn open(dir: impl AsRef<Path>, model: &Model) -> Result<Self> {
        let folder = ModelDir::on_disk(dir.as_ref())?;
        let config = model.config();
        if folder.has(PEFT_CONFIG) {
            let updates = lora::open(&folder, config)?;
            let kind = Kind::LowRank(LowRank::new(&updates, model.no_mmap())?);
            let (model, fingerprint) = (model.identity(), lora::fingerprint(&updates));
            let tensors = updates.iter().flat_map(|update| [update.a.data(), update.b.data()]);
            tensors.collect::<MappedFiles>().check()?;
            return Ok(Self(Arc::new(Inner { model, fingerprint, kind })));
        }
        if !folder.has(CONFIG) {
            let problem = "is missing, or no regular file: copy that of the training, which says pre_seq_len. An adapter of \
                           LoRA has adapter_config.json instead";
            return Err(folder.error(CONFIG, problem));
        }
        let fields = Fields::open(&folder, CONFIG)?;
        let prefix = TrainedPrefix::read(&fields, config.dialect)?.ok_or_else(|| {
            fields.error("has no pre_seq_len, so the folder is no adapter (P-Tuning v2)")
        })?;
        let checkpoint = Checkpoint::open(dir.as_ref())?;
        model.load_adapter(&StoredPrefix::find(&checkpoint, config, prefix)?)
    }

    /// Fills the pages with the keys and values of `encoder`, on the threads of the current pool.
    ///
    /// # Errors
    /// If the budget of the pool or the memory is exhausted.
    pub(crate) fn new(
        model: u64,
        pool: &KvPool,
        config: &Config,
        isa: Isa,
        encoder: &PrefixEncoder,
    ) -> Result<Self> {
        let len = encoder.tokens;
        let mut prefix = Prefix::new(pool, len)?;
        let mut hash = Sha256::new();
        for first in (0..len).step_by(STEP) {
            let rows = encoder.rows(isa, first..(first + STEP).min(len))?;
            hash.update(bytemuck::cast_slice(&rows));
            for layer in 0..config.layers {
                let rows = head_rows(config, &rows, encoder.width, layer);
                prefix.cache.store(isa, layer, first, rows);
            }
        }
        let (fingerprint, kind) = (hash.finalize().into(), Kind::Prefix(prefix));
        Ok(Self(Arc::new(Inner { model, fingerprint, kind })))
    }

    /// Fills pages for one layer with the keys and values of `layer`. All its adapters are for sequences that are compared with no
    /// others, so they have one fingerprint.
    ///
    /// # Errors
    /// As [`Adapter::new`].
    pub(crate) fn of_layer(
        model: u64,
        pool: &KvPool,
        config: &Config,
        isa: Isa,
        prefix: &PrefixRows,
        layer: usize,
    ) -> Result<Self> {
        let PrefixRows { tokens, width, rows } = prefix;
        let mut prefix = Prefix::new(pool, *tokens)?;
        prefix.cache.store(isa, 0, 0, head_rows(config, rows, *width, layer));
        let (fingerprint, kind) = ([0; 32], Kind::Prefix(prefix));
        Ok(Self(Arc::new(Inner { model, fingerprint, kind })))
    }

    /// What it is.
    pub fn kind(&self) -> AdapterKind {
        match &self.0.kind {
            Kind::Prefix(prefix) => AdapterKind::Prefix { tokens: prefix.len },
            Kind::LowRank(updates) => AdapterKind::LowRank { layers: updates.len() },
        }
    }

    /// Positions before every prompt. They do not count as tokens of the context.
    pub fn tokens(&self) -> usize {
        match &self.0.kind {
            Kind::Prefix(prefix) => prefix.len,
            Kind::LowRank(_) => 0,
        }
    }

    /// A hash of keys and values before they have the type of the cache, or of the updates.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.0.fingerprint
    }

    /// A cache with the prefix, which shares the pages; `None` without a prefix.
    pub(crate) fn cache(&self) -> Option<SequenceCache> {
        match &self.0.kind {
            Kind::Prefix(prefix) => Some(prefix.cache.fork(prefix.len)),
            Kind::LowRank(_) => None,
        }
    }

    /// The updates, if it has some.
    pub(crate) fn low_rank(&self) -> Option<&LowRank> {
        match &self.0.kind {
            Kind::Prefix(_) => None,
            Kind::LowRank(updates) => Some(updates),
        }
    }

    /// Checks that the files that it is read from in every pass are as they were when they were opened.
    pub(crate) fn check_files(&self) -> Result<()> {
        self.low_rank().map_or(Ok(()), |updates| updates.mapped().check())
    }

    /// Checks that it belongs to the model with this identity.
    pub(crate) fn check(&self, model: u64) -> Result<()> {
        if self.0.model == model { Ok(()) } else { Err(Error::OtherModel("adapter")) }
    }
}

impl Adapter {
    /// Whether both share their weights.
    pub(crate) fn is_clone_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl PartialEq for Adapter {
    /// Whether they are the same for sequences of the same model.
    fn eq(&self, other: &Self) -> bool {
        (self.0.model, self.0.fingerprint) == (other.0.model, other.0.fingerprint)
    }
}

impl std::fmt::Debug for Adapter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Adapter").field(&self.kind()).finish()
    }
}

/// Keys and values of a layer in rows of all layers, `[positions, width]`.
fn head_rows<'r>(config: &Config, rows: &'r [f32], width: usize, layer: usize) -> HeadRows<'r> {
    let (size, heads) = (config.head_size, config.kv_heads * config.head_size);
    let at = |part: usize| Heads { first: part * heads, stride: size };
    HeadRows { rows, width, keys: at(2 * layer), values: at(2 * layer + 1) }
}

impl Prefix {
    /// Pages for `len` positions. Dropping it returns them.
    fn new(pool: &KvPool, len: usize) -> Result<Self> {
        let mut prefix = Self { pool: pool.clone(), cache: pool.cache(), len };
        pool.reserve(&mut prefix.cache, 0, len)?;
        Ok(prefix)
    }
}

impl Drop for Prefix {
    fn drop(&mut self) {
        self.pool.trim(&mut self.cache, 0);
    }
}
