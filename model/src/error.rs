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
    /// More was asked of an answer that had failed before.
    #[error("the answer has failed already")]
    Failed,
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
    /// A word for the kind of error that stays the same when messages change, for programs: `io`, `file`, `tensor`, `setting`,
    /// `ids`, `prompt`, `context_full`, `memory`, `kv_budget`, `other_model`, `failed`, `cancelled`, `isa`, `threads` or
    /// `not_finite`, each for the variant of that name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "io",
            Self::File { .. } => "file",
            Self::Tensor { .. } => "tensor",
            Self::Setting { .. } => "setting",
            Self::Ids(_) => "ids",
            Self::Prompt(_) => "prompt",
            Self::ContextFull { .. } => "context_full",
            Self::Memory { .. } => "memory",
            Self::KvBudget { .. } => "kv_budget",
            Self::OtherModel(_) => "other_model",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Isa(_) => "isa",
            Self::Threads(_) => "threads",
            Self::NotFinite => "not_finite",
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_stable() {
        let path = PathBuf::new;
        let (problem, tensor, range, found) =
            (String::new(), String::new(), String::new(), String::new());
        let threads = rayon::ThreadPoolBuilder::new().num_threads(1);
        let threads = threads.spawn_handler(|_| Err(io::Error::other("no"))).build();
        for (error, code) in [
            (Error::io(Path::new("x"))(io::Error::other("no")), "io"),
            (Error::File { path: path(), problem: problem.clone() }, "file"),
            (Error::Tensor { path: path(), tensor, problem: problem.clone() }, "tensor"),
            (Error::Setting { setting: "x", range, found }, "setting"),
            (Error::Ids(problem.clone()), "ids"),
            (Error::Prompt(problem.clone()), "prompt"),
            (Error::ContextFull { needed: 2, capacity: 1, max: 1 }, "context_full"),
            (Error::Memory { capacity: 1, bytes: 1 }, "memory"),
            (Error::KvBudget { needed: 1, free: 0, budget: 0 }, "kv_budget"),
            (Error::OtherModel("sequence"), "other_model"),
            (Error::Failed, "failed"),
            (Error::Cancelled, "cancelled"),
            (Error::Isa(problem), "isa"),
            (Error::Threads(threads.err().unwrap()), "threads"),
            (Error::NotFinite, "not_finite"),
        ] {
            assert_eq!(error.code(), code);
        }
    }
}
