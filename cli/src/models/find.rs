//! Models by name.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::{State, Stored, all, hub, ollama, quantized};
use crate::folders;
use crate::messages;
use crate::repository::Repository;

/// The folder of a model, or its GGUF file, and its name for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub name: String,
    pub folder: PathBuf,
    /// The model in a cache, if it is not just a folder.
    pub stored: Option<Stored>,
}

impl Found {
    /// Whether it was found by its path, and not by a name.
    pub fn is_path(&self) -> bool {
        self.name == self.folder.display().to_string()
    }
}

impl From<Stored> for Found {
    fn from(stored: Stored) -> Self {
        Self { name: stored.name(), folder: stored.folder.clone(), stored: Some(stored) }
    }
}

/// Finds a model: the folder or the GGUF file of this path, or else the model of this name, in the store of Ollama if it begins with
/// `ollama:`. The folder of a repository in the hub's cache stands for the snapshot in it.
///
/// # Errors
/// If there is neither, or the name can mean several models.
pub fn find(name: &Path) -> Result<Found> {
    let path = &*folders::expanded(name);
    let name = if path.exists() { path } else { name };
    match fs::metadata(name) {
        Ok(_) => {
            // A link may lead to the folder of a repository.
            let end = name.canonicalize().ok();
            if let Some(stored) = hub::meant(name).or_else(|| hub::meant(&end?)) {
                return Ok(stored.into());
            }
            ensure!(!hub::is_empty(name), messages::no_snapshot(name.display()));
            let folder = name.to_owned();
            return Ok(Found { name: name.display().to_string(), folder, stored: None });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && name.is_symlink() => {
            let target = fs::read_link(name).unwrap_or_default();
            bail!(messages::link_to_nothing(name.display(), target.display()));
        }
        // A name with a colon is no path on Windows.
        Err(error) if is_absent(&error) => {}
        Err(error) => return Err(error).with_context(|| name.display().to_string()),
    }
    match name.to_str() {
        // The name of the folder of a repository in the cache.
        Some(text) if !text.contains('/') && Repository::of_folder(text).is_some() => {
            let repository = Repository::of_folder(text).map(|name| name.to_string());
            Ok(named(&repository.unwrap_or_default())?.into())
        }
        Some(text) if text.starts_with(ollama::PREFIX) => {
            Ok(Found { name: text.to_owned(), folder: ollama::find(text)?, stored: None })
        }
        Some(text) => Ok(named(text)?.into()),
        None => bail!(messages::no_such_folder(name.display())),
    }
}

fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | InvalidFilename | InvalidInput)
}

/// Finds a model in the caches: `OWNER/NAME`, or `NAME` if only one owner has it, with or without `@REVISION` or `:FORMAT`. Without
/// them it is the original, if that can be run, and else the newest quantized one.
///
/// # Errors
/// If there is none, or several owners have one.
pub fn named(text: &str) -> Result<Stored> {
    let Some((repository, suffix)) = parse(text) else {
        bail!(messages::no_such_folder(text));
    };
    let is_short = !repository.to_string().contains('/');
    let is_meant = |other: &Repository| {
        *other == repository || is_short && other.name() == repository.to_string()
    };
    // Other revisions and unfinished folders are meant only if they are named.
    let has_suffix = |model: &Stored| match suffix {
        "" => model.suffix.is_empty() || model.is_quantized() && !model.is_unfinished(),
        suffix => model.suffix == suffix,
    };
    let mut models = all()?;
    models.retain(|model| is_meant(&model.repository) && has_suffix(model));
    let owners: BTreeSet<_> = models.iter().map(|model| model.repository.to_string()).collect();
    // A repository without an owner is named completely.
    let exact = models.iter().any(|model| model.repository == repository);
    if owners.len() > 1 && !exact {
        let candidates = owners.into_iter().map(|owner| format!("{owner}{suffix}"));
        bail!(messages::several_models(text, candidates.collect::<Vec<_>>().join(", ")));
    }
    models.retain(|model| !exact || model.repository == repository);
    preferred(models).map_or_else(|| bail!(not_found(text, &repository, suffix)?), Ok)
}

/// The original, if it can be run, and else the newest quantized model.
fn preferred(mut models: Vec<Stored>) -> Option<Stored> {
    let original = models.iter().position(|model| !model.is_quantized());
    let choice = match original {
        Some(original) if models.len() == 1 || State::of(&models[original].folder).is_ready() => {
            original
        }
        // The files of a tokenizer alone can be in the place of the original.
        Some(0) => 1,
        _ => 0,
    };
    (choice < models.len()).then(|| models.swap_remove(choice))
}

/// The parts of a name: repository, and suffix with its first character.
fn parse(text: &str) -> Option<(Repository, &str)> {
    let (repository, suffix) = text.split_at(text.find(['@', ':']).unwrap_or(text.len()));
    Some((repository.parse().ok()?, suffix))
}

/// What was looked for, and how to get it.
fn not_found(text: &str, repository: &Repository, suffix: &str) -> Result<String> {
    let full = repository.to_string();
    let name = if full.contains('/') { full } else { format!("OWNER/{full}") };
    let mixed = suffix.strip_prefix(':').and_then(|format| format.strip_prefix(quantized::MIXED));
    let command = match mixed {
        // The formats can only be chosen for a model that is there.
        Some(bits) => format!("glm pull {name} && glm quantize {name} --target-bits {bits}"),
        None => format!("glm pull {name}{}", flags(suffix)),
    };
    let (hub, own) = (folders::hub()?, folders::quantized()?);
    Ok(messages::no_such_model(text, hub.display(), own.display(), command))
}

/// The flags with which `glm pull` gets a model of this suffix.
fn flags(suffix: &str) -> String {
    if let Some(revision) = suffix.strip_prefix('@') {
        return format!(" --revision {revision}");
    }
    let Some(format) = suffix.strip_prefix(":int") else { return String::new() };
    let (format, symmetric) = match format.strip_suffix(quantized::SYMMETRIC) {
        Some(format) => (format, " --symmetric"),
        None => (format, ""),
    };
    match format.split_once("-g") {
        Some((bits, group)) => format!(" --quantize={bits} --group {group}{symmetric}"),
        None => format!(" --quantize={format}{symmetric}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_a_repository_and_perhaps_a_suffix() {
        for (text, repository, suffix) in [
            ("THUDM/chatglm-6b", "THUDM/chatglm-6b", ""),
            ("chatglm-6b:int4", "chatglm-6b", ":int4"),
            ("a/b@refs/pr/1", "a/b", "@refs/pr/1"),
        ] {
            assert_eq!(parse(text), Some((repository.parse().unwrap(), suffix)));
        }
        for text in ["", "/nowhere", "./a", "a/b/c", ":int4", "../x"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_advice_gets_the_model_that_is_missing() {
        assert_eq!(flags(""), "");
        assert_eq!(flags(":int4"), " --quantize=4");
        assert_eq!(flags(":int8-g64"), " --quantize=8 --group 64");
        assert_eq!(flags(":int4-sym"), " --quantize=4 --symmetric");
        assert_eq!(flags(":int4-g64-sym"), " --quantize=4 --group 64 --symmetric");
        assert_eq!(flags("@v1.1"), " --revision v1.1");
    }
}
