//! The parts of a model: structs of weights, each with its forward.

mod block;
mod linear;
mod norm;
mod weight;

pub(crate) use block::{Block, Pass, rows, rows_mut, tiles};
pub use block::{Stage, Tap};
pub(crate) use linear::{Context, Linear};
pub(crate) use norm::Norm;
pub(crate) use weight::Weight;

impl Weights {
    /// The matrices that every token is multiplied with, in this order.
    pub(crate) fn matrices(&self) -> impl Iterator<Item = &Weight> {
        let blocks = self.blocks.iter();
        let linears = blocks.flat_map(|block| [&block.qkv, &block.dense, &block.up, &block.down]);
        linears.chain([&self.head]).map(|linear| &linear.weight)
    }
}

/// All weights of a model. Never changed once loaded.
pub(crate) struct Weights {
    /// `[vocab, hidden]`
    pub(crate) embedding: Weight,
    /// Learned positions and block positions, `[max context + 1, hidden]`
    pub(crate) positions: Option<[Weight; 2]>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) final_norm: Norm,
    /// `[vocab, hidden]`, without bias
    pub(crate) head: Linear,
}
