//! `glm quantize`: writes a model that opens without preparation.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use glm_model::{
    Calibration, Config, Error, QuantizeOptions, Quantized, Quantizer, Template, Tokenizer,
    calibration_bytes, messages_from_json, quantize,
};

use crate::args::{Quantize, weight_format};
use crate::failure;
use crate::file::{self, Lock};
use crate::interrupt::{self, Again, Termination};
use crate::messages;
use crate::models::{self, Found};
use crate::output::note;
use crate::progress;
use crate::units::{bytes, seconds};
use crate::{input, open};

pub fn run(args: &Quantize) -> Result<()> {
    let started = Instant::now();
    let cancel = interrupt::token(Again::Waits)?;
    let termination = Termination::catch()?;
    let mut options = weight_format(args.bits, args.group, args.symmetric)?;
    (options.threads, options.target_bits) = (args.threads, args.target_bits);
    options.adapter.clone_from(&args.adapter);
    let source = models::find(&args.source)?;
    let Target { folder, name, lock: _lock } = target(args, &options, &source)?;
    ensure!(!is_same(&source.folder, &folder), messages::source_is_target(folder.display()));
    if !Tokenizer::is_in(&source.folder)? {
        note(&messages::source_has_no_tokenizer(&source.name));
    }
    if let Some(file) = &args.calibrate {
        options.calibration =
            Some(calibration(&source.folder, file.as_deref(), args.calibration_tokens)?);
    }
    let needed = calibration_bytes(&source.folder, &options)?;
    let available = open::free_memory();
    let needs = bytes(needed);
    // 0: the system does not say.
    if available > 0 && needed > available {
        bail!(too_little_memory(&source.folder, args, options, [needed, available])?);
    }
    if let Some(bits) = options.target_bits
        && Quantizer::begun(&folder).is_none()
    {
        note(&messages::choosing_formats(bits));
    }
    if let Some(calibration) = &options.calibration {
        note(&messages::calibrating(calibration.tokens(), &needs));
    }
    let bar = progress::bytes();
    let mut show = |done, total, tensor: &str| {
        bar.set_length(total);
        bar.set_position(done);
        bar.set_message(tensor.to_owned());
        match cancel.is_cancelled() || termination.is_requested() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let done = quantize(&source.folder, &folder, &options, &mut show);
    bar.finish_and_clear();
    if matches!(done, Err(Error::Cancelled)) && options.calibration.is_some() {
        note(&messages::calibration_goes_on());
    }
    if done.is_err() && args.target.is_none() {
        // Only if it is empty: a folder without a model in the cache helps nobody.
        let _ = folder.parent().map(fs::remove_dir);
    }
    summary(&options, &name, &done?).iter().for_each(|line| note(line));
    note(&messages::took(seconds(started.elapsed())));
    if args.target.is_none() {
        note(&messages::talk_to(&name));
    }
    Ok(())
}

/// What helps if a calibration, or the choice of formats, needs more memory than there is.
fn too_little_memory(
    folder: &Path,
    args: &Quantize,
    mut options: QuantizeOptions,
    [needed, available]: [u64; 2],
) -> Result<String> {
    let [needs, has] = [needed, available].map(bytes);
    let Some(file) = &args.calibrate else { return Ok(messages::choosing_memory(needs, has)) };
    // The moments of inputs take the same memory for any number of tokens.
    options.calibration =
        Some(calibration(folder, file.as_deref(), FEW_TOKENS.min(args.calibration_tokens))?);
    let least = calibration_bytes(folder, &options)?;
    Ok(match least <= available {
        true => messages::calibration_memory(needs, has),
        false => messages::calibration_memory_at_least(bytes(least), has),
    })
}

/// As few tokens as a calibration may have and still be of use.
const FEW_TOKENS: usize = 4096;

/// The texts in a file, or those that are part of the program.
fn calibration(folder: &Path, file: Option<&Path>, tokens: usize) -> Result<Calibration> {
    let tokenizer = Tokenizer::open(folder)?;
    let config = Config::open(folder)?;
    let Some(path) = file else {
        return Ok(Calibration::of_text(&config, &tokenizer, None, tokens)?);
    };
    let text = input::file(path)?;
    let name = || path.display().to_string();
    let is = |ending: &str| path.extension().is_some_and(|extension| extension == ending);
    if !is("json") && !is("jsonl") {
        return Calibration::of_text(&config, &tokenizer, Some(&text), tokens).with_context(name);
    }
    let conversations = match is("json") {
        true => vec![messages_from_json(&text).with_context(name)?],
        false => {
            let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
            let read = |(at, line)| {
                messages_from_json(line).with_context(|| format!("{}:{}", path.display(), at + 1))
            };
            lines.map(read).collect::<Result<_>>()?
        }
    };
    let template = Template::open(folder, &tokenizer)?;
    Calibration::of_conversations(&config, &tokenizer, &template, &conversations, tokens)
        .with_context(name)
}

/// Where the model is written.
struct Target {
    folder: PathBuf,
    /// Its name for people.
    name: String,
    /// Keeps other processes from writing and removing a model of the cache.
    lock: Option<File>,
}

/// The folder that is named, or the one in the cache for a model of a cache.
fn target(args: &Quantize, options: &QuantizeOptions, source: &Found) -> Result<Target> {
    if let Some(folder) = &args.target {
        let name = folder.display().to_string();
        return Ok(Target { folder: folder.clone(), name, lock: None });
    }
    let Some(stored) = &source.stored else {
        return Err(failure::usage(messages::target_is_missing(&source.name)));
    };
    let folder = models::quantized_folder(&stored.repository, options)?;
    let format = folder.file_name().unwrap_or_default().to_string_lossy();
    let name = format!("{}:{format}", stored.repository);
    let path = models::lock_file(&stored.repository, &format)?;
    let lock = file::open_lock(&path).with_context(|| path.display().to_string())?;
    let is_free = file::try_lock(&lock, Lock::Exclusive);
    ensure!(is_free.with_context(|| path.display().to_string())?, messages::model_is_in_use(&name));
    Ok(Target { folder, name, lock: Some(lock) })
}

/// Whether both paths lead to the same folder.
fn is_same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// What was done, in lines for people.
pub fn summary(options: &QuantizeOptions, target: &str, done: &Quantized) -> Vec<String> {
    let mut lines =
        vec![messages::quantized_size(target, bytes(done.bytes), bytes(done.source_bytes))];
    if done.quantized > 0 {
        let QuantizeOptions { bits, group, .. } = *options;
        lines.push(match (options.target_bits, options.minimum) {
            (Some(bits), _) => messages::matrices_mixed(done.quantized, bits),
            (None, true) => messages::matrices_quantized_with_minimum(done.quantized, bits, group),
            (None, false) => messages::matrices_quantized(done.quantized, bits, group),
        });
    }
    if done.kept > 0 {
        lines.push(messages::matrices_kept(done.kept));
    }
    lines.extend(done.shared.as_ref().map(messages::head_left_out));
    lines
}
