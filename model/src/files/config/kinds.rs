//! The parts in which models differ.

/// How activations are normalized.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Norm {
    /// LayerNorm with weight and bias.
    Layer {
        /// Added to the variance.
        eps: f32,
    },
    /// RMSNorm with weight.
    Rms {
        /// Added to the mean of the squares.
        eps: f32,
    },
}

/// The activation function of the MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mlp {
    /// GELU, tanh approximation.
    GeluTanh,
    /// GELU with the error function.
    GeluErf,
    /// `silu(gate) · up`; the first matrix holds the gate's rows, then up's.
    SwiGlu,
    /// `up · gelu(gate)` with the error function; the first matrix holds up's rows, then the gate's.
    GeGlu,
}

impl Mlp {
    /// Whether the first matrix also has the rows of a gate.
    pub fn is_gated(self) -> bool {
        matches!(self, Mlp::SwiGlu | Mlp::GeGlu)
    }
}

/// How queries and keys are rotated by their positions (rotary position embedding).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Rope {
    /// No rotation. The model adds a learned vector for each of its two positions to the embedding instead.
    None,
    /// The 2D rotation of ChatGLM-6B. Each half of a head is rotated by one of two positions, element `i` of the half with
    /// element `i + half/2`. The inverse frequencies `base^(−2i/half)` are rounded to `f16`, as in the published code.
    TwoD {
        /// Base of the frequencies.
        base: f32,
    },
    /// The rotation of GPT-NeoX. A whole head is rotated by one position, element `i` with element `i + size/2`. The inverse
    /// frequencies `base^(−2i/size)` are rounded to `f16`.
    NeoX {
        /// Base of the frequencies.
        base: f32,
    },
    /// The rotation of GPT-J. The first `rotary_dim` elements of a head are rotated by one position, element `2i` with element
    /// `2i + 1`, with the inverse frequency `base^(−2i/rotary_dim)`.
    Interleaved {
        /// Base of the frequencies.
        base: f32,
        /// Elements of a head that are rotated.
        rotary_dim: usize,
        /// Divides the position (linear scaling).
        scaling_factor: f32,
    },
    /// The same rotation of rows that a converter has put into another order: element `i` of the rotated part with element
    /// `i + rotary_dim/2`.
    Halves {
        /// Base of the frequencies.
        base: f32,
        /// Elements of a head that are rotated.
        rotary_dim: usize,
        /// Divides the position (linear scaling).
        scaling_factor: f32,
    },
}

/// Latent attention (MLA). A token has one latent vector for all heads, from which their keys and values are computed, and one rotated
/// part of the key. Only these two are cached: the matrices that compute keys and values are applied to queries and outputs instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Latent {
    /// Elements of the vector that queries are computed from; `None` if they are computed from the hidden state.
    pub query_rank: Option<usize>,
    /// Elements of the latent vector.
    pub rank: usize,
    /// Elements of a head's query and key that are not rotated.
    pub plain_dim: usize,
    /// Elements of a head's query and key that are rotated. All heads have the same rotated part of the key.
    pub rotary_dim: usize,
    /// Elements of a head's value.
    pub value_dim: usize,
}

impl Latent {
    /// Added to the mean of the squares in the norms of the latent vector and of the vector of the queries, whatever `config.json` says
    /// of other norms: the default of the published class.
    pub(crate) const EPS: f32 = 1e-6;

    /// Elements of a head's query and key.
    pub(crate) fn query_dim(&self) -> usize {
        self.plain_dim + self.rotary_dim
    }
}

/// The feed-forward blocks with experts, of which a router chooses some for each token.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Experts {
    /// Experts of a layer.
    pub count: usize,
    /// Experts that are chosen for a token.
    pub used: usize,
    /// Width between the matrices of an expert.
    pub intermediate_size: usize,
    /// Width between the matrices of the expert that all tokens have; 0 if there is none.
    pub shared_size: usize,
    /// Runs of experts that are chosen first.
    pub groups: usize,
    /// Groups that are chosen for a token.
    pub used_groups: usize,
    /// Whether the weights of the chosen experts are divided by their sum.
    pub is_normalized: bool,
    /// Multiplies the weights.
    pub scale: f32,
    /// The first layer with experts.
    pub first_layer: usize,
}

/// Which tokens attend to which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MaskKind {
    /// Every token attends to itself and those before it.
    Causal,
    /// Tokens before the first `sop` attend to each other in both directions. `sop` and the tokens after it are causal; their
    /// position is that of the blank they fill.
    Prefix(BlankChoice),
}

/// Which blank is filled if a prompt has several; of one kind, always the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlankChoice {
    /// `[gMASK]`, or else `[MASK]`.
    GmaskFirst,
    /// The first blank of any kind.
    Leftmost,
    /// `[MASK]`, or else `[sMASK]`, or else `[gMASK]`. Tokens that fill a `[gMASK]` have the position after the context instead.
    MaskFirst,
}

/// The residual connection around attention and MLP.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Residual {
    /// `x + f(norm(x))`
    Plain,
    /// `α·norm(x) + f(norm(x))`
    Scaled(f32),
}

/// The order of the rows of the query-key-value matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum QkvOrder {
    /// Head by head: its query, key and value.
    PerHead,
    /// All queries, all keys, all values.
    Concatenated,
}

/// The naming scheme of the tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dialect {
    /// ChatGLM-6B's.
    ChatGlm,
    /// ChatGLM2-6B's, also used by ChatGLM3-6B and GLM-4-9B.
    ChatGlm2,
    /// The one of `glm` and `glm4` in the transformers library.
    Transformers,
    /// The one of `glm4v` in the transformers library, where the text part of a model has a prefix.
    Glm4v,
    /// The original GLM's.
    Glm,
    /// GLM-130B's.
    Glm130B,
    /// The one of GGUF files.
    Gguf,
}

/// Ids of special tokens, as far as a model has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// Begins the answer (`<sop>`).
    pub sop: Option<u32>,
    /// Each of these ends the answer.
    pub ends: Vec<u32>,
    /// A short blank (`[MASK]`).
    pub mask: Option<u32>,
    /// A blank for a sentence (`[sMASK]`).
    pub smask: Option<u32>,
    /// A blank of any length (`[gMASK]`).
    pub gmask: Option<u32>,
}

impl SpecialIds {
    /// The blanks, and the start of an answer, whose token is called `sop`; no ends.
    pub(crate) fn named(sop: &str, id: impl Fn(&str) -> Option<u32>) -> Self {
        let (mask, smask, gmask) = (id("[MASK]"), id("[sMASK]"), id("[gMASK]"));
        Self { sop: id(sop), ends: Vec::new(), mask, smask, gmask }
    }

    /// The blanks with their names.
    pub(crate) fn blanks(&self) -> [(&'static str, Option<u32>); 3] {
        [("[MASK]", self.mask), ("[sMASK]", self.smask), ("[gMASK]", self.gmask)]
    }
}
