//! What linear layers and norms are for.

/// The function of a linear layer in the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LinearRole {
    /// Query, key and value projections; with latent attention, the first projections.
    Qkv,
    /// Second projection of the queries of latent attention.
    QueryUp,
    /// Projection of the keys of latent attention, applied to the queries.
    KeyUp,
    /// Projection of the values of latent attention.
    ValueUp,
    /// Output projection of the attention.
    AttentionOutput,
    /// Chooses experts.
    Router,
    /// First matrix of the MLP, with the gate if there is one.
    Up,
    /// Second matrix of the MLP.
    Down,
    /// Gate or up projection of an expert.
    ExpertUp,
    /// Second matrix of an expert.
    ExpertDown,
    /// Gate or up projection of the expert that all tokens have.
    SharedUp,
    /// Second matrix of that expert.
    SharedDown,
    /// Projection to the logits.
    Head,
}

impl LinearRole {
    /// All roles, in the order of the forward pass.
    pub const ALL: [Self; 13] = [
        Self::Qkv,
        Self::QueryUp,
        Self::KeyUp,
        Self::ValueUp,
        Self::AttentionOutput,
        Self::Router,
        Self::Up,
        Self::Down,
        Self::ExpertUp,
        Self::ExpertDown,
        Self::SharedUp,
        Self::SharedDown,
        Self::Head,
    ];

    /// Whether the matrix is computed at once with others, for gathered inputs.
    pub(crate) fn is_computed_with_others(self) -> bool {
        let experts = [Self::ExpertUp, Self::ExpertDown, Self::SharedUp, Self::SharedDown];
        matches!(self, Self::KeyUp | Self::ValueUp) || experts.contains(&self)
    }

    /// A readable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qkv => "query, key, value",
            Self::QueryUp => "query up",
            Self::KeyUp => "key up",
            Self::ValueUp => "value up",
            Self::AttentionOutput => "attention output",
            Self::Router => "router",
            Self::Up => "MLP up",
            Self::Down => "MLP down",
            Self::ExpertUp => "experts up",
            Self::ExpertDown => "experts down",
            Self::SharedUp => "shared expert up",
            Self::SharedDown => "shared expert down",
            Self::Head => "head",
        }
    }
}

/// The function of a norm in the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NormRole {
    /// Of the hidden state.
    Hidden,
    /// Of the vectors that latent attention computes queries, keys and values from.
    Latent,
    /// Of the heads of queries or keys.
    Head,
}
