//! Help for the terminal, manual pages and completions, all from the definitions of the arguments.

mod chinese;
pub mod completions;
mod footer;
pub mod manual;
pub mod wrap;

use clap::Command;

use crate::args;
use crate::messages::{Language, language};
use crate::tty;

/// Longer lines are hard to read.
const MOST_COLUMNS: usize = 100;

/// Below this, breaking lines is of no use.
const LEAST_COLUMNS: usize = 20;

/// A command line with help that fits the terminal, in the user's language.
pub fn fitting(command: Command) -> Command {
    built(command, language(), columns())
}

/// The names of the commands.
pub fn names() -> Vec<String> {
    args::command().get_subcommands().map(|command| command.get_name().to_owned()).collect()
}

fn built(mut command: Command, language: Language, columns: usize) -> Command {
    // Adds the flag and the command `help`, so that they are translated, too.
    command.build();
    fitted(command, language, columns)
}

/// Sets the language, the width and the footer of a command and of those below.
fn fitted(command: Command, language: Language, columns: usize) -> Command {
    let (command, usage) = match language {
        Language::English => (command, "{usage-heading} {usage}"),
        Language::Chinese => (chinese::translated(command, columns), "用法：{usage}"),
    };
    // The footer is a part of the template, because clap would break the lines of examples.
    let footer = command.get_after_help().map(|text| {
        let text = text.to_string();
        let text = if language == Language::Chinese { chinese::footer(&text) } else { text };
        footer::wrapped(&text, columns)
    });
    let footer = footer.map_or(String::new(), |footer| format!("\n\n{footer}"));
    let template = format!("{{about-with-newline}}\n{usage}\n\n{{all-args}}{footer}");
    command
        .term_width(columns)
        .help_template(template)
        .mut_subcommands(|command| fitted(command, language, columns))
}

/// The width of the terminal, else that in `COLUMNS`.
fn columns() -> usize {
    let variable = || std::env::var("COLUMNS").ok()?.parse().ok();
    let columns = tty::columns().or_else(variable);
    columns.unwrap_or(MOST_COLUMNS).clamp(LEAST_COLUMNS, MOST_COLUMNS)
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr;

    use super::footer::Block;
    use super::*;

    /// The command and those below, without the help on help.
    fn all(command: &Command) -> Vec<Command> {
        let below = command.get_subcommands().filter(|command| command.get_name() != "help");
        std::iter::once(command.clone()).chain(below.cloned()).collect()
    }

    fn help(command: &Command) -> String {
        command.clone().render_long_help().to_string()
    }

    #[test]
    fn footers_are_filled_at_every_width() {
        for columns in 40..=120 {
            for (command, fitted) in all(&args::command()).iter().zip(all(&built(
                args::command(),
                Language::English,
                columns,
            ))) {
                let Some(text) = command.get_after_help() else { continue };
                let (name, help) = (command.get_name(), help(&fitted));
                for block in footer::blocks(&text.to_string()) {
                    match block {
                        // An example is what is typed, whatever the width.
                        Block::Examples(lines) => {
                            assert!(help.contains(&lines.join("\n")), "{name}: {lines:?}");
                        }
                        Block::Paragraph(text) => {
                            let lines = wrap::lines(&text, columns);
                            assert!(
                                help.contains(&lines.join("\n")),
                                "{name} at {columns}: {help}"
                            );
                            for pair in lines.windows(2) {
                                let word = pair[1].split(' ').next().unwrap_or_default();
                                assert!(
                                    pair[0].width() <= columns,
                                    "{name} at {columns}: {pair:?}"
                                );
                                let joined = pair[0].width() + 1 + word.width();
                                assert!(joined > columns, "{name} at {columns}: {pair:?}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn every_command_has_examples_that_name_it() {
        for command in all(&args::command()) {
            let footer = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let name = match command.get_name() {
                "glm" => "glm".to_owned(),
                name => format!("glm {name}"),
            };
            let has_name = |line: &&str| line.starts_with("  ") && line.contains(&name);
            assert!(footer.contains("Examples:\n"), "{name}");
            assert!(footer.lines().find(has_name).is_some(), "{name}");
        }
    }

    #[test]
    fn no_line_of_help_is_too_long_but_examples_and_names() {
        for language in [Language::English, Language::Chinese] {
            for columns in [40, 60, 80, 100] {
                for command in all(&built(args::command(), language, columns)) {
                    for line in help(&command).lines() {
                        let is_one_word = !line.trim().contains(' ');
                        let is_typed = line.trim().starts_with(['-', '<', '[']);
                        let is_example = line.starts_with("  ") && !line.starts_with("    ");
                        let is_usage = line.starts_with("Usage:") || line.starts_with("用法");
                        let is_short = line.width() <= columns;
                        assert!(
                            is_short || is_one_word || is_typed || is_example || is_usage,
                            "{} at {columns}: {line:?}",
                            command.get_name()
                        );
                    }
                }
            }
        }
    }
}
