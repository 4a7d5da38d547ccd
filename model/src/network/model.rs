//! A model: configuration, weights and threads, and everything that is asked of them.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use glm_kernels::{Isa, parallel_region};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};
use crate::files::config::{Config, MaskKind, SpecialIds};
use crate::files::inventory::Inventory;
use crate::files::model_files::ModelFiles;
use crate::files::quantize::QuantizeOptions;
use crate::files::{random, weights};
use crate::generate::sampling::Sampling;
use crate::machine::cores::Cores;
use crate::machine::roofline::{self, Roofline};
use crate::network::activations::Activations;
use crate::network::chunk::{Chunk, Logits};
use crate::network::hook::RunOptions;
use crate::network::kv::{KvFormat, KvPool};
use crate::network::layer::Weights;
use crate::network::pass::{Pass, SINK_ROWS};
use crate::network::placement::Placement;
use crate::network::rope::Rotation;
use crate::network::sequence::Sequence;
use crate::network::workspace::{TILE, Workspace};
use crate::text::tokenizer::Tokenizer;

/// Most threads that a model may be given.
pub const MAX_THREADS: usize = 1024;

/// The default context in tokens. Some models were made for a million, whose keys and values would take more memory than most
/// machines have.
pub const DEFAULT_CONTEXT: usize = 32_768;

/// Idle workspaces that a model keeps.
const IDLE_WORKSPACES: usize = 2;

/// How a model is opened.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Options {
    /// Threads of a forward pass; by default as many as there are fast cores that the process may use.
    pub threads: Option<usize>,
    /// Type of the activations; by default 8-bit for quantized weights. Plain weights always take `f32`.
    pub activations: Option<Activations>,
    /// Type of cached keys and values; by default `f32` for `f32` activations, otherwise `f16`.
    pub kv: Option<KvFormat>,
    /// Most bytes of keys and values of all sequences together; by default only the machine's memory limits them.
    pub kv_budget: Option<u64>,
}

impl Options {
    /// The type of keys and values: the one that is asked for, or the default for the activations.
    pub(crate) fn kv(&self, activations: Activations) -> KvFormat {
        self.kv.unwrap_or(KvFormat::of(activations))
    }
}

/// Weights of a model, mapped or in memory, and the threads that work on them. Never changes; a clone is the same model.
#[derive(Clone)]
pub struct Model(Arc<Inner>);

struct Inner {
    /// Tells it from all other models of the process.
    identity: u64,
    config: Config,
    weights: Weights,
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
    /// Opens the model in a folder: `config.json` and weights as published or as `glm quantize` writes them.
    ///
    /// # Errors
    /// If a file is missing or damaged, the weights are not those that `config.json` describes, or an option is outside its
    /// range.
    pub fn open(dir: impl AsRef<Path>, options: &Options) -> Result<Self> {
        Self::open_with_progress(dir, options, &mut |_, _| {})
    }

    /// As [`Model::open`]; `progress` is told the bytes of weights done and the bytes there are. Weights that lie as the
    /// kernels read them take no time; the official INT4 and INT8 are brought into that order in memory, and pieces of a matrix
    /// are put together there.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn open_with_progress(
        dir: impl AsRef<Path>,
        options: &Options,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<Self> {
        Self::load(&ModelFiles::open(dir)?, options, progress)
    }

    /// Loads the weights of files that are open already; `progress` as in [`Model::open_with_progress`].
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
        let (config, inventory) = (files.config().clone(), files.inventory().clone());
        let weights = pool.install(|| weights::load(&files.network, &config, progress))?;
        let activations = match options.activations {
            Some(Activations::F32) => Activations::F32,
            _ => inventory.activations(),
        };
        let kv = options.kv(activations);
        Ok(Self(Arc::new(Inner {
            identity: IDENTITIES.fetch_add(1, Ordering::Relaxed),
            rotation: Rotation::new(&config),
            kv_pool: KvPool::new(&config, kv, options.kv_budget),
            config,
            weights,
            activations,
            isa,
            pool,
            inventory,
            kv,
            idle: Mutex::default(),
        })))
    }

    /// A model with the shape of a published one, one of [`RANDOM_SHAPES`](crate::RANDOM_SHAPES), and random weights in memory,
    /// quantized as `format` says.
    ///
    /// # Errors
    /// If there is no shape of that name, an option is outside its range, or there is no memory for it.
    pub fn random(name: &str, format: &QuantizeOptions, options: &Options) -> Result<Self> {
        let (config, checkpoint) = random::checkpoint(name, format)?;
        Self::load(&ModelFiles::new(config, &checkpoint)?, options, &mut |_, _| {})
    }

    /// Bytes of memory that [`Model::random`] takes together with a sequence of `capacity` tokens.
    ///
    /// # Errors
    /// As [`Model::random`], except for the memory; and if the model has no room for so many tokens.
    pub fn random_bytes(
        name: &str,
        format: &QuantizeOptions,
        options: &Options,
        capacity: usize,
    ) -> Result<u64> {
        random::bytes(name, format, options, capacity)
    }
}

/// What it is.
impl Model {
    /// Sizes and kinds.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Type of the activations.
    pub fn activations(&self) -> Activations {
        self.0.activations
    }

    /// Type of cached keys and values.
    pub fn kv(&self) -> KvFormat {
        self.0.kv
    }

    /// Bytes of the keys and values of a token.
    pub fn kv_bytes_per_token(&self) -> u64 {
        self.0.kv.bytes_per_token(&self.0.config)
    }

    /// The memory for keys and values of all its sequences.
    pub fn kv_pool(&self) -> &KvPool {
        &self.0.kv_pool
    }

