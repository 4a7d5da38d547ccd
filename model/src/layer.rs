//! The parts of a model: structs of weights, each with its forward.

mod block;
mod linear;
mod norm;
mod weight;

pub(crate) use block::{Block, Pass, rows, rows_mut, tiles};
pub use block::{Stage, Tap};
pub use linear::Activations;
pub(crate) use linear::{Context, Linear};
pub(crate) use norm::Norm;
pub(crate) use weight::Weight;

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

/// A matrix of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatrixInfo {
    /// What it is.
    pub name: &'static str,
    /// How many there are of it.
    pub count: usize,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// How its weights are stored.
    pub format: String,
    /// Bytes of all of them.
    pub bytes: u64,
}

impl Weights {
    /// 8-bit where there are quantised weights to meet.
    pub(crate) fn default_activations(&self) -> Activations {
        let quantised = self.blocks.iter().any(|block| block.qkv.weight.is_quantised());
        if quantised { Activations::Int8 } else { Activations::F32 }
    }

    /// Whether head and embedding are one matrix.
    pub(crate) fn is_head_tied(&self) -> bool {
        self.head.weight.shares(&self.embedding)
    }

    /// Every matrix; those of all blocks together.
    pub(crate) fn matrices(&self) -> Vec<MatrixInfo> {
        let info = |name, count, weight: &Weight, bytes| MatrixInfo {
            name,
            count,
            shape: [weight.rows(), weight.cols()],
            format: weight.format(),
            bytes,
        };
        let mut all = vec![info("word embeddings", 1, &self.embedding, self.embedding.bytes())];
        for (name, table) in
            ["positions", "block positions"].into_iter().zip(self.positions.iter().flatten())
        {
            all.push(info(name, 1, table, table.bytes()));
        }
        let names = ["query, key, value", "attention output", "MLP up", "MLP down"];
        for (index, name) in names.into_iter().enumerate() {
            let weights = self.blocks.iter().map(|block| &block.linears()[index].weight);
            let bytes = weights.clone().map(Weight::bytes).sum();
            all.extend(weights.clone().take(1).map(|w| info(name, self.blocks.len(), w, bytes)));
        }
        if !self.is_head_tied() {
            all.push(info("head", 1, &self.head.weight, self.head.weight.bytes()));
        }
        all
    }
}
