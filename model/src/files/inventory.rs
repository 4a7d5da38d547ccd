//! The matrices of a model: shapes, formats and sizes, found without loading the weights.

use std::collections::BTreeMap;

use crate::calibrate::CalibrationInfo;
use crate::files::config::Config;
use crate::files::weights::{StoredMatrix, StoredNetwork};
use crate::network::activations::Activations;
use crate::network::kv::KvFormat;
use crate::network::layer::LinearRole;
use crate::network::workspace::Workspace;

/// A kind of matrix in a model.
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
    /// Bytes of all of them once they are loaded.
    pub bytes: u64,
}

/// All matrices of a model.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Inventory {
    /// Sizes and kinds.
    pub config: Config,
    /// Every kind of matrix; one entry stands for all layers.
    pub matrices: Vec<MatrixInfo>,
    /// Bytes that loading copies into memory, because they are not stored in the kernels' layout.
    pub copied_bytes: u64,
    /// Bytes of weights that are read for every generated token.
    pub bytes_per_token: u64,
    /// Whether the layers have quantized matrices that the kernels can use.
    pub is_quantized: bool,
    /// Whether the embedding is also the head.
    pub is_head_tied: bool,
    /// The texts that the matrices were quantized for, if there were any.
    pub calibration: Option<CalibrationInfo>,
}

impl Inventory {
    /// The inventory of the tensors that were found for `config`.
    pub(crate) fn new(
        config: Config,
        network: &StoredNetwork,
        metadata: &BTreeMap<String, String>,
    ) -> Self {
        let mut list = List { matrices: Vec::new(), copied: 0 };
        let embedding = list.add("word embeddings", [&network.embedding]);
        let positions = network.positions.iter().flatten();
        for (name, table) in ["positions", "block positions"].into_iter().zip(positions) {
            list.add(name, [table]);
        }
        let first_byte = |matrix: &StoredMatrix| matrix.tensors()[0].bytes().as_ptr();
        let is_head_tied = network
            .head
            .as_ref()
            .is_none_or(|head| first_byte(&head.weight) == first_byte(&network.embedding));
        let mut bytes_per_token = if is_head_tied { embedding } else { 0 };
        for role in LinearRole::ALL {
            if role == LinearRole::Head && is_head_tied {
                continue;
            }
            let linears = network.linears().filter(|(other, _)| *other == role);
            bytes_per_token += list.add(role.name(), linears.map(|(_, linear)| &linear.weight));
        }
        let is_quantized = network
            .linears()
            .any(|(role, linear)| role == LinearRole::Qkv && linear.weight.shape().is_some());
        Self {
            config,
            matrices: list.matrices,
            copied_bytes: list.copied,
            bytes_per_token,
            is_quantized,
            is_head_tied,
            calibration: CalibrationInfo::read(metadata),
        }
    }

    /// Multiplications with weights by which a prompt of `tokens`, at least one, is read for the logits of the last:
    /// [`Model::run`](crate::Model::run).
    pub fn prefill_products(&self, tokens: usize) -> u64 {
        let config = &self.config;
        let (hidden, width) = (config.hidden, config.attention_width());
        let (layers, tokens) = (config.layers as u64, tokens as u64);
        let qkv = (hidden * config.qkv_rows()) as u64;
        let rest = (hidden * (width + config.up_rows() + config.intermediate_size)) as u64;
        let head = (hidden * config.vocab) as u64;
        tokens * layers * qkv + (tokens * (layers - 1) + 1) * rest + head
    }

    /// Bytes of all matrices.
    pub fn bytes(&self) -> u64 {
        self.matrices.iter().map(|matrix| matrix.bytes).sum()
    }

    /// Weights of all matrices.
    pub fn parameters(&self) -> u64 {
        let weights = |matrix: &MatrixInfo| {
            matrix.shape.iter().product::<usize>() as u64 * matrix.count as u64
        };
        self.matrices.iter().map(weights).sum()
    }

    /// The default type of the activations: 8-bit if there are quantized matrices.
    pub fn activations(&self) -> Activations {
        if self.is_quantized { Activations::Int8 } else { Activations::F32 }
    }

    /// Bytes that a context of `capacity` tokens takes when it is full: keys and values of the default type, and the workspace.
    pub fn context_bytes(&self, capacity: usize) -> (u64, u64) {
        let kv = KvFormat::of(self.activations());
        (kv.bytes(&self.config, capacity), Workspace::bytes(&self.config, capacity))
    }
}

struct List {
    matrices: Vec<MatrixInfo>,
    copied: u64,
}

impl List {
    /// Adds the matrices of one kind; returns the bytes of all of them.
    fn add<'a>(
        &mut self,
        name: &'static str,
        matrices: impl IntoIterator<Item = &'a StoredMatrix>,
    ) -> u64 {
        let mut info: Option<MatrixInfo> = None;
        for matrix in matrices {
            let bytes = matrix.loaded_bytes();
            if matrix.is_copied() {
                self.copied += bytes;
            }
            let (shape, format) = (matrix.size(), matrix.format());
            let info = info.get_or_insert(MatrixInfo { name, count: 0, shape, format, bytes: 0 });
            info.count += 1;
            info.bytes += bytes;
        }
        let bytes = info.as_ref().map_or(0, |info| info.bytes);
        self.matrices.extend(info);
        bytes
    }
}
