//! Completion of commands, of settings and of paths.

use crate::limits::input::MAX_COMPLETIONS;
use std::cell::RefCell;
use std::fs;
use std::path::Path;

use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Result};

use super::command::{COMMANDS, expanded};
use super::settings;

/// What helps with typing a line.
#[derive(Default)]
pub struct Helper {
    /// The line as it was last shown, before and after the cursor.
    line: RefCell<(String, String)>,
}

impl Helper {
    /// The line as it was last shown, before and after the cursor.
    pub fn line(&self) -> (String, String) {
        self.line.borrow().clone()
    }
}

impl Completer for Helper {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> Result<(usize, Vec<String>)> {
        Ok(candidates(&line[..pos]))
    }
}

impl Highlighter for Helper {}

impl Hinter for Helper {
    type Hint = String;

    /// Called with every change of the line. There are no hints.
    fn hint(&self, line: &str, pos: usize, _: &Context<'_>) -> Option<String> {
        let (before, after) = line.split_at(pos);
        self.line.replace((before.to_owned(), after.to_owned()));
        None
    }
}

impl Validator for Helper {}

impl rustyline::Helper for Helper {}

/// Where the last word begins, and how it can go on.
fn candidates(line: &str) -> (usize, Vec<String>) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let is_new = line.ends_with(char::is_whitespace);
    let starting = |names: &[&str], word: &str| -> Vec<String> {
        let names = names.iter().filter(|name| name.starts_with(word));
        names.map(|name| format!("{name} ")).collect()
    };
    let start = if is_new { line.len() } else { line.len() - words.last().map_or(0, |w| w.len()) };
    match (words.as_slice(), is_new) {
        ([command], false) if command.starts_with('/') => {
            let names: Vec<&str> = COMMANDS.iter().map(|command| command.name).collect();
            (0, starting(&names, command))
        }
        (["/set"], true) => (start, starting(&settings::names(), "")),
        (["/set", name], false) => (start, starting(&settings::names(), name)),
        (["/set", name], true) => (start, starting(settings::values(name), "")),
        (["/set", name, value], false) => (start, starting(settings::values(name), value)),
        (["/stats" | "/think"], true) => (start, starting(&["on", "off"], "")),
        (["/stats" | "/think", value], false) => (start, starting(&["on", "off"], value)),
        (["/load" | "/save", ..], _) => {
            let rest = line.find(char::is_whitespace).map_or(line.len(), |at| at + 1);
            let typed = line[rest..].trim_start();
            (line.len() - typed.len(), paths(typed))
        }
        _ => (line.len(), Vec::new()),
    }
}

/// The paths that begin as typed; those of folders end with `/`.
fn paths(typed: &str) -> Vec<String> {
    let (folder, name) =
        typed.rsplit_once('/').map_or(("", typed), |(f, n)| (&typed[..=f.len()], n));
    let place = if folder.is_empty() { Path::new(".").to_owned() } else { expanded(folder) };
    let Ok(entries) = fs::read_dir(place) else { return Vec::new() };
    let mut paths: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let found = entry.file_name().into_string().ok()?;
            // Hidden files are offered where a dot was typed.
            let is_shown = !found.starts_with('.') || name.starts_with('.');
            let end = if entry.path().is_dir() { "/" } else { "" };
            (is_shown && found.starts_with(name)).then(|| format!("{folder}{found}{end}"))
        })
        .take(MAX_COMPLETIONS)
        .collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(line: &str) -> Vec<String> {
        let (start, found) = candidates(line);
        found.into_iter().map(|end| format!("{}{end}", &line[..start])).collect()
    }

    #[test]
    fn commands_settings_and_values_are_completed() {
        assert_eq!(completed("/he"), ["/help "]);
        assert!(completed("/s").contains(&"/show ".to_owned()) && completed("/s").len() > 3);
        assert_eq!(completed("/set te"), ["/set temperature "]);
        assert_eq!(completed("/set draft a"), ["/set draft auto "]);
        assert_eq!(completed("/stats "), ["/stats on ", "/stats off "]);
        for nothing in ["", "hello", "a /he", "/set nosuch ", "/help x"] {
            assert!(completed(nothing).is_empty(), "{nothing}");
        }
    }

    #[test]
    fn paths_with_blanks_are_completed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("my talk.json"), "").unwrap();
        fs::write(dir.path().join(".hidden"), "").unwrap();
        fs::create_dir(dir.path().join("more")).unwrap();
        let dir = dir.path().display();
        assert_eq!(
            completed(&format!("/load {dir}/m")),
            [format!("/load {dir}/more/"), format!("/load {dir}/my talk.json")]
        );
        assert_eq!(completed(&format!("/save {dir}/my t")), [format!("/save {dir}/my talk.json")]);
        assert_eq!(completed(&format!("/load {dir}/.h")), [format!("/load {dir}/.hidden")]);
    }
}
