//! The error type. Messages name the file, tensor or setting and, if possible, the remedy.

use std::io;
use std::path::{Path, PathBuf};

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An I/O error.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file is invalid.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// The problem and, if there is one, the remedy.
        problem: String,
    },
    /// A tensor is missing, unexpected, or of the wrong type or shape.
    #[error("{}: tensor {tensor}: {problem}", path.display())]
    Tensor {
        /// The file or directory that should contain it.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The problem: what was expected and what was found.
        problem: String,
    },
    /// A setting is outside its range.
    #[error("{setting} must be {range}, found {found}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// The allowed range.
        range: String,
        /// The given value.
        found: String,
    },
    /// Token ids that are invalid for this model.
    #[error("{0}")]
    Ids(String),
    /// A text or conversation that cannot be converted to a prompt.
    #[error("{0}")]
    Prompt(String),
    /// Prompt and answer exceed the context.
    #[error(
        "{needed} tokens are needed, and the context holds {capacity}: shorten the prompt{}",
        if max > capacity { format!(", or ask for a larger context, up to {max}") } else { String::new() }
    )]
    ContextFull {
        /// Tokens that the request needs.
        needed: usize,
        /// Size of the context in tokens.
        capacity: usize,
        /// Largest context of the model in tokens.
        max: usize,
    },
    /// The memory for a context cannot be allocated.
    #[error("the memory for a context of {capacity} tokens, {:.1} GB, cannot be allocated: choose a smaller one", *bytes as f64 / 1e9)]
    Memory {
        /// Size of the context in tokens.
        capacity: usize,
        /// Its memory.
        bytes: u64,
    },
    /// The budget for KV caches is exhausted.
    #[error(
        "keys and values need {} more, and {} of the {} set aside for them are free: end a conversation, choose smaller \
         contexts, or raise the limit",
        megabytes(*needed), megabytes(*free), megabytes(*budget)
    )]
    KvBudget {
        /// Bytes needed.
        needed: u64,
        /// Free bytes of the budget.
        free: u64,
        /// Size of the budget in bytes.
        budget: u64,
    },
    /// A sequence or workspace was created by a different model.
    #[error("the {0} belongs to another model than the one that runs")]
    OtherModel(&'static str),
    /// The operation was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// `GLM_ISA` names an instruction set that this CPU does not have.
    #[error("{0}")]
    Isa(String),
    /// The threads cannot be started.
    #[error("threads could not be started: {0}")]
    Threads(rayon::ThreadPoolBuildError),
    /// Logits are NaN or infinite.
    #[error(
        "the model's logits are not finite: the weights are damaged or do not match the config"
    )]
    NotFinite,
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

impl Error {
    /// For `map_err` on an I/O result about `path`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Error::Io { path: path.to_owned(), source }
    }

    pub(crate) fn file(path: &Path, problem: impl Into<String>) -> Self {
        Error::File { path: path.to_owned(), problem: problem.into() }
    }

    pub(crate) fn tensor(path: &Path, tensor: &str, problem: impl Into<String>) -> Self {
        Error::Tensor { path: path.to_owned(), tensor: tensor.to_owned(), problem: problem.into() }
    }
}
