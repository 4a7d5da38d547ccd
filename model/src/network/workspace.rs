//! The memory of a forward pass. It is sized by the rows that pass a layer together, not by the context, and shared by all
//! sequences.

use glm_kernels::{Angle, OutOfMemory, Partials, Q8Rows};

use crate::error::{Error, Result};
use crate::files::config::{Config, MaskKind};
use crate::network::chunk::{Segment, WantedRows};
use crate::network::placement::Placement;
use crate::network::rope;

/// Rows that pass a linear layer together. More would only cost memory: 256 rows are enough for weights to be read rarely.
pub(crate) const TILE: usize = 256;

/// The memory of a forward pass: activations, and the logits that the last pass gave. Made by
/// [`Model::workspace`](crate::Model::workspace).
pub struct Workspace {
    /// The identity of the model it belongs to.
    pub(crate) model: u64,
    /// Rows that pass a linear layer together.
    pub(crate) tile: usize,
    /// The residual stream, `[rows, hidden]`
    pub(crate) x: Vec<f32>,
    /// `[rows, heads, head size]`
    pub(crate) queries: Vec<f32>,
    /// Angles of the rotation, `[rows, angles]`
    pub(crate) angles: Vec<Angle>,
    /// `[tile, hidden]`
    pub(crate) normed: Vec<f32>,
    /// Output of attention or feed-forward part before it is normalized or observed, `[tile, hidden]`
    pub(crate) branch: Vec<f32>,
    /// Query-key-value, attention output or first matrix of the MLP, `[tile, widest]`
    pub(crate) wide: Vec<f32>,
    /// Output of the gate, `[tile, intermediate size]`; empty without one
    pub(crate) gated: Vec<f32>,
    /// Inputs of a linear layer as 8-bit integers.
    pub(crate) quantized: Q8Rows,
    /// Partial results of attention.
    pub(crate) partials: Partials,
    /// `[wanted rows, vocab]`
    pub(crate) logits: Vec<f32>,
    /// The first row of each chunk in `logits`, and the end of the last.
    pub(crate) wanted: WantedRows,
    /// Where the tokens of each chunk are placed.
    pub(crate) placements: Vec<Placement>,
    /// The rows that are in the layers at the moment.
    pub(crate) segments: Vec<Segment>,
}

impl Workspace {
    /// Memory for `tile` rows at a time.
    ///
    /// # Errors
    /// If the operating system does not give the memory.
    pub(crate) fn new(model: u64, config: &Config, tile: usize) -> Result<Self> {
        let tile = tile.max(1);
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
                quantized: Q8Rows::with_capacity(tile, widest_input(config)),
                partials: Partials::default(),
                logits: zeroed(config.vocab)?,
                wanted: WantedRows::default(),
                placements: Vec::new(),
                segments: Vec::new(),
            })
        };
        allocate().map_err(|OutOfMemory| memory_error(config, tile))
    }

    /// Makes room for `rows` rows that pass the layers together; more than a tile only where a context is bidirectional.
    ///
    /// # Errors
    /// If the operating system does not give the memory; nothing is lost then.
    pub(crate) fn fit_rows(&mut self, config: &Config, rows: usize) -> Result<()> {
        let fit = |x: &mut Vec<f32>, width: usize| fit(x, rows * width);
        let fitted = fit(&mut self.x, config.hidden)
            .and_then(|()| fit(&mut self.queries, config.attention_width()))
            .and_then(|()| self::fit(&mut self.angles, rows * rope::angles_per_token(config)));
        fitted.map_err(|OutOfMemory| memory_error(config, rows))
    }

    /// Makes room for the logits of `rows` rows.
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

    /// Bytes that a workspace takes for a sequence of `capacity` tokens, of which the logits of one are wanted.
    pub(crate) fn bytes(config: &Config, capacity: usize) -> u64 {
        let tile = TILE.min(capacity).max(1);
        let floats = rows_together(config, capacity)
            * (config.hidden + config.attention_width() + 2 * rope::angles_per_token(config))
            + tile * (2 * config.hidden + widest(config) + gated(config))
            + config.vocab;
        let partials = Partials::bytes(config.heads, config.head_size, capacity);
        (floats * 4 + Q8Rows::bytes(tile, widest_input(config)) + partials) as u64
    }
}

/// Rows that pass the layers together when a prompt of `capacity` tokens is read: all of a bidirectional context.
fn rows_together(config: &Config, capacity: usize) -> usize {
    match config.mask {
        MaskKind::Causal => TILE.min(capacity),
        MaskKind::Prefix(_) => capacity,
    }
}

fn memory_error(config: &Config, rows: usize) -> Error {
    Error::Memory { capacity: rows, bytes: Workspace::bytes(config, rows) }
}

/// Zeros. The operating system provides their memory when it is first touched.
fn zeroed<T: bytemuck::Zeroable>(n: usize) -> std::result::Result<Vec<T>, OutOfMemory> {
    bytemuck::allocation::try_zeroed_vec(n).map_err(|()| OutOfMemory)
}

/// Grows `x` to `n` elements, of whatever values.
fn fit<T: bytemuck::Zeroable>(x: &mut Vec<T>, n: usize) -> std::result::Result<(), OutOfMemory> {
    if x.len() < n {
        *x = zeroed(n)?;
    }
    Ok(())
}

/// The widest row that a linear layer writes or attention fills, apart from logits.
fn widest(config: &Config) -> usize {
    config.qkv_rows().max(config.up_rows()).max(config.attention_width())
}

/// Width of a gated row.
fn gated(config: &Config) -> usize {
    if config.mlp.is_gated() { config.intermediate_size } else { 0 }
}

/// The widest input of a linear layer.
fn widest_input(config: &Config) -> usize {
    config.hidden.max(config.intermediate_size).max(config.attention_width())
}
