//! All memory that changes while a model runs, allocated once.

use glm_kernels::{Angle, Attention, HeadRows, Isa, KeyValues, KvShape, LANES, Mask, Q8Rows};
use half::f16;

use crate::activations::Activations;
use crate::config::{Config, Positions};
use crate::error::{Error, Result};
use crate::position::Placement;

/// Tokens that pass a layer together. More would only cost memory: 256 tokens read each weight seldom enough.
pub(crate) const TILE: usize = 256;

/// The memory of one session: cached keys and values, and room for the activations of a forward pass.
pub struct State {
    /// Which model it belongs to.
    pub(crate) model: usize,
    pub(crate) cache: KvCache,
    pub(crate) workspace: Workspace,
    pub(crate) quantised: Q8Rows,
    /// How the tokens are placed; `None` before the prompt.
    pub(crate) placement: Option<Placement>,
    /// The tokens in the cache.
    pub(crate) ids: Vec<u32>,
    /// Tokens that the last forward pass fed; the rows of `workspace.x` that mean something.
    pub(crate) fed: usize,
}

impl State {
    /// Memory of model `model` for `capacity` tokens, `tile` of them at a time.
    ///
    /// With `f32` activations the cache keeps `f32`, else `f16`.
    ///
    /// # Errors
    /// If the operating system does not give the memory.
    pub(crate) fn new(
        config: &Config,
        capacity: usize,
        activations: Activations,
        tile: usize,
        model: usize,
    ) -> Result<Self> {
        let tile = tile.min(capacity).max(1);
        let allocated = KvCache::new(config, capacity, activations)
            .and_then(|cache| Ok((cache, Workspace::new(config, capacity, tile)?)));
        let (cache, workspace) = allocated.map_err(|OutOfMemory| {
            let (cache, rest) = Self::bytes(config, capacity, activations);
            Error::Memory { capacity, bytes: cache + rest }
        })?;
        let quantised = Q8Rows::with_capacity(tile, widest_input(config));
        let ids = Vec::with_capacity(capacity);
        Ok(Self { model, cache, workspace, quantised, placement: None, ids, fed: 0 })
    }

    /// Bytes that [`State::new`] takes: the cache, and all the rest.
    pub(crate) fn bytes(config: &Config, capacity: usize, activations: Activations) -> (u64, u64) {
        let element = if activations == Activations::F32 { 4 } else { 2 };
        let cache = 2 * config.layers * kv_shape(config, capacity).len() * element;
        let tile = TILE.min(capacity);
        let rows = capacity * (config.hidden + config.attention_width() + 2 * angles(config))
            + tile * (2 * config.hidden + widest(config) + gated(config) + output(config))
            + config.vocab;
        let quantised = tile * widest_input(config) * 5 / 4;
        (cache as u64, (rows * 4 + quantised) as u64)
    }

    /// Tokens in the cache.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether nothing was fed yet.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The tokens in the cache.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Tokens that fit.
    pub fn capacity(&self) -> usize {
        self.cache.capacity
    }

    /// Forgets everything; nothing is freed.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Forgets all tokens but the first `len`. Of a bidirectional context nothing is left unless all of it is.
    pub fn truncate(&mut self, len: usize) {
        let keeps = self.placement.is_some_and(|placement| placement.context() <= len);
        self.ids.truncate(if keeps { len } else { 0 });
        self.fed = 0;
        if self.ids.is_empty() {
            self.placement = None;
        }
    }
}

/// The operating system has no memory left.
struct OutOfMemory;

type Allocated<T> = std::result::Result<T, OutOfMemory>;

/// Zeros, given page by page as they are first touched.
fn zeroed<T: bytemuck::Zeroable>(n: usize) -> Allocated<Vec<T>> {
    bytemuck::allocation::try_zeroed_vec(n).map_err(|()| OutOfMemory)
}

fn kv_shape(config: &Config, capacity: usize) -> KvShape {
    let capacity = capacity.next_multiple_of(LANES);
    KvShape { heads: config.kv_heads, head_size: config.head_size, capacity }
}

/// The widest row that a linear layer writes or attention fills, apart from logits.
fn widest(config: &Config) -> usize {
    config.qkv_rows().max(config.up_rows()).max(config.attention_width())
}

/// Angles of a token.
fn angles(config: &Config) -> usize {
    match config.positions {
        Positions::Learned => 0,
        // Two positions, each for half a head.
        Positions::Halves { .. } | Positions::Whole { .. } => config.head_size / 2,
        Positions::Pairs { elements, .. } => elements / 2,
    }
}

/// Width of a gated row.
fn gated(config: &Config) -> usize {
    if config.mlp.is_gated() { config.inner } else { 0 }
}

/// Width of a row that has a norm after it.
fn output(config: &Config) -> usize {
    if config.output_norms { config.hidden } else { 0 }
}

fn widest_input(config: &Config) -> usize {
    config.hidden.max(config.inner).max(config.attention_width())
}

