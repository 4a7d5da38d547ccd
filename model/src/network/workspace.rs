//! The buffers of a forward pass. Their size depends on the number of rows in a batch, not on the context. All sequences share
//! them.

use glm_kernels::{Angle, OutOfMemory, Partials, Q8Rows};

use crate::error::{Error, Result};
use crate::files::config::{Config, MaskKind};
use crate::network::chunk::{Segment, WantedRows};
use crate::network::lora::Scratch;
use crate::network::pass::SINK_ROWS;
use crate::network::placement::Placement;
use crate::network::rope;

/// Most rows of a linear layer at a time. With 256 rows a matrix product is compute-bound; more would only cost memory.
pub(crate) const TILE: usize = 256;

/// The buffers of a forward pass: activations, and the logits of the last pass. Created by
/// [`Model::workspace`](crate::Model::workspace).
pub struct Workspace {
    /// Identity of its model.
    pub(crate) model: u64,
    /// Most rows of a linear layer at a time.
    pub(crate) tile: usize,
    /// The residual stream, `[rows, hidden]`
    pub(crate) x: Vec<f32>,
    /// `[rows, heads, head size]`
    pub(crate) queries: Vec<f32>,
    /// Angles of the rotary embedding, `[rows, angles]`
    pub(crate) angles: Vec<Angle>,
    /// `[tile, hidden]`
    pub(crate) normed: Vec<f32>,
    /// Output of the attention or feed-forward block, if a norm or a hook needs it before the residual, `[tile, hidden]`
    pub(crate) branch: Vec<f32>,
    /// Output of QKV projection, attention or first MLP matrix, `[tile, widest]`
    pub(crate) wide: Vec<f32>,
    /// Output of the gated activation, `[tile, intermediate size]`; empty for MLPs without a gate
    pub(crate) gated: Vec<f32>,
    /// Inputs of a linear layer as 8-bit integers.
    pub(crate) quantized: Q8Rows,
    /// Inputs of a linear layer in the order of its columns, `[tile, inputs]`; empty if no layer has columns in an order of their own.
    pub(crate) ordered: Vec<f32>,
    /// Buffers for the updates of adapters.
    pub(crate) lora: Scratch,
    /// Partial results of attention.
    pub(crate) partials: Partials,
    /// `[wanted rows, vocab]`
    pub(crate) logits: Vec<f32>,
    /// The rows of each chunk in `logits`.
    pub(crate) wanted: WantedRows,
    /// The placement of each chunk.
    pub(crate) placements: Vec<Placement>,
    /// The segments of the current batch of rows.
    pub(crate) segments: Vec<Segment>,
}

impl Workspace {
    /// Buffers for `tile` rows at a time. `ordered_inputs` as in [`Workspace::bytes`].
    ///
    /// # Errors
    /// If the memory cannot be allocated.
    pub(crate) fn new(
        model: u64,
        config: &Config,
        tile: usize,
        ordered_inputs: usize,
    ) -> Result<Self> {
        // More rows than the context has would never be used.
        let tile = tile.clamp(1, config.max_context.max(1));
        let allocate = || {
            Ok(Self {
                model,
                tile,
                x: zeroed(tile * config.hidden)?,
                queries: zeroed(tile * config.attention_width())?,
                angles: zeroed(tile * rope::angles_per_token(config))?,
                normed: zeroed(tile * config.hidden)?,
                branch: zeroed(tile * config.hidden)?,
                wide: zeroed(tile * widest(config))?,
                gated: zeroed(tile * gated(config))?,
                quantized: Q8Rows::with_capacity(tile, widest_input(config))?,
                ordered: zeroed(tile * ordered_inputs)?,
                lora: Scratch {
                    hidden: zeroed(tile * Scratch::most_rank(config))?,
                    outputs: zeroed(tile * Scratch::most_outputs(config))?,
                },
                partials: Partials::default(),
                logits: zeroed(config.vocab)?,
                wanted: WantedRows::default(),
                placements: Vec::new(),
                segments: Vec::new(),
            })
        };
        allocate().map_err(|OutOfMemory| memory_error(config, tile, ordered_inputs))
    }

    /// Gives back the memory by which a pass with more rows or logits than usual has grown the buffers.
    pub(crate) fn shrink(&mut self, config: &Config) {
        let tile = self.tile;
        let shrink = |x: &mut Vec<f32>, len: usize| {
            if x.len() > len {
                x.truncate(len);
                x.shrink_to_fit();
            }
        };
        shrink(&mut self.x, tile * config.hidden);
        shrink(&mut self.queries, tile * config.attention_width());
        shrink(&mut self.logits, SINK_ROWS * config.vocab);
        let angles = tile * rope::angles_per_token(config);
        if self.angles.len() > angles {
            self.angles.truncate(angles);
            self.angles.shrink_to_fit();
        }
    }

