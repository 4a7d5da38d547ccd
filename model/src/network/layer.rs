//! The structure of a network. The forward pass over it is in `pass.rs`.
//!
//! [`Network`] and [`Layer`] are generic: the same structure holds the names of tensors, the tensors of a checkpoint, or the
//! loaded weights. Only this file enumerates the components of a layer; other code iterates over the structure or maps it.

use glm_kernels::Output;

use crate::files::checkpoint::Bytes;

mod linear;
mod norm;
mod role;
mod weight;

pub(crate) use linear::{Context, Linear};
pub(crate) use norm::Norm;
pub use role::LinearRole;
pub(crate) use role::NormRole;
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
    pub(crate) attention: Attention<L, N>,
    /// Normalizes the output of the attention.
    pub(crate) attention_output_norm: Option<N>,
    pub(crate) feed_forward_norm: N,
    pub(crate) feed_forward: FeedForward<L>,
    /// Normalizes the output of the feed-forward block.
    pub(crate) feed_forward_output_norm: Option<N>,
}

/// The attention block of a layer.
pub(crate) enum Attention<L, N> {
    /// Grouped-query attention. Multi-head attention is the case of groups of one head.
    Grouped {
        /// Query, key and value projections in one matrix, `[qkv rows, hidden]`.
        qkv: L,
        /// Norms of each head of queries and keys, before they are rotated.
        head_norms: Option<[N; 2]>,
        /// `[hidden, heads · head size]`
        output: L,
    },
    /// Latent attention, see [`Latent`](crate::files::config::Latent).
    Latent(Box<LatentAttention<L, N>>),
}

/// The components of latent attention.
pub(crate) struct LatentAttention<L, N> {
    /// The first projection of the queries, the latent vector and the rotated part of the key in one matrix, `[qkv rows, hidden]`.
    pub(crate) down: L,
    /// The second projection of the queries, if there are two.
    pub(crate) query: Option<QueryUp<L, N>>,
    /// Normalizes the latent vector.
    pub(crate) norm: N,
    /// Applied to the queries in place of the projection of the keys: its transpose, head by head, `[heads · rank, elements that are not
    /// rotated]`. Head `h` has the rows from `h · rank` on.
    pub(crate) key_up: L,
    /// Applied to the sum of latent vectors in place of the projection of the values, `[heads · value size, rank]`.
    pub(crate) value_up: L,
    /// `[hidden, heads · value size]`
    pub(crate) output: L,
}

/// The second projection of the queries of latent attention.
pub(crate) struct QueryUp<L, N> {
    /// Normalizes its input.
    pub(crate) norm: N,
    /// `[heads · query size, query rank]`
    pub(crate) up: L,
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
    /// A mixture of experts, see [`Experts`](crate::files::config::Experts).
    Sparse {
        /// The scores of the experts, `[experts, hidden]`. Its bias only counts for the choice.
        router: L,
        experts: Vec<Expert<L>>,
        /// The expert that all tokens have.
        shared: Option<Expert<L>>,
    },
}

/// A gated MLP with gate and up projection apart, so that none is copied, however they are stored.
pub(crate) struct Expert<L> {
    /// `[intermediate size, hidden]`
    pub(crate) gate: L,
    /// `[intermediate size, hidden]`
    pub(crate) up: L,
    /// `[hidden, intermediate size]`
    pub(crate) down: L,
}

/// Converts the components of a network, for [`Network::try_map`].
pub(crate) trait Convert<'a, T: 'a, L: 'a, N: 'a> {
    type Table;
    type Linear;
    type Norm;
    type Error;

    fn table(&mut self, table: &'a T) -> Result<Self::Table, Self::Error>;
    fn linear(&mut self, role: LinearRole, linear: &'a L) -> Result<Self::Linear, Self::Error>;
    fn norm(&mut self, role: NormRole, norm: &'a N) -> Result<Self::Norm, Self::Error>;
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
            final_norm: convert.norm(NormRole::Hidden, &self.final_norm)?,
        })
    }
}

