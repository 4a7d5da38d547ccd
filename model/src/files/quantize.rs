//! Any supported checkpoint → a folder in the kernels' layout, ready to be mapped. Split tensors are joined.
//!
//! The output is one safetensors file and copies of the configuration and the tokenizer. Matrices become panels of integers (see
//! `weights/stored/layout.rs`). The official INT4 and INT8 keep their integers and scales, and packed weights (see `packed.rs`) their zero points,
//! too; only their order changes. Everything else is copied. Most tensors are written one after another in pieces. The linear layers of four bits are rounded for their inputs (see
//! `calibrate.rs`), layer by layer: what is in memory is one quantized layer. The file has a temporary name until it is complete and
//! on the disk, so an unfinished folder never loads.
//!
//! All matrices have one format, or each has one that is chosen for a number of bits on average (see `mixed.rs`).
//!
//! [`quantize`] does this for a model that is on the disk, [`Quantizer`] for one whose files arrive one after another.

mod mixed;
mod output;
mod plan;
mod quantizer;
mod unfinished;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use glm_kernels::{Bits, GroupForm};
use sha2::{Digest, Sha256};

use crate::calibrate::{self, Calibration};
use crate::error::{Error, Result};
use crate::files::checkpoint::Checkpoint;
use crate::files::config::Config;
use crate::files::lora;
use crate::files::mapped::MappedFiles;
use crate::files::peft::{self, PEFT_CONFIG};
use crate::files::prefix::StoredPrefix;
use crate::files::weights::{
    LAYOUT_KEY, Resolved, StoredMatrix, StoredNetwork, TwoTensors, resolve,
};
use crate::network::model::pool;
use output::Output;
use plan::{Item, Plan};
use quantizer::Journal;
use unfinished::Unfinished;

pub use crate::files::weights::GROUPS;
pub use output::companion_files;
pub use quantizer::Quantizer;

/// Gets the bytes written, the bytes in total and the name of the tensor, and can cancel.
type Progress<'a> = &'a mut (dyn FnMut(u64, u64, &str) -> ControlFlow<()> + Send);

/// The format of weights that are quantized.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct QuantizeOptions {
    /// Bits of a weight: 4 or 8.
    pub bits: usize,
    /// Columns that share a scale, one of [`GROUPS`].
    pub group: usize,
    /// Whether a group stores a minimum beside the scale, for weights that are not symmetric about 0. Only with four bits.
    pub minimum: bool,
    /// Bits of a weight on average, in all quantized matrices with their scales and minima, in place of `bits`, `group` and `minimum`:
    /// the format of each matrix is chosen by what the model loses with it. Not for models whose files arrive one after another, and
    /// not for random ones.
    pub target_bits: Option<f64>,
    /// Threads. Default: as many as the process may use.
    pub threads: Option<usize>,
    /// Texts to quantize for: the outputs for them change least, behind the trained prefix of the model if it has one. This takes much
    /// longer, and memory: see [`calibration_bytes`]. Default: with four bits, the importance of columns for random ids.
    pub calibration: Option<Calibration>,
    /// The folder of an adapter of LoRA to merge: its updates are added to the weights before they are quantized. The weights must not
    /// be quantized already.
    pub adapter: Option<PathBuf>,
}

impl QuantizeOptions {
    /// `bits` a weight, `group` columns to a scale, no minimum, no texts, no adapter, and the default number of threads.
    pub fn new(bits: usize, group: usize) -> Self {
        let (target_bits, threads, calibration, adapter) = Default::default();
        Self { bits, group, minimum: false, target_bits, threads, calibration, adapter }
    }

    /// Columns that share a scale by default: 64 with a minimum, 32 without. So weights of four bits take 4.5 with either.
    pub fn default_group(minimum: bool) -> usize {
        if minimum { 64 } else { 32 }
    }

    /// What a group stores.
    pub(crate) fn form(&self) -> GroupForm {
        if self.minimum { GroupForm::Minimum } else { GroupForm::Scale }
    }
}

