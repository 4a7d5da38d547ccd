//! What a person enters at the prompt: a question or a command.

use std::path::PathBuf;

use super::settings::THINK;
use crate::help::wrap;
use crate::messages;

/// A command as it is listed.
pub struct Listed {
    pub name: &'static str,
    /// What follows the name.
    argument: &'static str,
    /// What it does.
    help: fn() -> String,
}

pub const COMMANDS: &[Listed] = &[
    listed("/set", "NAME VALUE", messages::help_set),
    listed("/show", "", messages::help_show),
    listed("/system", "TEXT", messages::help_system),
    listed("/regen", "", messages::help_regen),
    listed("/edit", "", messages::help_edit),
    listed("/undo", "", messages::help_undo),
    listed("/clear", "", messages::help_clear),
    listed("/save", "FILE", messages::help_save),
    listed("/load", "FILE", messages::help_load),
    listed("/adapter", "NAME", messages::help_adapter),
    listed("/think", "on|off", messages::help_think),
    listed("/thoughts", "", messages::help_thoughts),
    listed("/stats", "on|off", messages::help_stats),
    listed("/help", "", messages::help_help),
    listed("/bye", "", messages::help_bye),
];

const fn listed(name: &'static str, argument: &'static str, help: fn() -> String) -> Listed {
    Listed { name, argument, help }
}

/// The list of commands in lines of `columns`, if they are wide enough for two columns.
pub fn help(columns: usize) -> String {
    const LEFT: usize = 17;
    const NARROWEST: usize = 20;
    let line = |command: &Listed| {
        let usage = format!("{} {}", command.name, command.argument);
        let lines = wrap::lines(&(command.help)(), columns.saturating_sub(LEFT).max(NARROWEST));
        format!("{usage:<LEFT$}{}\n", lines.join(&format!("\n{:LEFT$}", "")))
    };
    COMMANDS.iter().map(line).collect::<String>() + &messages::help_keys()
}

