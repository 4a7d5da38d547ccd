//! A transformer block.
//!
//! A bidirectional context cannot pass the layers token by token: a block needs the keys and values of all tokens before any
//! of them can attend. So a block goes over the tokens twice, a tile at a time, and only the residual stream and the
//! queries are ever held for all of them:
//!
//! ```text
//! for each tile:   a = norm(x);  q, k, v = qkv(a), rotated;  k and v into the cache
//! for each tile:   h = r(x, a) + output(attention(q));  m = norm(h);  x = r(h, m) + down(act(up(m)))
//! ```
//!
//! In the last block the second pass begins at the first token whose logits are wanted.
//!
//! `r(x, a)` is what the residual carries on: `x`, or `α·a` with `a = norm(x)` computed once more. Some models have a norm on what `output` and `down` give, too.
//!
//! Every token's numbers are computed from its own row alone, in an order that the tile does not change: neither do the bits.

use std::ops::{ControlFlow, Range};

use glm_kernels::{
    Activation, Angle, Gate, HeadRows, Isa, SharedRows, for_each_row, rotate_halves, rotate_pairs,
};

use super::linear::Context;
use super::{Attention, FeedForward, Layer, Linear, Norm};
use crate::files::config::{Config, Mlp, Residual, Rope};
use crate::network::placement::Placement;
use crate::network::state::{LayerCache, Queries, Workspace};

/// A point in the forward pass at which activations can be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// The embedded tokens.
    Embedding,
    /// The embedded tokens with their learned positions, where a model has those.
    Positions,
    /// A block's attention after its output projection, before a norm and the residual.
    Attention(usize),
    /// A block's MLP, before a norm and the residual.
    Mlp(usize),
    /// A block's output.
    Layer(usize),
    /// What the head is given.
    FinalNorm,
}

/// Is shown `[tokens, hidden]` at each [`Stage`], a tile at a time, with the index of the first token among those fed; can
/// break off the pass.
pub type Tap<'a> = dyn FnMut(Stage, usize, &[f32]) -> ControlFlow<()> + Send + 'a;

/// What all blocks of a forward pass share.
pub(crate) struct Pass<'a> {
    pub(crate) config: &'a Config,
    pub(crate) placement: Placement,
    /// Index of the first token that is fed; those before it are in the cache.
    pub(crate) start: usize,
    /// Tokens that are fed.
    pub(crate) tokens: usize,
    /// Index of the first of them that is to leave the last block. Of those before it only keys and values are wanted there.
    pub(crate) wanted: usize,
}

/// `tokens`, a tile of `size` at a time.
pub(crate) fn tiles(tokens: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    tokens.clone().step_by(size).map(move |first| first..(first + size).min(tokens.end))
}

impl Layer<Linear, Norm> {
    /// Takes `workspace.x` through this layer, which is number `index`.
    pub(crate) fn forward(
        &self,
        index: usize,
        pass: &Pass<'_>,
        workspace: &mut Workspace,
        cache: &mut LayerCache,
        context: &mut Context<'_>,
        tap: &mut Tap<'_>,
    ) -> ControlFlow<()> {
        let tile = workspace.tile;
        for tokens in tiles(0..pass.tokens, tile) {
            self.project(pass, tokens, workspace, cache, context);
        }
        let is_last = index + 1 == pass.config.layers;
        for tokens in tiles(if is_last { pass.wanted } else { 0 }..pass.tokens, tile) {
            self.attend(index, pass, tokens.clone(), workspace, cache, context, tap)?;
            self.feed_forward(index, pass, tokens.clone(), workspace, context, tap)?;
            let width = pass.config.hidden;
            tap(Stage::Layer(index), tokens.start, rows(&workspace.x, &tokens, width))?;
        }
        ControlFlow::Continue(())
    }

