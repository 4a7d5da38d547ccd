//! Calibration: the matrices of a model are quantized so that their outputs for the inputs that a text gives them change least.
//!
//! The layers are taken one after the other. Each matrix gets the inputs that it has behind the quantized ones before it: their second
//! [moments](moments) are gathered, and its weights are [rounded](rounding) with them. Without a text, the inputs are those of random
//! ids, and only the diagonal of the moments counts. What is in memory at a time are the hidden
//! states of all texts, also while files are awaited, one layer of quantized weights, the moments of one matrix, and some of its rows for each thread.

mod experts;
mod formats;
mod info;
mod inputs;
mod layers;
mod moments;
mod rounding;
mod sensitivity;
mod texts;

use std::ops::ControlFlow;

use glm_kernels::{Isa, Shape};

use crate::error::{Error, Result};
use crate::files::config::Config;
use crate::files::prefix::StoredPrefix;
use crate::files::weights::{StoredLinear, StoredMatrix, StoredNetwork, StoredNorm, StoredVector};
use crate::network::activations::Activations;
use crate::network::layer::{FeedForward, Layer, LinearRole, Weight};
use experts::Sparse;
pub(crate) use formats::{FORMATS, Formats};
pub use info::CalibrationInfo;
use inputs::Inputs;
use layers::Layers;
pub(crate) use rounding::Packed;
use rounding::round;
pub(crate) use sensitivity::{measured_bytes, measured_formats};
pub use texts::Calibration;
pub(crate) use texts::Method;

/// The matrices of a layer, in the order in which they are quantized.
const ROLES: [LinearRole; 4] =
    [LinearRole::Qkv, LinearRole::AttentionOutput, LinearRole::Up, LinearRole::Down];

/// The same with those of latent attention.
const ALL_ROLES: [LinearRole; 7] = [
    LinearRole::Qkv,
    LinearRole::QueryUp,
    LinearRole::KeyUp,
    LinearRole::ValueUp,
    LinearRole::AttentionOutput,
    LinearRole::Up,
    LinearRole::Down,
];

/// The type of the activations behind quantized matrices: that of models by default.
const ACTIVATIONS: Activations = Activations::Int8;

/// Where matrices and vectors come from.
pub(crate) trait Tensors: Send {
    /// A matrix, quantized or not.
    fn matrix(&self, matrix: &StoredMatrix) -> Result<Weight>;
    /// A bias, or the weights of a norm.
    fn vector(&self, vector: &StoredVector) -> Result<Vec<f32>>;
}

/// Where the quantized matrices go, and where those of an earlier run come from: the new file, or else the source.
pub(crate) trait Store: Tensors {
    /// The shape that a matrix gets.
    fn shape(&self, matrix: &StoredMatrix) -> Option<Shape>;
    /// Whether the new file has this matrix or vector.
    fn is_written(&self, name: &str) -> bool;
    /// Whether the new file or the source has it.
    fn is_ready(&self, name: &str) -> bool;
    /// Keeps a quantized matrix.
    fn put(&mut self, matrix: &StoredMatrix, packed: &Packed) -> Result<()>;
    /// Gets the part of all work that is done, and can cancel.
    fn progress(&mut self, matrix: &StoredMatrix, done: f64) -> ControlFlow<()>;
}

/// Quantizes all linear layers of a network, on the threads of the current pool, up to the first whose weights are not ready. With a
/// trained prefix, each text is behind it. A call with the same network, texts and file goes on
/// from what is `paused`; after an error there is nothing, and it begins with the first layer.
///
/// # Errors
/// If the memory cannot be allocated, a weight is not finite, moments are not, the store fails, or it cancels.
pub(crate) fn calibrate(
    network: &StoredNetwork,
    config: &Config,
    prefix: Option<&StoredPrefix>,
    calibration: &Calibration,
    paused: &mut Option<Paused>,
    store: &mut dyn Store,
) -> Result<()> {
    let isa = Isa::choose().map_err(|error| Error::Isa(error.to_string()))?;
    let first = matrices(network, |matrix| store.shape(matrix).is_some())
        .find(|matrix| !store.is_written(&matrix.name));
    let Some(first) = first else {
        *paused = None;
        return Ok(());
    };
    let is_ready = |name: &str| store.is_ready(name);
    let tables = network.tables().map(|table| &*table.name);
    let mut needed = tables.chain(prefix.into_iter().flat_map(StoredPrefix::names));
    if !is_ready(&first.name) || !needed.all(is_ready) {
        return Ok(());
    }
    let mut layers = Layers::new(network, config, prefix, calibration, isa, ACTIVATIONS, store)?;
    let (mut begun, mut is_attended) = (0, false);
    match paused.take() {
        Some(paused) => {
            (begun, is_attended) = (paused.layer, paused.is_attended);
            *layers.states_mut() = paused.states;
        }
        None => layers.embed(network, store)?,
    }
    let mut work = Work::new(network, calibration, store);
    let before = network.layers.iter().take(begun);
    before.flat_map(matrices_of).for_each(|matrix| work.done(matrix));
    for (index, layer) in network.layers.iter().enumerate().skip(begun) {
        let at = (index, layer);
        if !quantize_layer(at, config, calibration, isa, &mut layers, &mut is_attended, &mut work)?
        {
            let states = std::mem::take(layers.states_mut());
            *paused = Some(Paused { layer: index, is_attended, states });
            return Ok(());
        }
        let Some((_, last)) = layer.linears().last() else { continue };
        layers.finish(&mut |_| work.gathered(&last.weight, 0.0))?;
        is_attended = false;
    }
    let head = head(network, |matrix| work.store.shape(matrix).is_some());
    let mut needed = network.final_norm.vectors().chain([&*head.name]);
    if work.store.is_written(&head.name) {
        return Ok(());
    }
    if !needed.all(|name| work.store.is_ready(name)) {
        let states = std::mem::take(layers.states_mut());
        *paused = Some(Paused { layer: network.layers.len(), is_attended, states });
        return Ok(());
    }
    let mut inputs = Inputs::new(calibration.method(), &head.name, config.hidden)?;
    layers.enter_head(&network.final_norm, work.store)?;
    layers.head_inputs(&mut inputs, &mut |part| work.gathered(head, part))?;
    // Only its own rows are still needed.
    drop(layers);
    quantized(isa, head, inputs, &mut work)?;
    Ok(())
}

