//! The buffers of a forward pass. Their size depends on the number of rows in a batch, not on the context. All sequences share
//! them.

use glm_kernels::{Angle, OutOfMemory, Partials, Q8Rows};

use crate::error::{Error, Result};
use crate::files::config::{Config, Experts, Latent, MaskKind};
use crate::network::chunk::{Segment, WantedRows};
use crate::network::experts::Routing;
use crate::network::kv;
use crate::network::lora::Scratch;
use crate::network::pass::SINK_ROWS;
use crate::network::placement::Placement;
use crate::network::rope;

/// Most rows of a linear layer at a time. With 256 rows a matrix product is compute-bound; more would only cost memory. An expert has only
/// some of them.
pub(crate) fn tile(config: &Config) -> usize {
    if config.experts.is_some() { 512 } else { 256 }
}

/// The buffers of a forward pass: activations, and the logits of the last pass. Created by
/// [`Model::workspace`](crate::Model::workspace).
pub struct Workspace {
    /// Identity of its model.
    pub(crate) model: u64,
    /// Most rows of a linear layer at a time.
    pub(crate) tile: usize,
    /// Whether chosen experts are requested from the disk before they are read.
    pub(crate) reads_ahead: bool,
    /// The residual stream, `[rows, hidden]`
    pub(crate) x: Vec<f32>,
    /// `[rows, heads, head size]`
    pub(crate) queries: Vec<f32>,
    /// Buffers of latent attention; empty for others.
    pub(crate) latent: LatentScratch,
    /// Buffers of experts; empty without some.
    pub(crate) experts: ExpertScratch,
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

/// The buffers of latent attention.
#[derive(Default)]
pub(crate) struct LatentScratch {
    /// `[tile, query rank]`
    pub(crate) normed: Vec<f32>,
    /// `[tile, heads, query size]`
    pub(crate) queries: Vec<f32>,
    /// Inputs of the matrices of each head, `[heads, tile, inputs]`
    pub(crate) inputs: Vec<f32>,
    /// Their outputs, `[heads, tile, outputs]`
    pub(crate) outputs: Vec<f32>,
}

impl LatentScratch {
    /// The sizes of the buffers.
    fn sizes(config: &Config, tile: usize) -> [usize; 4] {
        let Some(latent) = config.latent else { return [0; 4] };
        let Latent { query_rank, rank, plain_dim, value_dim, .. } = latent;
        let of_heads = |size: usize| tile * config.heads * size;
        [
            tile * query_rank.unwrap_or(0),
            of_heads(latent.query_dim()),
            of_heads(rank.max(plain_dim)),
            of_heads(rank.max(value_dim)),
        ]
    }

    fn new(config: &Config, tile: usize) -> std::result::Result<Self, OutOfMemory> {
        let [normed, queries, inputs, outputs] = Self::sizes(config, tile).map(zeroed);
        Ok(Self { normed: normed?, queries: queries?, inputs: inputs?, outputs: outputs? })
    }
}

/// The buffers of a feed-forward block with experts. Gathered are the rows of each expert, then all rows for the expert that all tokens
/// have.
#[derive(Default)]
pub(crate) struct ExpertScratch {
    /// `[tile, experts]`
    pub(crate) logits: Vec<f32>,
    /// The experts of each row in ascending order, `[tile, used]`
    pub(crate) chosen: Vec<u32>,
    /// Their weights, `[tile, used]`
    pub(crate) weights: Vec<f32>,
    pub(crate) routing: Routing,
    /// `[gathered, hidden]`
    pub(crate) inputs: Vec<f32>,
    /// The outputs of all gates, then those of the other first matrices: twice `[gathered, intermediate size]`
    pub(crate) up: Vec<f32>,
    /// `[gathered, intermediate size]`
    pub(crate) gated: Vec<f32>,
    /// `[gathered, hidden]`
    pub(crate) outputs: Vec<f32>,
}

impl ExpertScratch {
    /// The sizes of the buffers, and bytes of the routing.
    fn sizes(config: &Config, tile: usize) -> [usize; 7] {
        let Some(experts) = &config.experts else { return [0; 7] };
        let Experts { count, used, intermediate_size, shared_size, .. } = *experts;
        let (chosen, gathered) = (tile * used, tile * (used + 1));
        let inner = chosen * intermediate_size + tile * shared_size;
        let rows = gathered * config.hidden;
        [tile * count, chosen, chosen, rows, 2 * inner, inner, rows]
    }

    fn new(config: &Config, tile: usize) -> std::result::Result<Self, OutOfMemory> {
        let [logits, chosen, weights, inputs, up, gated, outputs] = Self::sizes(config, tile);
        Ok(Self {
            logits: zeroed(logits)?,
            chosen: zeroed(chosen)?,
            weights: zeroed(weights)?,
            routing: Routing::default(),
            inputs: zeroed(inputs)?,
            up: zeroed(up)?,
            gated: zeroed(gated)?,
            outputs: zeroed(outputs)?,
        })
    }