    /// Queries into the workspace, keys and values into the cache.
    fn project(
        &self,
        pass: &Pass<'_>,
        tokens: Range<usize>,
        workspace: &mut Workspace,
        cache: &mut LayerCache,
        context: &mut Context<'_>,
    ) {
        let config = pass.config;
        let n = tokens.len();
        let normed = &mut workspace.normed[..n * config.hidden];
        let x = rows(&workspace.x, &tokens, config.hidden);
        let qkv = &mut workspace.wide[..n * config.qkv_rows()];
        let isa = context.isa;
        let norm = |token, y: &mut _| self.attention_norm.token(isa, x, token, y);
        let Attention::Grouped { qkv: projection, .. } = &self.attention;
        projection.forward_filled(context, normed, norm, qkv);
        let (size, width) = (config.head_size, config.attention_width());
        let angles = &workspace.angles;
        let n = workspace.angles_per_token;
        let [queries_at, keys, values] = config.heads_at();
        let queries = rows_mut(&mut workspace.queries, &tokens, width);
        let queries = &SharedRows::new(queries, width);
        for_each_row(qkv, config.qkv_rows(), |row, qkv| {
            let angles = &angles[(tokens.start + row) * n..][..n];
            // SAFETY: the row of a token is this task's alone.
            let query = unsafe { queries.row(row, 0..width) };
            for (head, query) in query.chunks_exact_mut(size).enumerate() {
                query.copy_from_slice(&qkv[queries_at.at(head)..][..size]);
                rotate(config.rope, angles, query);
            }
            for head in 0..config.kv_heads {
                rotate(config.rope, angles, &mut qkv[keys.at(head)..][..size]);
            }
        });
        let rows = HeadRows { rows: qkv, width: config.qkv_rows(), keys, values };
        cache.store(context.isa, pass.start + tokens.start, rows);
    }

    /// `x = r(x, a) + output(attention)`
    #[expect(clippy::too_many_arguments, reason = "the pass is to be rewritten")]
    fn attend(
        &self,
        index: usize,
        pass: &Pass<'_>,
        tokens: Range<usize>,
        workspace: &mut Workspace,
        cache: &LayerCache,
        context: &mut Context<'_>,
        tap: &mut Tap<'_>,
    ) -> ControlFlow<()> {
        let (config, n) = (pass.config, tokens.len());
        let x = rows_mut(&mut workspace.x, &tokens, config.hidden);
        let normed = &mut workspace.normed[..n * config.hidden];
        if let Residual::Scaled(_) = config.residual {
            self.attention_norm.forward(context.isa, x, normed);
        }
        let width = config.attention_width();
        let attended = &mut workspace.wide[..n * width];
        let queries = rows(&workspace.queries, &tokens, width);
        let first = pass.start + tokens.start;
        let mask = pass.placement.mask();
        let queries = Queries { queries, heads: config.heads, position: first, mask };
        cache.attend(context.isa, queries, &mut workspace.parts, attended);
        let branch = &mut workspace.branch[..n * config.hidden];
        let Attention::Grouped { output, .. } = &self.attention;
        output.forward(context, attended, branch);
        tap(Stage::Attention(index), tokens.start, branch)?;
        let branch =
            normalised(&self.attention_output_norm, context.isa, branch, &mut workspace.output);
        add_residual(config.residual, config.hidden, normed, branch, x);
        ControlFlow::Continue(())
    }

