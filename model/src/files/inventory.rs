//! The matrices of a model: shapes, formats and sizes, found without loading the weights.

use std::collections::BTreeMap;

use glm_kernels::LANES;

use crate::calibrate::CalibrationInfo;
use crate::files::config::{Config, Experts};
use crate::files::weights::{Resolved, StoredMatrix, TARGET_BITS_KEY};
use crate::network::activations::Activations;
use crate::network::kv::KvFormat;
use crate::network::layer::LinearRole;
use crate::network::workspace::Workspace;

/// A kind of matrix in a model, in one format.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MatrixInfo {
    /// What the matrix is, for people.
    pub name: &'static str,
    /// The number of such matrices.
    pub count: usize,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// The format of the weights, for people.
    pub format: String,
    /// Whether it is quantized.
    pub is_quantized: bool,
    /// Bytes of all of them once they are loaded.
    pub bytes: u64,
}

impl MatrixInfo {
    /// Weights of all of them.
    pub fn weights(&self) -> u64 {
        self.shape.iter().product::<usize>() as u64 * self.count as u64
    }
}

/// All matrices of a model.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Inventory {
    /// Sizes and kinds.
    pub config: Config,
    /// Every kind of matrix; one entry stands for all layers in which it has the same format.
    pub matrices: Vec<MatrixInfo>,
    /// Bytes that loading copies into memory, because they are not stored in the kernels' layout; of a model that was opened with
    /// [`no_mmap`](crate::Options::no_mmap), all.
    pub copied_bytes: u64,
    /// Bytes of weights that are read for every generated token.
    pub bytes_per_token: u64,
    /// Bytes of all experts of which some are chosen for each token. All other weights are read for every token, but for tables.
    pub expert_bytes: u64,
    /// Whether the layers have quantized matrices that the kernels can use.
    pub is_quantized: bool,
    /// Whether the embedding is also the head.
    pub is_head_tied: bool,
    /// Whether the files have a layer behind the last one that predicts a further token (multi-token prediction). It is left out.
    pub has_prediction_layer: bool,
    /// The texts that the matrices were quantized for, if there were any.
    pub calibration: Option<CalibrationInfo>,
    /// The bits of a weight that were asked for, if the formats of the matrices were chosen for them.
    pub target_bits: Option<f64>,
    /// The parts of mapped tables.
    lookups: Vec<Lookup>,
    /// The largest input width of a linear layer with columns in an order of their own; 0 if there is none.
    pub(crate) ordered_inputs: usize,
}

impl Inventory {
    /// The inventory of the tensors that were found for `config`.
    pub(crate) fn new(
        config: Config,
        resolved: &Resolved,
        metadata: &BTreeMap<String, String>,
    ) -> Self {
        let Resolved { network, has_prediction_layer, .. } = resolved;
        let mut list = List { matrices: Vec::new(), copied: 0 };
        let mut lookups = Vec::new();
        let embedding = list.add("word embeddings", [&network.embedding]);
        let positions = network.positions.iter().flatten();
        for (name, table) in ["positions", "block positions"].into_iter().zip(positions) {
            list.add(name, [table]);
        }
        let is_head_tied = network.is_head_tied();
        network.lookup_tables().for_each(|table| Lookup::add(table, &mut lookups));
        let mut bytes_per_token = if is_head_tied { embedding } else { 0 };
        let mut expert_bytes = 0;
        for role in LinearRole::ALL {
            if role == LinearRole::Head && is_head_tied {
                continue;
            }
            let linears = network.linears().filter(|(other, _)| *other == role);
            let bytes = list.add(role.name(), linears.map(|(_, linear)| &linear.weight));
            bytes_per_token += match (role, &config.experts) {
                (LinearRole::ExpertUp | LinearRole::ExpertDown, Some(experts)) => {
                    expert_bytes += bytes;
                    bytes / experts.count as u64 * experts.used as u64
                }
                _ => bytes,
            };
        }
        let is_quantized = network
            .linears()
            .any(|(role, linear)| role == LinearRole::Qkv && linear.weight.shape().is_some());
        Self {
            config,
            matrices: list.matrices,
            copied_bytes: list.copied,
            bytes_per_token,
            expert_bytes,
            is_quantized,
            is_head_tied,
            has_prediction_layer: *has_prediction_layer,
            calibration: CalibrationInfo::read(metadata),
            target_bits: metadata.get(TARGET_BITS_KEY).and_then(|bits| bits.parse().ok()),
            lookups,
            ordered_inputs: network.ordered_inputs(),
        }
    }

