//! The error type. Messages name the file, tensor or setting and, if possible, the remedy.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::units::readable_bytes;

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
    /// A file was changed while it was mapped.
    #[error(
        "{}: {change} while it was in use, so what is computed from it is wrong: open it again when it is whole. A file in use may be \
         renamed or deleted, or another renamed over it; it may be changed in place only if its weights were read into memory \
         (--no-mmap)",
        path.display()
    )]
    FileChanged {
        /// The file.
        path: PathBuf,
        /// What happened to it.
        change: FileChange,
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
    /// A schema or a grammar for answers is not valid, or exceeds a limit.
    #[error("{0}")]
    Grammar(String),
    /// Memory cannot be allocated.
    #[error("{what}: {} of memory cannot be allocated", readable_bytes(*bytes))]
    OutOfMemory {
        /// What needs it: a tensor, a file, or a part of the work.
        what: String,
        /// The memory.
        bytes: u64,
    },
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
    #[error("the memory for a context of {capacity} tokens, {}, cannot be allocated: choose a smaller one", readable_bytes(*bytes))]
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
        readable_bytes(*needed), readable_bytes(*free), readable_bytes(*budget)
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
    /// A file of kept prompts cannot be read into a cache. Nothing is lost if it is replaced.
    #[error("{}: {problem}", path.display())]
    Cache {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// A part of the program that belongs to an answer has panicked.
    #[error("{0} has failed by a fault of the program (a panic): please report it")]
    Panicked(&'static str),
    /// More was asked of an answer that had failed before.
    #[error("the answer has failed already")]
    Failed,
    /// The work was cancelled.
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

/// What happened to a file that was in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u8)]
pub enum FileChange {
    /// It is shorter now.
    Cut = 1,
    /// It is longer, or it was written to.
    Modified,
    /// It has the same size, and the system could not read it.
    Unreadable,
}

impl FileChange {
    /// The change with this number.
    pub(crate) fn of(number: u8) -> Option<Self> {
        [Self::Cut, Self::Modified, Self::Unreadable].into_iter().find(|&it| it as u8 == number)
    }
}

impl fmt::Display for FileChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cut => "was cut off",
            Self::Modified => "was changed",
            Self::Unreadable => "could not be read (a fault of the disk or the network)",
        })
    }
}

impl Error {
    /// A word for the kind of error that stays the same when messages change, for programs: `io`, `file`, `tensor`,
    /// `file_changed`, `setting`, `ids`, `prompt`, `grammar`, `context_full`, `memory`, `out_of_memory`, `kv_budget`, `other_model`,
    /// `cache`, `panicked`, `failed`, `cancelled`, `isa`, `threads` or `not_finite`, each for the variant of that name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "io",
            Self::File { .. } => "file",
            Self::Tensor { .. } => "tensor",
            Self::FileChanged { .. } => "file_changed",
            Self::Setting { .. } => "setting",
            Self::Ids(_) => "ids",
            Self::Prompt(_) => "prompt",
            Self::Grammar(_) => "grammar",
            Self::ContextFull { .. } => "context_full",
            Self::Memory { .. } => "memory",
            Self::OutOfMemory { .. } => "out_of_memory",
            Self::KvBudget { .. } => "kv_budget",
            Self::OtherModel(_) => "other_model",
            Self::Cache { .. } => "cache",
            Self::Panicked(_) => "panicked",
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
    fn sizes_have_the_unit_that_fits() {
        let context = |bytes| Error::Memory { capacity: 8, bytes }.to_string();
        assert!(context(2_500_000).contains("8 tokens, 2.50 MB, cannot"), "{}", context(2_500_000));
        let what = "layers.0.weight".to_owned();
        let matrix = Error::OutOfMemory { what, bytes: 1_230_000_000 }.to_string();
        assert_eq!(matrix, "layers.0.weight: 1.23 GB of memory cannot be allocated");
    }

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
            (Error::FileChanged { path: path(), change: FileChange::Cut }, "file_changed"),
            (Error::Setting { setting: "x", range, found }, "setting"),
            (Error::Ids(problem.clone()), "ids"),
            (Error::Prompt(problem.clone()), "prompt"),
            (Error::ContextFull { needed: 2, capacity: 1, max: 1 }, "context_full"),
            (Error::Memory { capacity: 1, bytes: 1 }, "memory"),
            (Error::OutOfMemory { what: problem.clone(), bytes: 1 }, "out_of_memory"),
            (Error::KvBudget { needed: 1, free: 0, budget: 0 }, "kv_budget"),
            (Error::OtherModel("sequence"), "other_model"),
            (Error::Cache { path: path(), problem: String::new() }, "cache"),
            (Error::Panicked("x"), "panicked"),
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
