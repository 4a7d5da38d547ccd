//! Opening files of a model, which are regular files.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

/// Opens a regular file for reading, without waiting: opening a pipe would wait for a writer, and reading some files of the system
/// for an event.
///
/// # Errors
/// If it cannot be opened, or is no regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    open_regular_as(File::options().read(true), path)
}

/// Opens a regular file with these options, or creates it, without waiting.
///
/// # Errors
/// If it cannot be opened, or is no regular file.
pub fn open_regular_as(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = match flags(options, NO_WAITING).open(path) {
        // A server of files gives it back soon.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock && path.is_file() => {
            flags(options, 0).open(path)?
        }
        opened => opened?,
    };
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "is no regular file")),
    }
}

/// The bytes of a regular file, of which there may be `most`.
///
/// # Errors
/// If it cannot be read, is no regular file, or has more bytes.
pub fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 <= most {
        true => Ok(bytes),
        false => {
            let problem = format!("is larger than {most} bytes");
            Err(io::Error::new(io::ErrorKind::FileTooLarge, problem))
        }
    }
}

#[cfg(unix)]
const NO_WAITING: i32 = libc::O_NONBLOCK;

/// Other systems have no such files.
#[cfg(not(unix))]
const NO_WAITING: i32 = 0;

#[cfg(unix)]
fn flags(options: &mut OpenOptions, flags: i32) -> &mut OpenOptions {
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, flags)
}

#[cfg(not(unix))]
fn flags(options: &mut OpenOptions, _: i32) -> &mut OpenOptions {
    options
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        for path in [&*pipe, dir.path(), Path::new("/dev/null")] {
            let error = open_regular(path).unwrap_err().to_string();
            assert!(error.contains("no regular file"), "{error}");
        }
    }

    #[test]
    fn no_more_is_read_than_may_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(read_regular(&path, 3).unwrap(), b"abc");
        assert_eq!(read_regular(&path, u64::MAX).unwrap(), b"abc");
        let error = read_regular(&path, 2).unwrap_err().to_string();
        assert!(error.contains("larger than 2 bytes"), "{error}");
    }

    #[test]
    fn what_is_written_is_regular_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let [new, pipe] = ["new", "pipe"].map(|name| dir.path().join(name));
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let open = |path: &Path| open_regular_as(File::options().write(true).create(true), path);
        assert!(open(&new).is_ok() && open(&pipe).is_err());
    }
}