    /// Bytes of weights that a pass over `tokens` tokens reads on average, if they are unrelated and every expert is chosen equally often.
    /// An expert that several tokens have is read once. Tokens that are alike have more in common, and read less.
    pub fn bytes_of_pass(&self, tokens: usize) -> u64 {
        let Some(Experts { count, used, .. }) = self.config.experts else {
            return self.bytes_per_token;
        };
        let share = used as f64 / count as f64;
        let read = |tokens: f64| {
            let chosen = 1.0 - (1.0 - share).powf(tokens);
            (self.expert_bytes as f64 * chosen).round() as u64
        };
        self.bytes_per_token.saturating_sub(read(1.0)) + read(tokens as f64)
    }

    /// Bytes of matrices that are read in mapped files.
    pub fn mapped_bytes(&self) -> u64 {
        self.bytes().saturating_sub(self.copied_bytes)
    }

    /// Multiplications with weights by which a prompt of `tokens`, at least one, is read for the logits of the last:
    /// [`Model::run`](crate::Model::run).
    pub fn prefill_products(&self, tokens: usize) -> u64 {
        let (config, tokens) = (&self.config, tokens as u64);
        let layers = (0..config.layers).map(|index| {
            let [first, rest] = products(config, index);
            // Of the last layer, all but queries, keys and values is computed for the last token only.
            let wanted = if index + 1 == config.layers { 1 } else { tokens };
            tokens * first + wanted * rest
        });
        layers.sum::<u64>() + (config.hidden * config.vocab) as u64
    }

    /// Bytes of all matrices.
    pub fn bytes(&self) -> u64 {
        self.matrices.iter().map(|matrix| matrix.bytes).sum()
    }

    /// Bytes of mapped tables, such as the word embeddings: only the rows of tokens that occur are read. 0 where the embedding is also the
    /// head, and is read as a whole.
    pub fn table_bytes(&self) -> u64 {
        self.lookups.iter().map(|part| part.bytes).sum()
    }

    /// Bytes of weights that are in memory once a context of `capacity` tokens is full: all of them, but of mapped tables at most the rows of
    /// as many tokens, with what the system reads around each.
    pub fn resident_bytes(&self, capacity: usize) -> u64 {
        let read = |part: &Lookup| part.bytes.min(part.of_token.saturating_mul(capacity as u64));
        self.bytes() - self.table_bytes() + self.lookups.iter().map(read).sum::<u64>()
    }

    /// Weights of all matrices.
    pub fn parameters(&self) -> u64 {
        self.matrices.iter().map(MatrixInfo::weights).sum()
    }

    /// Bits of a weight of the quantized matrices on average, with scales and minima; `None` if there are no such matrices.
    pub fn bits_per_weight(&self) -> Option<f64> {
        let quantized = || self.matrices.iter().filter(|matrix| matrix.is_quantized);
        let bytes: u64 = quantized().map(|matrix| matrix.bytes).sum();
        let weights: u64 = quantized().map(MatrixInfo::weights).sum();
        (weights > 0).then(|| bytes as f64 * 8.0 / weights as f64)
    }

    /// The default type of the activations: 8-bit if there are quantized matrices.
    pub fn activations(&self) -> Activations {
        if self.is_quantized { Activations::Int8 } else { Activations::F32 }
    }

