//! What a folder that is written becomes: its path, and whether it can.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::companion_files;
use crate::error::{Error, Result};
use crate::files::checkpoint;
use crate::files::model_dir::CONFIG;
use crate::files::peft::PEFT_CONFIG;
use crate::files::temporary::folder_of;
#[cfg(target_os = "linux")]
use crate::limits::file::MAX_MOUNTS;

/// The path without links and dots. Nothing is created.
pub(super) fn resolved(target: &Path) -> Result<PathBuf> {
    let nameless = || Error::file(target, "is no name of a folder");
    if target.symlink_metadata().is_ok() {
        let target = target.canonicalize().map_err(Error::io(target))?;
        return target.file_name().is_some().then(|| target.clone()).ok_or_else(nameless);
    }
    let parent = folder_of(target);
    let name = target.file_name().ok_or_else(nameless)?;
    match parent.canonicalize() {
        Ok(parent) => Ok(parent.join(name)),
        // It is created with the folder.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(target.to_owned()),
        Err(error) => Err(Error::io(parent)(error)),
    }
}

/// Checks that nothing is there but an empty folder, which can be replaced by another.
pub(super) fn check(target: &Path) -> Result<()> {
    let entries = match fs::read_dir(target) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(target)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(Error::io(target))?.file_name().to_string_lossy().into_owned());
    }
    let of_models = checkpoint::entries()
        .chain([CONFIG, PEFT_CONFIG].map(str::to_owned))
        .chain(companion_files().map(str::to_owned))
        .find(|name| names.contains(name));
    if let Some(name) = of_models.or_else(|| names.into_iter().min()) {
        let problem = format!("holds {name} already: remove it, or name another folder");
        return Err(Error::file(target, problem));
    }
    if Path::new(".").canonicalize().is_ok_and(|current| current == target) {
        return Err(Error::file(target, "is the current folder: name another, or go elsewhere"));
    }
    if is_mount_point(target) {
        return Err(Error::file(target, "is the root of a file system: name a folder in it"));
    }
    Ok(())
}

/// Whether a folder is where a file system begins, or a part of one that is mounted there: another folder cannot take its place.
#[cfg(unix)]
fn is_mount_point(folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |folder: &Path| fs::metadata(folder).map(|folder| folder.dev()).ok();
    device(folder) != device(folder_of(folder)) || is_mounted(folder)
}

#[cfg(not(unix))]
fn is_mount_point(_: &Path) -> bool {
    false
}

/// Whether something is mounted on a folder, also a folder of the same file system.
#[cfg(target_os = "linux")]
fn is_mounted(folder: &Path) -> bool {
    use std::io::Read;
    let mut mounts = Vec::new();
    let file = fs::File::open("/proc/self/mountinfo");
    let read = file.and_then(|file| file.take(MAX_MOUNTS).read_to_end(&mut mounts));
    read.is_ok() && is_listed(folder, &mounts)
}

/// Elsewhere only whole file systems are mounted.
#[cfg(all(unix, not(target_os = "linux")))]
fn is_mounted(_: &Path) -> bool {
    false
}

/// Whether a list of mounts has a folder: it is the fifth word of a line, in which blanks and backslashes are octal numbers.
#[cfg(target_os = "linux")]
fn is_listed(folder: &Path, mounts: &[u8]) -> bool {
    let escape = |&byte: &u8| match byte {
        b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
        _ => vec![byte],
    };
    let path = folder.as_os_str().as_encoded_bytes();
    let path: Vec<u8> = path.iter().flat_map(escape).collect();
    let lines = mounts.split(|byte| *byte == b'\n');
    lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4)).any(|point| point == path)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_known() {
        let mounts = b"36 35 98:0 / /a\\040b\\134 rw,noatime - ext3 /dev/root rw\n41 36 98:0 /x /y rw - ext3 /dev/root rw\n";
        assert!(is_listed(Path::new("/a b\\"), mounts) && is_listed(Path::new("/y"), mounts));
        for other in ["/x", "/a", "/", "/a b"] {
            assert!(!is_listed(Path::new(other), mounts), "{other}");
        }
        assert!(is_mount_point(Path::new("/proc")));
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_mount_point(dir.path()));
    }
}
