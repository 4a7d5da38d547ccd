//! The model of a command.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use glm_model::Tokenizer;

use super::find::{Found, find};
use super::{State, all};
use crate::messages;
use crate::output::note;
use crate::settings::{self, MODEL, settings};

/// A model that was chosen.
#[derive(Debug)]
pub enum Choice {
    /// A model on the disk.
    Folder(Found),
    /// The demonstration model in this program.
    Demo,
}

/// Chooses a model: the one that is named, or that the environment or the file of settings names, or the newest that can be run, or
/// the demonstration model. If the command does not name it, a note says which one it is.
///
/// # Errors
/// If a model is named and there is none of this name, the settings cannot be read, or there is no model at all.
pub fn choose(named: Option<&Path>) -> Result<Choice> {
    if let Some(name) = named {
        return find(name).map(Choice::Folder);
    }
    if let Some(settings::Value { words, origin }) = settings()?.get(MODEL) {
        let name = words.concat();
        let found = find(Path::new(&name)).with_context(|| origin.to_string())?;
        note(&messages::model_of_settings(&found.name, origin));
        return Ok(Choice::Folder(found));
    }
    if let Some(found) = newest() {
        note(&messages::model_is_newest(&found.name));
        return Ok(Choice::Folder(found));
    }
    ensure!(cfg!(feature = "demo"), messages::no_model());
    note(&messages::model_is_demo());
    note(&messages::get_a_model());
    Ok(Choice::Demo)
}

/// The newest model in the caches with weights and a tokenizer. A cache that cannot be read has none.
pub fn newest() -> Option<Found> {
    let is_ready = |folder: &Path| {
        State::of(folder).is_ready() && Tokenizer::is_in(folder).is_ok_and(|is_in| is_in)
    };
    let finished = all().ok()?.into_iter().filter(|model| !model.is_unfinished());
    finished.map(Found::from).find(|found| is_ready(&found.folder))
}