impl<L, N> Layer<L, N> {
    /// All linear layers, in the order of the forward pass.
    pub(crate) fn linears(&self) -> impl Iterator<Item = (LinearRole, &L)> {
        let mut all = Vec::new();
        match &self.attention {
            Attention::Grouped { qkv, output, .. } => {
                all.extend([(LinearRole::Qkv, qkv), (LinearRole::AttentionOutput, output)]);
            }
            Attention::Latent(latent) => {
                all.push((LinearRole::Qkv, &latent.down));
                all.extend(latent.query.iter().map(|query| (LinearRole::QueryUp, &query.up)));
                all.extend([
                    (LinearRole::KeyUp, &latent.key_up),
                    (LinearRole::ValueUp, &latent.value_up),
                    (LinearRole::AttentionOutput, &latent.output),
                ]);
            }
        }
        match &self.feed_forward {
            FeedForward::Dense { up, down } => {
                all.extend([(LinearRole::Up, up), (LinearRole::Down, down)]);
            }
            FeedForward::Sparse { router, experts, shared } => {
                all.push((LinearRole::Router, router));
                for (role, experts) in [
                    (LinearRole::ExpertUp, &experts[..]),
                    (LinearRole::SharedUp, shared.as_slice()),
                ] {
                    all.extend(experts.iter().flat_map(|it| [(role, &it.gate), (role, &it.up)]));
                }
                all.extend(experts.iter().map(|it| (LinearRole::ExpertDown, &it.down)));
                all.extend(shared.iter().map(|it| (LinearRole::SharedDown, &it.down)));
            }
        }
        all.into_iter()
    }

    /// The linear layer with this role, if there is exactly one.
    pub(crate) fn linear_mut(&mut self, role: LinearRole) -> Option<&mut L> {
        match (role, &mut self.attention, &mut self.feed_forward) {
            (LinearRole::Qkv, Attention::Grouped { qkv, .. }, _) => Some(qkv),
            (LinearRole::Qkv, Attention::Latent(latent), _) => Some(&mut latent.down),
            (LinearRole::QueryUp, Attention::Latent(latent), _) => {
                latent.query.as_mut().map(|query| &mut query.up)
            }
            (LinearRole::KeyUp, Attention::Latent(latent), _) => Some(&mut latent.key_up),
            (LinearRole::ValueUp, Attention::Latent(latent), _) => Some(&mut latent.value_up),
            (LinearRole::AttentionOutput, Attention::Grouped { output, .. }, _) => Some(output),
            (LinearRole::AttentionOutput, Attention::Latent(latent), _) => Some(&mut latent.output),
            (LinearRole::Up, _, FeedForward::Dense { up, .. }) => Some(up),
            (LinearRole::Down, _, FeedForward::Dense { down, .. }) => Some(down),
            (LinearRole::Router, _, FeedForward::Sparse { router, .. }) => Some(router),
            (LinearRole::SharedDown, _, FeedForward::Sparse { shared: Some(shared), .. }) => {
                Some(&mut shared.down)
            }
            _ => None,
        }
    }

    /// All norms, in the order of the forward pass.
    pub(crate) fn norms(&self) -> impl Iterator<Item = &N> {
        let mut all = vec![&self.attention_norm];
        match &self.attention {
            Attention::Grouped { head_norms, .. } => all.extend(head_norms.iter().flatten()),
            Attention::Latent(latent) => {
                all.extend(latent.query.iter().map(|query| &query.norm));
                all.push(&latent.norm);
            }
        }
        all.extend(&self.attention_output_norm);
        all.push(&self.feed_forward_norm);
        all.extend(&self.feed_forward_output_norm);
        all.into_iter()
    }

