//! A model: its configuration and weights, and the forward pass from ids to logits.

use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;

use glm_kernels::{Isa, angles, parallel_region};
use half::f16;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};
use crate::files::checkpoint::Checkpoint;
use crate::files::config::{Config, Positions};
use crate::files::inventory::Inventory;
use crate::files::weights::{Loader, Map};
use crate::generate::sampling::Sampling;
use crate::machine::cores::Cores;
use crate::network::activations::Activations;
use crate::network::layer::{Context, Pass, Stage, Tap, Weights, rows, rows_mut, tiles};
use crate::network::placement::Placement;
use crate::network::state::{KvFormat, State, TILE, Workspace};

/// Most threads that a model may be given.
pub const MAX_THREADS: usize = 1024;

/// How a model is opened.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Threads of a forward pass; by default as many as there are fast cores that the process may use.
    pub threads: Option<usize>,
    /// Type of the activations; by default 8-bit for quantised weights. Plain weights always take `f32`.
    pub activations: Option<Activations>,
    /// Type of cached keys and values; by default that of `f32` activations, otherwise `f16`.
    pub kv: Option<KvFormat>,
}

/// Weights of a model, mapped or in memory, and the threads that work on them. Never changes; a clone is the same model.
#[derive(Clone)]
pub struct Model(Arc<Inner>);

struct Inner {
    config: Config,
    weights: Weights,
    /// Inverse frequencies of the rotation.
    frequencies: Vec<f32>,
    activations: Activations,
    kv: KvFormat,
    isa: Isa,
    pool: ThreadPool,
    inventory: Inventory,
}

