//! The answers: a file to which lines are appended. It can be gone on with at any line.
//!
//! Requests that may succeed later, such as those for which memory was too small, are tried again by the next run. Their lines are written
//! at the end of a run, so that they are the last ones of the file and the next run can cut them off.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::input::Hash;
use super::request::may_pass;
use crate::file::{self, Lock};
use crate::limits::input::MAX_OUTPUT_LINE;
use crate::messages;
use crate::output::note;

/// How often written answers are made safe from a loss of power.
const SYNC: Duration = Duration::from_secs(1);

const PREFIX: &str = "batch_req_";

/// Where answers go.
pub enum Output {
    /// A regular file, its length up to the last whole line, and when it was synchronized.
    File { name: String, file: File, length: u64, synced: Instant },
    /// Stdout, or a device. What was written before is not known.
    Stream { name: String, stream: Box<dyn Write> },
}

/// The name of an answer, as it is written.
pub fn id(name: &Hash) -> String {
    format!("{PREFIX}{:032x}", u128::from_be_bytes(*name))
}

/// The name that is written so.
fn name_of(id: &str) -> Option<Hash> {
    let name = u128::from_str_radix(id.strip_prefix(PREFIX)?, 16).ok()?.to_be_bytes();
    (self::id(&name) == id).then_some(name)
}

/// Checks, before the model is opened, that `path` can be written.
///
/// # Errors
/// If it is a folder, or is in one that does not exist.
pub fn check(path: &Path) -> Result<()> {
    if is_stream(path) { Ok(()) } else { file::check(path) }
}

fn is_stream(path: &Path) -> bool {
    path.to_str() == Some("-") || (path.exists() && !path.is_file() && !path.is_dir())
}

impl Output {
    /// Opens the file of answers, and marks in `done` which of the answers with these names it has already. What is to be computed
    /// again is removed: a last line that was cut, and answers of requests that failed for a reason that may pass.
    ///
    /// # Errors
    /// If the file cannot be used, or has other answers.
    pub fn open(path: &Path, restart: bool, names: &[Hash], done: &mut [bool]) -> Result<Self> {
        if path.to_str() == Some("-") {
            return Ok(Self::Stream { name: "stdout".to_owned(), stream: Box::new(io::stdout()) });
        }
        let name = path.display().to_string();
        if is_stream(path) {
            let device = File::options().write(true).open(path).with_context(|| name.clone())?;
            return Ok(Self::Stream { name, stream: Box::new(device) });
        }
        file::check(path)?;
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = file.with_context(|| name.clone())?;
        let is_locked = file::try_lock(&file, Lock::Exclusive).with_context(|| name.clone())?;
        ensure!(is_locked, messages::output_is_in_use(&name));
        let kept = match restart {
            true => Kept::default(),
            false => answered(&file, &name, names, done)?,
        };
        if kept.is_cut {
            note(&messages::line_was_cut(&name));
        }
        if kept.again > 0 {
            note(&messages::batch_tries(kept.again));
        }
        let length = kept.length;
        file.set_len(length).with_context(|| name.clone())?;
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
            Self::Stream { name, stream } => {
                let written = stream.write_all(line.as_bytes()).and_then(|()| stream.flush());
                written.with_context(|| name.clone())
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

/// What stays of a file.
#[derive(Default)]
struct Kept {
    length: u64,
    /// Whether the last line was cut.
    is_cut: bool,
    /// Answers before it that are computed again.
    again: usize,
}

/// Marks the answers in a file that stay.
fn answered(file: &File, name: &str, names: &[Hash], done: &mut [bool]) -> Result<Kept> {
    #[derive(Deserialize)]
    struct Answer {
        id: String,
        response: Option<Response>,
    }
    #[derive(Deserialize)]
    struct Response {
        status_code: u16,
        body: Body,
    }
    #[derive(Deserialize)]
    struct Body {
        error: Option<Failure>,
    }
    #[derive(Deserialize)]
    struct Failure {
        code: Option<String>,
    }
    impl Response {
        fn may_pass(&self) -> bool {
            let code = self.body.error.as_ref().and_then(|error| error.code.as_deref());
            may_pass(self.status_code, code)
        }
    }
    let numbers: HashMap<Hash, usize> =
        names.iter().enumerate().map(|(number, name)| (*name, number)).collect();
    let mut reader = BufReader::new(file);
    let (mut kept, mut end, mut line) = (Kept::default(), 0, Vec::new());
    // The last answers, as far as they are computed again.
    let mut again = Vec::new();
    for number in 1u64.. {
        line.clear();
        let read = reader.by_ref().take(MAX_OUTPUT_LINE).read_until(b'\n', &mut line);
        read.with_context(|| name.to_owned())?;
        if line.last() != Some(&b'\n') {
            // A file of something else must not be emptied because it has one line.
            ensure!(is_cut(&line), messages::output_is_other(name, number));
            kept.is_cut = !line.is_empty();
            break;
        }
        end += line.len() as u64;
        let answer: Option<Answer> = serde_json::from_slice(&line).ok();
        let found = answer.and_then(|answer| {
            let place = *numbers.get(&name_of(&answer.id)?)?;
            Some((place, answer.response.is_some_and(|response| response.may_pass())))
        });
        let Some((place, has_failed)) = found.filter(|&(place, _)| !done[place]) else {
            bail!(messages::output_is_other(name, number));
        };
        done[place] = true;
        if has_failed {
            again.push(place);
        } else {
            again.clear();
            kept.length = end;
        }
    }
    kept.again = again.len();
    again.into_iter().for_each(|place| done[place] = false);
    Ok(kept)
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
        // What has failed and may succeed now is tried again, also if the line after it was cut.
        let failed = format!(
            "{{\"id\":\"{}\",\"response\":{{\"status_code\":503,\"body\":{{}}}}}}\n",
            id(&names[0])
        );
        for cut in ["", "{\"id\":\"batch_req_01"] {
            let opened = open(&format!("{whole}{failed}{cut}"));
            assert_eq!(opened, (Some([false, true]), whole.clone()));
        }
        let before = format!("{failed}{whole}");
        assert_eq!(open(&before), (Some([true, true]), before));
        let many =
            failed.replace("503", "400").replace("{}", r#"{"error":{"code":"too_many_answers"}}"#);
        assert_eq!(open(&format!("{whole}{many}")), (Some([false, true]), whole.clone()));
        // A wrong request, and a fault of the program or of the model.
        for status in ["400", "500"] {
            let wrong = failed.replace("503", status);
            assert_eq!(open(&wrong), (Some([true, false]), wrong));
        }
        for other in ["letter", "letter\n", "{}\n", &format!("{whole}{whole}"), "{\"id\":\"x"] {
            assert_eq!(open(other), (None, other.to_owned()));
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in [[0; 16], [255; 16], *b"0123456789abcdef"] {
            assert_eq!(name_of(&id(&name)), Some(name));
        }
        let id = id(&[255; 16]);
        for other in ["", PREFIX, &id[1..], &id.to_uppercase(), &id[..20], &format!("{id}0")] {
            assert_eq!(name_of(other), None, "{other}");
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
