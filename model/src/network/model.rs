//! A model: configuration, weights, thread pool, and the operations on them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use glm_kernels::{Isa, parallel_region};
use rayon::{ThreadPool, ThreadPoolBuilder};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files::config::{Config, MaskKind, SpecialIds};
use crate::files::inventory::Inventory;
use crate::files::mapped::MappedFiles;
use crate::files::model_files::ModelFiles;
use crate::files::model_path::ModelPath;
use crate::files::prefix::StoredPrefix;
use crate::files::quantize::QuantizeOptions;
use crate::files::weights::{StoredMatrix, StoredVector};
use crate::files::{random, weights};
use crate::generate::sampling::Sampling;
use crate::limits::run::{IDLE_WORKSPACES, MAX_THREADS};
use crate::machine::cores::Cores;
use crate::machine::roofline::{self, Roofline};
use crate::network::activations::Activations;
use crate::network::adapter::Adapter;
use crate::network::chunk::{Chunk, Logits};
use crate::network::hook::RunOptions;
use crate::network::kv::{KvFormat, KvPool};
use crate::network::layer::Weights;
use crate::network::pass::{Pass, SINK_ROWS};
use crate::network::placement::Placement;
use crate::network::rope::Rotation;
use crate::network::sequence::Sequence;
use crate::network::workspace::{Workspace, tile};
use crate::text::tokenizer::Tokenizer;

/// The default context size in tokens. Some models support a million tokens, whose KV cache exceeds the memory of most machines.
pub const DEFAULT_CONTEXT: usize = 32_768;

/// Options for opening a model.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Options {
    /// Threads of a forward pass; by default one per performance core that the process may use.
    pub threads: Option<usize>,
    /// Type of the activations; by default 8-bit for quantized weights. Unquantized weights always use `f32`.
    pub activations: Option<Activations>,
    /// Type of cached keys and values; by default `f32` for `f32` activations, otherwise [`KvFormat::Int16`] with latent attention, and
    /// [`KvFormat::F16`] without.
    pub kv: Option<KvFormat>,
    /// Most bytes of the KV caches of all sequences; by default only the memory of the machine limits them.
    pub kv_budget: Option<u64>,
    /// Whether an adapter in the model's own files is left out; for programs that take another.
    pub without_own_adapter: bool,
    /// Whether all weights are read into memory, in place of those being mapped that the kernels can read in the files. The files may
    /// then be changed once the model is open, and the results are the same. It takes as much more memory as [`Inventory::mapped_bytes`]
    /// says, and opening takes longer. While the model is opened, its files are mapped in any case.
    pub no_mmap: bool,
    /// Whether the experts that tokens have are requested from the disk as soon as they are chosen, all at once: for models larger than
    /// memory. Where they are in memory, it only takes time. The results are the same.
    pub reads_ahead: bool,
}

impl Options {
    /// The element type of the KV cache: the requested one, or the default for the activations.
    pub(crate) fn kv(&self, activations: Activations, config: &Config) -> KvFormat {
        self.kv.unwrap_or(KvFormat::of(activations, config))
    }
}

/// The weights of a model, mapped or in memory, and its thread pool. Immutable; clones share the model.
///
/// With an [`Adapter`], its sequences begin with that or are computed with it. A model whose own files have a trained prefix, or in whose
/// folder an adapter lies, has it as its adapter.
#[derive(Clone)]
pub struct Model(Arc<Inner>, Option<Adapter>);

struct Inner {
    /// Unique among all models of the process.
    identity: u64,
    config: Config,
    weights: Weights,
    /// The files that weights are read from in every pass.
    mapped: MappedFiles,
    no_mmap: bool,
    reads_ahead: bool,
    rotation: Rotation,
    activations: Activations,
    isa: Isa,
    pool: ThreadPool,
    inventory: Inventory,
    kv: KvFormat,
    kv_pool: KvPool,
    idle: Mutex<Vec<Workspace>>,
}

