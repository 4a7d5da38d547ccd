//! The structure of a network. The forward pass over it is in `pass.rs`.
//!
//! [`Network`] and [`Layer`] are generic: the same structure holds the names of tensors, the tensors of a checkpoint, or the
//! loaded weights. Only this file enumerates the components of a layer; other code iterates over the structure or maps it.

use glm_kernels::Output;

use crate::files::checkpoint::Bytes;

mod linear;
mod norm;
mod weight;

pub(crate) use linear::{Context, Linear};
pub(crate) use norm::Norm;
pub(crate) use weight::Weight;

/// A network. `T` is an embedding table, `L` a linear layer, `N` a norm.
pub(crate) struct Network<T, L, N> {
    /// `[vocab, hidden]`
    pub(crate) embedding: T,
    /// Learned embeddings of positions and block positions, `[max context + 1, hidden]` each.
    pub(crate) positions: Option<[T; 2]>,
    pub(crate) layers: Vec<Layer<L, N>>,
    pub(crate) final_norm: N,
    /// `[vocab, hidden]`, without bias. `None` if the head is tied to the embedding.
    pub(crate) head: Option<L>,
}

/// A transformer layer. `L` is a linear layer, `N` a norm.
pub(crate) struct Layer<L, N> {
    pub(crate) attention_norm: N,
    pub(crate) attention: Attention<L>,
    /// Normalizes the output of the attention.
    pub(crate) attention_output_norm: Option<N>,
    pub(crate) feed_forward_norm: N,
    pub(crate) feed_forward: FeedForward<L>,
    /// Normalizes the output of the feed-forward block.
    pub(crate) feed_forward_output_norm: Option<N>,
}

/// The attention block of a layer.
pub(crate) enum Attention<L> {
    /// Grouped-query attention. Multi-head attention is the case of groups of one head.
    Grouped {
        /// Query, key and value projections in one matrix, `[qkv rows, hidden]`.
        qkv: L,
        /// `[hidden, heads · head size]`
        output: L,
    },
}

/// The feed-forward block of a layer.
pub(crate) enum FeedForward<L> {
    /// An MLP for all tokens, in contrast to a mixture of experts.
    Dense {
        /// `[intermediate size, hidden]`; a gated MLP has gate and up projection in one matrix of twice as many rows.
        up: L,
        /// `[hidden, intermediate size]`
        down: L,
    },
}

/// The function of a linear layer in the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LinearRole {
    /// Query, key and value projections.
    Qkv,
    /// Output projection of the attention.
    AttentionOutput,
    /// First matrix of the MLP, with the gate if there is one.
    Up,
    /// Second matrix of the MLP.
    Down,
    /// Projection to the logits.
    Head,
}

impl LinearRole {
    /// All roles, in the order of the forward pass.
    pub const ALL: [Self; 5] = [Self::Qkv, Self::AttentionOutput, Self::Up, Self::Down, Self::Head];

    /// A readable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qkv => "query, key, value",
            Self::AttentionOutput => "attention output",
            Self::Up => "MLP up",
            Self::Down => "MLP down",
            Self::Head => "head",
        }
    }
}

/// Converts the components of a network, for [`Network::try_map`].
pub(crate) trait Convert<'a, T: 'a, L: 'a, N: 'a> {
    type Table;
    type Linear;
    type Norm;
    type Error;

