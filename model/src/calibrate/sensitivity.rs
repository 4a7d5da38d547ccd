//! How sensitive a model is to the quantization of its matrices, and the formats that follow from it.
//!
//! Matrices are put into buckets: those of one role in a band of layers, the embedding, the head. For each bucket the model is run with
//! the matrices of this bucket quantized and all others as they are, and the divergence of its predictions from those of the model is
//! measured. All runs go through the layers together, so that one layer is in memory. A run has states of its own once its bucket
//! has begun.
//!
//! Among the matrices of a bucket the divergence is shared out by how much each alone changes the states behind its block.
//!
//! One format is measured so, the [reference](REFERENCE). In another format the divergence is in proportion to the squared errors of
//! the weights, each weighted by the mean square of the input that it is multiplied with. They are measured on some
//! [rows](SAMPLED_PANELS) of each matrix.

use std::array;
use std::ops::ControlFlow;

use glm_kernels::{Bits, Isa, LANES, Output, Q8Rows, Rotation, parallel_region};
use half::f16;
use rayon::prelude::*;

use super::formats::{self, Bucket, FORMATS, Formats, MatrixFormat};
use super::inputs::Inputs;
use super::layers::{Layers, STATES};
use super::moments::Factor;
use super::rounding::{round, round_panel};
use super::texts::{Calibration, Method};
use super::{ROLES, Tensors, head};
use crate::error::{Error, Result};
use crate::files::config::Config;
use crate::files::prefix::StoredPrefix;
use crate::files::weights::{StoredLinear, StoredMatrix, StoredNetwork, StoredNorm, StoredVector};
use crate::generate::perplexity::kl_divergence;
use crate::limits::run::LOGIT_ROWS;
use crate::memory::{self, zeros};
use crate::network::activations::Activations;
use crate::network::layer::{Context, Layer, Linear, LinearRole, Weight};

/// The errors of 8-bit activations would hide those of a bucket.
const ACTIVATIONS: Activations = Activations::F32;

/// The format that is measured: in the middle of those that are mostly chosen, because errors far from it say less.
const REFERENCE: MatrixFormat = FORMATS[1];

/// Panels of eight rows of each matrix whose errors are measured.
const SAMPLED_PANELS: usize = 16;

/// Bands of layers, if there are more layers.
const BANDS: usize = 5;

/// Layers of the first band, and of the last one.
const OUTER: usize = 2;

/// States of each text.
type States = Vec<Vec<f32>>;

/// Gets a matrix and the part of all work that is done, and can cancel.
type Progress<'a> = &'a mut dyn FnMut(&StoredMatrix, f64) -> ControlFlow<()>;

/// The formats of all matrices that are quantized, in which they take at most `most` bytes. Works on the threads of the current pool;
/// any number of them gives the same. A head for which `is_written` is false is the same as the embedding and is left out.
///
/// # Errors
/// If the memory cannot be allocated, a weight or a logit is not finite, or `progress` cancels.
pub(crate) fn measured_formats(
    network: &StoredNetwork,
    config: &Config,
    prefix: Option<&StoredPrefix>,
    calibration: &Calibration,
    is_written: &dyn Fn(&StoredMatrix) -> bool,
    most: u64,
    progress: Progress<'_>,
) -> Result<Formats> {
    let isa = Isa::choose().map_err(|error| Error::Isa(error.to_string()))?;
    let head = head(network, is_written);
    let mut walk = Walk::new(network, head, calibration.tokens(), progress);
    walk.run(config, prefix, calibration, isa)?;
    let (matrices, buckets): (Vec<_>, Vec<_>) = walk.runs.iter().flat_map(Run::buckets).unzip();
    let chosen = formats::choose(&buckets, most);
    let named = matrices.iter().zip(chosen);
    Ok(named.map(|(matrix, format)| (matrix.name.clone(), FORMATS[format])).collect())
}