    /// Bytes that a context of `capacity` tokens takes when it is full: keys and values of the default type, also of a trained prefix of
    /// the model, and the workspace.
    pub fn context_bytes(&self, capacity: usize) -> (u64, u64) {
        let kv = KvFormat::of(self.activations(), &self.config);
        let prefix = self.config.prefix.map_or(0, |prefix| prefix.tokens);
        let cache = kv.bytes(&self.config, capacity.saturating_add(prefix));
        (cache, Workspace::bytes(&self.config, capacity, self.ordered_inputs))
    }
}

/// Multiplications with the weights of a layer for a token: for its query, key and value, and for all else.
fn products(config: &Config, index: usize) -> [u64; 2] {
    let (hidden, heads, width) = (config.hidden, config.heads, config.attention_width());
    let (mut first, mut rest) = (hidden * config.qkv_rows(), hidden * width);
    if let Some(latent) = config.latent {
        let rank = latent.rank;
        first += latent.query_rank.map_or(0, |rank| heads * latent.query_dim() * rank);
        first += heads * rank * latent.plain_dim;
        rest += heads * latent.value_dim * rank;
    }
    rest += match config.experts_of(index) {
        None => hidden * (config.up_rows() + config.intermediate_size),
        Some(experts) => {
            let inner = experts.used * experts.intermediate_size + experts.shared_size;
            hidden * (experts.count + 3 * inner)
        }
    };
    [first as u64, rest as u64]
}

/// Bytes that a system reads around the ones that are touched: Linux maps as much of a cached file at a time.
const READ_AROUND: u64 = 64 << 10;

/// A part of a mapped table: its numbers, or its scales.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Lookup {
    bytes: u64,
    /// Bytes that are read for a token.
    of_token: u64,
}

impl Lookup {
    fn add(table: &StoredMatrix, parts: &mut Vec<Self>) {
        let mut add = |bytes: usize, of_row: usize| {
            let of_token = of_row as u64 + READ_AROUND;
            parts.push(Self { bytes: bytes as u64, of_token });
        };
        match table.shape() {
            // A row lies among the others of its panel.
            Some(shape) => {
                add(shape.bytes(), shape.panel_bytes());
                add(2 * shape.scales(), 2 * LANES * shape.row_scales());
            }
            None => {
                let bytes = table.loaded_bytes() as usize;
                add(bytes, bytes / table.size()[0].max(1));
            }
        }
    }
}

struct List {
    matrices: Vec<MatrixInfo>,
    copied: u64,
}

impl List {
    /// Adds the matrices of one kind, those of each format by themselves; returns the bytes of all of them.
    fn add<'a>(
        &mut self,
        name: &'static str,
        matrices: impl IntoIterator<Item = &'a StoredMatrix>,
    ) -> u64 {
        let first = self.matrices.len();
        for matrix in matrices {
            let bytes = matrix.loaded_bytes();
            if matrix.is_copied() {
                self.copied += bytes;
            }
            let (shape, format) = (matrix.size(), matrix.format());
            let mut same = self.matrices[first..].iter_mut();
            match same.find(|info| info.shape == shape && info.format == format) {
                Some(info) => {
                    info.count += 1;
                    info.bytes += bytes;
                }
                None => {
                    let is_quantized = matrix.shape().is_some();
                    let info = MatrixInfo { name, count: 1, shape, format, is_quantized, bytes };
                    self.matrices.push(info);
                }
            }
        }
        self.matrices[first..].iter().map(|info| info.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::READ_AROUND;
    use crate::files::model_files::ModelFiles;

    #[test]
    fn of_a_table_only_the_rows_of_tokens_that_occur_are_in_memory() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/chatglm-6b-tiny");
        let files = ModelFiles::open(models.join("int4")).unwrap();
        let inventory = files.inventory();
        let (all, hidden) = (inventory.bytes(), inventory.config.hidden as u64);
        // An embedding of F16 that is not the head.
        let table = 2 * hidden * inventory.config.vocab as u64;
        assert_eq!((inventory.is_head_tied, inventory.table_bytes()), (false, table));
        assert_eq!(inventory.resident_bytes(0), all - table);
        assert_eq!(inventory.resident_bytes(1), all - table + 2 * hidden + READ_AROUND);
        assert_eq!(inventory.resident_bytes(2048), all);
    }
}