    fn table(&mut self, table: &'a T) -> Result<Self::Table, Self::Error>;
    fn linear(&mut self, role: LinearRole, linear: &'a L) -> Result<Self::Linear, Self::Error>;
    fn norm(&mut self, norm: &'a N) -> Result<Self::Norm, Self::Error>;
}

/// The result of converting a network of `T`, `L` and `N` with `C`.
type Converted<'a, C, T, L, N> = Network<
    <C as Convert<'a, T, L, N>>::Table,
    <C as Convert<'a, T, L, N>>::Linear,
    <C as Convert<'a, T, L, N>>::Norm,
>;

impl<T, L, N> Network<T, L, N> {
    /// The embedding and the learned positions.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &T> {
        [&self.embedding].into_iter().chain(self.positions.iter().flatten())
    }

    /// All linear layers, in the order of the forward pass.
    pub(crate) fn linears(&self) -> impl Iterator<Item = (LinearRole, &L)> {
        let layers = self.layers.iter().flat_map(Layer::linears);
        layers.chain(self.head.iter().map(|head| (LinearRole::Head, head)))
    }

    /// All norms, in the order of the forward pass.
    pub(crate) fn norms(&self) -> impl Iterator<Item = &N> {
        self.layers.iter().flat_map(Layer::norms).chain([&self.final_norm])
    }

    /// Converts every component of the network.
    ///
    /// # Errors
    /// The first error of `convert`.
    pub(crate) fn try_map<'a, C: Convert<'a, T, L, N>>(
        &'a self,
        convert: &mut C,
    ) -> Result<Converted<'a, C, T, L, N>, C::Error> {
        Ok(Network {
            embedding: convert.table(&self.embedding)?,
            positions: match &self.positions {
                Some([first, second]) => Some([convert.table(first)?, convert.table(second)?]),
                None => None,
            },
            head: match &self.head {
                Some(head) => Some(convert.linear(LinearRole::Head, head)?),
                None => None,
            },
            layers: self
                .layers
                .iter()
                .map(|layer| layer.try_map(convert))
                .collect::<Result<_, _>>()?,
            final_norm: convert.norm(&self.final_norm)?,
        })
    }
}

impl<L, N> Layer<L, N> {
    /// All linear layers, in the order of the forward pass.
    pub(crate) fn linears(&self) -> impl Iterator<Item = (LinearRole, &L)> {
        let Attention::Grouped { qkv, output } = &self.attention;
        let FeedForward::Dense { up, down } = &self.feed_forward;
        [
            (LinearRole::Qkv, qkv),
            (LinearRole::AttentionOutput, output),
            (LinearRole::Up, up),
            (LinearRole::Down, down),
        ]
        .into_iter()
    }

    /// The linear layer with this role.
    pub(crate) fn linear_mut(&mut self, role: LinearRole) -> Option<&mut L> {
        let Attention::Grouped { qkv, output } = &mut self.attention;
        let FeedForward::Dense { up, down } = &mut self.feed_forward;
        match role {
            LinearRole::Qkv => Some(qkv),
            LinearRole::AttentionOutput => Some(output),
            LinearRole::Up => Some(up),
            LinearRole::Down => Some(down),
            LinearRole::Head => None,
        }
    }

    /// All norms, in the order of the forward pass.
    pub(crate) fn norms(&self) -> impl Iterator<Item = &N> {
        let attention = [&self.attention_norm].into_iter().chain(&self.attention_output_norm);
        let feed_forward =
            [&self.feed_forward_norm].into_iter().chain(&self.feed_forward_output_norm);
        attention.chain(feed_forward)
    }

    /// Converts every component of the layer.
    ///
    /// # Errors
    /// The first error of `convert`.
    pub(crate) fn try_map<'a, T: 'a, C: Convert<'a, T, L, N>>(
        &'a self,
        convert: &mut C,
    ) -> Result<Layer<C::Linear, C::Norm>, C::Error> {
        let Attention::Grouped { qkv, output } = &self.attention;
        let FeedForward::Dense { up, down } = &self.feed_forward;
        Ok(Layer {
            attention_norm: convert.norm(&self.attention_norm)?,
            attention: Attention::Grouped {
                qkv: convert.linear(LinearRole::Qkv, qkv)?,
                output: convert.linear(LinearRole::AttentionOutput, output)?,
            },
            attention_output_norm: match &self.attention_output_norm {
                Some(norm) => Some(convert.norm(norm)?),
                None => None,
            },
            feed_forward_norm: convert.norm(&self.feed_forward_norm)?,
            feed_forward: FeedForward::Dense {
                up: convert.linear(LinearRole::Up, up)?,
                down: convert.linear(LinearRole::Down, down)?,
            },
            feed_forward_output_norm: match &self.feed_forward_output_norm {
                Some(norm) => Some(convert.norm(norm)?),
                None => None,
            },
        })
    }
}

/// All weights of a model; immutable after loading.
pub(crate) type Weights = Network<Weight, Linear, Norm>;

impl Weights {
    /// The matrices that every token is multiplied with, in the order of the forward pass.
    pub(crate) fn matrices(&self) -> impl Iterator<Item = &Weight> {
        let tied_head = self.head.is_none().then_some(&self.embedding);
        self.linears().map(|(_, linear)| &linear.weight).chain(tied_head)
    }

    /// The bytes of all matrices.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Bytes> {
        let linears = self.linears().map(|(_, linear)| &linear.weight);
        self.tables().chain(linears).flat_map(Weight::parts)
    }

    /// `x`: `[tokens, hidden]` after the final norm → `logits`: `[tokens, vocab]`.
    pub(crate) fn logits(&self, context: &mut Context<'_>, x: &[f32], logits: &mut [f32]) {
        match &self.head {
            Some(head) => head.forward(context, x, Output::Store, logits),
            None => Linear::from(self.embedding.clone()).forward(context, x, Output::Store, logits),
        }
    }
}
