//! Named tensors → layers.
//!
//! [`names`] has a table of tensor names for each dialect; no other module knows names. A [`Config`] and a table give a [`Map`]: the
//! source of every tensor of the model. [`resolve`] finds the sources in a checkpoint, once, and checks the checkpoint as a whole.
//! Loading, quantizing and the inventory start from the result, a [`StoredNetwork`].

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use glm_kernels::Activation;
use half::{bf16, f16};

use crate::error::{Error, Result};
use crate::files::checkpoint::{Bytes, Checkpoint, Dtype, Tensor, is_buffer};
use crate::files::config::{self, Config, Mlp};
use crate::files::packed::{Packing, integers_of};
use crate::files::prefix::{self, StoredPrefix};
use crate::network::layer::{
    Convert, Linear, LinearRole, Network, Norm, NormRole, Weight, Weights,
};

mod experts;
mod low_rank;
mod map;
mod names;
mod piece;
mod stored;
mod vector;

pub(crate) use low_rank::LowRankRows;
pub(crate) use map::{Map, Source};
pub use stored::GROUPS;
pub(crate) use stored::{
    Groups, LAYOUT_KEY, StoredMatrix, TARGET_BITS_KEY, layout_metadata, order_name, panel_shape,
    scale_name, scale_shape,
};
pub(crate) use vector::StoredVector;

/// Types of weights that are not quantized.
pub(crate) const PLAIN: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];

/// What stands for a linear layer or a norm before it is loaded: a weight `W`, and a bias `B` if the model has one.
pub(crate) struct Affine<W, B> {
    pub(crate) weight: W,
    pub(crate) bias: Option<B>,
}

pub(crate) type StoredLinear = Affine<StoredMatrix, StoredVector>;
pub(crate) type StoredNorm = Affine<StoredVector, StoredVector>;

impl StoredLinear {
    /// The names of the matrix and of the bias.
    fn names(&self) -> impl Iterator<Item = &str> {
        [&self.weight.name]
            .into_iter()
            .chain(self.bias.iter().map(|bias| &bias.name))
            .map(|it| &**it)
    }
}

impl StoredNorm {
    /// The names of the weights and of the bias.
    pub(crate) fn vectors(&self) -> impl Iterator<Item = &str> {
        [&self.weight].into_iter().chain(&self.bias).map(|vector| &*vector.name)
    }
}

/// The tensors of a model in a checkpoint, found and checked.
pub(crate) type StoredNetwork = Network<StoredMatrix, StoredLinear, StoredNorm>;

impl StoredNetwork {
    /// All matrices.
    pub(crate) fn matrices(&self) -> impl Iterator<Item = &StoredMatrix> {
        self.tables().chain(self.linears().map(|(_, linear)| &linear.weight))
    }

    /// Whether the embedding is also the head.
    pub(crate) fn is_head_tied(&self) -> bool {
        let first_byte = |matrix: &StoredMatrix| matrix.tensors()[0].bytes().as_ptr();
        let own = self.head.as_ref();
        own.is_none_or(|head| first_byte(&head.weight) == first_byte(&self.embedding))
    }

    /// The mapped tables of which only the rows of tokens that occur are read. An embedding that is also the head is read as a whole.
    pub(crate) fn lookup_tables(&self) -> impl Iterator<Item = &StoredMatrix> {
        let tied = self.is_head_tied().then_some(&*self.embedding.name);
        let tables = self.tables().filter(move |table| Some(&*table.name) != tied);
        tables.filter(|table| !table.is_copied())
    }

    /// The largest input width of a linear layer with columns in an order of their own; 0 if there is none.
    pub(crate) fn ordered_inputs(&self) -> usize {
        let ordered = self.linears().filter(|(_, linear)| linear.weight.order().is_some());
        ordered.map(|(_, linear)| linear.weight.size()[1]).max().unwrap_or(0)
    }

