//! The folder that quantizing writes: it has a name of its own until it is complete.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::files::checkpoint;
use crate::files::config::{GENERATION, UNWRITTEN};
use crate::files::model_dir::{CONFIG, CONFIG_NAME, ModelDir, TEMPLATE};
use crate::files::packed::PACKING_METADATA;
use crate::files::peft::PEFT_CONFIG;
use crate::files::temporary::folder_of;
use crate::files::variant::name_for_copy;
use crate::text::tokenizer;

/// What is added to the name of a folder while it is written.
pub(super) const UNFINISHED: &str = ".quantize.part";

/// The file of weights in the new folder.
const WEIGHTS: &str = "model.safetensors";

/// The unfinished file of weights.
const PART: &str = "model.safetensors.part";

/// The names of the tensors that an unfinished file has, if another process can go on with it.
pub(super) const JOURNAL: &str = "journal.json";

/// The journal while it is written. Always the same name, so that what a killed process leaves is found.
pub(super) const NEW_JOURNAL: &str = "journal.json.part";

/// Files that are copied if they exist, beside those of the tokenizer.
const COMPANIONS: [&str; 4] = [GENERATION, TEMPLATE, "LICENSE", "MODEL_LICENSE"];

/// The names of the files that a model may have beside `config.json` and its weights: tokenizer, generation settings, chat template
/// and licence. The library reads no others.
pub fn companion_files() -> impl Iterator<Item = &'static str> {
    COMPANIONS.into_iter().chain(PACKING_METADATA).chain(tokenizer::FILES)
}

/// The file by which a folder is known as one that is written here, and which is locked while it is.
const LOCK: &str = ".glm-quantize";

/// The folder that is written for `target`, beside it, until it is complete.
pub(super) fn unfinished(target: &Path) -> Result<PathBuf> {
    Ok(with_end(&resolved(target)?))
}

/// A folder that is written, with its file of weights. Nothing else is written to, and nothing else is removed.
pub(super) struct Output {
    place: Place,
    /// The unfinished file of weights.
    file: File,
    path: PathBuf,
}

/// Where an output is.
struct Place {
    /// What the folder becomes.
    target: PathBuf,
    /// Empty when it has become it.
    folder: PathBuf,
    /// Whether the folder stays if it is not published, but has a journal.
    is_kept: bool,
    /// Locked until it is closed, which is after the folder was removed.
    lock: Option<File>,
}

impl Place {
    fn has_journal(&self) -> bool {
        self.folder.join(JOURNAL).exists()
    }
}

impl Output {
    /// Begins to write the folder `target`, which must not exist or be empty, or goes on with what a killed process has left. Unless
    /// `is_kept` and there is a journal, what is written is removed when the output is dropped without being
    /// [published](Self::publish).
    ///
    /// # Errors
    /// If the folder has files, another process writes it, or a file cannot be created.
    pub(super) fn open(target: &Path, is_kept: bool) -> Result<Self> {
        let target = resolved(target)?;
        check(&target)?;
        let folder = with_end(&target);
        fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let lock = Some(lock(&folder, is_kept)?);
        let mut place = Place { target, folder, is_kept: true, lock };
        // Another process may have finished it before it was locked.
        check(&place.target)?;
        if !is_kept && place.has_journal() {
            let problem = format!(
                "holds a calibration that is not finished ({JOURNAL}): go on with it, or remove the folder"
            );
            return Err(Error::file(&place.folder, problem));
        }
        place.is_kept = is_kept;
        remove(&place.folder.join(NEW_JOURNAL))?;
        let path = place.folder.join(PART);
        let published = place.folder.join(WEIGHTS);
        if published.symlink_metadata().is_ok() {
            // Of a process that was killed while it published.
            fs::rename(&published, &path).map_err(Error::io(&path))?;
        }
        let mut options = File::options();
        let file = not_through_links(options.read(true).write(true).create(true).truncate(false));
        let file = file.open(&path).map_err(Error::io(&path))?;
        Ok(Self { place, file, path })
    }

    /// The folder that is written.
    pub(super) fn folder(&self) -> &Path {
        &self.place.folder
    }

