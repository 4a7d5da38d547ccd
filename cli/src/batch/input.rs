//! The requests: lines of a file that is read twice. The first time finds what every line is called; the second time answers it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::args::Shard;
use crate::limits::input::{MAX_COPIED, MAX_LINE, MAX_REQUESTS};
use crate::messages;

/// The byte order mark, with which some programs begin files in UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// What makes lines different from each other.
pub type Hash = [u8; 16];

/// A request as it stands in the file.
pub struct Line {
    /// Number of the request, from 0. Empty lines have none.
    pub number: u64,
    /// Number of the line in the file, from 1.
    at: u64,
    /// The bytes, or `None` if they are more than a request may have.
    pub bytes: Option<Vec<u8>>,
    /// Of all bytes.
    hash: Hash,
}

/// The lines of the input that are in a shard.
pub struct Input {
    name: String,
    file: File,
    shard: Shard,
    lines: Vec<Hash>,
}

impl Input {
    /// Reads the lines for the first time. What is no regular file is copied to a temporary one.
    ///
    /// # Errors
    /// If the file cannot be read, is too long or is UTF-16, or two lines have the same `custom_id`.
    pub fn open(path: &Path, shard: Shard) -> Result<Self> {
        let (name, file) = match path.to_str() {
            Some("-") => {
                ("stdin".to_owned(), copied(&mut io::stdin().lock(), MAX_COPIED).context("stdin")?)
            }
            _ => {
                let name = path.display().to_string();
                let mut file = File::open(path).with_context(|| name.clone())?;
                if !file.metadata()?.is_file() {
                    file = copied(&mut file, MAX_COPIED).with_context(|| name.clone())?;
                }
                (name, file)
            }
        };
        let mut input = Self { name, file, shard, lines: Vec::new() };
        let mut first: HashMap<Hash, u64> = HashMap::new();
        let mut lines = Vec::new();
        for line in input.all()? {
            let line = line.with_context(|| input.name.clone())?;
            let is_counted = line.number < MAX_REQUESTS as u64;
            ensure!(is_counted, messages::batch_is_too_long(&input.name, MAX_REQUESTS));
            if let Some(id) = line.custom_id()
                && let Some(before) = first.insert(hash(&[id.as_bytes()]), line.at)
            {
                let id: String = id.chars().take(100).collect();
                bail!(messages::same_id_twice(&input.name, before, line.at, id));
            }
            if shard.has(line.number) {
                lines.push(line.hash);
            }
        }
        input.lines = lines;
        Ok(input)
    }

    /// Requests in the shard.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// The names of the answers to the requests, with `key`: that of the model. An answer to the same line has the same name in every
    /// run.
    pub fn names(&self, key: &[u8]) -> Vec<Hash> {
        let numbers = (0u64..).filter(|&number| self.shard.has(number));
        self.lines
            .iter()
            .zip(numbers)
            .map(|(line, n)| hash(&[key, line, &n.to_le_bytes()]))
            .collect()
    }

    /// Reads the lines for the second time.
    ///
    /// # Errors
    /// If the file cannot be read, or is not the same any more.
    pub fn read(&self) -> Result<impl Iterator<Item = Result<Line>> + '_> {
        let mut lines = self.all()?.filter(|line| match line {
            Ok(line) => self.shard.has(line.number),
            Err(_) => true,
        });
        let (mut expected, mut last) = (self.lines.iter(), 0);
        Ok(std::iter::from_fn(move || {
            let changed = match (lines.next(), expected.next()) {
                (None, None) => return None,
                (Some(Err(error)), _) => {
                    return Some(Err(error).with_context(|| self.name.clone()));
                }
                (Some(Ok(line)), Some(hash)) if line.hash == *hash => {
                    last = line.at;
                    return Some(Ok(line));
                }
                (line, _) => line.and_then(Result::ok).map_or(last + 1, |line| line.at),
            };
            Some(Err(anyhow!(messages::input_has_changed(&self.name, changed))))
        }))
    }

    fn all(&self) -> Result<impl Iterator<Item = io::Result<Line>> + use<>> {
        let mut file = self.file.try_clone()?;
        file.rewind()?;
        let mut reader = BufReader::with_capacity(1 << 16, file);
        let start = reader.fill_buf().with_context(|| self.name.clone())?;
        ensure!(
            !start.starts_with(b"\xff\xfe") && !start.starts_with(b"\xfe\xff"),
            messages::input_is_utf16(&self.name)
        );
        if start.starts_with(MARK) {
            reader.consume(MARK.len());
        }
        let (mut numbers, mut at) = (0u64.., 0);
        Ok(std::iter::from_fn(move || {
            loop {
                let (bytes, hash) = match line(&mut reader) {
                    Ok(line) => line?,
                    Err(error) => return Some(Err(error)),
                };
                at += 1;
                let is_empty = bytes.as_ref().is_some_and(|bytes| bytes.trim_ascii().is_empty());
                if !is_empty {
                    return numbers.next().map(|number| Ok(Line { number, at, bytes, hash }));
                }
            }
        }))
    }
}

impl Line {
    fn custom_id(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Named {
            custom_id: String,
        }
        let named: Named = serde_json::from_slice(self.bytes.as_ref()?).ok()?;
        Some(named.custom_id)
    }
}