impl Options {
    /// The type of keys and values: the one that is asked for, or what suits the activations.
    pub(crate) fn kv(&self, activations: Activations) -> KvFormat {
        self.kv.unwrap_or(KvFormat::of(activations))
    }
}

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
        let dir = dir.as_ref();
        Self::load(Config::open(dir)?, &Checkpoint::open(dir)?, options, progress)
    }

    /// Makes a model of what is open already; `progress` as in [`Model::open_with_progress`].
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn load(
        config: Config,
        checkpoint: &Checkpoint,
        options: &Options,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<Self> {
        let isa = Isa::choose().map_err(|error| Error::Isa(error.to_string()))?;
        let pool = pool(options.threads)?;
        let map = Map::of(&config, checkpoint)?;
        let inventory = Inventory::of(&config, &map, checkpoint)?;

        let total = map.matrix_bytes(checkpoint)?;
        let mut progress = |done| progress(done, total);
        let mut loader = Loader { config: &config, checkpoint, progress: &mut progress, done: 0 };
        let weights = pool.install(|| loader.load(&map))?;
        let activations = match options.activations {
            Some(Activations::F32) => Activations::F32,
            _ => inventory.activations(),
        };
        let frequencies = frequencies(&config);
        Ok(Self(Arc::new(Inner {
            config,
            weights,
            frequencies,
            activations,
            kv: options.kv(activations),
            isa,
            pool,
            inventory,
        })))
    }

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

    /// Instructions that the kernels use.
    pub fn isa(&self) -> Isa {
        self.0.isa
    }

    /// Threads of a forward pass.
    pub fn threads(&self) -> usize {
        self.0.pool.current_num_threads()
    }

    pub(crate) fn weights(&self) -> &Weights {
        &self.0.weights
    }

    pub(crate) fn pool(&self) -> &ThreadPool {
        &self.0.pool
    }

    /// Its matrices, and what they take.
    pub fn inventory(&self) -> &Inventory {
        &self.0.inventory
    }

    /// How its authors choose ids, with seed 0.
    pub fn sampling(&self) -> &Sampling {
        &self.0.config.sampling
    }

    /// Memory for up to `capacity` tokens.
    ///
    /// # Errors
    /// If `capacity` is 0 or more than the model was made for, or there is no memory for it.
    pub fn state(&self, capacity: usize) -> Result<State> {
        self.state_with_tile(capacity, TILE)
    }

    /// As [`Model::state`], with `tile` tokens passing a layer together. The logits do not depend on it, to the last bit.
    ///
    /// # Errors
    /// As [`Model::state`].
    pub fn state_with_tile(&self, capacity: usize, tile: usize) -> Result<State> {
        self.0.config.check_capacity(capacity)?;
        State::new(&self.0.config, capacity, self.0.kv, tile, self.identity())
    }

    /// Feeds `ids`: a prompt to an empty state, otherwise tokens that follow. Then [`Model::logits`] can be asked for, of each of
    /// them; if only those of the last are wanted, [`Model::prefill`] is faster.
    ///
    /// # Errors
    /// If there are no ids, one is not in the vocabulary, they do not fit, or more context follows a prompt that was already
    /// fed: a bidirectional context is fed whole. The state is as before.
    ///
    /// # Panics
    /// If the state is another model's.
    pub fn forward(&self, ids: &[u32], state: &mut State) -> Result<()> {
        self.forward_observed(ids, state, &mut |_, _, _| ControlFlow::Continue(()))
    }

    /// As [`Model::forward`]; `tap` is shown the activations: a [`Stage`], the index of the first token among `ids`, and rows
    /// `[tokens, hidden]`, a tile of tokens at a time. It can break off the pass.
    ///
    /// # Errors
    /// As [`Model::forward`], and [`Error::Cancelled`] where `tap` breaks off; no logits can then be asked for.
    ///
    /// # Panics
    /// As [`Model::forward`].
    pub fn forward_observed(
        &self,
        ids: &[u32],
        state: &mut State,
        tap: &mut Tap<'_>,
    ) -> Result<()> {
        self.pass(ids, 0, state, tap)
    }

    /// As [`Model::forward`], faster, where only the last token's logits are wanted, as before an answer: of the other tokens the
    /// last block computes keys and values only. Logits can be asked for at index `ids.len() - 1` alone.
    ///
    /// # Errors
    /// As [`Model::forward`].
    ///
    /// # Panics
    /// As [`Model::forward`].
    pub fn prefill(&self, ids: &[u32], state: &mut State) -> Result<()> {
        self.prefill_observed(ids, state, &mut |_, _, _| ControlFlow::Continue(()))
    }

    /// As [`Model::prefill`], observed as in [`Model::forward_observed`]; of the last block's stages from [`Stage::Attention`] on
    /// and of [`Stage::FinalNorm`], `tap` is shown the last token alone.
    ///
    /// # Errors
    /// As [`Model::forward_observed`].
    ///
    /// # Panics
    /// As [`Model::forward`].
    pub fn prefill_observed(
        &self,
        ids: &[u32],
        state: &mut State,
        tap: &mut Tap<'_>,
    ) -> Result<()> {
        self.pass(ids, ids.len().saturating_sub(1), state, tap)
    }

    /// Feeds `ids`, of which those from index `wanted` on leave the last block.
    fn pass(&self, ids: &[u32], wanted: usize, state: &mut State, tap: &mut Tap<'_>) -> Result<()> {
        self.check_state(state);
        let placement = self.placement(ids, state)?;
        let inner = &*self.0;
        let (config, start, tokens) = (&inner.config, state.len(), ids.len());
        let pass = Pass { config, placement, start, tokens, wanted };
        // Until the pass is through, there are no tokens whose logits could be asked for.
        state.known = 0..0;
        if inner
            .pool
            .install(|| parallel_region(|| inner.layers(ids, &pass, state, tap)))
            .is_break()
        {
            return Err(Error::Cancelled);
        }
        state.placement = Some(placement);
        state.ids.extend_from_slice(ids);
        state.known = wanted..tokens;
        Ok(())
    }

    #[track_caller]
    fn check_state(&self, state: &State) {
        assert_eq!(state.model, self.identity(), "a state serves the model it was made by");
    }

    /// That `tokens` of those last fed have logits.
    #[track_caller]
    fn check_known(&self, tokens: &Range<usize>, state: &State) {
        self.check_state(state);
        let known = &state.known;
        assert!(
            known.start <= tokens.start && tokens.end <= known.end,
            "logits of {tokens:?}; of the tokens last fed, {known:?} have some"
        );
    }

    fn identity(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    fn placement(&self, ids: &[u32], state: &State) -> Result<Placement> {
        let config = &self.0.config;
        if ids.is_empty() {
            return Err(Error::Ids("there are no ids to feed".to_owned()));
        }
        if let Some(id) = ids.iter().find(|&&id| id as usize >= config.vocab) {
            let problem = format!("id {id} is outside the vocabulary of {} ids", config.vocab);
            return Err(Error::Ids(problem));
        }
        let needed = state.len() + ids.len();
        if needed > state.capacity() {
            return Err(Error::ContextFull {
                needed,
                capacity: state.capacity(),
                max: config.max_context,
            });
        }
        let place = |ids: &[u32]| Placement::of(ids, config.mask, &config.special);
        match state.placement {
            None => place(ids),
            Some(placement) if placement.context() < state.len() => Ok(placement),
            // All that was fed is context. An answer may begin now; more context would have to be fed with the rest.
            Some(_) => match place(&[&state.ids, ids].concat())? {
                placement if placement.context() == state.len() => Ok(placement),
                _ => Err(Error::Ids(
                    "the prompt has no start of an answer (sop), so nothing can follow it"
                        .to_owned(),
                )),
            },
        }
    }

    /// How many tokens of `prompt`, from the first on, a state has already, so that [`State::truncate`] to so many and feeding
    /// the rest gives the same bits as feeding all of it to an empty state. At least the last token is always fed.
    ///
    /// A causal model can keep whatever begins alike. A bidirectional context is kept whole or not at all: a new question
    /// changes all of it, another answer to the same question nothing.
    pub fn reusable(&self, prompt: &[u32], state: &State) -> usize {
        let config = &self.0.config;
        let placement = Placement::of(prompt, config.mask, &config.special).ok();
        let alike = prompt.iter().zip(&state.ids).take_while(|(a, b)| a == b).count();
        let alike = alike.min(prompt.len().saturating_sub(1));
        match (placement, state.placement) {
            (Some(new), Some(old)) if new == old && new.context() <= alike => alike,
            _ => 0,
        }
    }

    /// The logits of token `index` among those last fed, one for each id of the vocabulary.
    ///
    /// # Panics
    /// If fewer tokens were fed, it is not the last one after [`Model::prefill`], or the state is another model's.
    #[track_caller]
    pub fn logits<'s>(&self, index: usize, state: &'s mut State) -> &'s [f32] {
        self.check_known(&(index..index + 1), state);
        let mut logits = std::mem::take(&mut state.workspace.logits);
        self.0.pool.install(|| self.0.head(index..index + 1, state, &mut logits));
        state.workspace.logits = logits;
        &state.workspace.logits
    }

    /// Writes the logits of `tokens` among those last fed to `out`, `[tokens, vocab]`.
    ///
    /// # Panics
    /// If fewer tokens were fed, they are not the last one alone after [`Model::prefill`], `out` has another length, or the
    /// state is another model's.
    #[track_caller]
    pub fn logits_into(&self, tokens: Range<usize>, state: &mut State, out: &mut [f32]) {
        self.check_known(&tokens, state);
        let vocab = self.0.config.vocab;
        assert_eq!(out.len(), tokens.len() * vocab, "logits of {tokens:?}");
        let tile = state.workspace.tile;
        self.0.pool.install(|| {
            for (tokens, out) in tiles(tokens, tile).zip(out.chunks_mut(tile * vocab)) {
                self.0.head(tokens, state, out);
            }
        });
    }
}

