//! The file `config.toml`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use glm_model::read_regular;
use toml_edit::{Array, Document, DocumentMut, Item, Table};

use super::{NAMES, Origin, Value, flag};
use crate::limits::input::MAX_SETTINGS;
use crate::{failure, file, input, messages};

/// The settings in a file; none if it does not exist.
///
/// # Errors
/// If it cannot be read. Wrong usage, if it is no TOML, or has an unknown name or a value that its flag would refuse. The error names
/// file and line.
pub fn read(path: &Path) -> Result<Vec<(&'static str, Value)>> {
    let text = text(path)?;
    let document = parse(path, &text)?;
    let mut settings = Vec::new();
    for (name, item) in document.iter() {
        let key = document.get_key_value(name).and_then(|(key, _)| key.span());
        let line = key.map_or(1, |span| line(&text, span.start));
        let origin = Origin::File { path: path.to_owned(), line };
        let value = known(name).and_then(|name| {
            let words = words(name, item)?;
            flag::check(name, &words)?;
            Ok((name, words))
        });
        let (name, words) = value.with_context(|| origin.to_string())?;
        settings.push((name, Value { words, origin }));
    }
    Ok(settings)
}

/// Writes a setting that the flag accepts to the file, which is created if it does not exist. Its comments and its other settings
/// stay as they are.
///
/// # Errors
/// If the file is no TOML, or it cannot be written.
pub fn set(path: &Path, name: &str, words: &[String]) -> Result<()> {
    let item = match words {
        [word] if !flag::is_list(name) => toml_edit::Item::Value(value(name, word)),
        words => toml_edit::value(words.iter().map(String::as_str).collect::<Array>()),
    };
    edit(path, |table| {
        match table.get_mut(name) {
            // A comment behind the value is kept.
            Some(Item::Value(old)) => {
                let decor = old.decor().clone();
                *old = item.into_value().unwrap_or_else(|_| old.clone());
                *old.decor_mut() = decor;
            }
            _ => drop(table.insert(name, item)),
        }
        true
    })
    .map(drop)
}

/// Removes a setting from the file. Returns whether it was there.
///
/// # Errors
/// If the file is no TOML, or cannot be written.
pub fn unset(path: &Path, name: &str) -> Result<bool> {
    edit(path, |table| table.remove(name).is_some())
}

/// Replaces the file if `change` says that something has changed.
fn edit(path: &Path, change: impl FnOnce(&mut Table) -> bool) -> Result<bool> {
    let text = text(path)?;
    let mut document: DocumentMut = parse(path, &text)?.into_mut();
    if !change(document.as_table_mut()) {
        return Ok(false);
    }
    // Where the file is a link, what it points to is replaced.
    let path = path.canonicalize().unwrap_or_else(|_| PathBuf::from(path));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    file::replace(&path, |out| Ok(out.write_all(document.to_string().as_bytes())?))?;
    Ok(true)
}

fn text(path: &Path) -> Result<String> {
    let bytes = match read_regular(path, MAX_SETTINGS) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        // A usual way to have none.
        Err(_) if fs::canonicalize(path).is_ok_and(|path| path == Path::new("/dev/null")) => {
            return Ok(String::new());
        }
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            bail!(messages::file_is_too_large(path.display(), MAX_SETTINGS))
        }
        read => read.with_context(|| path.display().to_string())?,
    };
    input::text_of(bytes).with_context(|| path.display().to_string())
}

fn parse(path: &Path, text: &str) -> Result<Document<String>> {
    Document::parse(text.to_owned()).map_err(|error| {
        let line = error.span().map_or(1, |span| line(text, span.start));
        let problem = error.message().trim().replace('\n', ", ");
        failure::usage(format!("{}:{line}: {problem}", path.display()))
    })
}

/// The number of the line of a byte.
fn line(text: &str, byte: usize) -> usize {
    text.bytes().take(byte).filter(|byte| *byte == b'\n').count() + 1
}

fn known(name: &str) -> Result<&'static str> {
    let known = NAMES.iter().copied().find(|known| *known == name);
    known.ok_or_else(|| failure::usage(messages::no_such_setting(name, NAMES.join(", "))))
}

/// The words that the flag would get.
fn words(name: &str, item: &Item) -> Result<Vec<String>> {
    match item.as_array() {
        Some(words) if flag::is_list(name) => words.iter().map(|value| word(name, value)).collect(),
        _ => match item.as_value() {
            Some(value) => Ok(vec![word(name, value)?]),
            None => Err(failure::usage(messages::setting_is_a_table(name))),
        },
    }
}