/// Opening.
impl Model {
    /// Opens a model directory: `config.json` and weights, as published or as written by `glm quantize`.
    ///
    /// # Errors
    /// If a file is missing or damaged, the weights are not those that `config.json` describes, or an option is outside its
    /// range.
    pub fn open(dir: impl Into<ModelPath>, options: &Options) -> Result<Self> {
        Self::open_with_progress(dir, options, &mut |_, _| {})
    }

    /// As [`Model::open`]; `progress` is called with the bytes of weights loaded so far and the total. Weights in the layout of the
    /// kernels are only mapped. The official INT4 and INT8 are repacked in memory, and split matrices are concatenated.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn open_with_progress(
        dir: impl Into<ModelPath>,
        options: &Options,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<Self> {
        Self::load(&ModelFiles::open(dir)?, options, progress)
    }

    /// Loads the weights of open files; `progress` as in [`Model::open_with_progress`].
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn load(
        files: &ModelFiles,
        options: &Options,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<Self> {
        static IDENTITIES: AtomicU64 = AtomicU64::new(0);
        let isa = Isa::choose().map_err(|error| Error::Isa(error.to_string()))?;
        let pool = pool(options.threads)?;
        let (config, mut inventory) = (files.config().clone(), files.inventory().clone());
        let no_mmap = options.no_mmap;
        let weights = pool.install(|| weights::load(&files.network, &config, no_mmap, progress));
        // What was copied may be wrong, or the reason why it could not be.
        let sources: MappedFiles = files.network.parts().collect();
        sources.check()?;
        let weights = weights?;
        let mapped: MappedFiles = weights.parts().collect();
        if no_mmap && !sources.is_empty() {
            inventory.copied_bytes = inventory.bytes();
        }
        let activations = match options.activations {
            Some(Activations::F32) => Activations::F32,
            _ => inventory.activations(),
        };
        let kv = options.kv(activations, &config);
        let kv_pool = KvPool::new(&config, kv, options.kv_budget)?;
        let inner = Arc::new(Inner {
            identity: IDENTITIES.fetch_add(1, Ordering::Relaxed),
            rotation: Rotation::new(&config),
            kv_pool,
            config,
            weights,
            mapped,
            no_mmap,
            reads_ahead: options.reads_ahead,
            activations,
            isa,
            pool,
            inventory,
            kv,
            idle: Mutex::default(),
        });
        let model = Self(inner, None);
        if options.without_own_adapter {
            return Ok(model);
        }
        let adapter = match (&files.prefix, &files.adapter) {
            (Some(_), Some(folder)) => {
                let problem = "has a trained prefix (P-Tuning v2) and adapter_config.json, and a model can have one adapter: \
                               move one of them away";
                return Err(Error::file(folder, problem));
            }
            (Some(prefix), None) => Some(model.load_adapter(prefix)?),
            (None, Some(folder)) => Some(Adapter::open(folder, &model)?),
            (None, None) => None,
        };
        model.with_adapter(adapter.as_ref())
    }

    /// A model with the shape of a published one, one of [`RANDOM_SHAPES`](crate::RANDOM_SHAPES), and random weights in memory,
    /// quantized according to `format`.
    ///
    /// # Errors
    /// If there is no shape of that name, an option is outside its range, or the memory cannot be allocated.
    pub fn random(name: &str, format: &QuantizeOptions, options: &Options) -> Result<Self> {
        Self::random_with_progress(name, format, options, &mut |_, _| {})
    }

    /// As [`Model::random`]; `progress` is called with the bytes of weights made so far and the total.
    ///
    /// # Errors
    /// As [`Model::random`].
    pub fn random_with_progress(
        name: &str,
        format: &QuantizeOptions,
        options: &Options,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<Self> {
        let (config, checkpoint) = random::checkpoint(name, format, progress)?;
        Self::load(&ModelFiles::new(config, &checkpoint)?, options, &mut |_, _| {})
    }

    /// Bytes of memory for [`Model::random`] and a sequence of `capacity` tokens.
    ///
    /// # Errors
    /// As [`Model::random`], except for memory; and if `capacity` exceeds the context of the model.
    pub fn random_bytes(
        name: &str,
        format: &QuantizeOptions,
        options: &Options,
        capacity: usize,
    ) -> Result<u64> {
        random::bytes(name, format, options, capacity)
    }
}

/// Properties.
impl Model {
    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Type of the activations.
    pub fn activations(&self) -> Activations {
        self.0.activations
    }

    /// Element type of the KV cache.
    pub fn kv(&self) -> KvFormat {
        self.0.kv
    }

    /// Bytes of the keys and values of a token.
    pub fn kv_bytes_per_token(&self) -> u64 {
        self.0.kv.bytes_per_token(&self.0.config)
    }

    /// The memory for the KV caches of all its sequences.
    pub fn kv_pool(&self) -> &KvPool {
        &self.0.kv_pool
    }

    /// The instruction set of the kernels.
    pub fn isa(&self) -> Isa {
        self.0.isa
    }

    /// Whether tokens attend to earlier tokens only.
    pub(crate) fn is_causal(&self) -> bool {
        self.0.config.mask == MaskKind::Causal
    }

    /// Threads of a forward pass.
    pub fn threads(&self) -> usize {
        self.0.pool.current_num_threads()
    }

    /// Checks that the files whose weights it reads in every pass are as they were when they were opened, with those of its adapter.
    /// [`Model::run`] does so; this is for those who want to know before.
    ///
    /// # Errors
    /// [`Error::FileChanged`]. It stays, whatever becomes of the file: the model must be opened again.
    pub fn check_files(&self) -> Result<()> {
        self.0.mapped.check()?;
        self.adapter().map_or(Ok(()), Adapter::check_files)
    }

    /// Whether no weights are mapped.
    pub(crate) fn no_mmap(&self) -> bool {
        self.0.no_mmap
    }

    /// Its matrices and their memory.
    pub fn inventory(&self) -> &Inventory {
        &self.0.inventory
    }

    /// The sampling that its authors recommend, with seed 0.
    pub fn sampling(&self) -> &Sampling {
        &self.0.config.sampling
    }

    /// Checks that a tokenizer belongs to this model: that the special ids of both are equal.
    ///
    /// # Errors
    /// If they differ, naming the ids.
    pub fn check_tokenizer(&self, tokenizer: &Tokenizer) -> Result<()> {
        let Config { vocab, special: model, .. } = self.config();
        let text = &tokenizer.special().ids;
        let other = |problem: String| {
            Err(Error::Ids(format!("the tokenizer belongs to another model: {problem}")))
        };
        if tokenizer.vocab_size() > *vocab {
            return other(format!("it has {} ids, and the model {vocab}", tokenizer.vocab_size()));
        }
        let ids = |special: &SpecialIds| [("sop", special.sop)].into_iter().chain(special.blanks());
        // Ids that the files of the model do not define are not compared.
        let mut pairs = ids(model).zip(ids(text)).filter(|((_, id), _)| id.is_some());
        match pairs.find(|((_, model), (_, text))| model != text) {
            None => Ok(()),
            Some(((name, model), (_, text))) => {
                let shown = |id: Option<u32>| id.map_or("missing".to_owned(), |id| id.to_string());
                other(format!("{name} is {} in it, and {} in the model", shown(text), shown(model)))
            }
        }
    }
}

/// Adapters.
impl Model {
    /// What its sequences begin with, or are computed with.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.1.as_ref()
    }

    /// The same model with another adapter, or with none. All share the weights, and their sequences may be in one pass.
    ///
    /// # Errors
    /// If the adapter belongs to another model.
    pub fn with_adapter(&self, adapter: Option<&Adapter>) -> Result<Self> {
        adapter.map_or(Ok(()), |adapter| adapter.check(self.0.identity))?;
        Ok(Self(Arc::clone(&self.0), adapter.cloned()))
    }

    /// Whether `sequence` has the same adapter as its sequences.
    pub(crate) fn begins(&self, sequence: &Sequence) -> bool {
        self.adapter() == sequence.adapter()
    }

    /// Unique among all models of the process.
    pub(crate) fn identity(&self) -> u64 {
        self.0.identity
    }

    /// Computes the keys and values of a prefix.
    pub(crate) fn load_adapter(&self, prefix: &StoredPrefix) -> Result<Adapter> {
        let Inner { identity, config, isa, kv_pool, .. } = &*self.0;
        let adapter = self.install(|| {
            let encoder = prefix.load(config, &StoredMatrix::load, &StoredVector::load)?;
            parallel_region(|| Adapter::new(*identity, kv_pool, config, *isa, &encoder))
        });
        prefix.parts().collect::<MappedFiles>().check()?;
        // They are not read again.
        prefix.release();
        adapter
    }
}

/// Computation.
impl Model {
    /// An empty sequence of at most `capacity` tokens; by default, the context size of the model, up to [`DEFAULT_CONTEXT`]. It
    /// allocates memory only as it grows.
    ///
    /// # Errors
    /// If `capacity` is 0 or more than the context size of the model.
    pub fn sequence(&self, capacity: Option<usize>) -> Result<Sequence> {
        let capacity = capacity.unwrap_or(self.0.config.max_context.min(DEFAULT_CONTEXT));
        self.0.config.check_capacity(capacity)?;
        Ok(Sequence::new(self.0.identity, &self.0.kv_pool, self.adapter(), capacity))
    }

