//! Calibration: the matrices of a model are quantized so that their outputs for the inputs that a text gives them change least.
//!
//! The layers are taken one after the other. Each matrix gets the inputs that it has behind the quantized ones before it: their second
//! [moments](moments) are gathered, and its weights are [rounded](rounding) with them. What is in memory at a time are the hidden
//! states of all texts, the moments of one matrix, and its weights.

mod layers;
mod moments;
mod rounding;
mod texts;

use std::ops::ControlFlow;

use glm_kernels::{Isa, Shape};

use crate::error::{Error, Result};
use crate::files::config::Config;
use crate::files::weights::{StoredMatrix, StoredNetwork};
use crate::network::layer::{LinearRole, Weight};
use layers::Layers;
use moments::Moments;
pub(crate) use rounding::Packed;
use rounding::round;
pub use texts::Calibration;

/// The name of the method in files.
pub(crate) const METHOD: &str = "gptq-1";

/// Part of the mean moment of an input that is added to each, so that inputs that the texts do not have still count.
const DAMPING: f32 = 0.01;

/// The part of the time for a matrix that gathering its inputs takes, about.
const GATHERING: f32 = 0.7;

/// The matrices of a layer, in the order in which they are quantized.
const ROLES: [LinearRole; 4] =
    [LinearRole::Qkv, LinearRole::AttentionOutput, LinearRole::Up, LinearRole::Down];

/// Where the quantized matrices go, and where those of an earlier run come from.
pub(crate) trait Store {
    /// The shape that a matrix gets.
    fn shape(&self, matrix: &StoredMatrix) -> Option<Shape>;
    /// The matrix, if it is quantized already.
    fn get(&self, matrix: &StoredMatrix) -> Result<Option<Weight>>;
    /// Keeps a quantized matrix.
    fn put(&mut self, matrix: &StoredMatrix, packed: &Packed) -> Result<()>;
    /// Gets the part of the work for this matrix that is done, and can cancel.
    fn progress(&mut self, matrix: &StoredMatrix, done: f32) -> ControlFlow<()>;
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
    for (index, layer) in network.layers.iter().enumerate() {
        for role in ROLES {
            let Some((_, linear)) = layer.linears().find(|(other, _)| *other == role) else {
                continue;
            };
            let matrix = &linear.weight;
            let known = store.get(matrix)?;
            let mut moments = match known {
                Some(_) => None,
                None => Some(Moments::new(matrix.size()[1])?),
            };
            // The attention is added to the states before `Up`.
            if moments.is_some() || role == LinearRole::Up {
                let mut progress = |part: f32| store.progress(matrix, part * GATHERING);
                layers.inputs(index, role, moments.as_mut(), &mut progress)?;
            }
            let weight = match moments {
                Some(moments) => Some(quantized(isa, matrix, moments, store)?),
                None => known,
            };
            if let Some(weight) = weight {
                layers.replace(index, role, weight);
            }
        }
        layers.finish(index)?;
    }
    let head = network.head.as_ref().map_or(&network.embedding, |head| &head.weight);
    if store.get(head)?.is_none() && store.shape(head).is_some() {
        let mut moments = Moments::new(config.hidden)?;
        layers.head_inputs(&mut moments);
        quantized(isa, head, moments, store)?;
    }
    Ok(())
}

/// Quantizes a matrix for inputs with these moments.
fn quantized(
    isa: Isa,
    matrix: &StoredMatrix,
    moments: Moments,
    store: &mut dyn Store,
) -> Result<Weight> {
    let Some(shape) = store.shape(matrix) else {
        return Err(Error::Prompt(format!("{} is quantized already", matrix.name)));
    };
    let order = moments.order(&shape);
    let factor = moments.factor(&order, DAMPING)?;
    let packed = round(isa, &shape, matrix, &order, &factor)?;
    store.put(matrix, &packed)?;
    let scales: &[u8] = bytemuck::cast_slice(&packed.scales);
    Ok(Weight::panels(shape, packed.bytes.into(), &scales.to_vec().into()))
}

/// Bytes of memory that calibration needs beside the mapped source.
pub(crate) fn bytes(network: &StoredNetwork, config: &Config, calibration: &Calibration) -> u64 {
    let largest = network
        .linears()
        .map(|(_, linear)| linear.weight.size())
        .chain([network.embedding.size()])
        .map(|[rows, cols]| Moments::bytes(cols) + rounding::bytes(rows, cols))
        .max();
    largest.unwrap_or(0) + Layers::bytes(config, calibration)
}
