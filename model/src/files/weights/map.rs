//! The tensors of a model: every matrix and vector, with its size and the pieces it may be published in.

use std::ops::Range;

use super::Affine;
use super::names::{Names, names};
use crate::files::checkpoint::Checkpoint;
use crate::files::config::{Config, Latent, Norm, Rope};
use crate::files::packed::integers_of;
use crate::network::layer::{
    Attention, Expert, FeedForward, LatentAttention, Layer, Network, QueryUp,
};

/// A matrix of `rows` × `cols`, or a vector of `rows` with one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// The name of the tensor that holds all of it.
    pub(crate) name: String,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// The pieces it consists of if there is no tensor of that name. They cover it without overlap.
    pub(crate) pieces: Vec<Piece>,
    /// Tensors that repeat all of it.
    pub(crate) copies: Vec<String>,
}

impl Source {
    /// A matrix or vector that is always one tensor.
    pub(crate) fn whole_tensor(name: String, rows: usize, cols: usize) -> Self {
        let pieces = vec![below(&name, "", &(0..rows), cols)];
        Self { name, rows, cols, pieces, copies: Vec::new() }
    }

    /// The tensor that holds all of it, as one piece.
    pub(crate) fn whole(&self) -> Piece {
        below(&self.name, "", &(0..self.rows), self.cols)
    }
}

/// Some rows of a tensor, and their place in the matrix or vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) name: String,
    /// Rows of the tensor.
    pub(crate) height: usize,
    /// The first row of the tensor that belongs to the piece.
    pub(crate) first: usize,
    /// The rows of the whole that the piece fills.
    pub(crate) rows: Range<usize>,
    /// The columns of the whole that the piece fills, as many as the tensor has.
    pub(crate) cols: Range<usize>,
    /// Whether the piece is the transpose of rows of the tensor: as many as it has columns, and of as many columns as it has rows.
    pub(crate) is_transposed: bool,
}

impl Piece {
    /// Shape of the tensor.
    pub(crate) fn shape(&self) -> [usize; 2] {
        let width = if self.is_transposed { self.rows.len() } else { self.cols.len() };
        [self.height, width]
    }
}

/// How the ranks of tensor parallelism form the whole.
#[derive(Debug, Clone, Copy)]
enum Join {
    /// One below the other.
    Rows,
    /// Each shard has rows of the first half and rows of the second: gate and up of a gated MLP.
    Halves,
    /// Side by side.
    Columns,
    /// All are the same.
    Copies,
}

/// The sources of a linear layer or a norm.
type Part = Affine<Source, Source>;

/// The sources of a whole model.
pub(crate) struct Map {
    pub(crate) network: Network<Source, Part, Part>,
    /// What the names of tensors begin with that are not read.
    left_out: Vec<String>,
    /// Whether one of these is a layer that predicts a further token.
    pub(crate) has_prediction_layer: bool,
}

impl Map {
    /// The sources of the model `config`. Shards, a prefix of the names and whether there is a head are those of `checkpoint`.
    pub(crate) fn new(config: &Config, checkpoint: &Checkpoint) -> Self {
        Builder { config, checkpoint, names: names(config.dialect) }.map()
    }

    /// Whether a tensor belongs to a part of the model that this program does not read.
    pub(crate) fn is_left_out(&self, name: &str) -> bool {
        self.left_out.iter().any(|start| name.starts_with(start.as_str()))
    }

    /// All vectors.
    pub(crate) fn vectors(&self) -> impl Iterator<Item = &Source> {
        let biases = self.network.linears().filter_map(|(_, linear)| linear.bias.as_ref());
        let norms = self.network.norms().flat_map(|norm| [Some(&norm.weight), norm.bias.as_ref()]);
        biases.chain(norms.flatten())
    }
}