/// Where a calibration stopped, because weights were not ready.
pub(crate) struct Paused {
    layer: usize,
    /// Whether the attention of the layer is in the states.
    is_attended: bool,
    /// Those of each text.
    states: Vec<Vec<f32>>,
}

/// Quantizes the matrices of a layer, or takes those that are written. `false` if weights are not ready.
fn quantize_layer(
    (index, layer): (usize, &Layer<StoredLinear, StoredNorm>),
    config: &Config,
    calibration: &Calibration,
    isa: Isa,
    layers: &mut Layers<'_>,
    is_attended: &mut bool,
    work: &mut Work<'_>,
) -> Result<bool> {
    let biases = layer.linears().flat_map(|(_, linear)| &linear.bias).map(|it| &*it.name);
    let mut vectors = layer.norms().flat_map(StoredNorm::vectors).chain(biases);
    if !vectors.all(|name| work.store.is_ready(name)) {
        return Ok(false);
    }
    layers.enter(index, layer, work.store)?;
    for role in ALL_ROLES {
        let Some((_, linear)) = layer.linears().find(|(other, _)| *other == role) else {
            continue;
        };
        let matrix = &linear.weight;
        let mut inputs = match work.store.is_written(&matrix.name) {
            true => None,
            false if !work.store.is_ready(&matrix.name) => return Ok(false),
            false if is_per_head(role) => {
                Some(Inputs::new(Method::Importance, &matrix.name, matrix.size()[1])?)
            }
            false => Some(Inputs::new(calibration.method(), &matrix.name, matrix.size()[1])?),
        };
        // The attention is added to the states before `Up`, once.
        let is_gathered = inputs.is_some() && !is_per_head(role);
        if is_gathered || role == LinearRole::Up && !*is_attended {
            layers.inputs(role, inputs.as_mut(), &mut |part| work.gathered(matrix, part))?;
            *is_attended |= role == LinearRole::Up;
        }
        let weight = match inputs {
            Some(inputs) => quantized(isa, matrix, inputs, work)?,
            None => work.store.matrix(matrix)?,
        };
        work.done(matrix);
        layers.replace(role, weight);
    }
    if let (FeedForward::Sparse { router, experts, shared }, Some(sizes)) =
        (&layer.feed_forward, &config.experts)
    {
        let block = Sparse { router, experts, shared: shared.as_ref() };
        return experts::calibrate(sizes, &block, layers, calibration, isa, work);
    }
    Ok(true)
}

/// Whether each head has rows of the matrix and inputs of its own. There are no sums for these: all their columns count alike.
fn is_per_head(role: LinearRole) -> bool {
    matches!(role, LinearRole::KeyUp | LinearRole::ValueUp)
}

/// The matrix of the head: that of the embedding, if there is no other, or the other is left out because it is the same.
fn head(network: &StoredNetwork, is_written: impl Fn(&StoredMatrix) -> bool) -> &StoredMatrix {
    let own = network.head.as_ref().map(|head| &head.weight);
    own.filter(|head| is_written(head)).unwrap_or(&network.embedding)
}

/// The matrices that are calibrated.
pub(crate) fn matrices(
    network: &StoredNetwork,
    is_written: impl Fn(&StoredMatrix) -> bool,
) -> impl Iterator<Item = &StoredMatrix> {
    network.layers.iter().flat_map(matrices_of).chain([head(network, is_written)])
}