    /// `x = r(x, m) + mlp(m)`
    fn feed_forward(
        &self,
        index: usize,
        pass: &Pass<'_>,
        tokens: Range<usize>,
        workspace: &mut Workspace,
        context: &mut Context<'_>,
        tap: &mut Tap<'_>,
    ) -> ControlFlow<()> {
        let (config, n) = (pass.config, tokens.len());
        let x = rows_mut(&mut workspace.x, &tokens, config.hidden);
        let normed = &mut workspace.normed[..n * config.hidden];
        let isa = context.isa;
        let FeedForward::Dense { up: first, down } = &self.feed_forward;
        let up = &mut workspace.wide[..n * config.up_rows()];
        let norm = |token, y: &mut _| self.feed_forward_norm.token(isa, x, token, y);
        first.forward_filled(context, normed, norm, up);
        let branch = &mut workspace.branch[..n * config.hidden];
        match gate_of(config.mlp) {
            None => down.forward(context, up, branch),
            Some(gated) => {
                let gated_up = &mut workspace.gated[..n * config.intermediate_size];
                let gate = |token, y: &mut _| gated.token(isa, up, token, y);
                down.forward_filled(context, gated_up, gate, branch);
            }
        }
        tap(Stage::Mlp(index), tokens.start, branch)?;
        let branch =
            normalised(&self.feed_forward_output_norm, context.isa, branch, &mut workspace.output);
        add_residual(config.residual, config.hidden, normed, branch, x);
        ControlFlow::Continue(())
    }
}

/// Rotates a head by its token's angles.
fn rotate(rope: Rope, angles: &[Angle], head: &mut [f32]) {
    match rope {
        Rope::None => {}
        Rope::NeoX { .. } => rotate_halves(head, angles),
        Rope::Interleaved { rotary_dim, .. } => rotate_pairs(&mut head[..rotary_dim], angles),
        Rope::TwoD { .. } => {
            let half = head.len() / 2;
            let both = head.chunks_exact_mut(half).zip(angles.chunks_exact(angles.len() / 2));
            both.for_each(|(half, angles)| rotate_halves(half, angles));
        }
    }
}

/// How an MLP's inside is gated.
struct GatedBy {
    activation: Activation,
    /// Whether the gate is the first half of what `up` gives.
    first: bool,
}

fn gate_of(mlp: Mlp) -> Option<GatedBy> {
    match mlp {
        Mlp::GeluTanh | Mlp::GeluErf => None,
        Mlp::SwiGlu => Some(GatedBy { activation: Activation::Silu, first: true }),
        Mlp::GeGlu => Some(GatedBy { activation: Activation::GeluErf, first: false }),
    }
}

impl GatedBy {
    /// Gates what `up` gives a token, `[2 · intermediate size]`, into `y`, `[intermediate size]`.
    fn token(&self, isa: Isa, up: &[f32], token: usize, y: &mut [f32]) {
        let (first, second) = up[2 * y.len() * token..][..2 * y.len()].split_at(y.len());
        let (gate, up) = if self.first { (first, second) } else { (second, first) };
        isa.run(Gate { activation: self.activation, gate, up, y });
    }
}

/// `x`, or what `norm` makes of it in `room`.
fn normalised<'a>(norm: &Option<Norm>, isa: Isa, x: &'a [f32], room: &'a mut [f32]) -> &'a [f32] {
    let Some(norm) = norm else { return x };
    let y = &mut room[..x.len()];
    norm.forward(isa, x, y);
    y
}

/// Each token's residual is what it carries on and what the branch adds.
fn add_residual(residual: Residual, width: usize, normed: &[f32], branch: &[f32], x: &mut [f32]) {
    for_each_row(x, width, |token, x| {
        let (normed, branch) = (&normed[token * width..], &branch[token * width..]);
        match residual {
            Residual::Plain => x.iter_mut().zip(branch).for_each(|(x, branch)| *x += branch),
            Residual::Scaled(alpha) => {
                for ((x, normed), branch) in x.iter_mut().zip(normed).zip(branch) {
                    *x = alpha * normed + branch;
                }
            }
        }
    });
}

pub(crate) fn rows<'a>(x: &'a [f32], tokens: &Range<usize>, width: usize) -> &'a [f32] {
    &x[tokens.start * width..tokens.end * width]
}

pub(crate) fn rows_mut<'a>(x: &'a mut [f32], tokens: &Range<usize>, width: usize) -> &'a mut [f32] {
    &mut x[tokens.start * width..tokens.end * width]
}