/// What all names of the checkpoint begin with: nothing, or what the program put there that trained or wrapped the model.
pub(super) fn prefix(names: &Names, checkpoint: &Checkpoint) -> String {
    const PARTS: [&str; 4] = ["module", "base_model", "model", "glm"];
    let embedding = format!("{}.weight", names.embedding);
    let prefixes = checkpoint.names().filter_map(|name| name.strip_suffix(&*embedding));
    let known = prefixes.filter(|prefix| {
        let parts = prefix.strip_suffix('.').unwrap_or(prefix);
        prefix.is_empty()
            || prefix.ends_with('.') && parts.split('.').all(|part| PARTS.contains(&part))
    });
    known.min_by_key(|prefix| prefix.len()).unwrap_or_default().to_owned()
}

struct Builder<'a> {
    config: &'a Config,
    checkpoint: &'a Checkpoint,
    names: &'static Names,
}

impl Builder<'_> {
    fn map(&self) -> Map {
        let (config, names) = (self.config, self.names);
        let prefix = &*prefix(names, self.checkpoint);
        let table = |name: &str, rows| {
            let name = format!("{prefix}{name}.weight");
            self.source(name, (rows, config.hidden), Join::Rows)
        };
        let is_head_there = |head: &Part| {
            let name = &head.weight.name;
            let layer = name.strip_suffix(".weight").unwrap_or(name);
            self.checkpoint.get(name).is_some() || integers_of(self.checkpoint, layer).is_some()
        };
        let head = names.head.map(|head| Affine { weight: table(head, config.vocab), bias: None });
        let positions = match config.rope {
            Rope::None => names.positions,
            _ => None,
        };
        let network = Network {
            embedding: table(names.embedding, config.vocab),
            positions: positions.map(|both| both.map(|name| table(name, config.max_context + 1))),
            layers: (0..config.layers)
                .map(|index| self.layer(&format!("{prefix}{}.{index}.", names.layers), index))
                .collect(),
            final_norm: self.norm(format!("{prefix}{}", names.final_norm)),
            head: head.filter(|head| !config.tied_head || is_head_there(head)),
        };
        // Models with experts have a further layer, which predicts one token more (multi-token prediction).
        let next = format!("{}.{}.", names.layers, config.layers);
        let is_there =
            |part: &&str| self.checkpoint.get(&format!("{prefix}{next}{part}.weight")).is_some();
        let next = names.prediction.iter().any(is_there).then_some(next);
        let has_prediction_layer = next.is_some();
        let left_out = names.left_out.map(str::to_owned).into_iter().chain(next);
        let left_out = left_out.map(|start| format!("{prefix}{start}")).collect();
        Map { network, left_out, has_prediction_layer }
    }

    fn layer(&self, layer: &str, index: usize) -> Layer<Part, Part> {
        let (config, names) = (self.config, self.names);
        let norm = |name| self.norm(format!("{layer}{name}"));
        let output_norm = |name| config.output_norms.then(|| norm(name));
        Layer {
            attention_norm: norm(names.attention_norm),
            attention: match &config.latent {
                None => self.grouped(layer),
                Some(latent) => self.latent(layer, latent),
            },
            attention_output_norm: output_norm(names.attention_output_norm),
            feed_forward_norm: norm(names.feed_forward_norm),
            feed_forward: match config.experts_of(index) {
                None => self.dense(layer),
                Some(_) => self.sparse(layer),
            },
            feed_forward_output_norm: output_norm(names.feed_forward_output_norm),
        }
    }

    fn grouped(&self, layer: &str) -> Attention<Part, Part> {
        let (config, names) = (self.config, self.names);
        let (hidden, width) = (config.hidden, config.attention_width());
        let linear =
            |name, shape, bias, join| self.linear(format!("{layer}{name}"), shape, bias, join);
        let mut qkv = linear(names.qkv, (config.qkv_rows(), hidden), config.qkv_bias, Join::Rows);
        if let Some(apart) = names.apart {
            let kv = config.kv_heads * config.head_size;
            let rows = [0..width, width..width + kv, width + kv..width + 2 * kv];
            join_parts(&mut qkv, layer, apart, rows);
        }
        let norm = |name| self.vector_norm(format!("{layer}{name}"), config.head_size);
        Attention::Grouped {
            qkv,
            head_norms: config.head_norms.then(|| names.head_norms.map(norm)),
            output: linear(
                names.attention_output,
                (hidden, width),
                config.linear_bias,
                Join::Columns,
            ),
        }
    }

    fn latent(&self, layer: &str, latent: &Latent) -> Attention<Part, Part> {
        let (config, names) = (self.config, &self.names.latent);
        let (hidden, heads, rank) = (config.hidden, config.heads, latent.rank);
        let linear = |name, rows, cols| {
            self.linear(format!("{layer}{name}"), (rows, cols), false, Join::Rows)
        };
        let norm = |name, size| self.vector_norm(format!("{layer}{name}"), size);
        let mut down = linear(names.down, config.qkv_rows(), hidden);
        let queries = config.query_rows();
        let query_down = if latent.query_rank.is_some() { names.query_down } else { names.query };
        let rows = [0..queries, queries..config.qkv_rows()];
        join_parts(&mut down, layer, [query_down, names.key_value_down], rows);
        // The rows of a head are those of the key, then those of the value.
        let both = latent.plain_dim + latent.value_dim;
        let piece = |first: usize, rows: Range<usize>, cols: usize, is_transposed: bool| Piece {
            name: format!("{layer}{}.weight", names.key_value_up),
            height: heads * both,
            first,
            rows,
            cols: 0..cols,
            is_transposed,
        };
        let mut key_up = linear(names.key_up, heads * rank, latent.plain_dim);
        let keys = (0..heads)
            .map(|head| piece(head * both, head * rank..(head + 1) * rank, latent.plain_dim, true));
        key_up.weight.pieces = keys.collect();
        let mut value_up = linear(names.value_up, heads * latent.value_dim, rank);
        let values = (0..heads).map(|head| {
            let rows = head * latent.value_dim..(head + 1) * latent.value_dim;
            piece(head * both + latent.plain_dim, rows, rank, false)
        });
        value_up.weight.pieces = values.collect();
        Attention::Latent(Box::new(LatentAttention {
            down,
            query: latent.query_rank.map(|query_rank| QueryUp {
                norm: norm(names.query_norm, query_rank),
                up: linear(names.query_up, heads * latent.query_dim(), query_rank),
            }),
            norm: norm(names.norm, rank),
            key_up,
            value_up,
            output: linear(self.names.attention_output, hidden, config.attention_width()),
        }))
    }

    fn dense(&self, layer: &str) -> FeedForward<Part> {
        let (config, names) = (self.config, self.names);
        let (hidden, inner) = (config.hidden, config.intermediate_size);
        let is_gated = config.mlp.is_gated();
        let join = if is_gated { Join::Halves } else { Join::Rows };
        let linear = |name, rows, cols, join| {
            self.linear(format!("{layer}{name}"), (rows, cols), config.linear_bias, join)
        };
        let mut up = linear(names.up, config.up_rows(), hidden, join);
        // Models without experts have one matrix.
        if let Some(apart) = names.gate_apart.filter(|_| config.experts.is_some()) {
            join_parts(&mut up, layer, apart, [0..inner, inner..2 * inner]);
        }
        FeedForward::Dense { up, down: linear(names.down, hidden, inner, Join::Columns) }
    }

    fn sparse(&self, layer: &str) -> FeedForward<Part> {
        let Some(experts) = &self.config.experts else { return self.dense(layer) };
        let (hidden, names) = (self.config.hidden, &self.names.experts);
        let linear = |name: String, rows, cols| self.linear(name, (rows, cols), false, Join::Rows);
        let expert = |path: String, inner| {
            let path = format!("{layer}{path}");
            Expert {
                gate: linear(format!("{path}.{}", names.gate), inner, hidden),
                up: linear(format!("{path}.{}", names.up), inner, hidden),
                down: linear(format!("{path}.{}", names.down), hidden, inner),
            }
        };
        let mut router = linear(format!("{layer}{}", names.router), experts.count, hidden);
        let bias = format!("{layer}{}", names.router_bias);
        router.bias = Some(self.vector(bias, experts.count, Join::Copies));
        let shared = || expert(names.shared.to_owned(), experts.shared_size);
        FeedForward::Sparse {
            router,
            experts: (0..experts.count)
                .map(|index| expert(format!("{}.{index}", names.list), experts.intermediate_size))
                .collect(),
            shared: (experts.shared_size > 0).then(shared),
        }
    }

    fn linear(&self, name: String, (rows, cols): (usize, usize), bias: bool, join: Join) -> Part {
        // Shards of columns divide the inputs, so each has the whole bias.
        let bias_join = if let Join::Columns = join { Join::Copies } else { join };
        let bias = bias.then(|| self.vector(format!("{name}.bias"), rows, bias_join));
        Affine { weight: self.source(format!("{name}.weight"), (rows, cols), join), bias }
    }

    fn norm(&self, name: String) -> Part {
        let vector =
            |part: &str| self.vector(format!("{name}.{part}"), self.config.hidden, Join::Copies);
        let bias = matches!(self.config.norm, Norm::Layer { .. }).then(|| vector("bias"));
        Affine { weight: vector("weight"), bias }
    }

    /// An RMSNorm of `n` elements.
    fn vector_norm(&self, name: String, n: usize) -> Part {
        Affine { weight: self.vector(format!("{name}.weight"), n, Join::Copies), bias: None }
    }

    fn vector(&self, name: String, n: usize, join: Join) -> Source {
        self.source(name, (n, 1), join)
    }

    fn source(&self, name: String, (rows, cols): (usize, usize), join: Join) -> Source {
        let ranks = self.checkpoint.ranks();
        let mut source = Source { name, rows, cols, pieces: Vec::new(), copies: Vec::new() };
        let whole = |name: &str| below(name, "", &(0..rows), cols);
        if ranks.is_empty() {
            source.pieces = vec![whole(&source.name)];
            return source;
        }
        let n = ranks.len();
        // A single shard is the whole, whatever `join` says.
        let join = if n == 1 { Join::Rows } else { join };
        for (index, rank) in ranks.iter().enumerate() {
            let name = format!("{rank}{}", source.name);
            match join {
                Join::Copies if index > 0 => source.copies.push(name),
                Join::Copies => source.pieces.push(whole(&name)),
                Join::Rows => source.pieces.push(below(&name, "", &share(rows, n, index), cols)),
                Join::Columns => {
                    let cols = share(cols, n, index);
                    source.pieces.push(Piece { cols, ..whole(&name) });
                }
                Join::Halves => {
                    let half = share(rows / 2, n, index);
                    for start in [0, rows / 2] {
                        let first = if start == 0 { 0 } else { half.len() };
                        let rows = start + half.start..start + half.end;
                        let piece = below(&name, "", &rows, cols);
                        source.pieces.push(Piece { height: 2 * half.len(), first, ..piece });
                    }
                }
            }
        }
        source
    }
}

/// Makes a matrix and its bias of parts one below the other, which published files have instead.
fn join_parts<const N: usize>(
    whole: &mut Part,
    layer: &str,
    names: [&str; N],
    rows: [Range<usize>; N],
) {
    let parts = |end, cols| {
        let parts = names.iter().zip(&rows);
        parts.map(move |(name, rows)| below(&format!("{layer}{name}"), end, rows, cols)).collect()
    };
    whole.weight.pieces = parts(".weight", whole.weight.cols);
    if let Some(bias) = &mut whole.bias {
        bias.pieces = parts(".bias", 1);
    }
}

/// All rows of a tensor, at `rows` of the whole.
fn below(name: &str, end: &str, rows: &Range<usize>, cols: usize) -> Piece {
    Piece {
        name: format!("{name}{end}"),
        height: rows.len(),
        first: 0,
        rows: rows.clone(),
        cols: 0..cols,
        is_transposed: false,
    }
}

/// The part of `0..whole` in shard `index` of `n`. The last shard gets the remainder; then the shapes do not match.
fn share(whole: usize, n: usize, index: usize) -> Range<usize> {
    let part = whole / n;
    index * part..if index + 1 == n { whole } else { (index + 1) * part }
}
