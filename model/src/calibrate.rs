//! Calibration: the matrices of a model are quantized so that their outputs for the inputs that a text gives them change least.
//!
//! The layers are taken one after the other. Each matrix gets the inputs that it has behind the quantized ones before it: their second
//! [moments](moments) are gathered, and its weights are [rounded](rounding) with them. What is in memory at a time are the hidden
//! states of all texts, one layer of quantized weights, the moments of one matrix, and some of its rows for each thread.

mod info;
mod layers;
mod moments;
mod rounding;
mod texts;

use std::ops::ControlFlow;

use glm_kernels::{Isa, Shape};

use crate::error::{Error, Result};
use crate::files::config::Config;
use crate::files::weights::{StoredLinear, StoredMatrix, StoredNetwork, StoredNorm};
use crate::network::layer::{Layer, LinearRole, Weight};
pub use info::CalibrationInfo;
use layers::Layers;
use moments::Moments;
pub(crate) use rounding::Packed;
use rounding::round;
pub use texts::Calibration;

/// Part of the mean moment of an input that is added to each, so that inputs that the texts do not have still count.
const DAMPING: f32 = 0.01;

/// The matrices of a layer, in the order in which they are quantized.
const ROLES: [LinearRole; 4] =
    [LinearRole::Qkv, LinearRole::AttentionOutput, LinearRole::Up, LinearRole::Down];

/// Where the quantized matrices go, and where those of an earlier run come from.
pub(crate) trait Store: Send {
    /// The shape that a matrix gets.
    fn shape(&self, matrix: &StoredMatrix) -> Option<Shape>;
    /// The matrix, if it is quantized already.
    fn get(&self, matrix: &StoredMatrix) -> Result<Option<Weight>>;
    /// Keeps a quantized matrix.
    fn put(&mut self, matrix: &StoredMatrix, packed: &Packed) -> Result<()>;
    /// Gets the part of all work that is done, and can cancel.
    fn progress(&mut self, matrix: &StoredMatrix, done: f64) -> ControlFlow<()>;
}

/// Quantizes all linear layers of a network, on the threads of the current pool.
///
/// # Errors
/// If the memory cannot be allocated, a weight is not finite, moments are not, the store fails, or it cancels.
pub(crate) fn calibrate(
    network: &StoredNetwork,
    config: &Config,
    calibration: &Calibration,
    store: &mut dyn Store,
) -> Result<()> {
    let isa = Isa::choose().map_err(|error| Error::Isa(error.to_string()))?;
    let mut layers = Layers::new(network, config, calibration, isa)?;
    let mut work = Work::new(network, calibration, store);
    for layer in &network.layers {
        layers.enter(layer)?;
        for role in ROLES {
            let Some((_, linear)) = layer.linears().find(|(other, _)| *other == role) else {
                continue;
            };
            let matrix = &linear.weight;
            let known = work.store.get(matrix)?;
            let mut moments = match known {
                Some(_) => None,
                None => Some(Moments::new(matrix.size()[1])?),
            };
            // The attention is added to the states before `Up`.
            if moments.is_some() || role == LinearRole::Up {
                layers.inputs(role, moments.as_mut(), &mut |part| work.gathered(matrix, part))?;
            }
            let weight = match (moments, known) {
                (Some(moments), _) => quantized(isa, matrix, moments, &mut work)?,
                (None, Some(known)) => known,
                (None, None) => continue,
            };
            work.done(matrix);
            layers.replace(role, weight);
        }
        let Some((_, last)) = layer.linears().last() else { continue };
        layers.finish(&mut |_| work.gathered(&last.weight, 0.0))?;
    }
    let head = head(network, |matrix| work.store.shape(matrix).is_some());
    if work.store.get(head)?.is_none() && work.store.shape(head).is_some() {
        let mut moments = Moments::new(config.hidden)?;
        layers.head_inputs(&mut moments, &mut |part| work.gathered(head, part))?;
        // Only its own rows are still needed.
        drop(layers);
        quantized(isa, head, moments, &mut work)?;
    }
    Ok(())
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
    let layers = network.layers.iter().flat_map(Layer::linears);
    layers.map(|(_, linear)| &linear.weight).chain([head(network, is_written)])
}

/// Quantizes a matrix for inputs with these moments.
fn quantized(
    isa: Isa,
    matrix: &StoredMatrix,
    moments: Moments,
    work: &mut Work<'_>,
) -> Result<Weight> {
    let Some(shape) = work.store.shape(matrix) else {
        return Err(Error::Prompt(format!("{} is quantized already", matrix.name)));
    };
    let order = moments.order(&shape);
    let factor = moments.factor(&order, DAMPING)?;
    let progress = &mut |part| work.rounded(matrix, part);
    let packed = round(isa, &shape, matrix, &order, factor.matrix(), progress)?;
    work.store.put(matrix, &packed)?;
    let scales: &[u8] = bytemuck::cast_slice(&packed.scales);
    Ok(Weight::panels(shape, packed.bytes.into(), &scales.to_vec().into()))
}

/// How much of the work is done, in multiply-adds of the moments; others count as much as they take time.
struct Work<'s> {
    store: &'s mut dyn Store,
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
        let mut work = Self { store, tokens: calibration.tokens() as f64, total: 0.0, done: 0.0 };
        let all = matrices(network, |matrix| work.store.shape(matrix).is_some());
        work.total = all.map(|matrix| work.gathering(matrix) + work.rounding(matrix)).sum();
        work
    }

    fn gathering(&self, matrix: &StoredMatrix) -> f64 {
        let [rows, cols] = matrix.size().map(|n| n as f64);
        self.tokens * cols * (cols / 2.0 + OF_A_PASS * rows)
    }

    fn rounding(&self, matrix: &StoredMatrix) -> f64 {
        let [rows, cols] = matrix.size().map(|n| n as f64);
        rows * cols * (cols / 2.0 + OF_A_WEIGHT)
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
    calibration: &Calibration,
    threads: usize,
    packed: &dyn Fn(&StoredMatrix) -> u64,
) -> u64 {
    let of_matrix = |matrix: &StoredMatrix| {
        let cols = matrix.size()[1];
        Moments::bytes(cols) + rounding::bytes(cols, threads) + packed(matrix)
    };
    let of_layer = |layer: &Layer<StoredLinear, StoredNorm>| {
        let matrices = || layer.linears().map(|(_, linear)| &linear.weight);
        let quantized: u64 = matrices().map(packed).sum();
        matrices().map(of_matrix).max().unwrap_or(0) + quantized
    };
    let tables = network.tables().filter(|table| table.is_copied()).map(StoredMatrix::loaded_bytes);
    let layers = network.layers.iter().map(of_layer).max().unwrap_or(0).max(tables.sum());
    // Without the states of the texts.
    let head = of_matrix(head(network, |_| true));
    (Layers::bytes(config, calibration) + layers).max(head)
}