    /// Instructions that the kernels use.
    pub fn isa(&self) -> Isa {
        self.0.isa
    }

    /// Threads of a forward pass.
    pub fn threads(&self) -> usize {
        self.0.pool.current_num_threads()
    }

    /// Its matrices, and the memory they take.
    pub fn inventory(&self) -> &Inventory {
        &self.0.inventory
    }

    /// How its authors choose ids, with seed 0.
    pub fn sampling(&self) -> &Sampling {
        &self.0.config.sampling
    }

    /// Checks that a tokenizer belongs to this model: that both mean the same by the special ids.
    ///
    /// # Errors
    /// If they differ, naming the ids.
    pub fn check_tokenizer(&self, tokenizer: &Tokenizer) -> Result<()> {
        let Config { vocab, special: model, .. } = self.config();
        let text = &tokenizer.special().ids;
        let other = |problem: String| {
            Err(Error::Ids(format!("the tokenizer is another model's: {problem}")))
        };
        if tokenizer.vocab_size() > *vocab {
            return other(format!("it has {} ids, and the model {vocab}", tokenizer.vocab_size()));
        }
        let ids = |special: &SpecialIds| [("sop", special.sop)].into_iter().chain(special.blanks());
        // A model whose files do not mention an id leaves it to the tokenizer.
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

/// What it computes.
impl Model {
    /// An empty sequence of at most `capacity` tokens; without it, of as many as the model was made for, up to
    /// [`DEFAULT_CONTEXT`]. It takes memory only as it grows.
    ///
    /// # Errors
    /// If `capacity` is 0 or more than the model was made for.
    pub fn sequence(&self, capacity: Option<usize>) -> Result<Sequence> {
        let capacity = capacity.unwrap_or(self.0.config.max_context.min(DEFAULT_CONTEXT));
        self.0.config.check_capacity(capacity)?;
        Ok(Sequence::new(self.0.identity, &self.0.kv_pool, capacity))
    }

    /// Memory for the passes of one caller.
    ///
    /// # Errors
    /// If the operating system does not give it.
    pub fn workspace(&self) -> Result<Workspace> {
        self.workspace_with_tile(TILE)
    }

    /// As [`Model::workspace`], with `tile` rows passing a layer together. The logits do not depend on it, to the last bit.
    ///
    /// # Errors
    /// As [`Model::workspace`].
    pub fn workspace_with_tile(&self, tile: usize) -> Result<Workspace> {
        Workspace::new(self.0.identity, &self.0.config, tile)
    }

    /// Does something with a workspace that is not in use, so that callers who take turns share one.
    pub(crate) fn with_workspace<R>(
        &self,
        work: impl FnOnce(&mut Workspace) -> Result<R>,
    ) -> Result<R> {
        let idle = || self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = idle().pop();
        let mut workspace = taken.map_or_else(|| self.workspace(), Ok)?;
        let done = work(&mut workspace);
        let mut idle = idle();
        if idle.len() < IDLE_WORKSPACES {
            idle.push(workspace);
        }
        done
    }

    /// Appends the ids of every chunk to its sequence and returns the logits of the tokens that are wanted.
    ///
    /// A pass reads the weights once for up to 256 tokens, whichever sequences they belong to. The logits of a token do not
    /// depend, to the last bit, on the other chunks, on how a prompt is cut into chunks, or on the number of threads.
    ///
    /// A sequence begins with a prompt. A causal model takes it in one chunk or in several; a bidirectional context, which ends
    /// before the first `sop`, must be in the first chunk.
    ///
    /// # Errors
    /// If there are no ids in a chunk, one is not in the vocabulary, they do not fit in the context, or more context follows a
    /// bidirectional context; if a sequence or the workspace belongs to another model, or wanted tokens are not among the ids; if
    /// there is no memory; [`Error::Cancelled`] if the pass was cancelled. All sequences are then as before.
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
            if flow.is_break() { Err(Error::Cancelled) } else { Ok(()) }
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

    /// Where the tokens of a chunk's sequence are placed, if the chunk is sound.
    fn placement(&self, chunk: &Chunk<'_>) -> Result<Placement> {
        let (config, ids, sequence) = (&self.0.config, chunk.ids, &*chunk.sequence);
        if sequence.model != self.0.identity {
            return Err(Error::OtherModel("sequence"));
        }
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
            // All that was fed is context. An answer may begin now; more context would have to be fed with the rest.
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

    /// How many tokens of `prompt`, from the first on, a sequence has already, so that [`Sequence::truncate`] to so many and
    /// feeding the rest gives the same bits as feeding all of it to an empty sequence. At least the last token is always fed.
    ///
    /// A causal model can keep any common beginning. A bidirectional context is kept whole or not at all: a new question
    /// changes all of it, another answer to the same question nothing.
    pub fn reusable(&self, prompt: &[u32], sequence: &Sequence) -> usize {
        let config = &self.0.config;
        let placement = Placement::of(prompt, config.mask, &config.special).ok();
        let common = prompt.iter().zip(&sequence.ids).take_while(|(a, b)| a == b).count();
        let common = common.min(prompt.len().saturating_sub(1));
        match (placement, sequence.placement) {
            (Some(new), Some(old)) if new == old && new.context() <= common => common,
            _ => 0,
        }
    }

    /// Reads all weights that every token is multiplied with, so that mapped ones are in memory before the first token
    /// needs them.
    pub fn preload(&self) {
        let weights = || self.0.weights.matrices().map(|matrix| matrix.bytes());
        self.0.pool.install(|| parallel_region(|| roofline::read(self.0.isa, weights())));
    }

    /// Measures what the machine can do at best with these weights and threads, the best of several runs. Takes some seconds.
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
