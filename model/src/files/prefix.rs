//! The trained prefix of P-Tuning v2: keys and values for every layer, which stand before those of the tokens.
//!
//! A prefix encoder is an embedding with a row for each position of the prefix. A row has, for each layer, the keys of all heads and
//! then their values. With a projection, the row is instead the input of two linear layers with tanh between them, and their output
//! has the keys and values.
//!
//! Source: `PrefixEncoder` and `get_prompt` in `modeling_chatglm.py` of THUDM/chatglm-6b and THUDM/chatglm2-6b.

use std::ops::Range;

use glm_kernels::{Activation, Isa, Output, Q8Rows, for_each_row};

use super::config::{Config, Dialect};
use super::fields::Fields;
use super::model_dir::{CONFIG, CONFIG_NAME, ModelDir};
use super::peft::named_base;
use super::weights::{Affine, Source, StoredLinear, StoredMatrix, StoredVector};
use crate::error::{Error, Result};
use crate::files::checkpoint::{Bytes, Checkpoint, Tensor};
use crate::limits::adapter::MAX_TOKENS;
use crate::memory::{room, zeros};
use crate::network::activations::Activations;
use crate::network::adapter::STEP;
use crate::network::layer::{Context, Linear, Weight};

/// What the names of its tensors begin with.
const NAME: &str = "transformer.prefix_encoder.";

/// The trained prefix of a model, as `config.json` describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainedPrefix {
    /// Positions of the prefix.
    pub tokens: usize,
    /// Whether two linear layers make keys and values from the embedding.
    pub projection: bool,
}

impl TrainedPrefix {
    /// Reads `pre_seq_len` and `prefix_projection`; `None` if there is no prefix.
    ///
    /// # Errors
    /// If a field is outside its range, or models with these names of tensors have no prefix.
    pub(crate) fn read(fields: &Fields, dialect: Dialect) -> Result<Option<Self>> {
        if !fields.has("pre_seq_len") {
            return Ok(None);
        }
        if !matches!(dialect, Dialect::ChatGlm | Dialect::ChatGlm2) {
            return Err(fields.error("pre_seq_len is not supported for this model"));
        }
        let tokens = fields.size("pre_seq_len", 1..=MAX_TOKENS)?;
        Ok(Some(Self { tokens, projection: fields.flag("prefix_projection", false)? }))
    }
}

/// Keys and values of a position in all layers.
fn width(config: &Config) -> usize {
    config.layers * layer_width(config)
}

/// Keys and values of a position in one layer.
fn layer_width(config: &Config) -> usize {
    2 * config.kv_heads * config.head_size
}

/// Whether a tensor belongs to a prefix encoder.
pub(crate) fn is_part(name: &str) -> bool {
    name.starts_with(NAME)
}

/// The error for a folder that is an adapter and no model; `None` if it is something else.
pub(crate) fn adapter_error(checkpoint: &Checkpoint) -> Option<Error> {
    if checkpoint.names().len() == 0 || !checkpoint.names().all(is_part) {
        return None;
    }
    let config = ModelDir::open(checkpoint.path()).and_then(|folder| folder.json(CONFIG));
    let base = named_base(&config.unwrap_or_default(), CONFIG_NAME);
    Some(Error::file(
        checkpoint.path(),
        format!(
            "is an adapter (P-Tuning v2) and has no model: open the model that it was trained for{base}, and pass this \
             folder to --adapter"
        ),
    ))
}

/// A prefix encoder in a checkpoint, its types and shapes checked.
pub(crate) struct StoredPrefix {
    tokens: usize,
    /// `[tokens, width]`
    embedding: StoredMatrix,
    projection: Option<[StoredLinear; 2]>,
}

