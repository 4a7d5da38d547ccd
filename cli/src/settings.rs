//! Settings: defaults of flags, from the environment and from the file `config.toml`.
//!
//! A setting has the name of its flag. A flag on the command line is used first, then the environment, then the file, and then the
//! default of the program or of the model.

mod file;
mod flag;

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context, Result};

use crate::failure;
use crate::folders;
use crate::messages;

pub use file::{set, unset};
pub use flag::{apply, check, default};

/// The setting that names the model. It is no default of a flag: [`crate::models::choose`] reads it.
pub const MODEL: &str = "model";

/// All settings.
pub const NAMES: &[&str] = &[
    MODEL,
    "threads",
    "activations",
    "kv",
    "preload",
    "context",
    "context-overflow",
    "temperature",
    "top-k",
    "top-p",
    "min-p",
    "repetition-penalty",
    "seed",
    "max-new-tokens",
    "stop",
    "draft",
    "system",
    "stats",
    "history",
    #[cfg(feature = "serve")]
    "host",
    #[cfg(feature = "serve")]
    "port",
    #[cfg(feature = "serve")]
    "api-key-file",
    #[cfg(feature = "serve")]
    "origin",
    "alias",
    "max-sequences",
    #[cfg(feature = "serve")]
    "queue",
    "kv-memory",
    "cache-memory",
    #[cfg(feature = "serve")]
    "cache-file",
    #[cfg(feature = "serve")]
    "request-timeout",
    #[cfg(feature = "serve")]
    "grace",
];

/// Settings that the environment can give, and their variables.
const VARIABLES: [(&str, &str); 2] = [(MODEL, "GLM_MODEL"), ("threads", "GLM_THREADS")];

/// The name of the file.
const FILE: &str = "config.toml";

/// Where a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// An environment variable.
    Variable(&'static str),
    /// A line of a file.
    File { path: PathBuf, line: usize },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => f.write_str(name),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
        }
    }
}

/// The value of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// One word, except for a flag that can be given several times.
    pub words: Vec<String>,
    pub origin: Origin,
}

/// The settings that have a value, by name.
#[derive(Debug, Default)]
pub struct Settings(BTreeMap<&'static str, Value>);

impl Settings {
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    fn read() -> Result<Self> {
        // Without a folder for it there is no file.
        let mut settings = path().ok().map_or_else(|| Ok(Vec::new()), |path| file::read(&path))?;
        for (name, variable) in VARIABLES {
            let Some(word) = env::var_os(variable).filter(|word| !word.is_empty()) else {
                continue;
            };
            let word = word.into_string().map_err(|_| messages::variable_is_no_text(variable));
            let words = vec![word.map_err(failure::usage)?];
            flag::check(name, &words).context(variable)?;
            settings.push((name, Value { words, origin: Origin::Variable(variable) }));
        }
        // Of two with the same name, the later is kept.
        Ok(Self(settings.into_iter().collect()))
    }
}

/// The settings of this process, read once.
///
/// # Errors
/// If the file cannot be read. Wrong usage, if the file or a variable has a value that its flag would refuse, or the file has an
/// unknown name or is not valid.
pub fn settings() -> Result<&'static Settings> {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    match SETTINGS.get() {
        Some(settings) => Ok(settings),
        None => Settings::read().map(|settings| SETTINGS.get_or_init(|| settings)),
    }
}

/// The path of the file. It need not exist.
pub fn path() -> Result<PathBuf> {
    Ok(folders::config()?.join(FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_a_flag() {
        let unknown: Vec<_> = NAMES.iter().filter(|name| default(name).is_none()).collect();
        assert!(unknown.is_empty(), "no command has a flag for {unknown:?}");
        assert!(VARIABLES.iter().all(|(name, _)| NAMES.contains(name)));
    }
}