    /// Converts every component of the layer.
    ///
    /// # Errors
    /// The first error of `convert`.
    pub(crate) fn try_map<'a, T: 'a, C: Convert<'a, T, L, N>>(
        &'a self,
        convert: &mut C,
    ) -> Result<Layer<C::Linear, C::Norm>, C::Error> {
        let hidden = NormRole::Hidden;
        let output_norm = |convert: &mut C, norm: &'a Option<N>| {
            norm.as_ref().map(|norm| convert.norm(hidden, norm)).transpose()
        };
        Ok(Layer {
            attention_norm: convert.norm(hidden, &self.attention_norm)?,
            attention: self.attention.try_map(convert)?,
            attention_output_norm: output_norm(convert, &self.attention_output_norm)?,
            feed_forward_norm: convert.norm(hidden, &self.feed_forward_norm)?,
            feed_forward: self.feed_forward.try_map(convert)?,
            feed_forward_output_norm: output_norm(convert, &self.feed_forward_output_norm)?,
        })
    }
}

impl<L, N> Attention<L, N> {
    /// The projection of the hidden state.
    pub(crate) fn first(&self) -> &L {
        match self {
            Self::Grouped { qkv, .. } => qkv,
            Self::Latent(latent) => &latent.down,
        }
    }

    /// The output projection.
    pub(crate) fn output(&self) -> &L {
        match self {
            Self::Grouped { output, .. } => output,
            Self::Latent(latent) => &latent.output,
        }
    }

    fn try_map<'a, T: 'a, C: Convert<'a, T, L, N>>(
        &'a self,
        convert: &mut C,
    ) -> Result<Attention<C::Linear, C::Norm>, C::Error> {
        Ok(match self {
            Self::Grouped { qkv, head_norms, output } => Attention::Grouped {
                qkv: convert.linear(LinearRole::Qkv, qkv)?,
                head_norms: match head_norms {
                    Some([query, key]) => Some([
                        convert.norm(NormRole::Head, query)?,
                        convert.norm(NormRole::Head, key)?,
                    ]),
                    None => None,
                },
                output: convert.linear(LinearRole::AttentionOutput, output)?,
            },
            Self::Latent(latent) => {
                let LatentAttention { down, query, norm, key_up, value_up, output } = &**latent;
                Attention::Latent(Box::new(LatentAttention {
                    down: convert.linear(LinearRole::Qkv, down)?,
                    query: match query {
                        Some(QueryUp { norm, up }) => Some(QueryUp {
                            norm: convert.norm(NormRole::Latent, norm)?,
                            up: convert.linear(LinearRole::QueryUp, up)?,
                        }),
                        None => None,
                    },
                    norm: convert.norm(NormRole::Latent, norm)?,
                    key_up: convert.linear(LinearRole::KeyUp, key_up)?,
                    value_up: convert.linear(LinearRole::ValueUp, value_up)?,
                    output: convert.linear(LinearRole::AttentionOutput, output)?,
                }))
            }
        })
    }
}

impl<L> FeedForward<L> {
    fn try_map<'a, T: 'a, N: 'a, C: Convert<'a, T, L, N>>(
        &'a self,
        convert: &mut C,
    ) -> Result<FeedForward<C::Linear>, C::Error> {
        Ok(match self {
            Self::Dense { up, down } => FeedForward::Dense {
                up: convert.linear(LinearRole::Up, up)?,
                down: convert.linear(LinearRole::Down, down)?,
            },
            Self::Sparse { router, experts, shared } => {
                let mut expert = |up, down, expert: &'a Expert<L>| {
                    Ok(Expert {
                        gate: convert.linear(up, &expert.gate)?,
                        up: convert.linear(up, &expert.up)?,
                        down: convert.linear(down, &expert.down)?,
                    })
                };
                let (up, down) = (LinearRole::ExpertUp, LinearRole::ExpertDown);
                let experts =
                    experts.iter().map(|it| expert(up, down, it)).collect::<Result<_, _>>()?;
                let (up, down) = (LinearRole::SharedUp, LinearRole::SharedDown);
                let shared = shared.as_ref().map(|it| expert(up, down, it)).transpose()?;
                let router = convert.linear(LinearRole::Router, router)?;
                FeedForward::Sparse { router, experts, shared }
            }
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
