//! The forward pass: from the tokens of several sequences to logits.
//!
//! The activations of all tokens in a batch are the rows of one matrix. Linear layers and norms process rows independently of
//! their sequence; only RoPE, the KV cache and attention use [`Segment`]s. A causal model takes one tile of rows through all
//! layers, then the next. The tokens of a bidirectional context attend to each other, so a layer needs the keys and values of all
//! of them before the first attention. The whole context is one batch then, and each layer loops over its tiles twice:
//!
//! ```text
//! for each tile:   a = norm(x);  q, k, v = qkv(a), rotated;  store k, v
//! for each tile:   h = r(x, a) + output(attention(q));  m = norm(h);  x = r(h, m) + down(act(up(m)))
//! ```
//!
//! A batch of a causal model is the case with one tile. In the last layer the second loop computes only the rows whose logits
//! are wanted. Where experts are chosen for each token, `down(act(up(m)))` is that of the experts, see `experts`; latent attention is in
//! `latent`. `r(x, a)` is the residual: `x`, or `α·a`. Some models also normalize the outputs of `output` and `down`.
//!
//! A row is computed only from itself and the cache of its sequence, and the order of the operations does not depend on the tile
//! size or on other rows. So the bits of its results do not depend on them either.

use std::ops::{ControlFlow, Range};

use glm_kernels::{Isa, Output, for_each_row};

use crate::files::config::{Config, Residual};
use crate::network::activations::Activations;
use crate::network::chunk::{Chunk, Cursor, Planned, Segment};
use crate::network::hook::{HookPoint, HookRows, RunOptions};
use crate::network::layer::{Context, Layer, Linear, LinearRole, Norm, Weights};
use crate::network::lora::Updates;
use crate::network::placement::Placement;
use crate::network::rope::Rotation;
use crate::network::workspace::Workspace;

mod attention;
mod experts;
mod feed_forward;
mod latent;
mod stages;

pub(crate) use stages::Stage;

/// A pass over `chunks`, which are validated, and whose sequences have memory for their tokens.
pub(crate) struct Pass<'p, 'c, 'o> {
    pub(crate) config: &'p Config,
    pub(crate) weights: &'p Weights,
    pub(crate) rotation: &'p Rotation,
    pub(crate) isa: Isa,
    pub(crate) activations: Activations,
    pub(crate) chunks: &'p mut [Chunk<'c>],
    pub(crate) workspace: &'p mut Workspace,
    pub(crate) options: RunOptions<'o>,
}

