//! Help in Chinese: the English texts of the commands are looked up in a table when help is built.

mod table;

use clap::builder::{Resettable, StyledStr};
use clap::{Arg, Command};

use self::table::TABLE;
use super::footer::{self, Block};
use super::wrap;

/// Columns in front of the help of an argument or a command.
const INDENT: usize = 10;

/// The Chinese for an English text; the English if the table lacks it.
fn of(english: &str) -> &str {
    let entry = TABLE.iter().find(|(known, _)| *known == english);
    entry.map_or(english, |(_, chinese)| chinese)
}

/// A command with Chinese help. Lines are broken here, because clap breaks them at blanks only.
pub fn translated(mut command: Command, columns: usize) -> Command {
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    let usage = usage.replace("[OPTIONS]", "[选项]").replace("[COMMAND]", "[命令]");
    // What stands after its name in a list of commands is indented.
    let columns = columns.saturating_sub(INDENT);
    let about = command.get_about().map(|text| lines(of(&text.to_string()), columns));
    let command = command
        .override_usage(usage)
        .about(Resettable::from(about))
        .subcommand_help_heading("命令")
        .next_line_help(true);
    command.mut_args(|arg| argument(arg, columns))
}

fn lines(text: &str, columns: usize) -> StyledStr {
    wrap::text(text, columns).into()
}

fn argument(arg: Arg, columns: usize) -> Arg {
    let heading = match arg.get_help_heading() {
        Some(heading) => of(heading).to_owned(),
        None if arg.is_positional() => "参数".to_owned(),
        None => "选项".to_owned(),
    };
    let rest = values(&arg);
    let help = |text: &StyledStr| lines(&format!("{}{rest}", of(&text.to_string())), columns);
    let (short, long) = (arg.get_help().map(help), arg.get_long_help().map(help));
    let arg =
        arg.help(Resettable::from(short)).long_help(Resettable::from(long)).help_heading(heading);
    arg.hide_default_value(true).hide_possible_values(true)
}

/// The possible values and the default of an argument, as clap appends them in English.
fn values(arg: &Arg) -> String {
    let mut rest = String::new();
    if !arg.get_action().takes_values() {
        return rest;
    }
    let possible: Vec<_> = arg.get_possible_values();
    let names: Vec<_> = possible.iter().map(|value| value.get_name()).collect();
    let are_explained = possible.iter().any(|value| value.get_help().is_some());
    if !names.is_empty() && !are_explained && !arg.is_hide_possible_values_set() {
        rest += &format!("\n[可选值：{}]", names.join("、"));
    }
    let defaults: Vec<_> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if !defaults.is_empty() && !arg.is_hide_default_value_set() {
        rest += &format!("\n[默认：{}]", defaults.join(" "));
    }
    for value in &possible {
        if let Some(help) = value.get_help() {
            rest += &format!("\n- {}：{}", value.get_name(), of(&help.to_string()));
        }
    }
    rest
}

/// A footer with Chinese paragraphs. Examples are left as they are.
pub fn footer(english: &str) -> String {
    let blocks = footer::blocks(english).into_iter().map(|block| match block {
        Block::Paragraph(text) => of(&text).to_owned(),
        Block::Examples(lines) => lines.join("\n"),
    });
    blocks.collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::args;

    /// All English texts of a command and of those below.
    fn texts(command: &Command, texts: &mut BTreeSet<String>) {
        texts.extend(command.get_about().map(ToString::to_string));
        for arg in command.get_arguments() {
            texts.extend(arg.get_help_heading().map(str::to_owned));
            texts.extend(
                [arg.get_help(), arg.get_long_help()].into_iter().flatten().map(|t| t.to_string()),
            );
            if arg.get_action().takes_values() {
                let values = arg.get_possible_values();
                texts.extend(
                    values.iter().filter_map(|value| value.get_help()).map(|t| t.to_string()),
                );
            }
        }
        let footer = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        texts.extend(footer::blocks(&footer).into_iter().filter_map(|block| match block {
            Block::Paragraph(text) => Some(text),
            Block::Examples(_) => None,
        }));
        command.get_subcommands().for_each(|command| self::texts(command, texts));
    }

    fn english() -> BTreeSet<String> {
        let mut command = args::command();
        command.build();
        let mut english = BTreeSet::new();
        texts(&command, &mut english);
        english
    }

    #[test]
    fn every_text_is_translated() {
        let english = english();
        let known: BTreeSet<_> = TABLE.iter().map(|(english, _)| (*english).to_owned()).collect();
        let missing = english.difference(&known).map(|text| format!("    ({text:?}, \"\"),\n"));
        let missing: String = missing.collect();
        assert!(missing.is_empty(), "add to help/chinese/table.rs:\n{missing}");
        let stale: Vec<_> = known.difference(&english).collect();
        // Without the demonstration model or the server, some texts do not occur.
        assert!(
            stale.is_empty() || !cfg!(all(feature = "demo", feature = "serve")),
            "remove from help/chinese/table.rs: {stale:#?}"
        );
        assert_eq!(known.len(), TABLE.len(), "a text is in the table twice");
    }

    #[test]
    fn translations_are_chinese() {
        for (english, chinese) in TABLE {
            assert!(chinese.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c)), "{english}");
            assert_eq!(english.ends_with(':'), chinese.ends_with('：'), "{english}");
        }
    }

    #[test]
    fn clap_adds_no_english() {
        let command =
            super::super::built(crate::args::command(), crate::messages::Language::Chinese, 80);
        for mut command in command.get_subcommands().cloned().chain([command.clone()]) {
            let long = command.render_long_help().to_string();
            let short = command.render_help().to_string();
            for word in [
                "Usage",
                "Options",
                "Arguments",
                "Commands",
                "default:",
                "ossible values",
                "Print help",
            ] {
                assert!(!long.contains(word) && !short.contains(word), "{word}: {long}{short}");
            }
        }
    }
}
