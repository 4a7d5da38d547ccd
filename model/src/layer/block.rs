//! A transformer block.
//!
//! A bidirectional context cannot pass the layers token by token: a block needs the keys and values of all tokens before any
//! of them can attend. So a block goes over the tokens twice, a tile at a time, and only the residual stream and the
//! queries are ever held for all of them:
//!
//! ```text
//! for each tile:   a = norm(x);  q, k, v = qkv(a), rotated;  k and v into the cache
//! for each tile:   a = norm(x);  h = α·a + dense(attention(q));  m = norm(h);  x = α·m + down(gelu(up(m)))
//! ```
//!
//! Every token's numbers are computed from its own row alone, in an order that the tile does not change: neither do the bits.

use std::ops::{ControlFlow, Range};

use glm_kernels::RopeTable;

use super::linear::Context;
use super::{Linear, Norm};
use crate::config::{Config, QkvOrder, Residual};
use crate::position::Placement;
use crate::state::{LayerCache, Workspace};

/// Weights of one block.
pub(crate) struct Block {
    /// Which block it is.
    pub(crate) index: usize,
    pub(crate) attention_norm: Norm,
    pub(crate) qkv: Linear,
    pub(crate) dense: Linear,
    pub(crate) mlp_norm: Norm,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
}

/// A point in the forward pass at which activations can be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// The embedded tokens.
    Embedding,
    /// A block's attention after its output projection, before the residual.
    Attention(usize),
    /// A block's MLP, before the residual.
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
    pub(crate) rope: &'a RopeTable,
    pub(crate) placement: Placement,
    /// Index of the first token that is fed; those before it are in the cache.
    pub(crate) start: usize,
    /// Tokens that are fed.
    pub(crate) tokens: usize,
}

/// `tokens`, a tile of `size` at a time.
pub(crate) fn tiles(tokens: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    tokens.clone().step_by(size).map(move |first| first..(first + size).min(tokens.end))
}

impl Block {
    /// Takes `workspace.x` one block further.
    pub(crate) fn forward(
        &self,
        pass: &Pass<'_>,
        workspace: &mut Workspace,
        cache: &mut LayerCache<'_>,
        context: &mut Context<'_>,
        tap: &mut Tap<'_>,
    ) -> ControlFlow<()> {
        let tile = workspace.tile;
        for tokens in tiles(0..pass.tokens, tile) {
            self.project(pass, tokens, workspace, cache, context);
        }
        for tokens in tiles(0..pass.tokens, tile) {
            self.attend(pass, tokens.clone(), workspace, cache, context, tap)?;
            self.feed_forward(pass, tokens.clone(), workspace, context, tap)?;
            let width = pass.config.hidden;
            tap(Stage::Layer(self.index), tokens.start, rows(&workspace.x, &tokens, width))?;
        }
        ControlFlow::Continue(())
    }

    /// Queries into the workspace, keys and values into the cache.
    fn project(
        &self,
        pass: &Pass<'_>,
        tokens: Range<usize>,
        workspace: &mut Workspace,
        cache: &mut LayerCache<'_>,
        context: &mut Context<'_>,
    ) {
        let config = pass.config;
        let n = tokens.len();
        let normed = &mut workspace.normed[..n * config.hidden];
        self.attention_norm.forward(
            context.isa,
            rows(&workspace.x, &tokens, config.hidden),
            normed,
        );
        let qkv = &mut workspace.wide[..n * config.qkv_rows()];
        self.qkv.forward(context, normed, qkv);
        let width = config.attention_width();
        for (qkv, token) in qkv.chunks_exact_mut(config.qkv_rows()).zip(tokens) {
            let QkvOrder::PerHead = config.qkv;
            let position = pass.start + token;
            let query = &mut workspace.queries[token * width..][..width];
            let (key, value) = (&mut workspace.key[..], &mut workspace.value[..]);
            let size = config.head_size;
            let heads = query.chunks_exact_mut(size).zip(key.chunks_exact_mut(size));
            let heads = heads.zip(value.chunks_exact_mut(size)).zip(qkv.chunks_exact(3 * size));
            for (((query, key), value), qkv) in heads {
                query.copy_from_slice(&qkv[..size]);
                key.copy_from_slice(&qkv[size..2 * size]);
                value.copy_from_slice(&qkv[2 * size..]);
                rotate(pass, position, query);
                rotate(pass, position, key);
            }
            cache.store(position, &workspace.key, &workspace.value);
        }
    }

    /// `x = α·a + dense(attention)`
    fn attend(
        &self,
        pass: &Pass<'_>,
        tokens: Range<usize>,
        workspace: &mut Workspace,
        cache: &LayerCache<'_>,
        context: &mut Context<'_>,
        tap: &mut Tap<'_>,
    ) -> ControlFlow<()> {
        let (config, n) = (pass.config, tokens.len());
        let x = rows_mut(&mut workspace.x, &tokens, config.hidden);
        let normed = &mut workspace.normed[..n * config.hidden];
        self.attention_norm.forward(context.isa, x, normed);
        let width = config.attention_width();
        let attended = &mut workspace.wide[..n * width];
        let queries = rows(&workspace.queries, &tokens, width);
        let first = pass.start + tokens.start;
        cache.attend(context.isa, queries, first, pass.placement.mask(), attended);
        let branch = &mut workspace.branch[..n * config.hidden];
        self.dense.forward(context, attended, branch);
        tap(Stage::Attention(self.index), tokens.start, branch)?;
        add_residual(config.residual, normed, branch, x);
        ControlFlow::Continue(())
    }

    /// `x = α·m + mlp(m)`
    fn feed_forward(
        &self,
        pass: &Pass<'_>,
        tokens: Range<usize>,
        workspace: &mut Workspace,
        context: &mut Context<'_>,
        tap: &mut Tap<'_>,
    ) -> ControlFlow<()> {
        let (config, n) = (pass.config, tokens.len());
        let x = rows_mut(&mut workspace.x, &tokens, config.hidden);
        let normed = &mut workspace.normed[..n * config.hidden];
        self.mlp_norm.forward(context.isa, x, normed);
        let inner = &mut workspace.wide[..n * config.inner];
        self.up.forward(context, normed, inner);
        let branch = &mut workspace.branch[..n * config.hidden];
        self.down.forward(context, inner, branch);
        tap(Stage::Mlp(self.index), tokens.start, branch)?;
        add_residual(config.residual, normed, branch, x);
        ControlFlow::Continue(())
    }

    pub(crate) fn linears(&self) -> [&Linear; 4] {
        [&self.qkv, &self.dense, &self.up, &self.down]
    }
}

/// Rotates each half of a head by one of the token's two positions.
fn rotate(pass: &Pass<'_>, token: usize, head: &mut [f32]) {
    let positions = pass.placement.at(token);
    let half = head.len() / 2;
    for (half, position) in head.chunks_exact_mut(half).zip(positions) {
        pass.rope.rotate_halves(half, position);
    }
}

fn add_residual(residual: Residual, normed: &[f32], branch: &[f32], x: &mut [f32]) {
    let Residual::Scaled(alpha) = residual;
    for ((x, normed), branch) in x.iter_mut().zip(normed).zip(branch) {
        *x = alpha * normed + branch;
    }
}

pub(crate) fn rows<'a>(x: &'a [f32], tokens: &Range<usize>, width: usize) -> &'a [f32] {
    &x[tokens.start * width..tokens.end * width]
}

pub(crate) fn rows_mut<'a>(x: &'a mut [f32], tokens: &Range<usize>, width: usize) -> &'a mut [f32] {
    &mut x[tokens.start * width..tokens.end * width]
}
