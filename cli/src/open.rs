//! Opens a model, and says what that costs.

mod cgroup;
mod describe;
mod memory;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Error, Result, bail};
#[cfg(feature = "demo")]
use glm_model::demo;
use glm_model::{
    Adapter, AdapterKind, Bundle, Inventory, Model, ModelFiles, Options, QuantizeOptions, Template,
    Tokenizer,
};

use crate::args::{self, ActivationType, Source};
use crate::failure::usage;
use crate::messages;
use crate::models::{Choice, Found, State};
use crate::output::note;
use crate::progress::{self, NOTICEABLE};
use crate::units::bytes;

pub use describe::{note_unusable, remarks, summary, title};
pub use memory::{free as free_memory, own as own_memory, peak as peak_memory};

/// Opens a model with its tokenizer and a template: the one that is named, or the model's own.
pub fn bundle(args: &args::Model, template: Option<&str>, options: &Options) -> Result<Bundle> {
    let tokenizer = tokenizer(&args.source)?;
    let template = self::template(&args.source, template, &tokenizer)?;
    Ok(Bundle::new(model_with(args, Some(&tokenizer), options)?, tokenizer, template)?)
}

/// Opens the model with a progress bar, and notes what `glm quantize` would improve. The tokenizer must belong to the model.
pub fn model(args: &args::Model, tokenizer: Option<&Tokenizer>) -> Result<Model> {
    refuse_names(args)?;
    model_with(args, tokenizer, &args.options())
}

/// Only requests and a chat can choose an adapter by its name.
pub fn refuse_names(args: &args::Model) -> Result<()> {
    match args.named_adapters().next() {
        Some((name, _)) => Err(usage(messages::adapter_has_a_name(name))),
        None => Ok(()),
    }
}

fn model_with(
    args: &args::Model,
    tokenizer: Option<&Tokenizer>,
    options: &Options,
) -> Result<Model> {
    let adapter = args.adapter()?;
    // From the headers alone, so that this is said before the work begins.
    let files = files(&args.source)?;
    let for_files = memory::free_for_files();
    let mut options = options.clone();
    if let Some(files) = &files {
        let (inventory, free) = (files.inventory(), memory::free());
        remarks(&args.source, inventory).iter().for_each(|remark| note(remark));
        memory::check(inventory, options.no_mmap, free)?;
        if let Some(needed) = memory::streamed(inventory, options.no_mmap, for_files) {
            options.reads_ahead = true;
            note(&messages::experts_are_streamed(bytes(needed), bytes(for_files)));
        }
    }
    let options = &options;
    let started = Instant::now();
    let bar = progress::bytes();
    let mut show = |done, total| {
        // Mapped weights take no time to load, and a bar would only flicker.
        if started.elapsed() > NOTICEABLE {
            bar.set_message(messages::loading());
            bar.set_length(total);
            bar.set_position(done);
        }
    };
    let model = load(options, files.as_ref(), &mut show);
    bar.finish_and_clear();
    let mut model = model?;
    if let Some(folder) = adapter {
        model = model.with_adapter(Some(&self::adapter(&model, folder)?))?;
    } else if let Some(own) = model.adapter() {
        match own.kind() {
            AdapterKind::LowRank { layers } => note(&messages::own_lora(layers)),
            _ => note(&messages::own_adapter(own.tokens())),
        }
    }
    tokenizer.map_or(Ok(()), |tokenizer| model.check_tokenizer(tokenizer))?;
    if args.preload {
        match memory::can_preload(model.inventory(), for_files) {
            true => model.preload(),
            false => note(&messages::preload_is_in_vain(bytes(for_files))),
        }
    }
    if args.activations == Some(ActivationType::Int8) && !model.inventory().is_quantized {
        note(&messages::int8_has_no_effect());
    }
    Ok(model)
}

/// A model with random weights in memory and the shape of a published model, if there is memory for a context of `capacity` tokens.
pub fn random(
    args: &args::Model,
    shape: &str,
    format: &QuantizeOptions,
    capacity: usize,
) -> Result<Model> {
    let options = args.options();
    let needed = Model::random_bytes(shape, format, &options, capacity)
        .with_context(messages::bench_lengths)?;
    let available = memory::free();
    // 0: the system does not say.
    if available > 0 && needed > available {
        bail!(messages::bench_memory(shape, capacity, bytes(needed), bytes(available)));
    }
    let bar = progress::bytes();
    bar.set_message(messages::bench_random());
    let mut show = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let model = Model::random_with_progress(shape, format, &options, &mut show);
    bar.finish_and_clear();
    Ok(model?)
}

