//! All memory that changes while a model runs, allocated once.

use std::ops::Range;

use glm_kernels::{
    Angle, Attention, HeadRows, Isa, KEYS, KvCache, KvShape, Mask, OutOfMemory, Q8Rows,
};
use half::f16;

use crate::error::{Error, Result};
use crate::files::config::{Config, Rope};
use crate::network::activations::Activations;
use crate::network::placement::Placement;

/// Tokens that pass a layer together. More would only cost memory: 256 tokens read each weight seldom enough.
pub(crate) const TILE: usize = 256;

/// In what type keys and values are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvFormat {
    /// As they are; for comparing with other implementations.
    F32,
    /// Rounded; half of that memory.
    F16,
    /// 8-bit integers with a scale for each head of a token: a quarter of it.
    Int8,
}

impl KvFormat {
    /// The one that suits a type of activations.
    pub(crate) fn of(activations: Activations) -> Self {
        match activations {
            Activations::F32 => Self::F32,
            Activations::Int8 => Self::F16,
        }
    }

    /// Bytes of the keys and values of a token.
    pub(crate) fn bytes_per_token(self, config: &Config) -> u64 {
        let shape = KvShape { heads: config.kv_heads, head_size: config.head_size, capacity: 1 };
        (config.layers * self.bytes(shape)) as u64
    }

    /// Bytes of the keys and values of one layer.
    fn bytes(self, shape: KvShape) -> usize {
        match self {
            Self::F32 => shape.bytes::<f32>(),
            Self::F16 => shape.bytes::<f16>(),
            Self::Int8 => shape.bytes::<i8>(),
        }
    }
}

/// The memory of one session: cached keys and values, and room for the activations of a forward pass.
pub struct State {
    /// Which model it belongs to.
    pub(crate) model: usize,
    /// Of each layer.
    pub(crate) cache: Vec<LayerCache>,
    capacity: usize,
    pub(crate) workspace: Workspace,
    pub(crate) quantised: Q8Rows,
    /// How the tokens are placed; `None` before the prompt.
    pub(crate) placement: Option<Placement>,
    /// The tokens in the cache.
    pub(crate) ids: Vec<u32>,
    /// Of the tokens that the last forward pass fed, those whose logits can be asked for; the rows of `workspace.x` that mean
    /// something.
    pub(crate) known: Range<usize>,
}

impl State {
    /// Memory of model `model` for `capacity` tokens, `tile` of them at a time.
    ///
    /// # Errors
    /// If the operating system does not give the memory.
    pub(crate) fn new(
        config: &Config,
        capacity: usize,
        kv: KvFormat,
        tile: usize,
        model: usize,
    ) -> Result<Self> {
        let tile = tile.min(capacity).max(1);
        let layer = |_| LayerCache::new(kv_shape(config, capacity), kv);
        let allocated = (0..config.layers).map(layer).collect::<Allocated<_>>();
        let allocated =
            allocated.and_then(|cache| Ok((cache, Workspace::new(config, capacity, tile)?)));
        let (cache, workspace) = allocated.map_err(|OutOfMemory| {
            let (cache, rest) = Self::bytes(config, capacity, kv);
            Error::Memory { capacity, bytes: cache + rest }
        })?;
        let quantised = Q8Rows::with_capacity(tile, widest_input(config));
        let ids = Vec::with_capacity(capacity);
        Ok(Self { model, cache, capacity, workspace, quantised, placement: None, ids, known: 0..0 })
    }

    /// Bytes that [`State::new`] takes: the cache, and all the rest.
    pub(crate) fn bytes(config: &Config, capacity: usize, kv: KvFormat) -> (u64, u64) {
        let cache = config.layers * kv.bytes(kv_shape(config, capacity));
        let tile = TILE.min(capacity);
        let rows = capacity * (config.hidden + config.attention_width() + 2 * angles(config))
            + tile * (2 * config.hidden + widest(config) + gated(config) + output(config))
            + config.vocab
            + room(config, capacity);
        let quantised = Q8Rows::bytes(tile, widest_input(config));
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
        self.capacity
    }

    /// Forgets everything; nothing is freed.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Forgets all tokens but the first `len`. Of a bidirectional context nothing is left unless all of it is.
    pub fn truncate(&mut self, len: usize) {
        let keeps = self.placement.is_some_and(|placement| placement.context() <= len);
        self.ids.truncate(if keeps { len } else { 0 });
        self.known = 0..0;
        if self.ids.is_empty() {
            self.placement = None;
        }
    }
}