    /// The bytes of all tensors.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Bytes> {
        let matrices = self.matrices().flat_map(StoredMatrix::parts);
        matrices.chain(self.vectors().flat_map(StoredVector::tensors).map(Tensor::data))
    }

    /// All vectors.
    pub(crate) fn vectors(&self) -> impl Iterator<Item = &StoredVector> {
        let biases = self.linears().filter_map(|(_, linear)| linear.bias.as_ref());
        let norms = self.norms().flat_map(|norm| [Some(&norm.weight), norm.bias.as_ref()]);
        biases.chain(norms.flatten())
    }

    /// The place of each matrix and vector in the order of the forward pass, by name.
    pub(crate) fn order(&self) -> HashMap<&str, usize> {
        let tables = self.tables().map(|table| table.name.as_str());
        let layers = self.layers.iter().flat_map(|layer| {
            let norms = layer.norms().flat_map(StoredNorm::vectors);
            norms.chain(layer.linears().flat_map(|(_, linear)| linear.names()))
        });
        let end = self.final_norm.vectors().chain(self.head.iter().flat_map(StoredLinear::names));
        tables.chain(layers).chain(end).enumerate().map(|(place, name)| (name, place)).collect()
    }

    /// Head and embedding, if they are plain, of the same type, and `config.json` allows a checkpoint without a head. If they are also
    /// equal, the head need not be written.
    pub(crate) fn head_like_embedding(&self, config: &Config) -> Option<TwoTensors<'_>> {
        let stored = &self.head.as_ref()?.weight;
        let (head, embedding) = (stored.plain()?, self.embedding.plain()?);
        let alike = head.dtype() == embedding.dtype() && head.shape() == embedding.shape();
        let both = TwoTensors { name: &stored.name, tensors: [head, embedding] };
        (config.tied_head && alike).then_some(both)
    }

    /// Checks that no two tensors share bytes. Embedding and head may. Many tensors of the same bytes would take many times the
    /// memory of the file.
    fn check_apart(&self) -> Result<()> {
        let matrices = self.matrices().flat_map(StoredMatrix::tensors);
        let tensors = matrices.chain(self.vectors().flat_map(StoredVector::tensors));
        check_apart(tensors, |tensor: &Tensor| {
            let head = self.head.iter().map(|head| &head.weight);
            head.chain([&self.embedding]).any(|table| table.name == tensor.name())
        })
    }
}

/// Checks that no two tensors share bytes, unless both may, and the bytes are all of both.
pub(crate) fn check_apart<'a>(
    tensors: impl Iterator<Item = &'a Tensor>,
    may_be_shared: impl Fn(&Tensor) -> bool,
) -> Result<()> {
    let mut ranges: Vec<_> =
        tensors.map(|tensor| (tensor.bytes().as_ptr_range(), tensor)).collect();
    ranges.sort_by_key(|(range, _)| range.start);
    for pair in ranges.windows(2) {
        let [(first, a), (second, b)] = pair else { continue };
        // A matrix may be rows of a tensor of which another matrix is other rows.
        let is_same = a.name() == b.name();
        let may_share = first == second && (is_same || may_be_shared(a) && may_be_shared(b));
        if second.start < first.end && !may_share {
            return Err(b.error(format!("shares its bytes with {}", a.name())));
        }
    }
    Ok(())
}

/// The result of [`StoredNetwork::head_like_embedding`].
pub(crate) struct TwoTensors<'a> {
    /// The name of the first.
    pub(crate) name: &'a str,
    pub(crate) tensors: [&'a Tensor; 2],
}

impl TwoTensors<'_> {
    /// Compares the weights.
    pub(crate) fn are_equal(&self) -> bool {
        let [a, b] = self.tensors;
        a.bytes() == b.bytes()
    }
}

/// What [`resolve`] finds.
pub(crate) struct Resolved {
    pub(crate) network: StoredNetwork,
    /// The trained prefix, if `config.json` says that there is one.
    pub(crate) prefix: Option<StoredPrefix>,
    /// Bytes of the tensors that belong to a part of the model that this program does not read.
    pub(crate) left_out_bytes: u64,
    /// Whether a layer is left out that predicts a further token.
    pub(crate) has_prediction_layer: bool,
}