    /// The file of weights.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// The path of the file of weights.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds the configuration and the companions of `source` to the finished weights, and gives the folder its name. This is one step:
    /// the model is there whole or not at all.
    ///
    /// # Errors
    /// If a file cannot be written, or something is at the target now: that stays as it is. If only the last step fails, the finished
    /// folder stays under its own name.
    pub(super) fn publish(self, source: &Path) -> Result<()> {
        let Self { mut place, file, path } = self;
        let folder = place.folder.clone();
        let model = ModelDir::open(source)?;
        for name in companion_files() {
            // One that is there is of a process that was killed here.
            remove(&folder.join(name))?;
            if model.has(name) {
                write(&folder.join(name), &*model.read(name)?)?;
            }
        }
        remove(&folder.join(CONFIG))?;
        write(&folder.join(CONFIG), &*configuration(source)?)?;
        file.sync_all().map_err(Error::io(&path))?;
        // Windows does not rename a folder in which files are open.
        drop(file);
        let weights = folder.join(WEIGHTS);
        fs::rename(&path, &weights).map_err(Error::io(&weights))?;
        only_ours(&folder)?;
        sync_folder(&folder)?;
        check(&place.target)?;
        if let Ok(empty) = fs::metadata(&place.target) {
            // It is replaced by one like it.
            let _ = fs::set_permissions(&folder, empty.permissions());
        }
        if cfg!(windows) {
            place.lock.take();
            let _ = fs::remove_dir(&place.target);
        }
        if let Err(error) = fs::rename(&folder, &place.target) {
            place.folder.clear();
            let problem = format!(
                "cannot be created ({error}); the model is complete in {}: rename that folder",
                folder.display()
            );
            return Err(Error::file(&place.target, problem));
        }
        // Another process may write a folder of the name that this one had.
        place.folder.clear();
        // They do no harm in a finished folder. Nor does a new name that a power failure may undo: the folder is complete under either.
        let _ = fs::remove_file(place.target.join(JOURNAL));
        let _ = fs::remove_file(place.target.join(LOCK));
        let _ = sync_folder(folder_of(&place.target));
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.folder.as_os_str().is_empty() || (self.is_kept && self.has_journal()) {
            return;
        }
        // Best effort. In a folder with another file, that stays, and so does the folder.
        for name in ours() {
            let _ = fs::remove_file(self.folder.join(name));
        }
        let _ = fs::remove_dir(&self.folder);
    }
}

/// The names of the files that an output writes. The lock is the last.
fn ours() -> impl Iterator<Item = &'static str> {
    companion_files().chain([PART, WEIGHTS, CONFIG, JOURNAL, NEW_JOURNAL, LOCK])
}

/// Checks that a folder that is written has no file of others, which would be published with it.
fn only_ours(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let name = entry.map_err(Error::io(folder))?.file_name();
        if !ours().any(|ours| name == ours) {
            let problem = format!("holds {}, which is of another: remove it", name.display());
            return Err(Error::file(folder, problem));
        }
    }
    Ok(())
}