/// An input at the prompt.
#[derive(Debug, PartialEq, Eq)]
pub enum Command<'a> {
    Nothing,
    Say(&'a str),
    /// A setting and its new value. Without a value it is shown.
    Set(&'a str, &'a str),
    Show,
    /// `None` shows the instructions.
    System(Option<&'a str>),
    Regenerate,
    Edit,
    Undo,
    Clear,
    /// `None` saves to the file of the conversation.
    Save(Option<PathBuf>),
    Load(PathBuf),
    /// `None` lists the adapters.
    Adapter(Option<&'a str>),
    /// `None` turns statistics on where they are off, and off where they are on.
    Stats(Option<bool>),
    /// Shows the thoughts before the last answer.
    Thoughts,
    Help,
    Leave,
    /// A command with the wrong argument: its name, and what should follow.
    Misused(&'static str, &'static str),
    /// A command that does not exist.
    Unknown(&'a str),
}

impl<'a> Command<'a> {
    pub fn parse(input: &'a str) -> Self {
        if input.trim().is_empty() {
            return Self::Nothing;
        }
        if !input.starts_with('/') {
            return match text(input) {
                "" => Self::Nothing,
                question => Self::Say(question),
            };
        }
        let (name, rest) = input.split_once(char::is_whitespace).unwrap_or((input, ""));
        match (name, rest.trim()) {
            ("/set" | "/show", "") => Self::Show,
            ("/set", rest) => {
                let (name, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                Self::Set(name, value.trim())
            }
            ("/system", "") => Self::System(None),
            ("/system", rest) => Self::System(Some(text(rest))),
            ("/regen", "") => Self::Regenerate,
            ("/edit", "") => Self::Edit,
            ("/undo", "") => Self::Undo,
            ("/clear", "") => Self::Clear,
            ("/save", "") => Self::Save(None),
            ("/save", path) => Self::Save(Some(expanded(path))),
            ("/load", path) if !path.is_empty() => Self::Load(expanded(path)),
            ("/adapter", "") => Self::Adapter(None),
            ("/adapter", name) => Self::Adapter(Some(name)),
            ("/think", value @ ("" | "on" | "off")) => Self::Set(THINK, value),
            ("/thoughts", "") => Self::Thoughts,
            ("/stats", "") => Self::Stats(None),
            ("/stats", "on") => Self::Stats(Some(true)),
            ("/stats", "off") => Self::Stats(Some(false)),
            ("/help" | "/?", "") => Self::Help,
            ("/bye" | "/exit" | "/quit", "") => Self::Leave,
            _ => match COMMANDS.iter().find(|command| command.name == name) {
                Some(command) => Self::Misused(command.name, command.argument),
                None => Self::Unknown(input),
            },
        }
    }
}

/// The marks around a text of several lines.
const QUOTES: &str = "\"\"\"";

/// Whether more lines belong to the input: it begins with `"""`, alone or after `/system`, and has not ended with it.
pub fn is_open(input: &str) -> bool {
    let begin = input.trim_start();
    let begin = begin.strip_prefix("/system").map_or(begin, str::trim_start);
    begin.strip_prefix(QUOTES).is_some_and(|rest| !rest.trim_end().ends_with(QUOTES))
}

/// An input without the `"""` around it and the line breaks inside of those, and without line breaks at its end.
fn text(input: &str) -> &str {
    let inner = input.trim().strip_prefix(QUOTES).and_then(|rest| rest.strip_suffix(QUOTES));
    match inner {
        Some(inner) => {
            let inner = inner.strip_prefix('\n').unwrap_or(inner);
            inner.strip_suffix('\n').unwrap_or(inner)
        }
        None => input.trim_end_matches(['\n', '\r']),
    }
}

/// A path whose `~/` is the home folder.
pub fn expanded(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_questions_or_commands() {
        for (line, expected) in [
            ("", Command::Nothing),
            ("  \n", Command::Nothing),
            ("\"\"\"\n\"\"\"", Command::Nothing),
            ("你好 ", Command::Say("你好 ")),
            ("a\nb\n", Command::Say("a\nb")),
            (" /bin是什么？", Command::Say(" /bin是什么？")),
            ("/bin是什么？", Command::Unknown("/bin是什么？")),
            ("\"\"\"\na\n\nb\n\"\"\" ", Command::Say("a\n\nb")),
            ("\"\"\"a\"\"\"", Command::Say("a")),
            ("/undo ", Command::Undo),
            ("/undo it", Command::Misused("/undo", "")),
            ("/save", Command::Save(None)),
            ("/save  my talk.json ", Command::Save(Some("my talk.json".into()))),
            ("/load", Command::Misused("/load", "FILE")),
            ("/set top-p 0.5", Command::Set("top-p", "0.5")),
            ("/set seed", Command::Set("seed", "")),
            ("/set", Command::Show),
            ("/system Be brief.", Command::System(Some("Be brief."))),
            ("/system \"\"\"\nBe\nbrief.\n\"\"\"", Command::System(Some("Be\nbrief."))),
            ("/adapter", Command::Adapter(None)),
            ("/adapter law ", Command::Adapter(Some("law"))),
            ("/stats on", Command::Stats(Some(true))),
            ("/stats maybe", Command::Misused("/stats", "on|off")),
            ("/think off", Command::Set("think", "off")),
            ("/think", Command::Set("think", "")),
            ("/think hard", Command::Misused("/think", "on|off")),
            ("/thoughts", Command::Thoughts),
            ("/?", Command::Help),
            ("/quit", Command::Leave),
            ("/bye", Command::Leave),
        ] {
            assert_eq!(Command::parse(line), expected, "{line:?}");
        }
    }

    #[test]
    fn quotes_at_the_beginning_are_closed_at_the_end() {
        for open in ["\"\"\"", "\"\"\"a\n", "\"\"\"a\"\"\" b", "/system \"\"\"a"] {
            assert!(is_open(open), "{open:?}");
        }
        for closed in
            ["", "a \"\"\" b", "\"\"\"a\n\"\"\"", "\"\"\"\"\"\"", "/system a", "/set \"\"\""]
        {
            assert!(!is_open(closed), "{closed:?}");
        }
    }

    #[test]
    fn what_is_listed_is_a_command() {
        let all = help(usize::MAX);
        for command in COMMANDS {
            assert!(all.contains(command.name) && !(command.help)().is_empty());
            let argument = command.argument.split('|').next().unwrap_or_default();
            let line = format!("{} {argument}", command.name);
            let parsed = Command::parse(&line);
            assert!(!matches!(parsed, Command::Unknown(_) | Command::Misused(..)), "{line}");
        }
    }
}