    /// Buffers for the passes of one caller.
    ///
    /// # Errors
    /// If the memory cannot be allocated.
    pub fn workspace(&self) -> Result<Workspace> {
        self.workspace_with_tile(tile(&self.0.config))
    }

    /// As [`Model::workspace`], with at most `tile` rows of a linear layer at a time. The bits of the logits do not depend on it.
    ///
    /// # Errors
    /// As [`Model::workspace`].
    pub fn workspace_with_tile(&self, tile: usize) -> Result<Workspace> {
        let Inner { identity, config, inventory, reads_ahead, .. } = &*self.0;
        let mut workspace = Workspace::new(*identity, config, tile, inventory.ordered_inputs)?;
        workspace.reads_ahead = *reads_ahead;
        Ok(workspace)
    }

    /// Calls `work` with an idle workspace, or a new one if all are in use.
    pub(crate) fn with_workspace<R>(
        &self,
        work: impl FnOnce(&mut Workspace) -> Result<R>,
    ) -> Result<R> {
        let idle = || self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = idle().pop();
        let mut workspace = taken.map_or_else(|| self.workspace(), Ok)?;
        let done = work(&mut workspace);
        workspace.shrink(&self.0.config);
        let mut idle = idle();
        if idle.len() < IDLE_WORKSPACES {
            idle.push(workspace);
        }
        done
    }