impl StoredPrefix {
    /// Finds the prefix encoder `prefix` of a model like `config`.
    ///
    /// # Errors
    /// If a tensor is missing, of another type or of another shape.
    pub(crate) fn find(
        checkpoint: &Checkpoint,
        config: &Config,
        prefix: TrainedPrefix,
    ) -> Result<Self> {
        let TrainedPrefix { tokens, projection } = prefix;
        let name = format!("{NAME}embedding.weight");
        let Some(embedding) = checkpoint.get(&name) else {
            let problem = "is missing, and config.json says by pre_seq_len that the model has a trained prefix: remove \
                           pre_seq_len from it to use the model without one";
            return Err(Error::tensor(checkpoint.path(), &name, problem));
        };
        let rows = embedding.shape().first().copied().unwrap_or_default();
        if rows != tokens {
            let problem = format!("has {rows} rows, and pre_seq_len in config.json is {tokens}");
            return Err(embedding.error(problem));
        }
        let first = format!("{NAME}trans.0.weight");
        if let Some(first) = checkpoint.get(&first).filter(|_| !projection) {
            return Err(first.error("is there, and prefix_projection in config.json is not true"));
        }
        let (width, hidden) = (width(config), config.hidden);
        // The projection of ChatGLM-6B begins with a hidden state, and that of the later models with keys and values.
        let input = match (projection, config.dialect) {
            (true, Dialect::ChatGlm) => hidden,
            _ => width,
        };
        let fits = |name: &str, shape: [usize; 2]| match checkpoint.get(name) {
            Some(tensor) if tensor.shape() != shape => {
                let Config { architecture, layers, kv_heads, head_size, .. } = config;
                Err(tensor.error(format!(
                    "expected {shape:?} for {architecture} with {layers} layers of {kv_heads} heads of keys and values, of \
                     {head_size} elements each, found {:?}: it was trained for another model",
                    tensor.shape()
                )))
            }
            _ => Ok(()),
        };
        let matrix = |name: String, [rows, cols]: [usize; 2]| {
            fits(&name, [rows, cols])?;
            let source = Source::whole_tensor(name, rows, cols);
            let matrix = StoredMatrix::find(checkpoint, &source, None)?;
            match matrix.order() {
                Some(_) => {
                    Err(matrix.tensors()[0].error("has an order of columns, which no prefix has"))
                }
                None => Ok(matrix),
            }
        };
        let linear = |index: usize, [rows, cols]: [usize; 2]| {
            let name = |part| format!("{NAME}trans.{index}.{part}");
            let bias = Source::whole_tensor(name("bias"), rows, 1);
            Ok::<_, Error>(Affine {
                weight: matrix(name("weight"), [rows, cols])?,
                bias: Some(StoredVector::find(checkpoint, &bias)?),
            })
        };
        let embedding = matrix(name, [tokens, input])?;
        let projection = match projection {
            true => Some([linear(0, [hidden, input])?, linear(2, [width, hidden])?]),
            false => None,
        };
        Ok(Self { tokens, embedding, projection })
    }

    fn linears(&self) -> impl Iterator<Item = &StoredLinear> {
        self.projection.iter().flatten()
    }

    /// Its matrices.
    pub(crate) fn matrices(&self) -> impl Iterator<Item = &StoredMatrix> {
        [&self.embedding].into_iter().chain(self.linears().map(|linear| &linear.weight))
    }

    /// Tells the system that its mapped matrices will not be read soon.
    pub(crate) fn release(&self) {
        let tensors = self.matrices().flat_map(StoredMatrix::tensors);
        tensors.for_each(|tensor| tensor.data().release());
    }

    /// Its biases.
    pub(crate) fn vectors(&self) -> impl Iterator<Item = &StoredVector> {
        self.linears().filter_map(|linear| linear.bias.as_ref())
    }