    /// Bytes of the buffers and of the routing, which has two numbers for each chosen expert, and some for each expert.
    fn bytes(config: &Config, tile: usize) -> usize {
        let sizes = Self::sizes(config, tile);
        let experts = config.experts.map_or(0, |experts| 5 * experts.count);
        4 * (sizes.iter().sum::<usize>() + 2 * sizes[1] + experts)
    }
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
                reads_ahead: false,
                x: zeroed(tile * config.hidden)?,
                queries: zeroed(tile * config.query_width())?,
                latent: LatentScratch::new(config, tile)?,
                experts: ExpertScratch::new(config, tile)?,
                angles: zeroed(tile * rope::angles_per_token(config))?,
                normed: zeroed(tile * config.hidden)?,
                branch: zeroed(tile * config.hidden)?,
                wide: zeroed(tile * widest(config))?,
                gated: zeroed(tile * gated(config))?,
                quantized: quantized(config, tile)?,
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
        shrink(&mut self.queries, tile * config.query_width());
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
            .and_then(|()| fit(&mut self.queries, config.query_width()))
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
        let (heads, size) = (config.heads, kv::value_size(config));
        self.partials.reserve(heads, size, positions).map_err(|OutOfMemory| Error::Memory {
            capacity: positions,
            bytes: Partials::bytes(heads, size, positions) as u64,
        })
    }

    /// Bytes of a workspace for a sequence of `capacity` tokens, with the logits of one token. `ordered_inputs` is the largest input
    /// width of a layer with columns in an order of their own; 0 if there is none.
    pub(crate) fn bytes(config: &Config, capacity: usize, ordered_inputs: usize) -> u64 {
        let tile = tile(config).min(capacity).max(1);
        let floats = batch_rows(config, capacity)
            * (config.hidden + config.query_width() + 2 * rope::angles_per_token(config))
            + tile * (2 * config.hidden + widest(config) + gated(config) + ordered_inputs)
            + tile * (Scratch::most_rank(config) + Scratch::most_outputs(config))
            + config.vocab;
        let partials = Partials::bytes(config.heads, kv::value_size(config), capacity);
        let latent = 4 * LatentScratch::sizes(config, tile).iter().sum::<usize>();
        let quantized = quantized_bytes(config, tile);
        (floats * 4 + latent + ExpertScratch::bytes(config, tile) + quantized + partials) as u64
    }
}

/// Largest batch of rows for a prompt of `capacity` tokens. A bidirectional context is not split.
fn batch_rows(config: &Config, capacity: usize) -> usize {
    match config.mask {
        MaskKind::Causal => tile(config).min(capacity),
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
    let attended = config.heads * kv::value_size(config);
    let widest = config.qkv_rows().max(config.up_rows()).max(attended);
    widest.max(config.attention_width())
}

/// Width of the output of the gated activation; 0 without a gate.
fn gated(config: &Config) -> usize {
    if config.mlp.is_gated() { config.intermediate_size } else { 0 }
}

/// Rows and columns for which the inputs of all linear layers have room once they are quantized: those with the most blocks.
fn quantized_size(config: &Config, tile: usize) -> (usize, usize) {
    let widest = config.hidden.max(config.intermediate_size).max(config.attention_width());
    let mut sizes = vec![(tile, widest)];
    // Sections have padding of their own, of at most one row.
    const PADDING: usize = 1;
    if let Some(latent) = config.latent {
        let rows = (tile + PADDING) * config.heads;
        sizes.push((rows, latent.rank.max(latent.plain_dim)));
        sizes.push((tile, latent.query_rank.unwrap_or(0)));
    }
    if let Some(experts) = &config.experts {
        let sections = experts.count.min(tile * experts.used) + 1;
        let rows = tile * (experts.used + 1) + PADDING * sections;
        sizes.push((rows, config.hidden.max(experts.intermediate_size)));
        sizes.push((tile, experts.shared_size));
    }
    let most = |&(rows, cols): &(usize, usize)| Q8Rows::bytes(rows, cols);
    sizes.into_iter().max_by_key(most).unwrap_or_default()
}

fn quantized(config: &Config, tile: usize) -> std::result::Result<Q8Rows, OutOfMemory> {
    let (rows, cols) = quantized_size(config, tile);
    Q8Rows::with_capacity(rows, cols)
}

fn quantized_bytes(config: &Config, tile: usize) -> usize {
    let (rows, cols) = quantized_size(config, tile);
    Q8Rows::bytes(rows, cols)
}
