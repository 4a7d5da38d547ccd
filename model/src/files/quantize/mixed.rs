//! Mixed bits: the formats of the matrices are chosen by what each loses, so that all take a number of bits on average.

use std::ops::ControlFlow;
use std::path::Path;

use rayon::ThreadPool;
use serde::{Deserialize, Serialize};

use super::plan::Plan;
use super::quantizer::Quantizer;
use super::{Progress, QuantizeOptions, Source};
use crate::calibrate::{Calibration, FORMATS, Formats, measured_bytes, measured_formats};
use crate::error::{Error, Result};
use crate::files::weights::{StoredMatrix, StoredNetwork};
use crate::text::tokenizer::Tokenizer;

/// The setting in errors.
const SETTING: &str = "target-bits";

/// Most tokens of a calibration that formats are measured with, unless one text has more.
const MEASURED_TOKENS: usize = 1024;

/// A choice of formats in a journal. It holds for the same bits and the same texts.
#[derive(Serialize, Deserialize)]
pub(super) struct Choice {
    target_bits: String,
    sha256: String,
    formats: Formats,
}

impl Choice {
    fn new(options: &QuantizeOptions, formats: Formats) -> Option<Self> {
        let sha256 = options.calibration.as_ref().map_or("", Calibration::digest).to_owned();
        Some(Self { target_bits: options.target_bits?.to_string(), sha256, formats })
    }

    /// The formats, if they were chosen for these options.
    pub(super) fn formats(&self, options: &QuantizeOptions) -> Option<&Formats> {
        let same = Self::new(options, Formats::new())?;
        let is_same = same.target_bits == self.target_bits && same.sha256 == self.sha256;
        // The journal may be damaged.
        let is_possible = self.formats.values().all(|format| FORMATS.contains(format));
        (is_same && is_possible).then_some(&self.formats)
    }
}

impl Quantizer {
    /// Chooses the formats if options ask for it, and the journal has none yet; keeps them in the journal. `true` if they were measured.
    pub(super) fn choose(
        &mut self,
        source: &Source,
        path: &Path,
        progress: Progress<'_>,
    ) -> Result<bool> {
        if self.options.target_bits.is_none() || self.formats().is_some() {
            return Ok(false);
        }
        if !self.journal.written.is_empty() {
            return Err(self.of_another());
        }
        self.compare_head(source, &|_| true)?;
        let shared = self.journal.shared.as_deref();
        let formats = choose(source, path, &self.options, shared, &self.pool, progress)?;
        self.journal.choice = formats.and_then(|formats| Choice::new(&self.options, formats));
        self.journal.write(self.output.folder())?;
        Ok(true)
    }
}

/// The formats of all matrices for the bits that are asked for, if they are. `shared` is a matrix that is left out.
pub(super) fn choose(
    source: &Source,
    path: &Path,
    options: &QuantizeOptions,
    shared: Option<&str>,
    pool: &ThreadPool,
    progress: Progress<'_>,
) -> Result<Option<Formats>> {
    let Some(target) = options.target_bits else { return Ok(None) };
    let most = budget(source, path, target, shared)?;
    let inputs = inputs(source, path, options)?;
    let total = Plan::new(source, options, None, shared.map(str::to_owned))?.file_len();
    let part = measured_part(options);
    let mut progress = |matrix: &StoredMatrix, done: f64| {
        progress((total as f64 * part * done) as u64, total, &matrix.name)
    };
    let is_written = |matrix: &StoredMatrix| Some(matrix.name.as_str()) != shared;
    let Source { network, config, prefix, .. } = source;
    let prefix = prefix.as_ref();
    let chosen =
        || measured_formats(network, config, prefix, &inputs, &is_written, most, &mut progress);
    source.checked(pool.install(chosen)).map(Some)
}