/// Opens an adapter of the model.
pub fn adapter(model: &Model, folder: &Path) -> Result<Adapter> {
    let adapter = Adapter::open(folder, model)?;
    let folder = folder.display();
    match adapter.kind() {
        AdapterKind::LowRank { layers } => note(&messages::lora(folder, layers)),
        _ => note(&messages::adapter(folder, adapter.tokens())),
    }
    Ok(adapter)
}

/// Opens the adapters that have names, none of which is in `taken`.
pub fn named_adapters(
    args: &args::Model,
    model: &Model,
    taken: &[String],
) -> Result<Vec<(String, Adapter)>> {
    let mut adapters: Vec<(String, Adapter)> = Vec::new();
    for (name, folder) in args.named_adapters() {
        let mut others = taken.iter().chain(adapters.iter().map(|(other, _)| other));
        if others.any(|other| other == name) {
            return Err(usage(messages::adapter_name_is_taken(name)));
        }
        adapters.push((name.to_owned(), adapter(model, folder)?));
    }
    Ok(adapters)
}

/// The files of a model on the disk.
fn files(source: &Source) -> Result<Option<ModelFiles>> {
    match source.choice()? {
        Choice::Folder(found) => {
            let files =
                ModelFiles::open(source.path(found)).map_err(|error| explain(found, error))?;
            Ok(Some(files))
        }
        Choice::Demo => Ok(None),
    }
}

fn load(
    options: &Options,
    files: Option<&ModelFiles>,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Model> {
    Ok(match files {
        Some(files) => Model::load(files, options, progress)?,
        None => demo::model(options)?,
    })
}

/// The tokenizer of a model. Its folder need not contain the model.
pub fn tokenizer(source: &Source) -> Result<Tokenizer> {
    match source.choice()? {
        Choice::Folder(found) => {
            Tokenizer::open(source.path(found)).map_err(|error| explain(found, error))
        }
        Choice::Demo => Ok(demo::tokenizer()?),
    }
}

/// How conversations are written: the template that is named, or the model's own.
pub fn template(source: &Source, named: Option<&str>, tokenizer: &Tokenizer) -> Result<Template> {
    match (named, source.choice()?) {
        (Some(name), _) => Ok(Template::named(name)?),
        (None, Choice::Folder(found)) => Ok(Template::open(source.path(found), tokenizer)?),
        (None, Choice::Demo) => Ok(demo::template(tokenizer)?),
    }
}

/// Memory for keys and values: three quarters of what is free beside the weights. `None` if the system does not say.
pub fn kv_budget(source: &Source) -> Result<Option<u64>> {
    let inventory = inventory(source)?;
    let weights: u64 = inventory.matrices.iter().map(|matrix| matrix.bytes).sum();
    let free = memory::free();
    Ok((free > 0).then(|| memory::beside(weights, free)))
}

/// The weights of a model. Those of a folder are not loaded.
pub fn inventory(source: &Source) -> Result<Inventory> {
    match files(source)? {
        Some(files) => Ok(files.inventory().clone()),
        None => Ok(demo::model(&Options::default())?.inventory().clone()),
    }
}

/// The error about a model: its download may be incomplete.
fn explain(found: &Found, error: glm_model::Error) -> Error {
    let error = Error::from(error);
    match (&found.stored, State::of(&found.folder)) {
        (Some(stored), State::Incomplete { .. }) => {
            error.context(messages::model_is_incomplete(&found.name, &stored.repository))
        }
        _ => error,
    }
}

/// Without a folder there is no model in this build.
#[cfg(not(feature = "demo"))]
mod demo {
    use anyhow::{Result, bail};
    use glm_model::{Model, Options, Template, Tokenizer};

    use crate::messages;

    pub fn model(_: &Options) -> Result<Model> {
        bail!(messages::no_model())
    }

    pub fn tokenizer() -> Result<Tokenizer> {
        bail!(messages::no_model())
    }

    pub fn template(_: &Tokenizer) -> Result<Template> {
        bail!(messages::no_model())
    }
}
