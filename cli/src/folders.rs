//! Where files of a user are: configuration, history and models.

use std::borrow::Cow;
use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::messages;

/// The folder of `config.toml`: `$XDG_CONFIG_HOME/glm`, else `~/.config/glm`.
pub fn config() -> Result<PathBuf> {
    own("XDG_CONFIG_HOME", ".config")
}

/// The folder of the history of questions: `$XDG_STATE_HOME/glm`, else `~/.local/state/glm`.
pub fn state() -> Result<PathBuf> {
    own("XDG_STATE_HOME", ".local/state")
}

/// The folder of the Hugging Face hub's own tools: `$HF_HOME`, else `$XDG_CACHE_HOME/huggingface`, else `~/.cache/huggingface`.
pub fn hugging_face() -> Result<PathBuf> {
    match variable("HF_HOME") {
        Some(home) => Ok(home),
        None => Ok(base("XDG_CACHE_HOME", ".cache")?.join("huggingface")),
    }
}

/// The cache of the Hugging Face hub, where its own tools have it: `$HF_HUB_CACHE`, else the folder `hub` in [`hugging_face`].
pub fn hub() -> Result<PathBuf> {
    match variable("HF_HUB_CACHE") {
        Some(hub) => Ok(hub),
        None => Ok(hugging_face()?.join("hub")),
    }
}

/// The models that `glm pull --quantize` made: the folder `glm` beside the hub's cache, so that both are on the same disk.
pub fn quantized() -> Result<PathBuf> {
    Ok(hub()?.parent().unwrap_or(Path::new(".")).join("glm"))
}

/// The stores of Ollama: `$OLLAMA_MODELS`, else that of the user and that of the service.
pub fn ollama() -> Vec<PathBuf> {
    if let Some(models) = variable("OLLAMA_MODELS") {
        return vec![models];
    }
    let own = env::home_dir().map(|home| home.join(".ollama/models"));
    own.into_iter().chain([PathBuf::from("/usr/share/ollama/.ollama/models")]).collect()
}

fn own(name: &str, below_home: &str) -> Result<PathBuf> {
    Ok(base(name, below_home)?.join("glm"))
}

/// The folder in variable `name`, else a folder in the user's home.
fn base(name: &str, below_home: &str) -> Result<PathBuf> {
    match (variable(name), env::home_dir()) {
        (Some(folder), _) => Ok(folder),
        (None, Some(home)) if !home.as_os_str().is_empty() => Ok(home.join(below_home)),
        _ => bail!(messages::home_is_unknown(name)),
    }
}

/// A path in which `~` at the beginning is the user's home, where no shell has replaced it, as in `--model=~/x` or in the settings. A file
/// that is called so comes first.
pub fn expanded(path: &Path) -> Cow<'_, Path> {
    let below = path.strip_prefix("~").ok().filter(|_| path.symlink_metadata().is_err());
    match (below, env::home_dir()) {
        (Some(below), Some(home)) if !home.as_os_str().is_empty() => home.join(below).into(),
        _ => path.into(),
    }
}

/// The path in an environment variable that is set and not empty.
fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