impl Inner {
    fn layers(
        &self,
        ids: &[u32],
        pass: &Pass<'_>,
        state: &mut State,
        tap: &mut Tap<'_>,
    ) -> ControlFlow<()> {
        let State { cache, workspace, quantised, .. } = state;
        let hidden = self.config.hidden;
        let embedding = self.weights.embedding.matrix();
        for (&id, x) in ids.iter().zip(workspace.x.chunks_exact_mut(hidden)) {
            embedding.row(id as usize, x);
        }
        tap(Stage::Embedding, 0, &workspace.x[..ids.len() * hidden])?;
        if let Some(tables) = &self.weights.positions {
            for (token, x) in workspace.x[..ids.len() * hidden].chunks_exact_mut(hidden).enumerate()
            {
                for (table, position) in tables.iter().zip(pass.placement.at(pass.start + token)) {
                    let row = &mut workspace.normed[..hidden];
                    table.matrix().row(position, row);
                    x.iter_mut().zip(row).for_each(|(x, p)| *x += *p);
                }
            }
            tap(Stage::Positions, 0, &workspace.x[..ids.len() * hidden])?;
        }
        self.set_angles(pass, workspace);
        let mut context = Context { isa: self.isa, activations: self.activations, quantised };
        for block in &self.weights.blocks {
            block.forward(pass, workspace, &mut cache[block.index], &mut context, tap)?;
        }
        for tokens in tiles(pass.wanted..pass.tokens, workspace.tile) {
            let normed = &mut workspace.normed[..tokens.len() * hidden];
            let x = rows_mut(&mut workspace.x, &tokens, hidden);
            self.weights.final_norm.forward(self.isa, x, normed);
            x.copy_from_slice(normed);
            tap(Stage::FinalNorm, tokens.start, x)?;
        }
        ControlFlow::Continue(())
    }

    /// The angles of all tokens that are fed, which all blocks share.
    fn set_angles(&self, pass: &Pass<'_>, workspace: &mut Workspace) {
        let n = workspace.angles_per_token;
        if n == 0 {
            return;
        }
        let stretch = match self.config.positions {
            Positions::Pairs { stretch, .. } => stretch,
            _ => 1.0,
        };
        let tokens = workspace.angles.chunks_exact_mut(n).take(pass.tokens).enumerate();
        tokens.for_each(|(token, row)| {
            let positions = pass.placement.at(pass.start + token);
            for (row, position) in row.chunks_exact_mut(self.frequencies.len()).zip(positions) {
                angles(&self.frequencies, position as f32 / stretch, row);
            }
        });
    }

    fn head(&self, tokens: Range<usize>, state: &mut State, logits: &mut [f32]) {
        let State { workspace, quantised, .. } = state;
        let mut context = Context { isa: self.isa, activations: self.activations, quantised };
        let x = rows(&workspace.x, &tokens, self.config.hidden);
        self.weights.head.forward(&mut context, x, logits);
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

fn frequencies(config: &Config) -> Vec<f32> {
    let (base, elements, rounded) = match config.positions {
        Positions::Learned => return Vec::new(),
        Positions::Halves { base } => (base, config.head_size / 2, true),
        Positions::Whole { base } => (base, config.head_size, true),
        Positions::Pairs { base, elements, .. } => (base, elements, false),
    };
    let frequency = |i| {
        let exponent = (2 * i) as f32 / elements as f32;
        let power = libm::pow(f64::from(base), f64::from(exponent)) as f32;
        let exact = 1.0 / power;
        if rounded { f16::from_f32(exact).to_f32() } else { exact }
    };
    (0..elements / 2).map(frequency).collect()
}