    /// Appends the ids of every chunk to its sequence and returns the logits of the wanted tokens.
    ///
    /// A pass reads the weights once for up to 256 tokens of any sequences, with experts 512. The bits of the logits of a token do not depend on the
    /// other chunks, on how a prompt is split into chunks, or on the number of threads.
    ///
    /// A sequence begins with a prompt. For a causal model it may be split into chunks. A bidirectional context, which ends before
    /// the first `sop`, must be in the first chunk.
    ///
    /// # Errors
    /// If a chunk has no ids, an id is not in the vocabulary, the ids exceed the context, or more context follows a bidirectional
    /// context; if a sequence or the workspace belongs to another model, or `wanted` is outside the chunk; if memory cannot be
    /// allocated; [`Error::Cancelled`] if the pass was cancelled; [`Error::FileChanged`] if a file was changed whose weights are mapped,
    /// and then what hooks and sinks have received is wrong. All sequences are unchanged then.
    pub fn run<'w>(
        &self,
        workspace: &'w mut Workspace,
        chunks: &mut [Chunk<'_>],
        options: RunOptions<'_>,
    ) -> Result<Logits<'w>> {
        let inner = &*self.0;
        let config = &inner.config;
        if workspace.model != inner.identity {
            return Err(Error::OtherModel("workspace"));
        }
        // The rest would be in vain.
        inner.mapped.check_seen()?;
        workspace.placements.clear();
        for chunk in &*chunks {
            workspace.placements.push(self.placement(chunk)?);
        }
        let mut rows = workspace.tile;
        for (chunk, placement) in chunks.iter().zip(&workspace.placements) {
            if chunk.sequence.len() < placement.context() {
                rows = rows.max(chunk.ids.len());
            }
        }
        workspace.fit_rows(config, rows)?;
        let keeps_logits = options.logits.is_none();
        workspace.wanted.set(chunks.iter().map(|chunk| chunk.wanted.len()));
        let wanted = workspace.wanted.total();
        workspace.fit_logits(config, if keeps_logits { wanted } else { wanted.min(SINK_ROWS) })?;
        let positions = |chunk: &Chunk<'_>| {
            let prefix = chunk.sequence.adapter().map_or(0, Adapter::tokens);
            prefix + chunk.sequence.len() + chunk.ids.len()
        };
        workspace.fit_partials(config, chunks.iter().map(positions).max().unwrap_or(0))?;

