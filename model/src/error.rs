//! What can go wrong, said to the person who can mend it.

use std::io;
use std::path::{Path, PathBuf};

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in which file, tensor or setting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file is not what its name promises.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it and, where there is one, the remedy.
        problem: String,
    },
    /// A tensor is missing, unexpected, or of the wrong type or shape.
    #[error("{}: tensor {tensor}: {problem}", path.display())]
    Tensor {
        /// The file or folder that holds or should hold it.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// A setting is outside its range.
    #[error("{setting} must be {range}, found {found}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// What is allowed.
        range: String,
        /// What was given.
        found: String,
    },
    /// Token ids that this model cannot be given.
    #[error("{0}")]
    Ids(String),
    /// A text or conversation that no prompt can be made of.
    #[error("{0}")]
    Prompt(String),
    /// Prompt and answer do not fit in the context.
    #[error(
        "{needed} tokens are needed, and the context holds {capacity}: shorten the prompt{}",
        if max > capacity { format!(", or ask for a larger context, up to {max}") } else { String::new() }
    )]
    ContextFull {
        /// Tokens that the request wants to keep in the context.
        needed: usize,
        /// Tokens that the context holds.
        capacity: usize,
        /// Tokens that the model was made for.
        max: usize,
    },
    /// The operating system does not give the memory for a context.
    #[error("a context of {capacity} tokens takes {:.1} GB of memory, which cannot be had: choose a smaller one", *bytes as f64 / 1e9)]
    Memory {
        /// Tokens that the context was to hold.
        capacity: usize,
        /// What it takes.
        bytes: u64,
    },
    /// The budget for keys and values is used up.
    #[error(
        "keys and values need {} more, and {} of the {} set aside for them are free: end a conversation, choose smaller \
         contexts, or raise the limit",
        megabytes(*needed), megabytes(*free), megabytes(*budget)
    )]
    KvBudget {
        /// Bytes that are needed.
        needed: u64,
        /// Bytes of the budget that are free.
        free: u64,
        /// Bytes of the budget.
        budget: u64,
    },
    /// A sequence or a workspace was made by another model than the one it was given to.
    #[error("the {0} belongs to another model than the one that runs")]
    OtherModel(&'static str),
    /// The work was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// `GLM_ISA` names instructions that this CPU lacks.
    #[error("{0}")]
    Isa(String),
    /// The operating system refused the threads.
    #[error("threads could not be started: {0}")]
    Threads(rayon::ThreadPoolBuildError),
    /// The weights gave logits that are not numbers.
    #[error(
        "the model's logits are not finite: the weights are damaged or not what the config says"
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