type Allocated<T> = std::result::Result<T, OutOfMemory>;

/// Zeros, given page by page as they are first touched.
fn zeroed<T: bytemuck::Zeroable>(n: usize) -> Allocated<Vec<T>> {
    bytemuck::allocation::try_zeroed_vec(n).map_err(|()| OutOfMemory)
}

fn kv_shape(config: &Config, capacity: usize) -> KvShape {
    let capacity = capacity.next_multiple_of(KEYS);
    KvShape { heads: config.kv_heads, head_size: config.head_size, capacity }
}

/// The widest row that a linear layer writes or attention fills, apart from logits.
fn widest(config: &Config) -> usize {
    config.qkv_rows().max(config.up_rows()).max(config.attention_width())
}

/// Angles of a token.
fn angles(config: &Config) -> usize {
    match config.rope {
        Rope::None => 0,
        // Two positions, each for half a head.
        Rope::TwoD { .. } | Rope::NeoX { .. } => config.head_size / 2,
        Rope::Interleaved { rotary_dim, .. } => rotary_dim / 2,
    }
}

/// Width of a gated row.
fn gated(config: &Config) -> usize {
    if config.mlp.is_gated() { config.intermediate_size } else { 0 }
}

/// Width of a row that has a norm after it.
fn output(config: &Config) -> usize {
    if config.output_norms { config.hidden } else { 0 }
}

/// Where the parts of one query's attention are put together.
fn room(config: &Config, capacity: usize) -> usize {
    kv_shape(config, capacity).room(config.heads)
}

fn widest_input(config: &Config) -> usize {
    config.hidden.max(config.intermediate_size).max(config.attention_width())
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
    /// MLP inside behind its gate, `[tile, intermediate size]`; empty without one
    pub(crate) gated: Vec<f32>,
    /// A normalised branch, `[tile, hidden]`; empty where branches are not
    pub(crate) output: Vec<f32>,
    /// Angles by which the tokens that are fed are rotated, `[capacity, angles]`
    pub(crate) angles: Vec<Angle>,
    /// Of one token in `angles`.
    pub(crate) angles_per_token: usize,
    /// Where the parts of one query's attention are put together.
    pub(crate) parts: Vec<f32>,
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
            parts: zeroed(room(config, capacity))?,
            logits: zeroed(config.vocab)?,
        })
    }
}

/// Keys and values of one layer.
pub(crate) enum LayerCache {
    F32(KvCache<f32>),
    F16(KvCache<f16>),
    Int8(KvCache<i8>),
}

/// Does the same with whatever type the cache has.
macro_rules! with_cache {
    ($layer:expr, $cache:ident => $do:expr) => {
        match $layer {
            LayerCache::F32($cache) => $do,
            LayerCache::F16($cache) => $do,
            LayerCache::Int8($cache) => $do,
        }
    };
}

impl LayerCache {
    fn new(shape: KvShape, format: KvFormat) -> Allocated<Self> {
        Ok(match format {
            KvFormat::F32 => Self::F32(KvCache::new(shape)?),
            KvFormat::F16 => Self::F16(KvCache::new(shape)?),
            KvFormat::Int8 => Self::Int8(KvCache::new(shape)?),
        })
    }

    /// Stores keys and values of the tokens from `position` on.
    pub(crate) fn store(&mut self, isa: Isa, position: usize, rows: HeadRows<'_>) {
        with_cache!(self, cache => cache.store(isa, position, rows));
    }

    /// Attention of some queries, `[queries, heads, head size]`, into `out`.
    pub(crate) fn attend(&self, isa: Isa, of: Queries<'_>, parts: &mut [f32], out: &mut [f32]) {
        let Queries { queries, heads, position, mask } = of;
        with_cache!(self, cache => {
            let scale = 1.0 / (cache.shape().head_size as f32).sqrt();
            Attention { queries, heads, cache, position, mask, scale }.forward(isa, parts, out);
        });
    }
}

/// Queries from `position` on.
pub(crate) struct Queries<'a> {
    /// `[queries, heads, head size]`
    pub(crate) queries: &'a [f32],
    pub(crate) heads: usize,
    pub(crate) position: usize,
    pub(crate) mask: Mask,
}