/// The next line without its end, and its hash. Of a line that is too long, the hash alone.
fn line(reader: &mut impl BufRead) -> io::Result<Option<(Option<Vec<u8>>, Hash)>> {
    let (mut bytes, mut hasher, mut is_long, mut is_line) =
        (Vec::new(), Sha256::new(), false, false);
    loop {
        let part = reader.fill_buf()?;
        if part.is_empty() {
            break;
        }
        is_line = true;
        let end = part.iter().position(|&byte| byte == b'\n');
        let text = &part[..end.unwrap_or(part.len())];
        hasher.update(text);
        is_long |= bytes.len() + text.len() > MAX_LINE;
        if is_long {
            bytes = Vec::new();
        } else {
            bytes.extend_from_slice(text);
        }
        let used = end.map_or(part.len(), |end| end + 1);
        reader.consume(used);
        if end.is_some() {
            break;
        }
    }
    Ok(is_line.then(|| ((!is_long).then_some(bytes), first_half(&hasher.finalize()))))
}

/// A temporary file with all of `from`, which has at most `most` bytes.
fn copied(from: &mut impl Read, most: u64) -> Result<File> {
    let mut file = tempfile::tempfile()?;
    let bytes = io::copy(&mut from.take(most + 1), &mut file)?;
    ensure!(bytes <= most, messages::batch_is_too_large(most));
    Ok(file)
}

fn hash(parts: &[&[u8]]) -> Hash {
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part));
    first_half(&hasher.finalize())
}

fn first_half(digest: &[u8]) -> Hash {
    std::array::from_fn(|index| digest[index])
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_that_are_too_long_are_not_kept() {
        let endless = io::repeat(b'a').take(3 * MAX_LINE as u64).chain(&b"\nshort"[..]);
        let mut reader = BufReader::new(endless);
        assert_eq!(line(&mut reader).unwrap().unwrap().0, None);
        assert_eq!(line(&mut reader).unwrap().unwrap().0.as_deref(), Some(&b"short"[..]));
        assert!(line(&mut reader).unwrap().is_none());
    }

    #[test]
    fn a_pipe_has_a_bound() {
        let mut file = copied(&mut &b"one\ntwo"[..], 7).unwrap();
        file.rewind().unwrap();
        assert_eq!(io::read_to_string(file).unwrap(), "one\ntwo");
        let error = copied(&mut io::repeat(b'a'), 7).unwrap_err();
        assert!(error.to_string().contains('7'), "{error}");
    }

    fn written(text: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        file
    }

    fn open(text: &[u8], index: u64, count: u64) -> Result<Input> {
        Input::open(written(text).path(), Shard { index, count })
    }

    /// The names, which are those of the lines and their places.
    fn names(text: &[u8], index: u64, count: u64) -> Vec<Hash> {
        open(text, index, count).unwrap().names(b"key")
    }

    #[test]
    fn shards_are_disjoint_and_complete() {
        let lines = (0..23).map(|line| format!("{line}{}", "\n".repeat(1 + line % 3)));
        let text = lines.collect::<String>();
        let whole = names(text.as_bytes(), 0, 1);
        assert_eq!(whole.len(), 23);
        for count in 1..=25 {
            let shards: Vec<_> = (0..count).map(|i| names(text.as_bytes(), i, count)).collect();
            let lengths = shards.iter().map(Vec::len);
            assert!(lengths.clone().max().unwrap() - lengths.min().unwrap() <= 1);
            let mut parts: Vec<_> = shards.concat();
            parts.sort_unstable();
            let mut whole = whole.clone();
            whole.sort_unstable();
            assert_eq!(parts, whole, "{count}");
        }
    }

    #[test]
    fn a_mark_at_the_beginning_is_no_part_of_the_first_line() {
        let text = b"{\"custom_id\":\"a\"}\r\n\r\n{\"custom_id\":\"b\"}";
        let marked = [MARK, text].concat();
        assert_eq!(names(&marked, 0, 1), names(text, 0, 1));
        let lines: Vec<_> =
            open(&marked, 0, 1).unwrap().read().unwrap().map(Result::unwrap).collect();
        let ids: Vec<_> = lines.iter().map(|line| line.custom_id().unwrap()).collect();
        assert_eq!(ids, ["a", "b"]);
        assert_eq!(names(MARK, 0, 1), [[0; 16]; 0]);
        assert!(open(b"\xff\xfe{\0}\0", 0, 1).is_err());
    }

    #[test]
    fn lines_are_numbered_as_in_the_file() {
        let same = open(b"\n\n{\"custom_id\":\"a\"}\n\n{\"custom_id\":\"a\"}\n", 0, 1);
        let said = same.err().unwrap().to_string();
        assert!(said.contains("lines 3 and 5"), "{said}");
    }

    #[test]
    fn a_file_that_changes_is_noticed() {
        for (after, wrong) in [("1\n3\n", 2), ("1\n", 2), ("", 1), ("1\n2\n3\n", 3)] {
            let file = written(b"1\n2\n");
            let input = Input::open(file.path(), Shard { index: 0, count: 1 }).unwrap();
            std::fs::write(file.path(), after).unwrap();
            let read: Result<Vec<_>> = input.read().unwrap().collect();
            let said = read.err().unwrap().to_string();
            assert!(said.contains(&format!("line {wrong} ")), "{said}");
        }
    }

    #[test]
    fn the_end_of_the_last_line_changes_nothing() {
        let of = |text: &str| line(&mut text.as_bytes()).unwrap().unwrap();
        assert_eq!(of("a\n"), of("a"));
        assert_ne!(of("a\n"), of("b\n"));
    }
}