impl Pass<'_, '_, '_> {
    /// Computes all chunks; `Break` if the pass was cancelled.
    pub(crate) fn run(&mut self) -> ControlFlow<()> {
        let total: usize = self.chunks.iter().map(|chunk| chunk.ids.len()).sum();
        let tile = even(total, self.workspace.tile);
        let (mut cursor, mut wanted_before, mut done) = (Cursor::default(), 0, 0);
        loop {
            let rows = self.plan(&mut cursor, tile);
            if rows == 0 {
                return ControlFlow::Continue(());
            }
            self.rotate();
            self.embed(rows);
            let weights = self.weights;
            let mut wanted = rows;
            for (index, layer) in weights.layers.iter().enumerate() {
                wanted = self.layer(index, layer, rows)?;
                if let Some(progress) = &mut self.options.progress {
                    let fraction = (index + 1) as f32 / weights.layers.len() as f32;
                    progress((done as f32 + rows as f32 * fraction) / total as f32);
                }
            }
            self.head(wanted_before, wanted)?;
            wanted_before += wanted;
            done += rows;
        }
    }

    /// Plans the next batch; returns its number of rows.
    fn plan(&mut self, cursor: &mut Cursor, tile: usize) -> usize {
        let Self { chunks, workspace, .. } = self;
        let Workspace { placements, segments, .. } = &mut **workspace;
        let planned = |index: usize| {
            let chunk = chunks.get(index)?;
            let (start, tokens) = (chunk.sequence.len(), chunk.ids.len());
            Some(Planned { start, tokens, placement: placements[index] })
        };
        cursor.next(planned, tile, segments)
    }

    /// Computes the RoPE angles of all rows, which are the same in all layers.
    fn rotate(&mut self) {
        let Self { config, rotation, chunks, workspace, .. } = self;
        let Workspace { angles, segments, placements, .. } = &mut **workspace;
        let per_token = crate::network::rope::angles_per_token(config);
        if per_token == 0 {
            return;
        }
        for segment in segments.iter() {
            let (placement, first) = position(chunks, placements, segment);
            let angles = &mut angles[segment.row * per_token..][..segment.count * per_token];
            for_each_row(angles, per_token, |i, angles| {
                rotation.angles(placement.at(first + i), angles);
            });
        }
    }

    /// Computes the embeddings of all rows.
    fn embed(&mut self, rows: usize) {
        let Self { config, weights, chunks, workspace, options, .. } = self;
        let Workspace { x, normed, segments, placements, .. } = &mut **workspace;
        let hidden = config.hidden;
        let embedding = weights.embedding.matrix();
        for segment in segments.iter() {
            let ids = &chunks[segment.chunk].ids[segment.token..];
            for_each_row(rows_mut(x, &segment.rows(), hidden), hidden, |i, x| {
                embedding.row(ids[i] as usize, x);
            });
        }
        show(options, segments, HookPoint::Embedding, &x[..rows * hidden], 0..rows);
        let Some(tables) = &weights.positions else { return };
        let row = &mut normed[..hidden];
        for segment in segments.iter() {
            let (placement, first) = position(chunks, placements, segment);
            let x = rows_mut(x, &segment.rows(), hidden).chunks_exact_mut(hidden);
            for (i, x) in x.enumerate() {
                for (table, position) in tables.iter().zip(placement.at(first + i)) {
                    table.matrix().row(position, row);
                    add(x, row);
                }
            }
        }
        show(options, segments, HookPoint::Positions, &x[..rows * hidden], 0..rows);
    }

    /// Computes a layer for all rows. Returns the number of rows of its output: in the last layer, only the wanted ones.
    fn layer(
        &mut self,
        index: usize,
        layer: &Layer<Linear, Norm>,
        rows: usize,
    ) -> ControlFlow<(), usize> {
        let mut rows = rows;
        for tile in tiles(rows, self.workspace.tile) {
            self.check_cancelled()?;
            self.project(index, layer, tile);
        }
        if index + 1 == self.weights.layers.len() {
            rows = self.keep_wanted();
        }
        for tile in tiles(rows, self.workspace.tile) {
            self.check_cancelled()?;
            self.attend(index, layer, tile.clone());
            self.feed_forward(index, layer, tile.clone());
            let Workspace { x, segments, .. } = &*self.workspace;
            let x = &x[tile.start * self.config.hidden..tile.end * self.config.hidden];
            show(&mut self.options, segments, HookPoint::Layer(index), x, tile);
        }
        ControlFlow::Continue(rows)
    }

    /// Compacts the rows to those whose logits are wanted; returns their number.
    fn keep_wanted(&mut self) -> usize {
        let Self { config, chunks, workspace, .. } = self;
        let Workspace { x, queries, segments, .. } = &mut **workspace;
        let mut rows = 0;
        segments.retain_mut(|segment| {
            let wanted = &chunks[segment.chunk].wanted;
            let token = wanted.start.max(segment.token);
            let Some(count @ 1..) =
                wanted.end.min(segment.token + segment.count).checked_sub(token)
            else {
                return false;
            };
            let from = segment.row + token - segment.token;
            for (values, width) in [(&mut *x, config.hidden), (&mut *queries, config.query_width())]
            {
                values.copy_within(from * width..(from + count) * width, rows * width);
            }
            *segment = Segment { token, row: rows, count, ..*segment };
            rows += count;
            true
        });
        rows
    }

    /// Computes the logits of the `wanted` compacted rows. They are the rows from `first` on in the logits of the pass.
    fn head(&mut self, first: usize, wanted: usize) -> ControlFlow<()> {
        let (hidden, vocab) = (self.config.hidden, self.config.vocab);
        // Logits for a sink are not stored, so the buffer has fewer rows.
        let most = if self.options.logits.is_some() { SINK_ROWS } else { usize::MAX };
        let step = self.workspace.tile.min(most);
        for rows in tiles(wanted, step) {
            self.check_cancelled()?;
            let Self { weights, chunks, workspace, options, isa, activations, .. } = &mut *self;
            let Workspace { x, normed, logits, quantized, ordered, lora, segments, .. } =
                &mut **workspace;
            let normed = &mut normed[..rows.len() * hidden];
            weights.final_norm.forward(*isa, &x[rows.start * hidden..rows.end * hidden], normed);
            show(options, segments, HookPoint::FinalNorm, normed, rows.clone());
            let at = if options.logits.is_some() { 0 } else { first + rows.start };
            let logits = &mut logits[at * vocab..][..rows.len() * vocab];
            let place = (0, LinearRole::Head);
            let updates = Updates::find(chunks, segments, &rows, place, lora);
            let mut context =
                Context { isa: *isa, activations: *activations, quantized, ordered, updates };
            weights.logits(&mut context, normed, logits);
            if let Some(sink) = &mut options.logits {
                for (chunk, token, logits) in HookRows::new(logits, rows, segments).chunks() {
                    let each = logits.chunks_exact(vocab).enumerate();
                    each.for_each(|(i, logits)| sink(chunk, token + i, logits));
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn check_cancelled(&self) -> ControlFlow<()> {
        match self.options.cancel {
            Some(cancel) if cancel.is_cancelled() => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Rows of logits computed at a time for a sink.
pub(crate) const SINK_ROWS: usize = 16;

/// The placement of the sequence of a segment, and the index of its first token in the sequence.
fn position(
    chunks: &[Chunk<'_>],
    placements: &[Placement],
    segment: &Segment,
) -> (Placement, usize) {
    (placements[segment.chunk], chunks[segment.chunk].sequence.len() + segment.token)
}

/// The tile size of at most `most` that splits `rows` most evenly.
fn even(rows: usize, most: usize) -> usize {
    rows.div_ceil(rows.div_ceil(most).max(1)).max(1)
}

/// Splits `rows` rows into even tiles of at most `most`.
fn tiles(rows: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let size = even(rows, most);
    (0..rows).step_by(size).map(move |first| first..(first + size).min(rows))
}

/// Calls the hook, if there is one, with rows `rows`.
fn show(
    options: &mut RunOptions<'_>,
    segments: &[Segment],
    point: HookPoint,
    values: &[f32],
    rows: Range<usize>,
) {
    if let Some(hook) = &mut options.hook {
        hook(point, &HookRows::new(values, rows, segments));
    }
}

/// `x = α·normed` for a scaled residual; otherwise `x` is unchanged.
fn scale_residual(residual: Residual, width: usize, normed: &[f32], x: &mut [f32]) {
    if let Residual::Scaled(alpha) = residual {
        for_each_row(x, width, |row, x| {
            let normed = &normed[row * width..][..width];
            x.iter_mut().zip(normed).for_each(|(x, normed)| *x = alpha * normed);
        });
    }
}

/// A branch of a layer (attention or feed-forward block) and the residual that its output is added to.
struct Branch<'a> {
    norm: &'a Option<Norm>,
    /// Whether an adapter adds to the output.
    is_updated: bool,
    isa: Isa,
    /// Scratch, `[rows, hidden]`
    normed: &'a mut [f32],
    /// Scratch, at least `[rows, hidden]`
    branch: &'a mut [f32],
    /// The residual, `[rows, hidden]`
    x: &'a mut [f32],
}

impl Branch<'_> {
    /// Adds the output of `compute` to the residual: directly, unless a norm, a hook or an adapter needs it first.
    fn add(
        self,
        options: &mut RunOptions<'_>,
        segments: &[Segment],
        point: HookPoint,
        rows: Range<usize>,
        mut compute: impl FnMut(Output, &mut [f32]),
    ) {
        let Self { norm, is_updated, isa, normed, branch, x } = self;
        if norm.is_none() && options.hook.is_none() && !is_updated {
            return compute(Output::Add, x);
        }
        let branch = &mut branch[..x.len()];
        compute(Output::Store, branch);
        let width = branch.len() / rows.len().max(1);
        show(options, segments, point, branch, rows);
        let branch = norm.as_ref().map_or(&*branch, |norm| {
            norm.forward(isa, branch, normed);
            normed
        });
        for_each_row(x, width, |row, x| add(x, &branch[row * width..][..width]));
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

fn rows_mut<'a>(x: &'a mut [f32], rows: &Range<usize>, width: usize) -> &'a mut [f32] {
    &mut x[rows.start * width..rows.end * width]
}