/// Bytes of memory that [`measured_formats`] needs beside the mapped source.
pub(crate) fn measured_bytes(
    network: &StoredNetwork,
    config: &Config,
    prefix: Option<&StoredPrefix>,
    calibration: &Calibration,
) -> u64 {
    let tokens = calibration.tokens();
    // Also those of the model, and two copies of them.
    let runs = 4 + ROLES.len() * network.layers.len().min(BANDS);
    let states = 4 * (runs * tokens * config.hidden) as u64;
    let copied = |matrix: &StoredMatrix| if matrix.is_copied() { matrix.loaded_bytes() } else { 0 };
    let loaded = |matrix: &StoredMatrix| {
        let shape = REFERENCE.shape(matrix.size());
        copied(matrix) + (shape.bytes() + 2 * shape.scales()) as u64
    };
    let of_layer = |layer: &Layer<StoredLinear, StoredNorm>| -> u64 {
        layer.linears().map(|(_, linear)| loaded(&linear.weight)).sum()
    };
    let layer = network.layers.iter().map(of_layer).max().unwrap_or(0);
    let tables: u64 = network.tables().map(loaded).sum();
    let logits = (4 * 2 * LOGIT_ROWS * (config.vocab + config.hidden)) as u64;
    let head = loaded(head(network, |_| true)) + logits;
    let prefix = prefix.map(|prefix| prefix.bytes(config, &copied));
    Layers::bytes(config, prefix, calibration, ACTIVATIONS) + states + tables + layer.max(head)
}

/// The weights of the model as they are.
pub(super) struct Original;

impl Tensors for Original {
    fn matrix(&self, matrix: &StoredMatrix) -> Result<Weight> {
        matrix.load()
    }

    fn vector(&self, vector: &StoredVector) -> Result<Vec<f32>> {
        vector.load()
    }
}

/// The same with another matrix in the place of `name`.
struct Replaced<'a> {
    name: &'a str,
    weight: &'a Weight,
}

impl Tensors for Replaced<'_> {
    fn matrix(&self, matrix: &StoredMatrix) -> Result<Weight> {
        if matrix.name == self.name { Ok(self.weight.clone()) } else { matrix.load() }
    }

    fn vector(&self, vector: &StoredVector) -> Result<Vec<f32>> {
        vector.load()
    }
}

/// The model with the matrices of a bucket quantized.
#[derive(Default)]
struct Run<'n> {
    matrices: Vec<Measured<'n>>,
    /// Its states, once they differ from those of the model.
    states: Option<States>,
    /// Sum over the predictions.
    divergence: f64,
}

/// A quantized matrix of a run.
struct Measured<'n> {
    matrix: &'n StoredMatrix,
    /// The error of each format, relative to that of the reference.
    errors: [f64; FORMATS.len()],
    /// How much the matrix changes the states.
    change: f64,
}

impl<'n> Run<'n> {
    /// Each matrix, with its part of the divergence.
    fn buckets(&self) -> impl Iterator<Item = (&'n StoredMatrix, Bucket)> {
        let all: f64 = self.matrices.iter().map(|it| it.change).sum();
        self.matrices.iter().map(move |&Measured { matrix, errors, change }| {
            let part = if all > 0.0 { self.divergence * change / all } else { 0.0 };
            let bytes = FORMATS.map(|format| format.bytes(matrix));
            (matrix, Bucket { bytes, losses: errors.map(|error| error * part) })
        })
    }
}

/// All runs.
struct Walk<'n, 'p> {
    network: &'n StoredNetwork,
    head: &'n StoredMatrix,
    /// The band of each layer.
    bands: Vec<usize>,
    /// Those of the embedding and of the head, which may be one, and those of each band, in the order of [`ROLES`].
    runs: Vec<Run<'n>>,
    /// Runs that are not of layers.
    tables: usize,
    progress: Progress<'p>,
    /// Multiply-adds.
    total: f64,
    done: f64,
}

impl<'n, 'p> Walk<'n, 'p> {
    fn new(
        network: &'n StoredNetwork,
        head: &'n StoredMatrix,
        tokens: usize,
        progress: Progress<'p>,
    ) -> Self {
        let bands = bands(network.layers.len());
        let tables = if head.name == network.embedding.name { 1 } else { 2 };
        let count = tables + ROLES.len() * bands.last().map_or(0, |band| band + 1);
        let runs: Vec<_> = (0..count).map(|_| Run::default()).collect();
        let head_rows = (tokens * (runs.len() + 1)) as f64 / 2.0;
        let total = multiply_adds(network, tokens, &bands) + head_rows * weights(head);
        Self { network, head, bands, runs, tables, progress, total, done: 0.0 }
    }

