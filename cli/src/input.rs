//! Text and ids from arguments, files and stdin, up to a limit.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, IsTerminal, Read};
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, ensure};
use glm_model::{Message, NotUtf8, messages_from_json, owned_utf8, utf8};

use crate::failure::usage;
use crate::limits::input::MAX_INPUT;
use crate::{folders, messages};

/// A JSON list of ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids(pub Vec<u32>);

impl FromStr for Ids {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > MAX_INPUT {
            return Err(messages::too_long(MAX_INPUT));
        }
        serde_json::from_str(text).map(Ids).map_err(messages::not_a_list_of_ids)
    }
}

/// The text of an argument; for `-` or none, the text of stdin without its last line break. `missing` is the error if there is no
/// text.
pub fn text(argument: Option<&str>, missing: fn() -> String) -> Result<String> {
    let text = match argument {
        Some(text) if text != "-" => text.to_owned(),
        None if io::stdin().is_terminal() => String::new(),
        _ => without_line_break(stdin()?),
    };
    match text.trim().is_empty() {
        true => Err(usage(missing())),
        false => Ok(text),
    }
}

/// All of stdin.
pub fn stdin() -> Result<String> {
    read(&mut io::stdin().lock()).context("stdin")
}

/// The text of a file, or of stdin for `-`.
pub fn file(path: &Path) -> Result<String> {
    match path.to_str() {
        Some("-") => stdin(),
        _ => File::open(folders::expanded(path))
            .map_err(Into::into)
            .and_then(|mut file| read(&mut file))
            .with_context(|| path.display().to_string()),
    }
}

/// The text of a file that holds a secret, which has at most `most` bytes. It may be a pipe from a program that knows the secret.
///
/// # Errors
/// If it cannot be read, has more bytes, or is no text. Nothing of it is part of the error.
pub fn secret(path: &Path, most: usize) -> Result<String> {
    read_most(&mut File::open(path)?, most)
}

/// The conversation in a file, or on stdin for `-`.
pub fn messages(path: &Path) -> Result<Vec<Message>> {
    messages_from_json(&file(path)?).with_context(|| path.display().to_string())
}

/// A line whose bytes need not be UTF-8.
pub struct LossyLine {
    /// Without its end. Wrong bytes are U+FFFD.
    pub text: String,
    pub is_utf8: bool,
}

/// The next line, or `None` after the last. A byte-order mark before it is no part of it.
pub fn lossy_line(reader: &mut impl BufRead) -> Result<Option<LossyLine>> {
    let Some(bytes) = bytes_of_line(reader)? else { return Ok(None) };
    ensure!(utf8(&bytes) != Err(NotUtf8::Utf16), messages::is_utf16());
    let bytes = without_mark(&bytes);
    let text = String::from_utf8_lossy(bytes);
    let is_utf8 = matches!(text, Cow::Borrowed(_));
    Ok(Some(LossyLine { text: without_line_break(text.into_owned()), is_utf8 }))
}

/// The next line without its end, or `None` after the last.
pub fn line(reader: &mut impl BufRead) -> Result<Option<String>> {
    let Some(bytes) = bytes_of_line(reader)? else { return Ok(None) };
    let line = owned_utf8(bytes).map_err(|_| anyhow!(messages::line_not_utf8()))?;
    Ok(Some(without_line_break(line)))
}

/// The bytes of the next line, with its end.
fn bytes_of_line(reader: &mut impl BufRead) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    reader.take(MAX_INPUT as u64 + 1).read_until(b'\n', &mut bytes)?;
    ensure!(bytes.len() <= MAX_INPUT, messages::line_too_long(MAX_INPUT));
    Ok((!bytes.is_empty()).then_some(bytes))
}

pub fn read(reader: &mut impl Read) -> Result<String> {
    read_most(reader, MAX_INPUT)
}

fn read_most(reader: &mut impl Read, most: usize) -> Result<String> {
    let mut bytes = Vec::new();
    reader.take(most as u64 + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() <= most, messages::too_long(most));
    text_of(bytes)
}

/// The text of a file, without a byte-order mark.
pub fn text_of(bytes: Vec<u8>) -> Result<String> {
    ensure!(!glm_model::is_lfs_pointer(&bytes), messages::is_lfs_pointer());
    owned_utf8(bytes).map_err(|problem| match problem {
        NotUtf8::Utf16 => anyhow!(messages::is_utf16()),
        _ => anyhow!(messages::not_utf8()),
    })
}

fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes)
}

fn without_line_break(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_a_json_list() {
        assert_eq!("[5, 6,7]".parse(), Ok(Ids(vec![5, 6, 7])));
        for text in ["", "5", "[5", "[-1]", "[4294967296]", "[1.5]", "[\"5\"]"] {
            assert!(text.parse::<Ids>().is_err(), "{text}");
        }
        assert!(" ".repeat(MAX_INPUT + 1).parse::<Ids>().is_err());
    }

    #[test]
    fn lines_end_with_either_line_break_or_the_input() {
        let mut reader = "a\r\n\nb".as_bytes();
        let lines: Vec<_> = std::iter::from_fn(|| line(&mut reader).unwrap()).collect();
        assert_eq!(lines, ["a", "", "b"]);
        assert!(line(&mut &b"\xff\n"[..]).is_err());
    }

    #[test]
    fn a_byte_order_mark_is_no_text() {
        let marked = |text: &str| format!("\u{feff}{text}").into_bytes();
        assert_eq!(read(&mut &*marked("{}")).unwrap(), "{}");
        assert_eq!(line(&mut &*marked("a\nb")).unwrap().unwrap(), "a");
        let lossy = lossy_line(&mut &*marked("a\n")).unwrap().unwrap();
        assert_eq!((&*lossy.text, lossy.is_utf8), ("a", true));
        let wide: Vec<u8> = "\u{feff}你好".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(lossy_line(&mut &*wide).is_err());
        assert!(read(&mut &*wide).unwrap_err().to_string().contains("UTF-16"));
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
        assert!(read(&mut &pointer[..]).unwrap_err().to_string().contains("git lfs pull"));
    }

    #[test]
    fn endless_input_is_refused() {
        let endless = || io::BufReader::new(io::repeat(b'a'));
        assert!(read(&mut endless()).is_err());
        assert!(line(&mut endless()).is_err());
    }

    #[test]
    #[cfg(unix)]
    fn a_secret_has_an_end() {
        let said = secret(Path::new("/dev/zero"), 100).unwrap_err().to_string();
        assert!(said.contains("100"), "{said}");
    }

    #[test]
    fn only_the_last_line_break_is_dropped() {
        for (text, expected) in [("a\n\n", "a\n"), ("a\r\n", "a"), ("a\r", "a\r"), ("", "")] {
            assert_eq!(without_line_break(text.to_owned()), expected);
        }
    }
}