    /// The bytes of all tensors.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Bytes> {
        let matrices = self.matrices().flat_map(StoredMatrix::parts);
        matrices.chain(self.vectors().flat_map(StoredVector::tensors).map(Tensor::data))
    }

    /// The names of all of them.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let vectors = self.vectors().map(|vector| vector.name.as_str());
        self.matrices().map(|matrix| matrix.name.as_str()).chain(vectors)
    }

    /// What [`PrefixEncoder::all_rows`] takes, if loading a matrix allocates `loaded` bytes.
    pub(crate) fn bytes(
        &self,
        config: &Config,
        loaded: &dyn Fn(&StoredMatrix) -> u64,
    ) -> PrefixBytes {
        let width = width(config);
        let row = match self.projection {
            Some(_) => self.embedding.size()[1] + config.hidden + width,
            None => width,
        };
        let weights = self.matrices().map(loaded).sum::<u64>();
        PrefixBytes {
            positions: self.tokens,
            rows: (4 * self.tokens * width) as u64,
            encoder: weights + (4 * self.tokens.min(STEP) * row) as u64,
        }
    }

    /// Loads all of it with `matrix` and `vector`.
    ///
    /// # Errors
    /// If a matrix or a vector cannot be loaded.
    pub(crate) fn load(
        &self,
        config: &Config,
        matrix: &dyn Fn(&StoredMatrix) -> Result<Weight>,
        vector: &dyn Fn(&StoredVector) -> Result<Vec<f32>>,
    ) -> Result<PrefixEncoder> {
        let load = |linear: &StoredLinear| {
            let bias = linear.bias.as_ref().map(vector).transpose()?;
            Ok(Linear { weight: matrix(&linear.weight)?, bias, activation: Activation::None })
        };
        let projection = match &self.projection {
            Some([first, second]) => Some([load(first)?, load(second)?]),
            None => None,
        };
        Ok(PrefixEncoder {
            tokens: self.tokens,
            width: width(config),
            embedding: matrix(&self.embedding)?,
            projection,
        })
    }
}

/// Memory of a prefix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PrefixBytes {
    /// Positions of the prefix.
    pub(crate) positions: usize,
    /// Bytes of the keys and values of all positions in all layers, as `f32`.
    pub(crate) rows: u64,
    /// Bytes for computing them: of weights, and of as many positions as are computed at a time.
    pub(crate) encoder: u64,
}

/// Keys and values of all positions of a prefix.
pub(crate) struct PrefixRows {
    /// Positions of the prefix.
    pub(crate) tokens: usize,
    /// Keys and values of a position in all layers.
    pub(crate) width: usize,
    /// `[tokens, layers, 2, heads, head size]`
    pub(crate) rows: Vec<f32>,
}

/// The weights that keys and values of a prefix are computed from.
pub(crate) struct PrefixEncoder {
    /// Positions of the prefix.
    pub(crate) tokens: usize,
    /// Keys and values of a position in all layers.
    pub(crate) width: usize,
    /// `[tokens, inputs]`
    embedding: Weight,
    projection: Option<[Linear; 2]>,
}

impl PrefixEncoder {
    /// Keys and values of all positions, on the threads of the current pool.
    ///
    /// # Errors
    /// If the memory cannot be allocated.
    pub(crate) fn all_rows(&self, isa: Isa) -> Result<PrefixRows> {
        let Self { tokens, width, .. } = *self;
        let mut rows = room(tokens * width, NAME)?;
        for first in (0..tokens).step_by(STEP) {
            rows.extend(self.rows(isa, first..(first + STEP).min(tokens))?);
        }
        Ok(PrefixRows { tokens, width, rows })
    }

    /// Keys and values of some positions, `[positions, layers, 2, heads, head size]`, on the threads of the current pool.
    ///
    /// # Errors
    /// If the memory cannot be allocated.
    pub(crate) fn rows(&self, isa: Isa, positions: Range<usize>) -> Result<Vec<f32>> {
        let embedding = self.embedding.matrix();
        let mut rows = zeros(positions.len() * embedding.cols(), NAME)?;
        for_each_row(&mut rows, embedding.cols(), |i, row| embedding.row(positions.start + i, row));
        let Some([first, second]) = &self.projection else { return Ok(rows) };
        let quantized = &mut Q8Rows::default();
        let (activations, ordered, updates) = (Activations::F32, &mut [][..], None);
        let mut context = Context { isa, activations, quantized, ordered, updates };
        let hidden_size = second.weight.cols();
        let mut hidden = zeros(positions.len() * hidden_size, NAME)?;
        first.forward(&mut context, &rows, Output::Store, &mut hidden);
        for_each_row(&mut hidden, hidden_size, |_, row| {
            row.iter_mut().for_each(|x| *x = libm::tanhf(*x));
        });
        let mut out = zeros(positions.len() * self.width, NAME)?;
        second.forward(&mut context, &hidden, Output::Store, &mut out);
        Ok(out)
    }
}