    fn run(
        &mut self,
        config: &Config,
        prefix: Option<&StoredPrefix>,
        calibration: &Calibration,
        isa: Isa,
    ) -> Result<()> {
        let new = |prefix, tensors: &dyn Tensors| {
            let network = self.network;
            let mut layers =
                Layers::new(network, config, prefix, calibration, isa, ACTIVATIONS, tensors)?;
            layers.embed(network, tensors)?;
            Ok::<_, Error>(layers)
        };
        let mut layers = new(prefix, &Original)?;
        let embedding = &self.network.embedding;
        // As a table it has no inputs: all columns count alike.
        let factor = Factor::Diagonal(ones(embedding.size()[1], &embedding.name)?);
        let quantized = reference(isa, embedding, &factor)?;
        let replaced = Replaced { name: &embedding.name, weight: &quantized };
        let states = std::mem::take(new(None, &replaced)?.states_mut());
        self.runs[0].states = Some(states);
        if self.tables > 1 {
            self.add(0, embedding, errors(isa, embedding, &factor)?, 1.0);
        }
        for index in 0..self.network.layers.len() {
            self.layer(index, &mut layers, isa)?;
        }
        self.predictions(&mut layers, isa)
    }

    /// Takes all runs through a layer.
    fn layer(&mut self, index: usize, layers: &mut Layers<'_>, isa: Isa) -> Result<()> {
        let layer = &self.network.layers[index];
        let band = self.bands[index];
        let first = self.tables + band * ROLES.len();
        if index == 0 || self.bands[index - 1] != band {
            for run in &mut self.runs[first..first + ROLES.len()] {
                run.states = Some(copy(layers.states_mut())?);
            }
        }
        layers.enter(index, layer, &Original)?;
        let before = copy(layers.states_mut())?;
        let mut attended = None;
        // Of each role, as it is and quantized.
        let mut weights = Vec::new();
        let mut all_errors = Vec::new();
        let going = &mut |_: f32| ControlFlow::Continue(());
        for (place, role) in ROLES.into_iter().enumerate() {
            let Some((_, linear)) = layer.linears().find(|(other, _)| *other == role) else {
                continue;
            };
            let matrix = &linear.weight;
            let mut inputs = Inputs::new(Method::Importance, &matrix.name, matrix.size()[1])?;
            layers.inputs(role, Some(&mut inputs), going)?;
            if role == LinearRole::Up {
                attended = Some(copy(layers.states_mut())?);
            }
            let (_, factor) = inputs.factor(matrix, &REFERENCE.shape(matrix.size()))?;
            let quantized = reference(isa, matrix, &factor)?;
            all_errors.push((first + place, matrix, errors(isa, matrix, &factor)?));
            let original = matrix.load()?;
            layers.replace(role, original.clone());
            weights.push((role, original, quantized));
        }
        layers.finish(going)?;
        let Some((_, last)) = layer.linears().last() else { return Ok(()) };
        let (last, hidden) = (&last.weight, last.weight.size()[0]);
        let numbers = layers.states_mut().iter().map(Vec::len).sum::<usize>();
        let products = (numbers / hidden) as f64 * layer_weights(layer);
        self.step(last, 3.0 * products)?;
        let attended = attended.unwrap_or_default();
        let exact = std::mem::take(layers.states_mut());
        for ((at, matrix, errors), (role, original, quantized)) in
            all_errors.into_iter().zip(&weights)
        {
            layers.replace(*role, quantized.clone());
            // Of a block alone.
            let is_attention = matches!(role, LinearRole::Qkv | LinearRole::AttentionOutput);
            *layers.states_mut() = copy(if is_attention { &before } else { &attended })?;
            match is_attention {
                true => layers.inputs(LinearRole::Up, None, going)?,
                false => layers.finish(going)?,
            }
            layers.replace(*role, original.clone());
            let expected = if is_attention { &attended } else { &exact };
            let change = change(layers.states_mut(), expected, hidden);
            self.add(at, matrix, errors, change);
        }
        *layers.states_mut() = exact;
        for at in 0..self.runs.len() {
            let Some(mut states) = self.runs[at].states.take() else { continue };
            for (place, (role, original, quantized)) in weights.iter().enumerate() {
                let weight = if at == first + place { quantized } else { original };
                layers.replace(*role, weight.clone());
            }
            std::mem::swap(layers.states_mut(), &mut states);
            layers.inputs(LinearRole::Up, None, going)?;
            layers.finish(going)?;
            std::mem::swap(layers.states_mut(), &mut states);
            self.runs[at].states = Some(states);
            self.step(last, products)?;
        }
        Ok(())
    }

