//! The flags that settings are defaults of.

use std::error::Error;

use anyhow::Result;
use clap::builder::{ArgPredicate, Resettable};
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Command, Id};

use super::{MODEL, Settings};
use crate::{args, failure, messages};

/// Makes the settings the defaults of the flags of all commands.
pub fn apply(settings: &Settings, command: Command) -> Command {
    command.mut_subcommands(|command| {
        let given = settings.0.iter().filter(|(name, _)| **name != MODEL);
        given.fold(command, |command, (name, value)| match find(&command, name) {
            Some(flag) => {
                let words = if is_inverse(&flag, name) {
                    inverse(&value.words)
                } else {
                    value.words.clone()
                };
                let flag = with_default(&command, flag, words);
                command.mut_arg(flag.get_id().clone(), |_| flag)
            }
            None => command,
        })
    })
}

/// The default of a flag, empty if the flag has none. `None` if there is no such flag.
pub fn default(name: &str) -> Option<String> {
    let flag = any(name)?;
    let is_value = matches!(flag.get_action(), ArgAction::Set | ArgAction::Append);
    let values = flag.get_default_values().iter().map(|value| value.to_string_lossy());
    Some(if is_value { values.collect() } else { is_inverse(&flag, name).to_string() })
}

/// Whether a flag can be given several times.
pub fn is_list(name: &str) -> bool {
    any(name).is_some_and(|flag| matches!(flag.get_action(), ArgAction::Append))
}

/// # Errors
/// Wrong usage, if the flag would refuse these words.
pub fn check(name: &str, words: &[String]) -> Result<()> {
    let Some(flag) = any(name) else { return Ok(()) };
    if matches!(flag.get_action(), ArgAction::SetTrue) {
        let is_choice = words.iter().all(|word| ["true", "false"].contains(&word.as_str()));
        return match is_choice && words.len() == 1 {
            true => Ok(()),
            false => Err(failure::usage(messages::setting_is_a_choice(name))),
        };
    }
    // By itself: other flags do not matter here.
    let flag = flag.conflicts_with(Resettable::<Id>::Reset).requires(Resettable::<Id>::Reset);
    let flags = words.iter().map(|word| format!("--{name}={word}"));
    match Command::new("glm").no_binary_name(true).arg(flag).try_get_matches_from(flags) {
        Ok(_) => Ok(()),
        Err(error) => {
            let problem = problem(&error);
            Err(failure::usage(messages::invalid_value(words.join(" "), name, problem)))
        }
    }
}

/// Why a flag refuses a value: the values that it accepts, or what its parser says.
fn problem(error: &clap::Error) -> String {
    match (error.source(), error.get(ContextKind::ValidValue)) {
        (Some(problem), _) => problem.to_string(),
        (None, Some(ContextValue::Strings(choices))) => messages::one_of(choices.join(", ")),
        (None, _) => error.kind().to_string(),
    }
}

/// Whether the flag switches the setting off: `--no-NAME`.
fn is_inverse(flag: &Arg, name: &str) -> bool {
    flag.get_long() != Some(name)
}

fn inverse(words: &[String]) -> Vec<String> {
    words.iter().map(|word| (word != "true").to_string()).collect()
}

/// The flag in any of the commands.
fn any(name: &str) -> Option<Arg> {
    args::command().get_subcommands().find_map(|command| find(command, name))
}

fn find(command: &Command, name: &str) -> Option<Arg> {
    let is_meant = |long: &str| long == name || long.strip_prefix("no-") == Some(name);
    command.get_arguments().find(|flag| flag.get_long().is_some_and(is_meant)).cloned()
}

/// The flag with a default that gives way to flags that conflict with it, as `--greedy` with a temperature.
fn with_default(command: &Command, flag: Arg, words: Vec<String>) -> Arg {
    let conflict = |one: &Arg, other: &Arg| {
        command.get_arg_conflicts_with(one).iter().any(|arg| arg.get_id() == other.get_id())
    };
    let others = command.get_arguments().filter(|other| other.get_id() != flag.get_id());
    let others = others.filter(|other| conflict(&flag, other) || conflict(other, &flag));
    let ways = others.map(|other| {
        // A flag without a value is present even if it was not given: it is false then.
        let given = match other.get_action() {
            ArgAction::SetTrue => ArgPredicate::Equals("true".into()),
            _ => ArgPredicate::IsPresent,
        };
        (other.get_id().clone(), given)
    });
    let ways: Vec<_> = ways.collect();
    let flag = ways
        .into_iter()
        .fold(flag, |flag, (other, given)| flag.default_value_if(other, given, Resettable::Reset));
    let is_hidden = flag.get_action().takes_values();
    flag.default_values(words).hide_default_value(is_hidden)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Origin, Value};

    fn settings(pairs: &[(&'static str, &str)]) -> Settings {
        let value = |word: &str| Value {
            words: word.split(' ').map(str::to_owned).collect(),
            origin: Origin::Variable("TEST"),
        };
        Settings(pairs.iter().map(|(name, word)| (*name, value(word))).collect())
    }

    /// A value of `glm chat` with these settings and words.
    fn chosen<T: Clone + Send + Sync + 'static>(
        pairs: &[(&'static str, &str)],
        words: &str,
        id: &str,
    ) -> Option<T> {
        let command = apply(&settings(pairs), args::command());
        let matches = command.try_get_matches_from(format!("glm {words}").split(' ')).unwrap();
        matches.subcommand().unwrap().1.get_one(id).cloned()
    }

    #[test]
    fn a_flag_comes_before_its_setting() {
        let pairs = [("temperature", "0.5"), ("stats", "true"), ("stop", "a b")];
        assert_eq!(chosen(&pairs, "chat", "temperature"), Some(0.5f32));
        assert_eq!(chosen(&pairs, "chat --temperature 0.25", "temperature"), Some(0.25f32));
        assert_eq!(chosen(&pairs, "chat", "stats"), Some(true));
        assert_eq!(chosen(&pairs, "chat", "stop"), Some("a".to_owned()));
        assert_eq!(chosen(&pairs, "chat --stop c", "stop"), Some("c".to_owned()));
        assert_eq!(chosen::<f32>(&[], "chat", "temperature"), None);
        // Commands without the flag are as they were.
        assert_eq!(chosen(&pairs, "info --cpu", "cpu"), Some(true));
    }

    #[test]
    fn a_setting_gives_way_to_a_flag_that_conflicts_with_it() {
        let pairs = [("temperature", "0.5"), ("system", "Be brief.")];
        assert_eq!(chosen::<f32>(&pairs, "chat --greedy", "temperature"), None);
        assert_eq!(chosen::<String>(&pairs, "chat --messages x", "system"), None);
        assert_eq!(chosen(&pairs, "chat", "system"), Some("Be".to_owned()));
    }

    #[test]
    fn a_flag_can_switch_a_setting_off() {
        let flag = Arg::new("quiet").long("no-sound").action(ArgAction::SetTrue);
        for (word, is_quiet) in [("true", false), ("false", true)] {
            let command = Command::new("glm").subcommand(Command::new("play").arg(&flag));
            let command = apply(&settings(&[("sound", word)]), command);
            let matches = command.try_get_matches_from(["glm", "play"]).unwrap();
            assert_eq!(matches.subcommand().unwrap().1.get_flag("quiet"), is_quiet);
        }
    }
}
