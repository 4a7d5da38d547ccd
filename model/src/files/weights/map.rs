//! The tensors of a model: every matrix and vector, with its size and the pieces it may be published in.

use std::ops::Range;

use super::Affine;
use super::names::{Names, names};
use crate::files::checkpoint::Checkpoint;
use crate::files::config::{Config, Norm, Rope};
use crate::files::packed::integers_of;
use crate::network::layer::{Attention, FeedForward, Layer, Network};

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
}

impl Map {
    /// The sources of the model `config`. Shards, a prefix of the names and whether there is a head are those of `checkpoint`.
    pub(crate) fn new(config: &Config, checkpoint: &Checkpoint) -> Self {
        Builder { config, checkpoint, names: names(config.dialect) }.map()
    }

    /// All matrices.
    pub(crate) fn matrices(&self) -> impl Iterator<Item = &Source> {
        self.network.tables().chain(self.network.linears().map(|(_, linear)| &linear.weight))
    }

    /// All vectors.
    pub(crate) fn vectors(&self) -> impl Iterator<Item = &Source> {
        let biases = self.network.linears().filter_map(|(_, linear)| linear.bias.as_ref());
        let norms = self.network.norms().flat_map(|norm| [Some(&norm.weight), norm.bias.as_ref()]);
        biases.chain(norms.flatten())
    }
}

struct Builder<'a> {
    config: &'a Config,
    checkpoint: &'a Checkpoint,
    names: &'static Names,
}

impl Builder<'_> {
    fn map(&self) -> Map {
        let (config, names) = (self.config, self.names);
        let prefix = &*self.prefix();
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
                .map(|index| self.layer(&format!("{prefix}{}.{index}.", names.layers)))
                .collect(),
            final_norm: self.norm(format!("{prefix}{}", names.final_norm)),
            head: head.filter(|head| !config.tied_head || is_head_there(head)),
        };
        Map { network }
    }

    /// What all names of the checkpoint begin with: nothing, or what the program put there that trained or wrapped the model.
    fn prefix(&self) -> String {
        const PARTS: [&str; 4] = ["module", "base_model", "model", "glm"];
        let embedding = format!("{}.weight", self.names.embedding);
        let prefixes = self.checkpoint.names().filter_map(|name| name.strip_suffix(&*embedding));
        let known = prefixes.filter(|prefix| {
            let parts = prefix.strip_suffix('.').unwrap_or(prefix);
            prefix.is_empty()
                || prefix.ends_with('.') && parts.split('.').all(|part| PARTS.contains(&part))
        });
        known.min_by_key(|prefix| prefix.len()).unwrap_or_default().to_owned()
    }

    fn layer(&self, layer: &str) -> Layer<Part, Part> {
        let (config, names) = (self.config, self.names);
        let (hidden, width) = (config.hidden, config.attention_width());
        let up = if config.mlp.is_gated() { Join::Halves } else { Join::Rows };
        let linear =
            |name, shape, bias, join| self.linear(format!("{layer}{name}"), shape, bias, join);
        let norm = |name| self.norm(format!("{layer}{name}"));
        let output_norm = |name| config.output_norms.then(|| norm(name));
        let mut qkv = linear(names.qkv, (config.qkv_rows(), hidden), config.qkv_bias, Join::Rows);
        if let Some(apart) = names.apart {
            let kv = config.kv_heads * config.head_size;
            let [q, k, v] = apart.map(|name| format!("{layer}{name}"));
            let apart = [(q, 0..width), (k, width..width + kv), (v, width + kv..width + 2 * kv)];
            qkv.weight.pieces =
                apart.iter().map(|(name, rows)| below(name, ".weight", rows, hidden)).collect();
            if let Some(bias) = &mut qkv.bias {
                bias.pieces =
                    apart.iter().map(|(name, rows)| below(name, ".bias", rows, 1)).collect();
            }
        }
        let output =
            linear(names.attention_output, (hidden, width), config.linear_bias, Join::Columns);
        let down = linear(
            names.down,
            (hidden, config.intermediate_size),
            config.linear_bias,
            Join::Columns,
        );
        Layer {
            attention_norm: norm(names.attention_norm),
            attention: Attention::Grouped { qkv, output },
            attention_output_norm: output_norm(names.attention_output_norm),
            feed_forward_norm: norm(names.feed_forward_norm),
            feed_forward: FeedForward::Dense {
                up: linear(names.up, (config.up_rows(), hidden), config.linear_bias, up),
                down,
            },
            feed_forward_output_norm: output_norm(names.feed_forward_output_norm),
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

/// All rows of a tensor, at `rows` of the whole.
fn below(name: &str, end: &str, rows: &Range<usize>, cols: usize) -> Piece {
    Piece {
        name: format!("{name}{end}"),
        height: rows.len(),
        first: 0,
        rows: rows.clone(),
        cols: 0..cols,
    }
}

/// The part of `0..whole` in shard `index` of `n`. The last shard gets the remainder; then the shapes do not match.
fn share(whole: usize, n: usize, index: usize) -> Range<usize> {
    let part = whole / n;
    index * part..if index + 1 == n { whole } else { (index + 1) * part }
}