/// `progress` of what comes after the choice, if there was one.
pub(super) fn after_choice<'a>(
    options: &QuantizeOptions,
    is_chosen: bool,
    progress: Progress<'a>,
) -> impl FnMut(u64, u64, &str) -> ControlFlow<()> + Send + use<'a> {
    let part = if is_chosen { measured_part(options) } else { 0.0 };
    move |done, total, name: &str| {
        let before = total as f64 * part;
        progress((before + done as f64 * (1.0 - part)) as u64, total, name)
    }
}

/// The part of the time that measuring takes, for the progress.
fn measured_part(options: &QuantizeOptions) -> f64 {
    if options.calibration.is_some() { 0.1 } else { 0.5 }
}

/// Bytes of memory for measuring; 0 if no formats are to be chosen.
pub(super) fn bytes(source: &Source, path: &Path, options: &QuantizeOptions) -> Result<u64> {
    if options.target_bits.is_none() {
        return Ok(0);
    }
    let Source { network, config, prefix, .. } = source;
    Ok(measured_bytes(network, config, prefix.as_ref(), &inputs(source, path, options)?))
}

/// What the formats are measured with: some of the texts of a calibration, or a little of the text of the library. With random ids,
/// other matrices seem sensitive: they only take its place if the model has no tokenizer.
fn inputs(source: &Source, path: &Path, options: &QuantizeOptions) -> Result<Calibration> {
    let config = &source.config;
    let inputs = match &options.calibration {
        Some(calibration) => calibration.part(MEASURED_TOKENS),
        None if Tokenizer::is_in(path)? => {
            Calibration::of_own_text(config, &Tokenizer::open(path)?)?
        }
        None => Calibration::without_texts(config),
    };
    inputs.check(config)?;
    Ok(inputs)
}

/// The bytes that all quantized matrices may take for `target` bits a weight.
///
/// # Errors
/// If a matrix is quantized already, or no formats give so few bits or so many.
pub(super) fn budget(
    source: &Source,
    path: &Path,
    target: f64,
    shared: Option<&str>,
) -> Result<u64> {
    let network = &source.network;
    if source.config.experts.is_some() || source.config.latent.is_some() {
        let range = "absent: the formats of models with experts are not chosen".to_owned();
        return Err(Error::Setting { setting: SETTING, range, found: target.to_string() });
    }
    if let Some(matrix) = network.matrices().find(|matrix| matrix.is_quantized()) {
        let problem = format!(
            "{} is quantized already: formats can only be chosen for the original weights",
            matrix.name
        );
        return Err(Error::file(path, problem));
    }
    let matrices: Vec<_> = quantized(network, shared).collect();
    let weights: f64 =
        matrices.iter().map(|it| it.size().map(|n| n as f64)).map(|[rows, cols]| rows * cols).sum();
    let of_each = |matrix: &&StoredMatrix| FORMATS.map(|format| format.bytes(matrix));
    let bits = |bytes: u64| bytes as f64 * 8.0 / weights;
    let least: u64 = matrices.iter().map(|it| of_each(it).into_iter().min().unwrap_or(0)).sum();
    let most: u64 = matrices.iter().map(|it| of_each(it).into_iter().max().unwrap_or(0)).sum();
    if !(bits(least)..=bits(most)).contains(&target) {
        // Rounded inwards, so that what is named is possible.
        let (least, most) = ((bits(least) * 1e3).ceil() / 1e3, (bits(most) * 1e3).floor() / 1e3);
        let range = format!("from {least} to {most}");
        return Err(Error::Setting { setting: SETTING, range, found: target.to_string() });
    }
    Ok((target * weights / 8.0) as u64)
}

/// The matrices that are quantized.
fn quantized<'n>(
    network: &'n StoredNetwork,
    shared: Option<&str>,
) -> impl Iterator<Item = &'n StoredMatrix> {
    let linears = network.linears().map(|(_, linear)| &linear.weight);
    let all = [&network.embedding].into_iter().chain(linears);
    all.filter(move |matrix| Some(matrix.name.as_str()) != shared)
}
