//! Error messages and exit codes.

use std::io;
use std::process::ExitCode;

use glm_model::Error;

use crate::messages;
use crate::output::note;

/// The exit code of a program that Ctrl-C stopped.
pub const INTERRUPTED: u8 = 130;

/// Prints the error and returns its exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        // The reader has closed stdout, as `head` does.
        return ExitCode::SUCCESS;
    }
    if is_cancelled(error) {
        note(&messages::stopped());
        return ExitCode::from(INTERRUPTED);
    }
    note(&messages::error(message(error)));
    ExitCode::FAILURE
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
    for cause in error.chain().map(ToString::to_string) {
        if message.is_empty() {
            message = cause;
        } else if !message.ends_with(&cause) {
            message = format!("{message}: {cause}");
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
}