/// Finds the tensors of a model in `checkpoint`.
///
/// # Errors
/// At a tensor that is missing, misshapen, of a type that is not read, or not part of the model, and if tensors share bytes.
pub(crate) fn resolve(config: &Config, checkpoint: &Checkpoint) -> Result<Resolved> {
    if let Some(error) = prefix::adapter_error(checkpoint) {
        return Err(error);
    }
    let split = experts::split_joined(config, checkpoint)?;
    let checkpoint = split.as_ref().unwrap_or(checkpoint);
    let map = Map::new(config, checkpoint);
    let network =
        map.network.try_map(&mut Resolve { checkpoint, packing: config.packing.as_ref() })?;
    network.check_apart()?;
    let find = |prefix| StoredPrefix::find(checkpoint, config, prefix);
    let trained = config.prefix.map(find).transpose()?;
    let copies = map.vectors().flat_map(|source| &source.copies);
    let mut known: BTreeSet<_> = copies.map(String::as_str).collect();
    let of_prefix = || trained.iter().flat_map(StoredPrefix::matrices);
    for matrix in network.matrices().chain(of_prefix()) {
        known.extend(matrix.tensors().iter().map(|tensor| tensor.name()));
        known.extend(matrix.companions().iter().map(|tensor| tensor.name()));
    }
    let of_prefix = trained.iter().flat_map(StoredPrefix::vectors);
    for vector in network.vectors().chain(of_prefix) {
        known.extend(vector.tensors().iter().map(|tensor| tensor.name()));
    }
    let is_known = |name: &str| {
        known.contains(name)
            || is_buffer(name)
            || map.is_left_out(name)
            || is_empty_bias(checkpoint, name)
    };
    if let Some(name) = checkpoint.names().find(|name| !is_known(name)) {
        let Config { architecture, layers, .. } = config;
        if prefix::is_part(name) {
            let problem = "belongs to a trained prefix (P-Tuning v2), and config.json has no pre_seq_len: add that of the \
                           training";
            return Err(checkpoint.tensor(name)?.error(problem));
        }
        return Err(checkpoint.tensor(name)?.error(format!(
            "is no part of {architecture} with the {layers} layers that config.json says"
        )));
    }
    let left_out = checkpoint.names().filter(|name| map.is_left_out(name));
    let left_out = left_out.filter_map(|name| checkpoint.get(name));
    let left_out_bytes =
        left_out.fold(0, |sum: u64, tensor| sum.saturating_add(tensor.bytes().len() as u64));
    let has_prediction_layer = map.has_prediction_layer;
    Ok(Resolved { network, prefix: trained, left_out_bytes, has_prediction_layer })
}

/// Whether a tensor is a bias of zeros of a packed layer. Some programs give one to every layer.
fn is_empty_bias(checkpoint: &Checkpoint, name: &str) -> bool {
    let layer = name.strip_suffix(".bias");
    let is_packed = layer.is_some_and(|layer| integers_of(checkpoint, layer).is_some());
    is_packed && checkpoint.get(name).is_some_and(|bias| bias.bytes().iter().all(|&byte| byte == 0))
}

/// Sources → stored tensors.
struct Resolve<'c> {
    checkpoint: &'c Checkpoint,
    packing: Option<&'c Packing>,
}

impl Resolve<'_> {
    fn vector(&self, source: Option<&Source>) -> Result<Option<StoredVector>> {
        source.map(|source| StoredVector::find(self.checkpoint, source)).transpose()
    }
}

impl<'a> Convert<'a, Source, Affine<Source, Source>, Affine<Source, Source>> for Resolve<'_> {
    type Table = StoredMatrix;
    type Linear = StoredLinear;
    type Norm = StoredNorm;
    type Error = Error;

    fn table(&mut self, table: &'a Source) -> Result<StoredMatrix> {
        let table = StoredMatrix::find(self.checkpoint, table, self.packing)?;
        match table.order() {
            // Its rows are read as they are.
            Some(_) => Err(table.tensors()[0].error("is a table with an order of columns")),
            None => Ok(table),
        }
    }

    fn linear(
        &mut self,
        role: LinearRole,
        linear: &'a Affine<Source, Source>,
    ) -> Result<StoredLinear> {
        let weight = StoredMatrix::find(self.checkpoint, &linear.weight, self.packing)?;
        if weight.order().is_some() && role.is_computed_with_others() {
            let problem = "has its columns in an order (desc_act or actorder), which is not supported for experts and for \
                           parts of latent attention: take a model without it";
            return Err(weight.tensors()[0].error(problem));
        }
        Ok(Affine { weight, bias: self.vector(linear.bias.as_ref())? })
    }

    fn norm(&mut self, _: NormRole, norm: &'a Affine<Source, Source>) -> Result<StoredNorm> {
        let weight = StoredVector::find(self.checkpoint, &norm.weight)?;
        Ok(Affine { weight, bias: self.vector(norm.bias.as_ref())? })
    }
}