impl Default for QuantizeOptions {
    /// Four bits with a minimum, in groups of 64.
    fn default() -> Self {
        Self { minimum: true, ..Self::new(4, Self::default_group(true)) }
    }
}

/// What [`quantize`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quantized {
    /// Bytes of tensors read.
    pub source_bytes: u64,
    /// Bytes of the file written.
    pub bytes: u64,
    /// Matrices that were quantized.
    pub quantized: usize,
    /// Matrices that were quantized before and kept their integers and scales.
    pub kept: usize,
    /// A matrix left out because it is the same as the embedding.
    pub shared: Option<String>,
}

/// Quantizes the model in folder `source` and writes it to folder `target`. `progress` gets the bytes written, the bytes in total
/// and the name of the tensor, and can cancel.
///
/// # Errors
/// If the source is no supported model or is in the kernels' layout already, an option is outside its range, a weight is not
/// finite, the target is not empty, a file cannot be read or written, one of the source is changed meanwhile, or `progress` cancels. The target is then unchanged; folders
/// above it may have been created. What is written is in another folder beside it, with `.quantize.part` added to its name, until it is
/// complete; after an error, that folder is removed. With a calibration, it keeps the matrices that are done (`journal.json` has their
/// names), and the same call goes on with it.
pub fn quantize(
    source: impl AsRef<Path>,
    target: impl AsRef<Path>,
    options: &QuantizeOptions,
    progress: Progress<'_>,
) -> Result<Quantized> {
    let (source, target) = (source.as_ref(), target.as_ref());
    let opened = Source::open(source, options)?;
    if let Some(calibration) = &options.calibration {
        return resumable(&opened, calibration, source, target, options, progress);
    }
    let pool = pool(options.threads)?;
    let head = opened.network.head_like_embedding(&opened.config);
    let shared = head.filter(TwoTensors::are_equal).map(|both| both.name.to_owned());
    if let Some(bits) = options.target_bits {
        mixed::budget(&opened, source, bits, shared.as_deref())?;
    }
    bits(options)?;
    let output = Output::open(target, false)?;
    let formats = mixed::choose(&opened, source, options, shared.as_deref(), &pool, progress)?;
    let progress = &mut mixed::after_choice(options, formats.is_some(), progress);
    let plan = Plan::new(&opened, options, formats.as_ref(), shared)?;
    plan.begin(output.file(), output.path())?;
    let unfinished = Unfinished {
        source: &opened,
        options,
        plan: &plan,
        file: output.file(),
        path: output.path(),
        journal: &mut Journal::default(),
        paused: &mut None,
        folder: None,
    };
    unfinished.fill(&pool, &|_| true, progress)?;
    output.publish(source)?;
    Ok(plan.summary(&opened))
}

/// Quantizes with texts, which takes long. If it fails or is cancelled, the unfinished folder stays, and the same call goes on with it.
fn resumable(
    opened: &Source,
    calibration: &Calibration,
    source: &Path,
    target: &Path,
    options: &QuantizeOptions,
    progress: Progress<'_>,
) -> Result<Quantized> {
    if let Some(matrix) = opened.network.matrices().find(|matrix| matrix.is_quantized()) {
        let problem =
            format!("{} is quantized already: calibration needs the original weights", matrix.name);
        return Err(Error::file(source, problem));
    }
    calibration.check(&opened.config)?;
    if let Some(bits) = options.target_bits {
        mixed::budget(opened, source, bits, None)?;
    }
    let mut quantizer = Quantizer::with_choice(source, target, options)?;
    quantizer.keep_to(opened)?;
    let is_chosen = quantizer.choose(opened, source, progress)?;
    quantizer.write(&|_| true, &mut mixed::after_choice(options, is_chosen, progress))?;
    quantizer.finish()
}

