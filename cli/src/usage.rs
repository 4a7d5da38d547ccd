//! Errors in the command line, in the user's language.

use std::path::Path;

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::failure::USAGE;
use crate::help;
use crate::messages;
use crate::output::note;
use crate::repository::Repository;

/// Prints help or the version on stdout, or an error on stderr, and exits with its code.
pub fn exit(error: &Error) -> ! {
    match message(error) {
        Some(message) => {
            note(&message);
            std::process::exit(USAGE.into())
        }
        None => error.exit(),
    }
}

/// The error with advice; `None` for help, the version, and the kinds of errors that this command line cannot cause.
fn message(error: &Error) -> Option<String> {
    let text = |kind| error.get(kind).and_then(shown);
    let argument = || text(ContextKind::InvalidArg);
    let problem = match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let word = text(ContextKind::InvalidSubcommand)?;
            return Some(messages::error(unknown_command(&word)));
        }
        ErrorKind::UnknownArgument => messages::unexpected_argument(argument()?),
        ErrorKind::MissingRequiredArgument => messages::missing_argument(argument()?),
        ErrorKind::TooManyValues => {
            messages::too_many_values(argument()?, text(ContextKind::InvalidValue)?)
        }
        ErrorKind::ArgumentConflict => match text(ContextKind::PriorArg)? {
            same if Some(&same) == argument().as_ref() => messages::given_twice(same),
            other => messages::conflict(argument()?, other),
        },
        ErrorKind::InvalidValue => match text(ContextKind::InvalidValue)? {
            none if none.is_empty() => messages::missing_value(argument()?),
            value => {
                let choices = text(ContextKind::ValidValue)?;
                messages::invalid_choice(value, argument()?, choices)
            }
        },
        ErrorKind::ValueValidation => {
            let cause = std::error::Error::source(error)?.to_string();
            messages::invalid_value(text(ContextKind::InvalidValue)?, argument()?, cause)
        }
        _ => return None,
    };
    let similar = [ContextKind::SuggestedArg, ContextKind::SuggestedValue];
    let similar = similar.into_iter().find_map(text).map(messages::similar);
    // Clap suggests this where a text is expected.
    let as_text = match (error.get(ContextKind::Suggested), &similar) {
        (Some(_), None) => argument().map(messages::pass_as_text),
        _ => None,
    };
    let usage = text(ContextKind::Usage).map(|usage| {
        let usage = usage.trim_start_matches("Usage:").trim().to_owned();
        messages::usage(usage)
    });
    let lines = [Some(messages::error(problem)), similar, as_text, usage];
    let lines = lines.into_iter().flatten().chain([messages::more_help()]);
    Some(lines.collect::<Vec<_>>().join("\n"))
}

fn shown(value: &ContextValue) -> Option<String> {
    match value {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => Some(texts.join("`, `")),
        ContextValue::StyledStr(text) => Some(text.to_string()),
        _ => None,
    }
}

/// What to say to a word in the place of a command.
fn unknown_command(word: &str) -> String {
    let mut lines = vec![messages::unknown_command(word)];
    if let Some(name) = similar(word, &help::names()) {
        lines.push(messages::similar(name));
    }
    if Path::new(word).is_dir() || is_repository(word) {
        lines.push(messages::model_in_place_of_command(word));
    }
    lines.push(messages::list_of_commands());
    lines.join("\n")
}

/// Whether this is the name of a repository with its owner.
fn is_repository(word: &str) -> bool {
    word.contains('/') && word.parse::<Repository>().is_ok()
}

/// The name that differs from `word` by no more than a slip of the fingers.
fn similar<'a>(word: &str, names: &'a [String]) -> Option<&'a str> {
    let distance = |name: &&String| strsim::damerau_levenshtein(word, name);
    let closest = names.iter().min_by_key(distance)?;
    let most = if closest.len() > 4 { 2 } else { 1 };
    (distance(&closest) <= most).then_some(closest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_slip_is_similar() {
        let names = ["bench", "chat", "generate", "rm"].map(String::from);
        let similar = |word| super::similar(word, &names);
        assert_eq!(similar("chta"), Some("chat"));
        assert_eq!(similar("genrate"), Some("generate"));
        assert_eq!(similar("generat"), Some("generate"));
        for word in ["nosuch", "run", "serve", "model", ""] {
            assert_eq!(similar(word), None, "{word}");
        }
    }

    #[test]
    fn a_repository_is_named_with_its_owner() {
        assert!(is_repository("THUDM/chatglm-6b") && is_repository("zai-org/glm-4-9b-chat-hf"));
        assert!(!is_repository("chatglm") && !is_repository("a/b/c") && !is_repository("../x"));
    }
}
