//! Error messages and exit codes.

pub mod chinese;

use std::fmt;
use std::io;
use std::process::ExitCode;

use glm_model::Error;

use crate::messages::{self, Language, language};
use crate::output::note;

/// The exit code of a failure.
pub const FAILURE: u8 = 1;

/// The exit code of wrong usage: an unknown flag or setting, or a value that is missing, cannot be parsed or is out of range, on the
/// command line, in the environment or in the file of settings.
pub const USAGE: u8 = 2;

/// The exit code of a program that Ctrl-C, SIGTERM or SIGHUP stopped.
pub const INTERRUPTED: u8 = 130;

/// Prints the error and returns its exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        // The reader has closed stdout, as `head` does.
        return ExitCode::SUCCESS;
    }
    let code = code(error);
    note(&match code {
        INTERRUPTED => messages::stopped(),
        _ => messages::error(message(error)),
    });
    ExitCode::from(code)
}

/// Wrong usage that the parser of the command line does not find: it depends on other flags, on stdin or on the model, or it is in the
/// environment or the file of settings.
#[derive(Debug)]
struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// An error with the exit code of wrong usage.
pub fn usage(message: String) -> anyhow::Error {
    Usage(message).into()
}

fn code(error: &anyhow::Error) -> u8 {
    // The settings of the library are values of flags, and the instruction set is that of GLM_ISA.
    let is_usage = |cause: &(dyn std::error::Error + 'static)| {
        cause.is::<Usage>()
            || matches!(cause.downcast_ref(), Some(Error::Setting { .. } | Error::Isa(_)))
    };
    match () {
        () if is_cancelled(error) => INTERRUPTED,
        () if error.chain().any(is_usage) => USAGE,
        () => FAILURE,
    }
}

/// Whether Ctrl-C caused the error.
pub fn is_cancelled(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(Error::Cancelled)))
}

/// Whether the reader of stdout has gone away.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref().map(io::Error::kind));
    kinds.into_iter().any(|kind| kind == io::ErrorKind::BrokenPipe)
}

/// The error and its causes, without those that the message before ends with.
pub fn message(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain() {
        let chinese = match language() {
            Language::Chinese => cause.downcast_ref().and_then(chinese::sentence),
            Language::English => None,
        };
        // A sentence contains the causes of the error.
        let is_complete = chinese.is_some();
        let cause = chinese.unwrap_or_else(|| cause.to_string());
        if message.is_empty() {
            message = cause;
        } else if !message.ends_with(&cause) {
            message = format!("{message}: {cause}");
        }
        if is_complete {
            break;
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn causes_are_named_once() {
        let error = glm_model::Config::open("/nowhere").context("the model");
        let text = message(&error.unwrap_err());
        assert!(text.starts_with("the model: /nowhere: "), "{text}");
        assert_eq!(text.matches("os error").count(), 1, "{text}");
    }

    #[test]
    fn the_reason_is_found_under_its_contexts() {
        let cancelled = anyhow::Error::from(Error::Cancelled).context("quantizing");
        assert!(is_cancelled(&cancelled) && !is_broken_pipe(&cancelled));
        let pipe = io::Error::from(io::ErrorKind::BrokenPipe);
        let pipe = anyhow::Error::from(pipe).context("the answer");
        assert!(is_broken_pipe(&pipe) && !is_cancelled(&pipe));
    }
    #[test]
    fn codes_are_those_of_the_manual() {
        let setting =
            Error::Setting { setting: "x", range: "from 1 to 2".into(), found: "3".into() };
        assert_eq!(code(&anyhow::Error::from(setting).context("flags")), USAGE);
        assert_eq!(code(&usage("no".into()).context("stdin")), USAGE);
        assert_eq!(code(&Error::Failed.into()), FAILURE);
        assert_eq!(code(&anyhow::Error::from(Error::Cancelled).context("quantizing")), INTERRUPTED);
    }
}
