//! Opens a model, and says what that costs.

use std::time::Instant;

use anyhow::{Result, bail};
#[cfg(feature = "demo")]
use glm_model::demo;
use glm_model::{
    Activations, Bundle, Dialect, Inventory, Model, ModelFiles, Options, QuantizeOptions, Template,
    Tokenizer,
};

use crate::args::{self, ActivationType, Source};
use crate::output::note;
use crate::progress::{self, NOTICEABLE};
use crate::units::{bytes, count};

/// Opens a model with its tokenizer and a template: the one that is named, or the model's own.
pub fn bundle(args: &args::Model, template: Option<&str>) -> Result<Bundle> {
    let tokenizer = tokenizer(&args.source)?;
    let template = self::template(&args.source, template, &tokenizer)?;
    Ok(Bundle::new(model(args, Some(&tokenizer))?, tokenizer, template)?)
}

/// Opens the model with a progress bar, and notes what `glm quantize` would improve. The tokenizer must belong to the model.
pub fn model(args: &args::Model, tokenizer: Option<&Tokenizer>) -> Result<Model> {
    // From the headers alone, so that this is said before the work begins.
    let files = args.source.model.as_ref().map(ModelFiles::open).transpose()?;
    if let Some(files) = &files {
        remarks(&args.source, files.inventory()).iter().for_each(|remark| note(remark));
        check_memory(files.inventory(), free_memory())?;
    }
    let started = Instant::now();
    let bar = progress::bytes();
    let mut show = |done, total| {
        // Mapped weights take no time to load, and a bar would only flicker.
        if started.elapsed() > NOTICEABLE {
            bar.set_message("loading");
            bar.set_length(total);
            bar.set_position(done);
        }
    };
    let model = load(args, files.as_ref(), &mut show);
    bar.finish_and_clear();
    let model = model?;
    tokenizer.map_or(Ok(()), |tokenizer| model.check_tokenizer(tokenizer))?;
    if args.preload {
        model.preload();
    }
    if args.activations == Some(ActivationType::Int8) && !model.inventory().is_quantized {
        note(
            "--activations int8 has no effect: only quantized weights are multiplied with int8 activations",
        );
    }
    Ok(model)
}

/// Bytes of memory that are free; 0 if the system does not say.
fn free_memory() -> u64 {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let mut there_is = system.available_memory() + system.free_swap();
    // A container may have a smaller limit than the machine.
    if let Some(limits) = system.cgroup_limits() {
        there_is = there_is.min(limits.free_memory + reclaimable() + limits.free_swap);
    }
    there_is
}

/// Bytes that count towards a container's limit but that the kernel frees when memory is needed: cached files and the kernel's
/// data about them.
fn reclaimable() -> u64 {
    let paths = ["/sys/fs/cgroup/memory.stat", "/sys/fs/cgroup/memory/memory.stat"];
    let statistics = paths.iter().find_map(|path| std::fs::read_to_string(path).ok());
    statistics.map_or(0, |statistics| sum_of_reclaimable(&statistics))
}

/// The reclaimable bytes in `memory.stat` of a control group, version 2 or version 1. In version 1 the names with `total_` include
/// the groups below.
fn sum_of_reclaimable(statistics: &str) -> u64 {
    let value = |name: &str| -> Option<u64> {
        let of = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
        statistics.lines().find_map(of)
    };
    let kinds = [
        &["total_inactive_file", "inactive_file"][..],
        &["total_active_file", "active_file"],
        // In version 2 only.
        &["slab_reclaimable"],
    ];
    kinds.iter().filter_map(|names| names.iter().find_map(|name| value(name))).sum()
}

/// A model with random weights in memory and the shape of a published model, if there is memory for a context of `capacity` tokens.
pub fn random(
    args: &args::Model,
    shape: &str,
    format: &QuantizeOptions,
    capacity: usize,
) -> Result<Model> {
    let options = args.options();
    let needed = Model::random_bytes(shape, format, &options, capacity)?;
    let there_is = free_memory();
    // 0: the system does not say.
    if there_is > 0 && needed > there_is {
        let (needed, there_is) = (bytes(needed), bytes(there_is));
        bail!("{shape} with {capacity} tokens takes {needed} of memory, and {there_is} are free");
    }
    Ok(Model::random(shape, format, &options)?)
}

/// Refuses a model that does not fit in memory, before the system ends the process. Weights that stay mapped need no memory of
/// their own.
fn check_memory(inventory: &Inventory, there_is: u64) -> Result<()> {
    // 0: the system does not say.
    if there_is > 0 && inventory.copied_bytes > there_is {
        let (needed, there_is) = (bytes(inventory.copied_bytes), bytes(there_is));
        bail!(
            "opening this model takes {needed} of memory, and {there_is} are free: `glm quantize` makes a folder that is mapped \
             instead"
        );
    }
    Ok(())
}