/// Loads all weights: into memory if `no_mmap`, else those that the kernels can read there stay in the mapped files. `progress` is called
/// after each matrix with the bytes of the checkpoint that are loaded, and all there are.
pub(crate) fn load(
    network: &StoredNetwork,
    config: &Config,
    no_mmap: bool,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Weights> {
    for table in network.lookup_tables() {
        let tensors = [table.tensors(), table.companions()].concat();
        tensors.iter().for_each(|tensor| tensor.data().use_small_pages());
    }
    let total = network.matrices().map(StoredMatrix::stored_bytes).sum();
    let mut done = 0;
    // Embedding and head may be the same bytes.
    let mut copies = HashMap::new();
    let place = &mut |stored: &Bytes| {
        if !no_mmap {
            return Ok(stored.clone());
        }
        let copy = match copies.entry(stored.as_ptr_range()) {
            Entry::Occupied(copy) => return Ok(Bytes::clone(copy.get())),
            Entry::Vacant(place) => place.insert(stored.in_memory()?),
        };
        Ok(copy.clone())
    };
    let matrix = &mut |matrix: &StoredMatrix| {
        let weight = matrix.load_with(place)?;
        done += matrix.stored_bytes();
        progress(done, total);
        Ok(weight)
    };
    let weights = network.try_map(&mut Load { config, matrix, vector: &mut StoredVector::load })?;
    // Where the system has the file in large pages, reading a tensor brings the end of the one before back.
    network.matrices().for_each(StoredMatrix::release_copied);
    Ok(weights)
}

/// Stored tensors → weights.
pub(crate) struct Load<'l> {
    pub(crate) config: &'l Config,
    /// Loads a matrix.
    pub(crate) matrix: &'l mut dyn FnMut(&StoredMatrix) -> Result<Weight>,
    /// Loads a bias, or the weights of a norm.
    pub(crate) vector: &'l mut dyn FnMut(&StoredVector) -> Result<Vec<f32>>,
}

impl<'a> Convert<'a, StoredMatrix, StoredLinear, StoredNorm> for Load<'_> {
    type Table = Weight;
    type Linear = Linear;
    type Norm = Norm;
    type Error = Error;

    fn table(&mut self, table: &'a StoredMatrix) -> Result<Weight> {
        (self.matrix)(table)
    }

    fn linear(&mut self, role: LinearRole, linear: &'a StoredLinear) -> Result<Linear> {
        let activation = match (role, self.config.mlp) {
            (LinearRole::Up, Mlp::GeluTanh) => Activation::GeluTanh,
            (LinearRole::Up, Mlp::GeluErf) => Activation::GeluErf,
            _ => Activation::None,
        };
        let bias = linear.bias.as_ref().map(&mut *self.vector).transpose()?;
        Ok(Linear { weight: self.table(&linear.weight)?, bias, activation })
    }

    fn norm(&mut self, role: NormRole, norm: &'a StoredNorm) -> Result<Norm> {
        let (config::Norm::Layer { eps } | config::Norm::Rms { eps }) = self.config.norm;
        let eps = if role == NormRole::Latent { config::Latent::EPS } else { eps };
        let bias = norm.bias.as_ref().map(&mut *self.vector).transpose()?;
        Ok(Norm { weight: (self.vector)(&norm.weight)?, bias, eps })
    }
}

/// Widens little-endian F32, F16 or BF16 numbers, as many as `out` holds, at any alignment.
pub(crate) fn widen_into(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    let halves = bytes.as_chunks::<2>().0;
    match dtype {
        Dtype::F32 => {
            let words = bytes.as_chunks::<4>().0;
            out.iter_mut().zip(words).for_each(|(o, b)| *o = f32::from_le_bytes(*b));
        }
        Dtype::F16 => {
            out.iter_mut().zip(halves).for_each(|(o, b)| *o = f16::from_le_bytes(*b).to_f32());
        }
        Dtype::BF16 => {
            out.iter_mut().zip(halves).for_each(|(o, b)| *o = bf16::from_le_bytes(*b).to_f32());
        }
        other => unreachable!("{other} was refused when the tensor was found"),
    }
}