/// Bytes of memory that [`quantize`] needs for a calibration and to choose formats, beside the mapped source; 0 without both.
///
/// # Errors
/// If the source is no supported model, or an option is outside its range.
pub fn calibration_bytes(source: impl AsRef<Path>, options: &QuantizeOptions) -> Result<u64> {
    if options.calibration.is_none() && options.target_bits.is_none() {
        return Ok(0);
    }
    let opened = Source::open(source.as_ref(), options)?;
    let measuring = mixed::bytes(&opened, source.as_ref(), options)?;
    let Some(calibration) = &options.calibration else { return Ok(measuring) };
    let plan = Plan::new(&opened, options, None, None)?;
    let packed = |matrix: &StoredMatrix| plan.item(&matrix.name).map_or(0, Item::bytes);
    let threads = pool(options.threads)?.current_num_threads();
    let Source { network, config, prefix, .. } = &opened;
    let prefix = prefix.as_ref();
    let rounding = calibrate::bytes(network, config, prefix, calibration, threads, &packed);
    Ok(rounding.max(measuring))
}

/// Bytes of each end of a tensor that are in the [fingerprint](Source::fingerprint).
const SAMPLED: usize = 512;

/// The tensors of a model that is to be quantized.
struct Source {
    config: Config,
    network: StoredNetwork,
    prefix: Option<StoredPrefix>,
    /// The hash of the adapter that is merged.
    adapter: Option<[u8; 32]>,
    /// Bytes of all tensors that are read.
    bytes: u64,
    files: MappedFiles,
}

impl Source {
    /// Opens the model that is quantized with `options`.
    fn open(path: &Path, options: &QuantizeOptions) -> Result<Self> {
        let config = Config::open(path)?;
        if let (Some(own), None) = (peft::beside(path)?, &options.adapter) {
            return Err(Error::file(
                &own.join(PEFT_CONFIG),
                "is an adapter beside the model: merge it with --adapter and its folder, or move it away to quantize the model alone",
            ));
        }
        let checkpoint = Checkpoint::open(path)?;
        if checkpoint.metadata().contains_key(LAYOUT_KEY) {
            return Err(Error::file(path, "is quantized and in the kernels' layout already"));
        }
        let Resolved { mut network, prefix, left_out_bytes, .. } = resolve(&config, &checkpoint)?;
        let merge = |folder: &PathBuf| lora::merge(folder, &config, &mut network);
        let adapter = options.adapter.as_ref().map(merge).transpose()?;
        let of_prefix = prefix.iter().flat_map(StoredPrefix::parts);
        let files = network.parts().chain(of_prefix).collect();
        let bytes = checkpoint.total_bytes().saturating_sub(left_out_bytes);
        Ok(Self { config, network, prefix, adapter, bytes, files })
    }

    /// What was computed, or why it could not be, if no file was changed meanwhile.
    ///
    /// # Errors
    /// [`Error::FileChanged`], or that of `computed`.
    fn checked<T>(&self, computed: Result<T>) -> Result<T> {
        self.files.check()?;
        computed
    }

    /// A hash of the first and the last bytes of each matrix, which tells models of the same shape apart, of the prefix, and of
    /// the adapter.
    fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        let of_prefix = self.prefix.iter().flat_map(StoredPrefix::matrices);
        for tensor in self.network.matrices().chain(of_prefix).flat_map(StoredMatrix::tensors) {
            let bytes = tensor.bytes();
            let end = bytes.len().saturating_sub(SAMPLED);
            hash.update(&bytes[..bytes.len().min(SAMPLED)]);
            hash.update(&bytes[end..]);
        }
        self.adapter.iter().for_each(|adapter| hash.update(adapter));
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Checks all options; returns the bits of a weight.
pub(crate) fn bits(options: &QuantizeOptions) -> Result<Bits> {
    let error = |setting, range: String, found: usize| Error::Setting {
        setting,
        range,
        found: found.to_string(),
    };
    if !GROUPS.contains(&options.group) {
        return Err(error("group", format!("one of {GROUPS:?}"), options.group));
    }
    match options.bits {
        4 => Ok(Bits::Four),
        8 if options.minimum => Err(error("bits", "4 with a minimum".to_owned(), 8)),
        8 => Ok(Bits::Eight),
        other => Err(error("bits", "4 or 8".to_owned(), other)),
    }
}
