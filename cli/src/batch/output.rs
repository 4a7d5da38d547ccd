//! The answers: a file to which lines are appended. It can be gone on with at any line.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::input::Hash;
use crate::file;
use crate::messages;
use crate::output::note;

/// How often written answers are made safe from a loss of power.
const SYNC: Duration = Duration::from_secs(1);

/// Most bytes of an answer in a file that is read.
const MOST: u64 = 1 << 30;

const PREFIX: &str = "batch_req_";

/// Where answers go.
pub enum Output {
    /// A regular file, its length up to the last whole line, and when it was synchronized.
    File { name: String, file: File, length: u64, synced: Instant },
    /// Stdout, or a device. What was written before is not known.
    Stream(Box<dyn Write>),
}

/// The name of an answer, as it is written.
pub fn id(name: &Hash) -> String {
    name.iter().fold(PREFIX.to_owned(), |id, byte| id + &format!("{byte:02x}"))
}

impl Output {
    /// Opens the file of answers, and marks in `done` which of the answers with these names it has already. A last line that was cut is
    /// removed.
    ///
    /// # Errors
    /// If the file cannot be used, or has other answers.
    pub fn open(path: &Path, restart: bool, names: &[Hash], done: &mut [bool]) -> Result<Self> {
        if path.to_str() == Some("-") {
            return Ok(Self::Stream(Box::new(io::stdout())));
        }
        let name = path.display().to_string();
        if path.exists() && !path.is_file() {
            ensure!(!path.is_dir(), messages::no_regular_file(&name));
            let device = File::options().write(true).open(path).with_context(|| name.clone())?;
            return Ok(Self::Stream(Box::new(device)));
        }
        file::check(path)?;
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = file.with_context(|| name.clone())?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => bail!(messages::output_is_in_use(&name)),
            // A file system without locks.
            Err(TryLockError::Error(error)) if error.kind() != io::ErrorKind::Unsupported => {
                return Err(error).context(name);
            }
            _ => {}
        }
        let length = match restart {
            true => 0,
            false => answered(&file, &name, names, done)?,
        };
        let whole = file.metadata()?.len();
        if whole > length && !restart {
            note(&messages::line_was_cut(&name));
        }
        if whole > length {
            file.set_len(length).with_context(|| name.clone())?;
        }
        file.seek(SeekFrom::Start(length))?;
        Ok(Self::File { name, file, length, synced: Instant::now() })
    }

    /// Appends a line. If that fails, nothing of it stays in a file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn line(&mut self, mut line: String) -> Result<()> {
        line.push('\n');
        match self {
            Self::File { name, file, length, .. } => {
                if let Err(error) = file.write_all(line.as_bytes()) {
                    // What stays would be removed when the command is given again.
                    let _ = file.set_len(*length);
                    return Err(error).context(name.clone());
                }
                *length += line.len() as u64;
                self.sync(SYNC)
            }
            Self::Stream(stream) => {
                stream.write_all(line.as_bytes())?;
                Ok(stream.flush()?)
            }
        }
    }

    /// Makes what was written safe from a loss of power.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn finish(&mut self) -> Result<()> {
        self.sync(Duration::ZERO)
    }

    fn sync(&mut self, period: Duration) -> Result<()> {
        if let Self::File { name, file, synced, .. } = self
            && synced.elapsed() >= period
        {
            file.sync_data().with_context(|| name.clone())?;
            *synced = Instant::now();
        }
        Ok(())
    }
}

/// Marks the answers in a file, and returns its length without a last line that was cut.
fn answered(file: &File, name: &str, names: &[Hash], done: &mut [bool]) -> Result<u64> {
    #[derive(Deserialize)]
    struct Named {
        id: String,
    }
    let numbers: HashMap<String, usize> =
        names.iter().enumerate().map(|(number, name)| (id(name), number)).collect();
    let mut reader = BufReader::new(file);
    let (mut length, mut line) = (0, Vec::new());
    for number in 1u64.. {
        line.clear();
        let read = reader.by_ref().take(MOST).read_until(b'\n', &mut line);
        read.with_context(|| name.to_owned())?;
        if line.last() != Some(&b'\n') {
            // A file of something else must not be emptied because it has one line.
            ensure!(is_cut(&line), messages::output_is_other(name, number));
            break;
        }
        let named: Option<Named> = serde_json::from_slice(&line).ok();
        let found = named.and_then(|named| numbers.get(&named.id));
        let found = found.with_context(|| messages::output_is_other(name, number))?;
        ensure!(
            !std::mem::replace(&mut done[*found], true),
            messages::output_is_other(name, number)
        );
        length += line.len() as u64;
    }
    Ok(length)
}

/// Whether these bytes can be the beginning of an answer.
fn is_cut(line: &[u8]) -> bool {
    let start = format!("{{\"id\":\"{PREFIX}");
    let common = line.len().min(start.len());
    line[..common] == start.as_bytes()[..common]
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_the_beginning_of_an_answer_is_removed() {
        let names = [[1; 16], [2; 16]];
        let whole = format!("{{\"id\":\"{}\"}}\n", id(&names[1]));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let open = |text: &str| {
            fs::write(&path, text).unwrap();
            let mut done = [false; 2];
            let opened = Output::open(&path, false, &names, &mut done).map(|_| done);
            (opened.ok(), fs::read_to_string(&path).unwrap())
        };
        assert_eq!(open(""), (Some([false; 2]), String::new()));
        for cut in ["", "{", "{\"id\":\"batch_req_01", whole.trim_end()] {
            assert_eq!(open(&format!("{whole}{cut}")), (Some([false, true]), whole.clone()));
        }
        for other in ["letter", "letter\n", "{}\n", &format!("{whole}{whole}"), "{\"id\":\"x"] {
            assert_eq!(open(other), (None, other.to_owned()));
        }
    }

    #[test]
    fn two_processes_do_not_write_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let first = Output::open(&path, false, &[], &mut []).unwrap();
        assert!(Output::open(&path, true, &[], &mut []).is_err());
        drop(first);
        assert!(Output::open(&path, true, &[], &mut []).is_ok());
    }
}