    /// Grows the buffers to a batch of `rows` rows. Only a bidirectional context has more rows than a tile.
    ///
    /// # Errors
    /// If the memory cannot be allocated. The workspace can still be used.
    pub(crate) fn fit_rows(&mut self, config: &Config, rows: usize) -> Result<()> {
        let fit = |x: &mut Vec<f32>, width: usize| fit(x, rows * width);
        let fitted = fit(&mut self.x, config.hidden)
            .and_then(|()| fit(&mut self.queries, config.attention_width()))
            .and_then(|()| self::fit(&mut self.angles, rows * rope::angles_per_token(config)));
        let ordered_inputs = self.ordered.len() / self.tile;
        fitted.map_err(|OutOfMemory| memory_error(config, rows, ordered_inputs))
    }

    /// Grows the buffer of the logits to `rows` rows.
    ///
    /// # Errors
    /// As [`Workspace::fit_rows`].
    pub(crate) fn fit_logits(&mut self, config: &Config, rows: usize) -> Result<()> {
        let fitted = rows.checked_mul(config.vocab).ok_or(OutOfMemory);
        let fitted = fitted.and_then(|n| fit(&mut self.logits, n));
        fitted.map_err(|OutOfMemory| Error::Memory {
            capacity: rows,
            bytes: (rows as u64).saturating_mul(config.vocab as u64 * 4),
        })
    }

    /// Grows the partial results of attention to `positions` keys.
    ///
    /// # Errors
    /// As [`Workspace::fit_rows`].
    pub(crate) fn fit_partials(&mut self, config: &Config, positions: usize) -> Result<()> {
        let (heads, size) = (config.heads, config.head_size);
        self.partials.reserve(heads, size, positions).map_err(|OutOfMemory| Error::Memory {
            capacity: positions,
            bytes: Partials::bytes(heads, size, positions) as u64,
        })
    }

    /// Bytes of a workspace for a sequence of `capacity` tokens, with the logits of one token. `ordered_inputs` is the largest input
    /// width of a layer with columns in an order of their own; 0 if there is none.
    pub(crate) fn bytes(config: &Config, capacity: usize, ordered_inputs: usize) -> u64 {
        let tile = TILE.min(capacity).max(1);
        let floats = batch_rows(config, capacity)
            * (config.hidden + config.attention_width() + 2 * rope::angles_per_token(config))
            + tile * (2 * config.hidden + widest(config) + gated(config) + ordered_inputs)
            + tile * (Scratch::most_rank(config) + Scratch::most_outputs(config))
            + config.vocab;
        let partials = Partials::bytes(config.heads, config.head_size, capacity);
        (floats * 4 + Q8Rows::bytes(tile, widest_input(config)) + partials) as u64
    }
}

/// Largest batch of rows for a prompt of `capacity` tokens. A bidirectional context is not split.
fn batch_rows(config: &Config, capacity: usize) -> usize {
    match config.mask {
        MaskKind::Causal => TILE.min(capacity),
        MaskKind::Prefix(_) => capacity,
    }
}

fn memory_error(config: &Config, rows: usize, ordered_inputs: usize) -> Error {
    Error::Memory { capacity: rows, bytes: Workspace::bytes(config, rows, ordered_inputs) }
}

/// Zeros. The operating system allocates their memory on the first access.
fn zeroed<T: bytemuck::Zeroable>(n: usize) -> std::result::Result<Vec<T>, OutOfMemory> {
    bytemuck::allocation::try_zeroed_vec(n).map_err(|()| OutOfMemory)
}

/// Grows `x` to at least `n` elements, whose values are unspecified.
fn fit<T: bytemuck::Zeroable>(x: &mut Vec<T>, n: usize) -> std::result::Result<(), OutOfMemory> {
    if x.len() < n {
        *x = zeroed(n)?;
    }
    Ok(())
}

/// The largest output width of a linear layer or of attention, without the head.
fn widest(config: &Config) -> usize {
    config.qkv_rows().max(config.up_rows()).max(config.attention_width())
}

/// Width of the output of the gated activation; 0 without a gate.
fn gated(config: &Config) -> usize {
    if config.mlp.is_gated() { config.intermediate_size } else { 0 }
}

/// The largest input width of a linear layer.
fn widest_input(config: &Config) -> usize {
    config.hidden.max(config.intermediate_size).max(config.attention_width())
}