/// The path without links and dots. Nothing is created.
fn resolved(target: &Path) -> Result<PathBuf> {
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

fn with_end(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(UNFINISHED);
    name.into()
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
    if let (Ok(folder), Ok(parent)) = (fs::metadata(target), fs::metadata(folder_of(target)))
        && !is_on_one_disk(&folder, &parent)
    {
        return Err(Error::file(target, "is the root of a file system: name a folder in it"));
    }
    Ok(())
}

/// Locks a folder that is written, until the file is closed. Some file systems have no locks: there, only what is kept can be gone on
/// with, and nothing else may write it.
///
/// # Errors
/// If another process writes it, or it is not of a process like this.
fn lock(folder: &Path, is_kept: bool) -> Result<File> {
    let in_use = || Error::file(folder, "is being written by another process");
    if !fs::symlink_metadata(folder).is_ok_and(|folder| folder.is_dir()) {
        return Err(Error::file(folder, "is a link: remove it"));
    }
    let path = folder.join(LOCK);
    let is_new = path.symlink_metadata().is_err();
    if is_new && fs::read_dir(folder).map_err(Error::io(folder))?.next().is_some() {
        // Of another process that has just begun, or of none.
        let problem = "is not empty, and not of `glm quantize`: remove it, or name another target";
        return Err(Error::file(folder, problem));
    }
    let mut options = File::options();
    let file = not_through_links(options.write(true).create(true).truncate(false)).open(&path);
    let file = file.map_err(Error::io(&path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(in_use()),
        Err(TryLockError::Error(_)) if is_new || is_kept => {}
        Err(TryLockError::Error(error)) => {
            let problem = format!(
                "may be written by another process, and files cannot be locked here ({error}): if there is none, remove it"
            );
            return Err(Error::file(folder, problem));
        }
    }
    // The process that had it locked may have published or removed it meanwhile.
    let ours = file.metadata().map_err(Error::io(&path))?;
    match fs::symlink_metadata(&path) {
        Ok(now) if is_same(&now, &ours) => Ok(file),
        _ => Err(in_use()),
    }
}

/// Options that do not open what a link leads to, where the system has such.
fn not_through_links(options: &mut fs::OpenOptions) -> &mut fs::OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, libc::O_NOFOLLOW);
    options
}

#[cfg(unix)]
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(not(unix))]
fn is_same(_: &Metadata, _: &Metadata) -> bool {
    true
}

#[cfg(unix)]
fn is_on_one_disk(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    one.dev() == other.dev()
}

#[cfg(not(unix))]
fn is_on_one_disk(_: &Metadata, _: &Metadata) -> bool {
    true
}

/// `config.json` of the new folder: that of the source, or the published one if the source has none. If the copy
/// would not be taken for the same model, its name is added.
fn configuration(source: &Path) -> Result<Vec<u8>> {
    let folder = ModelDir::open(source)?;
    if !folder.has(CONFIG) {
        return Ok(UNWRITTEN.as_bytes().to_vec());
    }
    match name_for_copy(&folder)? {
        Some(name) => {
            let mut config = folder.json(CONFIG)?;
            config.insert(CONFIG_NAME.to_owned(), name.into());
            Ok(format!("{:#}\n", Value::Object(config)).into_bytes())
        }
        None => Ok(folder.read(CONFIG)?.into_owned()),
    }
}

/// Writes a new file, and waits until it is on the disk.
fn write(path: &Path, mut bytes: impl Read) -> Result<()> {
    let mut file = File::create_new(path).map_err(Error::io(path))?;
    io::copy(&mut bytes, &mut file).and_then(|_| file.sync_all()).map_err(Error::io(path))
}

/// Removes a file, if there is one.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(path)(error)),
        _ => Ok(()),
    }
}