/// Those of a layer.
fn matrices_of(layer: &Layer<StoredLinear, StoredNorm>) -> impl Iterator<Item = &StoredMatrix> {
    // A router is not quantized.
    let linears = layer.linears().filter(|(role, _)| *role != LinearRole::Router);
    linears.map(|(_, linear)| &linear.weight)
}

/// Quantizes a matrix for these inputs.
fn quantized(
    isa: Isa,
    matrix: &StoredMatrix,
    inputs: Inputs,
    work: &mut Work<'_>,
) -> Result<Weight> {
    let Some(shape) = work.store.shape(matrix) else {
        return Err(Error::Prompt(format!("{} is quantized already", matrix.name)));
    };
    let (order, factor) = inputs.factor(matrix, &shape)?;
    let progress = &mut |part| work.rounded(matrix, part);
    let packed = round(isa, &shape, matrix, &order, &factor, progress)?;
    work.store.put(matrix, &packed)?;
    Weight::panels(&matrix.name, shape, packed.bytes.into(), &packed.scales.into())
}

/// How much of the work is done, in multiply-adds of the moments; others count as much as they take time.
struct Work<'s> {
    store: &'s mut dyn Store,
    method: Method,
    tokens: f64,
    total: f64,
    done: f64,
}

/// Multiply-adds of the moments in the time of one of a pass over a layer. A matrix is multiplied with all inputs up to three times.
const OF_A_PASS: f64 = 0.5;

/// Multiply-adds of the moments in the time in which the scales are searched, for each weight.
const OF_A_WEIGHT: f64 = 5000.0;

impl<'s> Work<'s> {
    fn new(network: &StoredNetwork, calibration: &Calibration, store: &'s mut dyn Store) -> Self {
        let (method, tokens) = (calibration.method(), calibration.tokens() as f64);
        let mut work = Self { store, method, tokens, total: 0.0, done: 0.0 };
        let all = matrices(network, |matrix| work.store.shape(matrix).is_some());
        work.total = all.map(|matrix| work.gathering(matrix) + work.rounding(matrix)).sum();
        work
    }

    fn gathering(&self, matrix: &StoredMatrix) -> f64 {
        let [rows, cols] = matrix.size().map(|n| n as f64);
        self.tokens * cols * (self.of_moments(cols) + OF_A_PASS * rows)
    }

    fn rounding(&self, matrix: &StoredMatrix) -> f64 {
        let [rows, cols] = matrix.size().map(|n| n as f64);
        rows * cols * (self.of_moments(cols) + OF_A_WEIGHT)
    }

    /// Multiply-adds of a column with the others.
    fn of_moments(&self, cols: f64) -> f64 {
        match self.method {
            Method::Gptq => cols / 2.0,
            Method::Importance => 0.0,
        }
    }

    fn gathered(&mut self, matrix: &StoredMatrix, part: f32) -> ControlFlow<()> {
        let done = self.done + f64::from(part) * self.gathering(matrix);
        self.store.progress(matrix, done / self.total)
    }

    fn rounded(&mut self, matrix: &StoredMatrix, part: f32) -> ControlFlow<()> {
        let done = self.done + self.gathering(matrix) + f64::from(part) * self.rounding(matrix);
        self.store.progress(matrix, done / self.total)
    }

    fn done(&mut self, matrix: &StoredMatrix) {
        self.done += self.gathering(matrix) + self.rounding(matrix);
    }
}

/// Bytes of memory that calibration needs beside the mapped source, if a matrix takes `packed` bytes once it is quantized.
pub(crate) fn bytes(
    network: &StoredNetwork,
    config: &Config,
    prefix: Option<&StoredPrefix>,
    calibration: &Calibration,
    threads: usize,
    packed: &dyn Fn(&StoredMatrix) -> u64,
) -> u64 {
    let of_matrix = |matrix: &StoredMatrix| {
        let cols = matrix.size()[1];
        Inputs::bytes(calibration.method(), cols) + rounding::bytes(cols, threads) + packed(matrix)
    };
    let of_layer = |layer: &Layer<StoredLinear, StoredNorm>| {
        let matrices = || layer.linears().map(|(_, linear)| &linear.weight);
        let quantized: u64 = matrices().map(packed).sum();
        matrices().map(of_matrix).max().unwrap_or(0) + quantized
    };
    // They are read from the new file, once they are in it.
    let loaded = |table: &StoredMatrix| {
        let copied = if table.is_copied() { table.loaded_bytes() } else { 0 };
        packed(table).max(copied)
    };
    let tables = network.tables().map(loaded);
    let layers = network.layers.iter().map(of_layer).max().unwrap_or(0).max(tables.sum());
    // Without the states of the texts.
    let head = of_matrix(head(network, |_| true));
    let prefix = prefix.map(|prefix| prefix.bytes(config, &StoredMatrix::loaded_bytes));
    let states = Layers::bytes(config, prefix, calibration, ACTIVATIONS);
    (states + experts::bytes(config, calibration) + layers).max(head)
}