fn load(
    args: &args::Model,
    files: Option<&ModelFiles>,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Model> {
    Ok(match files {
        Some(files) => Model::load(files, &args.options(), progress)?,
        None => demo::model(&args.options())?,
    })
}

/// The tokenizer of a model. Its folder need not contain the model.
pub fn tokenizer(source: &Source) -> Result<Tokenizer> {
    match &source.model {
        Some(dir) => Ok(Tokenizer::open(dir)?),
        None => Ok(demo::tokenizer()?),
    }
}

/// How conversations are written: the template that is named, or the model's own.
pub fn template(source: &Source, named: Option<&str>, tokenizer: &Tokenizer) -> Result<Template> {
    match (named, &source.model) {
        (Some(name), _) => Ok(Template::named(name)?),
        (None, Some(dir)) => Ok(Template::open(dir, tokenizer)?),
        (None, None) => Ok(demo::template(tokenizer)?),
    }
}

/// The weights of a model. Those of a folder are not loaded.
pub fn inventory(source: &Source) -> Result<Inventory> {
    match &source.model {
        Some(dir) => Ok(ModelFiles::open(dir)?.inventory().clone()),
        None => Ok(demo::model(&Options::default())?.inventory().clone()),
    }
}

fn name(source: &Source) -> String {
    match &source.model {
        Some(dir) => dir.display().to_string(),
        None => "the small demonstration model of this program".to_owned(),
    }
}

/// Without a folder there is no model in this build.
#[cfg(not(feature = "demo"))]
mod demo {
    use anyhow::{Result, bail};
    use glm_model::{Model, Options, Template, Tokenizer};

    const NONE: &str =
        "no model is part of this program: name a model's folder, as in `glm chat -m DIR`";

    pub fn model(_: &Options) -> Result<Model> {
        bail!(NONE)
    }

    pub fn tokenizer() -> Result<Tokenizer> {
        bail!(NONE)
    }

    pub fn template(_: &Tokenizer) -> Result<Template> {
        bail!(NONE)
    }
}

/// Model, weights, activations, threads and instruction set, in one line.
pub fn summary(args: &args::Model, model: &Model) -> String {
    let activations = match model.activations() {
        Activations::Int8 => "int8",
        Activations::F32 => "f32",
    };
    format!(
        "{}; activations {activations}; {}, {}",
        title(&args.source, model.inventory()),
        count(model.threads(), "thread"),
        model.isa().name(),
    )
}

/// The model and its weights.
pub fn title(source: &Source, inventory: &Inventory) -> String {
    let architecture = inventory.config.architecture;
    format!("{architecture} ({}): weights {}", name(source), weights(inventory))
}

/// How most weights are stored.
fn weights(inventory: &Inventory) -> &str {
    let largest = inventory.matrices.iter().max_by_key(|matrix| matrix.bytes);
    largest.map_or("", |matrix| &matrix.format)
}

/// What `glm quantize` would improve, and what is unusual about the weights.
pub fn remarks(source: &Source, inventory: &Inventory) -> Vec<String> {
    let mut remarks = Vec::new();
    let folder = name(source);
    let weights = weights(inventory);
    let format = weights.split(',').next().unwrap_or_default();
    if !inventory.is_quantized {
        let share = if format == "F32" { "an eighth" } else { "a quarter" };
        let read = bytes(inventory.bytes_per_token);
        remarks.push(format!(
            "the weights are {format}: {read} are read for every token; `glm quantize {folder} DST` makes a folder of about \
             {share}"
        ));
        if inventory.copied_bytes > 0 {
            let size = bytes(inventory.copied_bytes);
            remarks.push(format!(
                "{size} of them are published in pieces and are joined in memory when the model is opened"
            ));
        }
        if inventory.is_head_tied && inventory.config.dialect == Dialect::ChatGlm {
            remarks
                .push("there is no lm_head.weight: the embedding is used as the head".to_owned());
        }
    } else if inventory.copied_bytes > 0 {
        let size = bytes(inventory.copied_bytes);
        remarks.push(format!(
            "{size} of {format} are converted to the kernels' layout in memory when the model is opened; `glm quantize \
             {folder} DST` does that once, losslessly"
        ));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn files_that_were_read_do_not_fill_a_container() {
        let second = "anon 9\nfile 700\nshmem 100\ninactive_file 400\nactive_file 200\nslab_reclaimable 5\nslab_unreclaimable 3\n";
        assert_eq!(sum_of_reclaimable(second), 605);
        let first =
            "inactive_file 1\nactive_file 2\ntotal_inactive_file 30\ntotal_active_file 40\n";
        assert_eq!(sum_of_reclaimable(first), 70);
        assert_eq!(sum_of_reclaimable(""), 0);
    }

    #[test]
    fn a_model_that_would_not_fit_into_memory_is_refused() {
        let models =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/models/chatglm-6b-tiny");
        let open =
            |variant: &str| ModelFiles::open(models.join(variant)).unwrap().inventory().clone();
        let (copied, mapped) = (open("int4"), open("bin-f16"));
        let needed = copied.copied_bytes;
        let refusal = check_memory(&copied, needed - 1).unwrap_err().to_string();
        assert!(refusal.contains(&format!("takes {} of memory", bytes(needed))), "{refusal}");
        assert!(refusal.contains("`glm quantize`"), "{refusal}");
        assert!(check_memory(&copied, needed).is_ok());
        assert!(check_memory(&mapped, 1).is_ok());
        // The system does not say.
        assert!(check_memory(&copied, 0).is_ok());
    }
}