fn word(name: &str, value: &toml_edit::Value) -> Result<String> {
    use toml_edit::Value::{Boolean, Float, Integer, String};
    match value {
        String(text) => Ok(text.value().clone()),
        Integer(number) => Ok(number.value().to_string()),
        Float(number) => Ok(number.value().to_string()),
        Boolean(choice) => Ok(choice.value().to_string()),
        _ => Err(failure::usage(messages::setting_is_a_table(name))),
    }
}

/// A number or a truth value is written without quotes, unless reading it would change its text.
fn value(name: &str, word: &str) -> toml_edit::Value {
    let is_plain = |value: &toml_edit::Value| {
        !value.is_str() && self::word(name, value).is_ok_and(|text| text == word)
    };
    word.parse().ok().filter(is_plain).unwrap_or_else(|| word.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn values_are_those_of_flags_and_have_lines() {
        let (_dir, path) = written(
            "# mine\nthreads = 3\n\ntemperature = 0.5\nstop = [\"a\", \"b\"]\nstats = true\ndraft = 4\n",
        );
        let found = read(&path).unwrap();
        let shown: Vec<_> =
            found.iter().map(|(name, value)| (*name, value.words.join(" "))).collect();
        let expected = [
            ("threads", "3"),
            ("temperature", "0.5"),
            ("stop", "a b"),
            ("stats", "true"),
            ("draft", "4"),
        ];
        assert_eq!(shown, expected.map(|(name, words)| (name, words.to_owned())));
        assert_eq!(found[1].1.origin, Origin::File { path, line: 4 });
        assert!(read(Path::new("/nowhere/config.toml")).unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, at, part) in [
            ("threads = 1\ntemprature = 1\n", ":2: ", "temprature"),
            ("threads = \"many\"\n", ":1: ", "many"),
            ("threads = [1]\n", ":1: ", "threads"),
            ("\n[threads]\n", ":2: ", "threads"),
            ("threads = 2024-01-01\n", ":1: ", "threads"),
            ("\ncontext-overflow = \"shift\"\n", ":2: ", "drop-oldest"),
            ("stats = 1\n", ":1: ", "true"),
            ("stop = \"a\"\nstop = \"b\"\n", ":2: ", "duplicate"),
            ("threads 4\n", ":1: ", ""),
        ] {
            let (_dir, path) = written(text);
            let error = crate::failure::message(&read(&path).unwrap_err());
            assert!(error.contains(at) && error.contains(part), "{text}: {error}");
        }
        let (_dir, path) = written("unknown = 1\n");
        let error = crate::failure::message(&read(&path).unwrap_err());
        assert!(NAMES.iter().all(|name| error.contains(name)), "{error}");
    }

    #[test]
    fn editing_keeps_comments() {
        let (_dir, path) = written("# mine\nthreads = 3 # few\n");
        set(&path, "threads", &["4".to_owned()]).unwrap();
        set(&path, "system", &["say \"5\"".to_owned()]).unwrap();
        set(&path, "temperature", &["0.70".to_owned()]).unwrap();
        set(&path, "stop", &["x".to_owned()]).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let expected = "# mine\nthreads = 4 # few\nsystem = 'say \"5\"'\ntemperature = \"0.70\"\nstop = [\"x\"]\n";
        assert_eq!(text, expected);
        assert_eq!(read(&path).unwrap().len(), 4);
        assert!(unset(&path, "threads").unwrap() && !unset(&path, "threads").unwrap());
        assert!(!fs::read_to_string(&path).unwrap().contains("threads"));
    }

    #[test]
    #[cfg(unix)]
    fn a_pipe_is_not_waited_for_and_a_huge_file_is_not_read() {
        let (dir, path) = written("");
        let pipe = dir.path().join("pipe");
        file::make_pipe(&pipe);
        let said = |path: &Path| crate::failure::message(&read(path).unwrap_err());
        assert!(said(&pipe).contains("no regular file"), "{}", said(&pipe));
        let none = dir.path().join("none");
        std::os::unix::fs::symlink("/dev/null", &none).unwrap();
        assert!(read(&none).is_ok());
        fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(said(&path).contains("larger than"), "{}", said(&path));
    }

    #[test]
    #[cfg(unix)]
    fn a_link_stays_a_link() {
        let (dir, path) = written("threads = 3\n");
        let link = dir.path().join("link.toml");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        set(&link, "threads", &["5".to_owned()]).unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&path).unwrap(), "threads = 5\n");
    }
}
