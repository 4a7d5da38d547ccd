//! Files that are written completely or not at all, and locks between processes.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use glm_model::open_regular_as;

use crate::messages;

/// What the names of unfinished files begin and end with. Random letters are between them.
const PART: [&str; 2] = [".glm-", ".part"];

/// Whether [`replace`] gives an unfinished file such a name. A process that is killed leaves it.
pub fn is_part(name: &OsStr) -> bool {
    let [start, end] = PART;
    name.to_str().is_some_and(|name| name.starts_with(start) && name.ends_with(end))
}

/// Checks that `path` can be written, before the work whose result it will hold.
pub fn check(path: &Path) -> Result<()> {
    let folder = folder(path);
    ensure!(folder.is_dir(), messages::no_folder(folder.display()));
    ensure!(path.file_name().is_some(), messages::no_file_name(path.display()));
    // Renaming would replace a device such as /dev/null by a file.
    ensure!(!path.exists() || path.is_file(), messages::no_regular_file(path.display()));
    Ok(())
}

/// Writes a file under a temporary name beside `path` and renames it when it is complete and on the disk. Only I/O errors are reported as
/// errors of this file.
pub fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&mut File>) -> Result<()>,
) -> Result<()> {
    check(path)?;
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let name = || path.display().to_string();
    let [start, end] = PART;
    let mut file =
        builder.prefix(start).suffix(end).tempfile_in(folder(path)).with_context(name)?;
    let mut buffer = BufWriter::new(file.as_file_mut());
    write(&mut buffer).map_err(|error| match error.is::<io::Error>() {
        true => error.context(name()),
        false => error,
    })?;
    buffer.flush().with_context(name)?;
    drop(buffer);
    // Otherwise a loss of power may leave the new name and an empty file.
    file.as_file().sync_all().with_context(name)?;
    file.persist(path).map_err(|error| error.error).with_context(name)?;
    Ok(())
}

/// Opens a file that is there to be locked. It is created with its folder.
///
/// # Errors
/// If the file or its folder cannot be created or opened.
pub fn open_lock(path: &Path) -> io::Result<File> {
    fs::create_dir_all(folder(path))?;
    open_regular_as(File::options().write(true).create(true).truncate(false), path)
}

/// Who else may lock a file.
#[derive(Debug, Clone, Copy)]
pub enum Lock {
    /// Others that lock it as shared.
    Shared,
    Exclusive,
}

/// Locks a file, and returns whether that was possible: another process may have locked it. The lock ends with the file. A file system
/// without locks lets everybody have them.
///
/// # Errors
/// If the system fails.
pub fn try_lock(file: &File, lock: Lock) -> io::Result<bool> {
    let locked = match lock {
        Lock::Shared => file.try_lock_shared(),
        Lock::Exclusive => file.try_lock(),
    };
    match locked {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The folder that holds `path`.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes a pipe, of which nobody knows whether it will be read or written.
#[cfg(all(test, unix))]
pub fn make_pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_or_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        replace(&path, |out| Ok(out.write_all(b"first")?)).unwrap();
        let failed = replace(&path, |out| {
            out.write_all(b"sec")?;
            bail!("no more")
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    #[cfg(unix)]
    fn a_lock_is_no_pipe() {
        let dir = tempfile::tempdir().unwrap();
        make_pipe(&dir.path().join("lock"));
        assert!(open_lock(&dir.path().join("lock")).is_err());
    }

    #[test]
    fn only_regular_files_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check(dir.path()).is_err());
        assert!(check(&dir.path().join("missing/out")).is_err());
        assert!(check(Path::new("/")).is_err());
        assert!(check(Path::new("out-in-the-current-folder")).is_ok());
    }
}
