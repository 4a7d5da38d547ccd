//! Files with temporary names, beside the files that they become.

use std::io;
use std::path::Path;

use tempfile::NamedTempFile;

/// The folder that holds `path`.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// A new file with the usual permissions, whose name begins with `start` and ends with `end`. It is removed when it is dropped.
pub(crate) fn temporary_file(folder: &Path, start: &str, end: &str) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.prefix(start).suffix(end).tempfile_in(folder)
}