    /// Compares the predictions of all runs, behind the last layer, with those of the model, over the second half of each text.
    fn predictions(&mut self, layers: &mut Layers<'_>, isa: Isa) -> Result<()> {
        let (head, hidden) = (self.head, self.head.size()[1]);
        let vocab = head.size()[0];
        let at_head = self.tables - 1;
        let mut inputs = Inputs::new(Method::Importance, &head.name, hidden)?;
        layers.enter_head(&self.network.final_norm, &Original)?;
        layers.head_inputs(&mut inputs, &mut |_| ControlFlow::Continue(()))?;
        let (_, factor) = inputs.factor(head, &REFERENCE.shape(head.size()))?;
        let [original, quantized] =
            [head.load()?, reference(isa, head, &factor)?].map(Linear::from);
        self.add(at_head, head, errors(isa, head, &factor)?, 1.0);
        let exact = std::mem::take(layers.states_mut());
        let rows = LOGIT_ROWS * hidden;
        let mut normed = zeros(rows, &head.name)?;
        let logit_rows = || zeros(LOGIT_ROWS * vocab, &head.name);
        let [mut p, mut q] = [logit_rows()?, logit_rows()?];
        let mut logits = |states: &[f32], head: &Linear, logits: &mut Vec<f32>| {
            let normed = &mut normed[..states.len()];
            layers.normalize(states, normed);
            let quantized = &mut Q8Rows::default();
            // A matrix that is not quantized has its columns in order.
            let (activations, ordered, updates) = (ACTIVATIONS, &mut [][..], None);
            let mut context = Context { isa, activations, quantized, ordered, updates };
            // At most what they hold already.
            logits.resize(states.len() / hidden * vocab, 0.0);
            parallel_region(|| head.forward(&mut context, normed, Output::Store, logits));
        };
        for (text, states) in exact.iter().enumerate() {
            let half = states.len() / hidden / 2 * hidden;
            for start in (half..states.len()).step_by(rows) {
                let part = start..(start + rows).min(states.len());
                logits(&states[part.clone()], &original, &mut p);
                let products = (part.len() * vocab) as f64;
                self.step(head, products)?;
                for at in 0..self.runs.len() {
                    let run = &mut self.runs[at];
                    let weight = if at == at_head { &quantized } else { &original };
                    // A head alone changes no states.
                    let states = run.states.as_ref().map_or(states, |states| &states[text]);
                    logits(&states[part.clone()], weight, &mut q);
                    let pairs = p.par_chunks_exact(vocab).zip(q.par_chunks_exact(vocab));
                    let each = pairs.map(|(p, q)| kl_divergence(p, q));
                    run.divergence += each.collect::<Result<Vec<_>>>()?.iter().sum::<f64>();
                    self.step(head, products)?;
                }
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        run: usize,
        matrix: &'n StoredMatrix,
        errors: [f64; FORMATS.len()],
        change: f64,
    ) {
        self.runs[run].matrices.push(Measured { matrix, errors, change });
    }

    fn step(&mut self, matrix: &StoredMatrix, multiply_adds: f64) -> Result<()> {
        self.done += multiply_adds;
        match (self.progress)(matrix, (self.done / self.total).min(1.0)) {
            ControlFlow::Break(()) => Err(Error::Cancelled),
            ControlFlow::Continue(()) => Ok(()),
        }
    }
}

/// The band of each layer. The first and the last layers are the most sensitive: they have bands of their own.
fn bands(layers: usize) -> Vec<usize> {
    if layers <= BANDS {
        return (0..layers).collect();
    }
    // Bands between, and layers in them.
    let (inner, middle) = (BANDS - 2, layers - 2 * OUTER);
    let band = |layer: usize| match layer.checked_sub(OUTER) {
        None => 0,
        Some(layer) if layer < middle => 1 + layer * inner / middle,
        Some(_) => BANDS - 1,
    };
    (0..layers).map(band).collect()
}

/// Multiply-adds of all runs through the layers.
fn multiply_adds(network: &StoredNetwork, tokens: usize, bands: &[usize]) -> f64 {
    // The model itself, the run of the embedding, and both blocks twice with one quantized matrix.
    let runs = |band: usize| (4 + ROLES.len() * (band + 1)) as f64;
    let layers = network.layers.iter().zip(bands);
    tokens as f64 * layers.map(|(layer, band)| runs(*band) * layer_weights(layer)).sum::<f64>()
}

fn layer_weights(layer: &Layer<StoredLinear, StoredNorm>) -> f64 {
    layer.linears().map(|(_, linear)| weights(&linear.weight)).sum()
}

fn weights(matrix: &StoredMatrix) -> f64 {
    let [rows, cols] = matrix.size();
    rows as f64 * cols as f64
}

/// The matrix in the format that is measured, rounded for inputs of these mean squares.
fn reference(isa: Isa, matrix: &StoredMatrix, factor: &Factor) -> Result<Weight> {
    let shape = REFERENCE.shape(matrix.size());
    let order: Vec<_> = (0..shape.cols).collect();
    let going = &mut |_| ControlFlow::Continue(());
    let packed = round(isa, &shape, matrix, &order, factor, going)?;
    Weight::panels(&matrix.name, shape, packed.bytes.into(), &packed.scales.into())
}

fn ones(n: usize, name: &str) -> Result<Vec<f32>> {
    let mut ones = zeros(n, name)?;
    ones.fill(1.0);
    Ok(ones)
}

/// The errors of a matrix in each format, relative to those of the reference, for inputs of these mean squares.
fn errors(isa: Isa, matrix: &StoredMatrix, factor: &Factor) -> Result<[f64; FORMATS.len()]> {
    let all = matrix.size()[0].div_ceil(LANES);
    let count = all.min(SAMPLED_PANELS);
    let of_panel = |index: usize| panel_errors(isa, matrix, index * all / count, factor);
    let sampled = (0..count).into_par_iter().map(of_panel).collect::<Result<Vec<_>>>()?;
    let error = |format: usize| sampled.iter().map(|errors| errors[format]).sum::<f64>();
    let of_reference = FORMATS.iter().position(|it| *it == REFERENCE).map_or(0.0, error);
    // Without errors, all formats are alike.
    let least = if of_reference > 0.0 { of_reference } else { 1.0 };
    Ok(array::from_fn(|format| error(format) / least))
}

/// The mean of the squared change of states relative to their square, `[tokens, hidden]` of each text.
fn change(states: &States, expected: &States, hidden: usize) -> f64 {
    let tokens = states.iter().zip(expected).flat_map(|(states, expected)| {
        states.chunks_exact(hidden).zip(expected.chunks_exact(hidden))
    });
    let of = |(state, expected): (&[f32], &[f32])| {
        let pairs = state.iter().zip(expected);
        let change: f64 = pairs.map(|(a, b)| f64::from((a - b) * (a - b))).sum();
        let square: f64 = expected.iter().map(|b| f64::from(b * b)).sum();
        if square > 0.0 { change / square } else { 0.0 }
    };
    let (sum, count) =
        tokens.fold((0.0, 0.0), |(sum, count), token| (sum + of(token), count + 1.0));
    sum / f64::max(count, 1.0)
}

/// The errors of a panel in each format.
fn panel_errors(
    isa: Isa,
    matrix: &StoredMatrix,
    panel: usize,
    factor: &Factor,
) -> Result<[f64; FORMATS.len()]> {
    let ([rows, cols], first) = (matrix.size(), panel * LANES);
    let rows = LANES.min(rows - first);
    let order: Vec<_> = (0..cols).collect();
    let name = &matrix.name;
    let mut weights = zeros(rows * cols, name)?;
    matrix.values(first, Rotation::None, &order, &mut weights)?;
    let squares = factor.diagonal();
    let mut row = zeros(cols, name)?;
    let mut error = |found: &Weight| -> f64 {
        let rows = weights.chunks_exact(cols).enumerate().map(|(index, weights)| {
            found.matrix().row(index, &mut row);
            let each = weights.iter().zip(&row).zip(squares);
            each.map(|((w, r), square)| f64::from((w - r) * (w - r) * square)).sum::<f64>()
        });
        rows.sum()
    };
    let mut errors = [0.0; FORMATS.len()];
    for (format, found) in FORMATS.iter().zip(&mut errors) {
        let shape = format.shape([rows, cols]);
        let weight = match shape.bits {
            Bits::Four => {
                let packed = round_panel(isa, &shape, &weights, factor, name)?;
                Weight::panels(name, shape, packed.bytes.into(), &packed.scales.into())?
            }
            Bits::Eight => {
                let mut bytes = zeros(shape.bytes(), name)?;
                let mut scales = zeros::<f16>(shape.scales(), name)?;
                let whole = format.shape(matrix.size());
                matrix.pack(&whole, panel, &mut bytes, &mut scales)?;
                Weight::panels(name, shape, bytes.into(), &scales.into())?
            }
        };
        *found = error(&weight);
    }
    Ok(errors)
}

fn copy(states: &States) -> Result<States> {
    states.iter().map(|states| memory::copy(states, STATES)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_cover_all_layers_in_order() {
        assert_eq!(bands(4), [0, 1, 2, 3]);
        assert_eq!(bands(6), [0, 0, 1, 2, 4, 4]);
        assert_eq!(bands(7), [0, 0, 1, 2, 3, 4, 4]);
        let of_28 = bands(28);
        assert_eq!((of_28[1], of_28[2], of_28[9], of_28[10]), (0, 1, 1, 2));
        assert_eq!((of_28[25], of_28[26], of_28[27]), (3, 4, 4));
    }
}