/// Room for activations.
pub(crate) struct Workspace {
    /// Tokens that pass a layer together.
    pub(crate) tile: usize,
    /// The residual stream, normalised for the head once it is through, `[capacity, hidden]`
    pub(crate) x: Vec<f32>,
    /// Queries of all tokens that are fed, `[capacity, heads, head size]`
    pub(crate) queries: Vec<f32>,
    /// `[tile, hidden]`
    pub(crate) normed: Vec<f32>,
    /// What attention or MLP adds to the residual, `[tile, hidden]`
    pub(crate) branch: Vec<f32>,
    /// Query-key-value, attention output or MLP inside, `[tile, widest]`
    pub(crate) wide: Vec<f32>,
    /// MLP inside behind its gate, `[tile, inner]`; empty without one
    pub(crate) gated: Vec<f32>,
    /// A normalised branch, `[tile, hidden]`; empty where branches are not
    pub(crate) output: Vec<f32>,
    /// Angles by which the tokens that are fed are rotated, `[capacity, angles]`
    pub(crate) angles: Vec<Angle>,
    /// Of one token in `angles`.
    pub(crate) angles_per_token: usize,
    /// `[vocab]`
    pub(crate) logits: Vec<f32>,
}

impl Workspace {
    fn new(config: &Config, capacity: usize, tile: usize) -> Allocated<Self> {
        Ok(Self {
            tile,
            x: zeroed(capacity * config.hidden)?,
            queries: zeroed(capacity * config.attention_width())?,
            normed: zeroed(tile * config.hidden)?,
            branch: zeroed(tile * config.hidden)?,
            wide: zeroed(tile * widest(config))?,
            gated: zeroed(tile * gated(config))?,
            output: zeroed(tile * output(config))?,
            angles: zeroed(capacity * angles(config))?,
            angles_per_token: angles(config),
            logits: zeroed(config.vocab)?,
        })
    }
}

/// Keys and values of all layers.
pub(crate) struct KvCache {
    shape: KvShape,
    /// Heads of queries.
    heads: usize,
    capacity: usize,
    values: Cached,
}

enum Cached {
    /// `[layers]` of keys and values
    F32(Vec<[Vec<f32>; 2]>),
    /// `[layers]` of keys and values
    F16(Vec<[Vec<f16>; 2]>),
}

impl KvCache {
    fn new(config: &Config, capacity: usize, activations: Activations) -> Allocated<Self> {
        let shape = kv_shape(config, capacity);
        let n = shape.len();
        fn layers<T: bytemuck::Zeroable>(layers: usize, n: usize) -> Allocated<Vec<[Vec<T>; 2]>> {
            (0..layers).map(|_| Ok([zeroed(n)?, zeroed(n)?])).collect()
        }
        let values = match activations {
            Activations::F32 => Cached::F32(layers(config.layers, n)?),
            Activations::Int8 => Cached::F16(layers(config.layers, n)?),
        };
        Ok(Self { shape, heads: config.heads, capacity, values })
    }

    /// The cache of layer `index`.
    pub(crate) fn layer(&mut self, index: usize) -> LayerCache<'_> {
        let values = match &mut self.values {
            Cached::F32(layers) => LayerValues::F32(&mut layers[index]),
            Cached::F16(layers) => LayerValues::F16(&mut layers[index]),
        };
        LayerCache { shape: self.shape, heads: self.heads, values }
    }
}

/// Keys and values of one layer.
pub(crate) struct LayerCache<'a> {
    shape: KvShape,
    heads: usize,
    values: LayerValues<'a>,
}

enum LayerValues<'a> {
    F32(&'a mut [Vec<f32>; 2]),
    F16(&'a mut [Vec<f16>; 2]),
}

impl LayerCache<'_> {
    /// Stores keys and values of the tokens from `position` on.
    pub(crate) fn store(&mut self, isa: Isa, position: usize, rows: HeadRows<'_>) {
        match &mut self.values {
            LayerValues::F32([keys, values]) => self.shape.store(isa, position, rows, keys, values),
            LayerValues::F16([keys, values]) => self.shape.store(isa, position, rows, keys, values),
        }
    }

    /// Attention of the queries from `position` on, `[queries, heads, head size]`, into `out`.
    pub(crate) fn attend(
        &self,
        isa: Isa,
        queries: &[f32],
        position: usize,
        mask: Mask,
        out: &mut [f32],
    ) {
        match &self.values {
            LayerValues::F32(kv) => self.attend_to(kv, isa, queries, position, mask, out),
            LayerValues::F16(kv) => self.attend_to(kv, isa, queries, position, mask, out),
        }
    }

    fn attend_to<E: glm_kernels::Element>(
        &self,
        [keys, values]: &[Vec<E>; 2],
        isa: Isa,
        queries: &[f32],
        position: usize,
        mask: Mask,
        out: &mut [f32],
    ) {
        let cache = KeyValues::new(self.shape, keys, values);
        let heads = self.heads;
        let scale = 1.0 / (self.shape.head_size as f32).sqrt();
        Attention { queries, heads, cache, position, mask, scale }.forward(isa, out);
    }
}