        let reserved = chunks.iter_mut().try_for_each(|c| c.sequence.reserve(c.ids.len()));
        let done = reserved.and_then(|()| {
            let mut pass = Pass {
                config,
                weights: &inner.weights,
                rotation: &inner.rotation,
                isa: inner.isa,
                activations: inner.activations,
                chunks,
                workspace,
                options,
            };
            let flow = inner.pool.install(|| parallel_region(|| pass.run()));
            if flow.is_break() { Err(Error::Cancelled) } else { self.check_read_files(chunks) }
        });
        if let Err(error) = done {
            chunks.iter_mut().for_each(|chunk| chunk.sequence.trim());
            return Err(error);
        }
        for (chunk, placement) in chunks.iter_mut().zip(&workspace.placements) {
            chunk.sequence.placement = Some(*placement);
            chunk.sequence.ids.extend_from_slice(chunk.ids);
        }
        if !keeps_logits {
            workspace.wanted.set(std::iter::empty());
        }
        Ok(Logits::new(&workspace.logits, config.vocab, &workspace.wanted))
    }

    /// Checks the files whose weights a pass over `chunks` has read.
    fn check_read_files(&self, chunks: &[Chunk<'_>]) -> Result<()> {
        self.0.mapped.check()?;
        let mut last: Option<&Adapter> = None;
        for adapter in chunks.iter().filter_map(|chunk| chunk.sequence.adapter()) {
            // Equal adapters may be of different files.
            if !last.replace(adapter).is_some_and(|last| last.is_clone_of(adapter)) {
                adapter.check_files()?;
            }
        }
        Ok(())
    }

    /// Runs `work` on the threads of the model.
    pub(crate) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.0.pool.install(work)
    }

    /// Checks that a sequence was created by this model.
    pub(crate) fn check_sequence(&self, sequence: &Sequence) -> Result<()> {
        if sequence.model == self.0.identity { Ok(()) } else { Err(Error::OtherModel("sequence")) }
    }

    /// Validates a chunk and returns the placement of its sequence.
    pub(crate) fn placement(&self, chunk: &Chunk<'_>) -> Result<Placement> {
        let (config, ids, sequence) = (&self.0.config, chunk.ids, &*chunk.sequence);
        self.check_sequence(sequence)?;
        if ids.is_empty() {
            return Err(Error::Ids("there are no ids to feed".to_owned()));
        }
        if let Some(id) = ids.iter().find(|&&id| id as usize >= config.vocab) {
            let problem = format!("id {id} is outside the vocabulary of {} ids", config.vocab);
            return Err(Error::Ids(problem));
        }
        let wanted = &chunk.wanted;
        if wanted.start > wanted.end || wanted.end > ids.len() {
            let problem = format!("logits of tokens {wanted:?} are wanted of {} tokens", ids.len());
            return Err(Error::Ids(problem));
        }
        let needed = sequence.len() + ids.len();
        if needed > sequence.capacity() {
            return Err(Error::ContextFull {
                needed,
                capacity: sequence.capacity(),
                max: config.max_context,
            });
        }
        let place = |ids: &[u32]| Placement::of(ids, config.mask, &config.special);
        match sequence.placement {
            None => place(ids),
            Some(placement) if placement.context() < sequence.len() => Ok(placement),
            // All tokens so far are context. An answer may begin now, but the context cannot be extended.
            Some(_) if config.mask == MaskKind::Causal => place(&[]),
            Some(_) => match place(&[&sequence.ids, ids].concat())? {
                placement if placement.context() == sequence.len() => Ok(placement),
                _ => Err(Error::Ids(
                    "the prompt has no start of an answer (sop), so nothing can follow it"
                        .to_owned(),
                )),
            },
        }
    }

    /// Length of the common prefix of `prompt` and `sequence` that can be reused: [`Sequence::truncate`] to it and running the rest
    /// of the prompt gives the same bits as running all of it on an empty sequence. It never includes the last token of the prompt.
    ///
    /// A causal model can reuse any common prefix. A bidirectional context can be reused only if it is identical, because every
    /// token attends to all of it.
    pub fn reusable(&self, prompt: &[u32], sequence: &Sequence) -> usize {
        self.common(prompt, &sequence.ids, sequence.placement)
    }

    /// As [`Model::reusable`], once a sequence has taken all ids of another prompt.
    pub(crate) fn shareable(&self, prompt: &[u32], other: &[u32]) -> usize {
        let config = &self.0.config;
        self.common(prompt, other, Placement::of(other, config.mask, &config.special).ok())
    }

    fn common(&self, prompt: &[u32], ids: &[u32], old: Option<Placement>) -> usize {
        let config = &self.0.config;
        let common = prompt.iter().zip(ids).take_while(|(a, b)| a == b).count();
        let common = common.min(prompt.len().saturating_sub(1));
        if common == 0 {
            return 0;
        }
        let new = Placement::of(prompt, config.mask, &config.special).ok();
        match (new, old) {
            (Some(new), Some(old)) if new == old && new.context() <= common => common,
            _ => 0,
        }
    }

    /// A hash of everything that keys and values depend on: the configuration, a sample of the weights, the adapter, the types of
    /// activations and cache, and whether the kernels have a fused multiply-add.
    pub fn fingerprint(&self) -> [u8; 32] {
        const SAMPLE: usize = 512;
        let inner = &*self.0;
        let mut hash = Sha256::new();
        let is_plain = matches!(inner.isa, Isa::Scalar(_));
        let kinds = (inner.activations, inner.kv, is_plain);
        hash.update(format!("{kinds:?} {:?} {:?}", inner.config, inner.inventory.matrices));
        for matrix in inner.weights.matrices() {
            let bytes = matrix.bytes();
            let step = (bytes.len() / 8).max(SAMPLE);
            bytes.chunks(step).for_each(|part| hash.update(&part[..part.len().min(SAMPLE)]));
        }
        self.adapter().into_iter().for_each(|adapter| hash.update(adapter.fingerprint()));
        hash.finalize().into()
    }

    /// Reads all weights of the linear layers, so that mapped pages are in memory before the first token.
    pub fn preload(&self) {
        let weights = || self.0.weights.matrices().map(|matrix| matrix.bytes());
        self.0.pool.install(|| parallel_region(|| roofline::read(self.0.isa, weights())));
    }

    /// Measures the memory bandwidth and compute limits with these weights and threads: the best of several runs. Takes seconds.
    pub fn roofline(&self) -> Roofline {
        let weights: Vec<_> = self.0.weights.matrices().map(|matrix| matrix.bytes()).collect();
        self.0
            .pool
            .install(|| parallel_region(|| Roofline::measure(self.0.isa, self.threads(), &weights)))
    }
}

pub(crate) fn pool(threads: Option<usize>) -> Result<ThreadPool> {
    let threads = match threads {
        None => Cores::detect().default_threads(),
        Some(threads) if (1..=MAX_THREADS).contains(&threads) => threads,
        Some(threads) => {
            return Err(Error::Setting {
                setting: "threads",
                range: format!("from 1 to {MAX_THREADS}"),
                found: threads.to_string(),
            });
        }
    };
    let builder = ThreadPoolBuilder::new().num_threads(threads);
    builder.thread_name(|i| format!("glm-{i}")).build().map_err(Error::Threads)
}
