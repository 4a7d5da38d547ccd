//! Sizes that follow from a configuration.

use glm_kernels::Heads;

use super::{Config, Experts, QkvOrder};

impl Config {
    /// Rows of the query-key-value matrix. With latent attention, those of the first matrix of the queries, and of the latent vector and
    /// the rotated part of the key.
    pub(crate) fn qkv_rows(&self) -> usize {
        match self.latent {
            Some(_) => self.query_rows() + self.head_size,
            None => self.query_rows() + 2 * self.kv_heads * self.head_size,
        }
    }

    /// The rows of the query-key-value matrix for the queries.
    pub(crate) fn query_rows(&self) -> usize {
        let heads = |size| self.heads * size;
        self.latent.map_or(heads(self.head_size), |latent| {
            latent.query_rank.unwrap_or(heads(latent.query_dim()))
        })
    }

    /// Rows of the MLP's first matrix.
    pub(crate) fn up_rows(&self) -> usize {
        if self.mlp.is_gated() { 2 * self.intermediate_size } else { self.intermediate_size }
    }

    /// Where queries, keys and values are in an output row of the query-key-value matrix.
    pub(crate) fn heads_at(&self) -> [Heads; 3] {
        let size = self.head_size;
        let (firsts, stride) = match self.qkv {
            QkvOrder::PerHead => ([0, 1, 2], 3 * size),
            QkvOrder::Concatenated => ([0, self.heads, self.heads + self.kv_heads], size),
        };
        firsts.map(|first| Heads { first: first * size, stride })
    }

    /// Width of the queries of all heads, as the cache takes them.
    pub(crate) fn query_width(&self) -> usize {
        self.heads * self.head_size
    }

    /// Width of the outputs of all heads together.
    pub(crate) fn attention_width(&self) -> usize {
        self.heads * self.latent.map_or(self.head_size, |latent| latent.value_dim)
    }

    /// What scores are multiplied with: 1/√(elements of a query).
    pub(crate) fn score_scale(&self) -> f32 {
        1.0 / (self.latent.map_or(self.head_size, |latent| latent.query_dim()) as f32).sqrt()
    }

    /// The experts of layer `index`, if it has some.
    pub(crate) fn experts_of(&self, index: usize) -> Option<&Experts> {
        self.experts.as_ref().filter(|experts| index >= experts.first_layer)
    }
}
