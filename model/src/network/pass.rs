//! The forward pass: rows of several sequences through all layers, to logits.
//!
//! Linear layers and norms see rows, whichever sequence they belong to. Only the rotation, the cache and attention look at
//! [`Segment`]s. Rows of causal models pass all layers a tile at a time. The tokens of a bidirectional context see each other, so
//! a layer needs the keys and values of all of them before any of them can attend: they pass each layer together, in two sweeps
//!
//! ```text
//! for each tile:   a = norm(x);  q, k, v = qkv(a), rotated;  k and v into the cache
//! for each tile:   h = r(x, a) + output(attention(q));  m = norm(h);  x = r(h, m) + down(act(up(m)))
//! ```
//!
//! of which tiles of causal models are the case with one tile. In the last layer the second sweep computes only rows whose
//! logits are wanted. `r(x, a)` is the residual: `x`, or `α·a`. Some models normalize the outputs of `output` and `down`, too.
//!
//! The numbers of a row are computed from that row and the cache of its sequence alone, in an order that depends neither on the
//! tile nor on other rows. So its bits do not depend on them either.

use std::ops::{ControlFlow, Range};

use glm_kernels::{Isa, Output, for_each_row};

use crate::files::config::{Config, Residual};
use crate::network::activations::Activations;
use crate::network::chunk::{Chunk, Cursor, Planned, Segment};
use crate::network::hook::{HookPoint, HookRows, RunOptions};
use crate::network::layer::{Context, Layer, Linear, Norm, Weights};
use crate::network::placement::Placement;
use crate::network::rope::Rotation;
use crate::network::workspace::Workspace;

mod attention;
mod feed_forward;

/// A pass over `chunks`, which were checked, and whose sequences have memory for them.
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
    /// Computes everything; breaks off where that is asked for.
    pub(crate) fn run(&mut self) -> ControlFlow<()> {
        let total: usize = self.chunks.iter().map(|chunk| chunk.ids.len()).sum();
        let tile = even(total, self.workspace.tile);
        let (mut cursor, mut wanted_before, mut done) = (Cursor::default(), 0, 0);
        loop {
            let rows = self.plan(&mut cursor, tile);
            if rows == 0 {
                return ControlFlow::Continue(());
            }
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

    /// Plans the next rows; returns their number.
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

    /// Looks up the tokens of all rows, and the angles by which all layers rotate them.
    fn embed(&mut self, rows: usize) {
        let Self { config, weights, rotation, chunks, workspace, options, .. } = self;
        let Workspace { x, angles, normed, segments, placements, .. } = &mut **workspace;
        let hidden = config.hidden;
        let embedding = weights.embedding.matrix();
        let per_token = crate::network::rope::angles_per_token(config);
        for segment in segments.iter() {
            let ids = &chunks[segment.chunk].ids[segment.token..];
            for_each_row(rows_mut(x, &segment.rows(), hidden), hidden, |i, x| {
                embedding.row(ids[i] as usize, x);
            });
            let (placement, first) = position(chunks, placements, segment);
            if per_token > 0 {
                let angles = &mut angles[segment.row * per_token..][..segment.count * per_token];
                for_each_row(angles, per_token, |i, angles| {
                    rotation.angles(placement.at(first + i), angles);
                });
            }
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

    /// Takes all rows through a layer; returns how many are left: after the last layer only those that are wanted.
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

    /// Moves rows whose logits are wanted to the front and forgets the others; returns their number.
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
            for (values, width) in
                [(&mut *x, config.hidden), (&mut *queries, config.attention_width())]
            {
                values.copy_within(from * width..(from + count) * width, rows * width);
            }
            *segment = Segment { token, row: rows, count, ..*segment };
            rows += count;
            true
        });
        rows
    }

    /// Logits of the `wanted` rows that are left, as rows from `first` on of those of the pass.
    fn head(&mut self, first: usize, wanted: usize) -> ControlFlow<()> {
        let (hidden, vocab) = (self.config.hidden, self.config.vocab);
        // Of logits that are not kept, fewer are computed at a time.
        let step = if self.options.logits.is_some() { SINK_ROWS } else { self.workspace.tile };
        for rows in tiles(wanted, step) {
            self.check_cancelled()?;
            let Self { weights, workspace, options, isa, activations, .. } = &mut *self;
            let Workspace { x, normed, logits, quantized, segments, .. } = &mut **workspace;
            let normed = &mut normed[..rows.len() * hidden];
            weights.final_norm.forward(*isa, &x[rows.start * hidden..rows.end * hidden], normed);
            show(options, segments, HookPoint::FinalNorm, normed, rows.clone());
            let at = if options.logits.is_some() { 0 } else { first + rows.start };
            let logits = &mut logits[at * vocab..][..rows.len() * vocab];
            let mut context = Context { isa: *isa, activations: *activations, quantized };
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

/// Rows whose logits are computed at a time where they are not kept.
pub(crate) const SINK_ROWS: usize = 16;

/// The placement of a segment's sequence, and the index of its first token in it.
fn position(
    chunks: &[Chunk<'_>],
    placements: &[Placement],
    segment: &Segment,
) -> (Placement, usize) {
    (placements[segment.chunk], chunks[segment.chunk].sequence.len() + segment.token)
}

/// The size of tiles of at most `most` rows that divides `rows` evenly.
fn even(rows: usize, most: usize) -> usize {
    rows.div_ceil(rows.div_ceil(most).max(1)).max(1)
}

/// `rows` rows in even tiles of at most `most`.
fn tiles(rows: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let size = even(rows, most);
    (0..rows).step_by(size).map(move |first| first..(first + size).min(rows))
}

/// Shows rows `rows` to the hook, if there is one.
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

/// `x = α·normed` for a scaled residual; a plain one stays.
fn scale_residual(residual: Residual, width: usize, normed: &[f32], x: &mut [f32]) {
    if let Residual::Scaled(alpha) = residual {
        for_each_row(x, width, |row, x| {
            let normed = &normed[row * width..][..width];
            x.iter_mut().zip(normed).for_each(|(x, normed)| *x = alpha * normed);
        });
    }
}

/// A branch of a layer, attention or feed-forward part, and the residual that it is added to.
struct Branch<'a> {
    norm: &'a Option<Norm>,
    isa: Isa,
    /// `[rows, hidden]`; may be overwritten
    normed: &'a mut [f32],
    /// Memory for `[rows, hidden]`
    branch: &'a mut [f32],
    /// The residual, `[rows, hidden]`
    x: &'a mut [f32],
}

impl Branch<'_> {
    /// Adds what `compute` gives to the residual: at once, unless it is normalized or observed before.
    fn add(
        self,
        options: &mut RunOptions<'_>,
        segments: &[Segment],
        point: HookPoint,
        rows: Range<usize>,
        mut compute: impl FnMut(Output, &mut [f32]),
    ) {
        let Self { norm, isa, normed, branch, x } = self;
        if norm.is_none() && options.hook.is_none() {
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