/// Makes new names durable, on systems that can sync folders.
fn sync_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io(folder))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source and a target that does not exist.
    fn folders(dir: &Path) -> [PathBuf; 2] {
        let [source, target] = ["source", "target"].map(|name| dir.join(name));
        fs::create_dir(&source).unwrap();
        fs::write(source.join(CONFIG), "{}").unwrap();
        fs::write(source.join("LICENSE"), "").unwrap();
        [source, target]
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().map(Result::unwrap);
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_has_its_name_when_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let [source, target] = folders(dir.path());
        let output = Output::open(&target, false).unwrap();
        assert!(!target.exists());
        output.publish(&source).unwrap();
        assert_eq!(names(&target), ["LICENSE", CONFIG, WEIGHTS]);
        assert_eq!(names(dir.path()), ["source", "target"]);
    }

    #[test]
    fn an_empty_folder_is_replaced_also_behind_a_link_and_with_dots() {
        let dir = tempfile::tempdir().unwrap();
        let [source, target] = folders(dir.path());
        fs::create_dir(&target).unwrap();
        let mut ways = vec![source.join("..").join("target")];
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("target", dir.path().join("link")).unwrap();
            ways.push(dir.path().join("link"));
        }
        for way in ways {
            Output::open(&way, false).unwrap().publish(&source).unwrap();
            assert_eq!(names(&target).len(), 3, "{}", way.display());
            fs::remove_dir_all(&target).unwrap();
            fs::create_dir(&target).unwrap();
        }
    }

    #[test]
    fn a_folder_that_another_process_writes_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let [source, target] = folders(dir.path());
        for is_kept in [true, false] {
            let output = Output::open(&target, is_kept).unwrap();
            let error = Output::open(&target, false).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("another process"), "{error}");
            assert!(output.path().exists());
        }
        // What a process leaves that was killed has no lock.
        let killed = Output::open(&target, true).unwrap();
        fs::write(killed.folder().join(JOURNAL), "{}").unwrap();
        fs::write(killed.folder().join("LICENSE"), "old").unwrap();
        fs::rename(killed.path(), killed.folder().join(WEIGHTS)).unwrap();
        drop(killed);
        let refused = Output::open(&target, false).map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains("calibration that is not finished"), "{refused}");
        fs::remove_file(dir.path().join("target.quantize.part").join(JOURNAL)).unwrap();
        Output::open(&target, false).unwrap().publish(&source).unwrap();
        assert_eq!(fs::read(target.join("LICENSE")).unwrap(), b"");
    }

    #[test]
    fn what_appears_at_the_target_stays() {
        let dir = tempfile::tempdir().unwrap();
        let [source, target] = folders(dir.path());
        for name in [CONFIG, WEIGHTS, "notes.txt"] {
            let output = Output::open(&target, false).unwrap();
            fs::create_dir_all(&target).unwrap();
            fs::write(target.join(name), "mine").unwrap();
            let error = output.publish(&source).unwrap_err().to_string();
            assert!(error.contains(&format!("holds {name} already")), "{error}");
            assert_eq!(names(&target), [name]);
            assert_eq!(names(dir.path()), ["source", "target"]);
            Output::open(&target, false).map(|_| ()).unwrap_err();
            fs::remove_dir_all(&target).unwrap();
        }
    }

    #[test]
    fn only_what_was_written_is_removed_and_published() {
        let dir = tempfile::tempdir().unwrap();
        let [source, target] = folders(dir.path());
        for is_published in [false, true] {
            let output = Output::open(&target, false).unwrap();
            let folder = output.folder().to_owned();
            let other = folder.join("adapter_config.json");
            fs::write(&other, "").unwrap();
            match is_published {
                true => {
                    let error = output.publish(&source).unwrap_err().to_string();
                    assert!(error.contains("holds adapter_config.json, which is of"), "{error}");
                }
                false => drop(output),
            }
            assert_eq!(names(&folder), ["adapter_config.json"]);
            assert!(!target.exists());
            let error = Output::open(&target, false).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("is not empty, and not of `glm quantize`"), "{error}");
            fs::remove_dir_all(folder).unwrap();
        }
        drop(Output::open(&target, true).unwrap());
        assert_eq!(names(dir.path()), ["source"], "there is no journal");
    }

    #[cfg(unix)]
    #[test]
    fn links_of_others_are_not_followed() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let [source, target] = folders(dir.path());
        let [mine, unfinished] = ["mine", "target.quantize.part"].map(|name| dir.path().join(name));
        symlink(&source, &unfinished).unwrap();
        let error = Output::open(&target, false).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("is a link"), "{error}");
        fs::remove_file(&unfinished).unwrap();
        fs::write(&mine, "mine").unwrap();
        for name in [LOCK, PART, "LICENSE"] {
            fs::create_dir(&unfinished).unwrap();
            fs::write(unfinished.join(LOCK), "").unwrap();
            let _ = fs::remove_file(unfinished.join(name));
            symlink(&mine, unfinished.join(name)).unwrap();
            let _ = Output::open(&target, false).and_then(|output| output.publish(&source));
            assert_eq!(fs::read(&mine).unwrap(), b"mine", "{name}");
            let _ = fs::remove_dir_all(&unfinished);
            let _ = fs::remove_dir_all(&target);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_is_replaced_keeps_its_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let [source, target] = folders(dir.path());
        fs::create_dir(&target).unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o700)).unwrap();
        Output::open(&target, false).unwrap().publish(&source).unwrap();
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
