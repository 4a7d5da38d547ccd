//! The folder of an unfinished model. A process that is killed leaves it so that the next goes on.
//!
//! ```text
//! int4.part/source/NAME/      a model folder in which files of weights are skeletons, or complete while they are needed
//! int4.part/skeletons/FILE    the skeleton in whose place is the complete file
//! int4.part/shards/FILE       a complete file that is not in its place yet
//! int4.part/model/            the finished model, which becomes int4; before, model.quantize.part/
//! int4.part/.pull.json        what it is made from
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use glm_model::{Quantizer, read_regular};
use serde::{Deserialize, Serialize};

use crate::file;
use crate::limits::model::MAX_ORIGIN;
use crate::messages;
use crate::models::{REPLACED, State, UNFINISHED};

/// The file that says what a model was made from.
const ORIGIN: &str = ".pull.json";

/// What a model was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub commit: String,
}

impl Origin {
    /// The origin of the model in a folder; `None` if nothing there tells it, or there is no folder.
    ///
    /// # Errors
    /// If what tells it cannot be read or is damaged. Hours of work must not be taken for those of another.
    pub fn of(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(ORIGIN);
        let json = match read_regular(&path, MAX_ORIGIN) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| path.display().to_string())?,
        };
        let origin = serde_json::from_slice(&json);
        origin
            .map(Some)
            .with_context(|| messages::origin_is_unclear(path.display(), folder.display()))
    }

    fn write(&self, folder: &Path) -> Result<()> {
        file::replace(&folder.join(ORIGIN), |out| Ok(serde_json::to_writer(out, self)?))
    }
}

pub struct Workspace {
    root: PathBuf,
    source: PathBuf,
    origin: Origin,
    /// Whether nothing was there before.
    is_new: bool,
}

impl Workspace {
    /// The workspace for folder `target`. Begun for another origin, it is emptied. `name` is that of the repository: it can tell the
    /// variant of the model.
    ///
    /// # Errors
    /// If its origin cannot be read, it holds what others have made, or a file cannot be written or removed.
    pub fn open(target: &Path, origin: &Origin, name: &str) -> Result<Self> {
        let root = with_end(target, UNFINISHED);
        // Without an origin nothing was begun yet, or it is being removed.
        let is_new = Origin::of(&root)?.as_ref() != Some(origin);
        check_workspace(&root)?;
        let source = root.join("source").join(name);
        let workspace = Self { source, root, origin: origin.clone(), is_new };
        if is_new {
            remove(&workspace.root)?;
        }
        let folders = ["skeletons", "shards"].map(|folder| workspace.root.join(folder));
        for folder in folders.iter().chain([&workspace.source]) {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        origin.write(&workspace.root)?;
        workspace.recover()?;
        Ok(workspace)
    }

    /// Removes a new workspace, of a model that cannot be quantized. Errors are ignored.
    pub fn forget(&self) {
        if self.is_new {
            let _ = remove(&self.root);
            // Only if it is empty.
            let _ = self.root.parent().map(fs::remove_dir);
        }
    }

    /// The model folder that is quantized.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// The folder that is written.
    pub fn model(&self) -> PathBuf {
        self.root.join("model")
    }

    /// Whether the model is finished and has only to be published.
    pub fn is_finished(&self) -> bool {
        State::of(&self.model()).is_ready()
    }

    /// Where a file of weights is before it is inserted.
    pub fn shard(&self, name: &str) -> PathBuf {
        self.root.join("shards").join(name)
    }

    fn skeleton(&self, name: &str) -> PathBuf {
        self.root.join("skeletons").join(name)
    }

    /// Whether a file of weights is complete in the source.
    pub fn is_complete(&self, name: &str) -> bool {
        self.skeleton(name).exists()
    }

    /// The files of weights that are complete in the source.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn complete(&self) -> Result<Vec<String>> {
        let folder = self.root.join("skeletons");
        let names = || -> io::Result<Vec<String>> {
            let names = fs::read_dir(&folder)?.map(|entry| Ok(entry?.file_name().into_string()));
            names.filter_map(|name| name.map(Result::ok).transpose()).collect()
        };
        names().with_context(|| folder.display().to_string())
    }

    /// Puts a shard in the place of its skeleton.
    ///
    /// # Errors
    /// If a file cannot be renamed.
    pub fn insert(&self, name: &str) -> Result<()> {
        rename(&self.source.join(name), &self.skeleton(name))?;
        rename(&self.shard(name), &self.source.join(name))
    }

    /// Puts the skeleton in the place of a file that is no longer needed.
    ///
    /// # Errors
    /// If the skeleton cannot be renamed.
    pub fn drop_shard(&self, name: &str) -> Result<()> {
        rename(&self.skeleton(name), &self.source.join(name))
    }

    /// Ends an [`insert`](Self::insert) in which a process was killed.
    fn recover(&self) -> Result<()> {
        for name in self.complete()? {
            let place = self.source.join(&name);
            match (place.exists(), self.shard(&name).exists()) {
                (true, _) => {}
                (false, true) => rename(&self.shard(&name), &place)?,
                (false, false) => self.drop_shard(&name)?,
            }
        }
        Ok(())
    }

    /// Makes the finished model the folder `target`, in place of another that may be there, and removes everything else.
    ///
    /// # Errors
    /// If the other holds what `glm pull` has not made, or a folder cannot be renamed or removed.
    pub fn publish(self, target: &Path) -> Result<()> {
        self.origin.write(&self.model())?;
        let old = replaced(target);
        check_target(target)?;
        if target.exists() {
            remove(&old)?;
            rename(target, &old)?;
        }
        rename(&self.model(), target).inspect_err(|_| {
            // The other model can be used until the next run.
            let _ = fs::rename(&old, target);
        })?;
        remove(&old)?;
        remove(&self.root)
    }
}

/// The folders that a process has left that was killed while it published. The workspace of a model from another commit is none of them.
///
/// # Errors
/// If the origin of one cannot be read.
pub fn remains(target: &Path) -> Result<Vec<PathBuf>> {
    let root = with_end(target, UNFINISHED);
    let is_published = root.exists()
        && match Origin::of(&root)? {
            Some(origin) => Origin::of(target)? == Some(origin),
            // It is removed already.
            None => true,
        };
    let old = replaced(target);
    let old = old.exists().then_some(old);
    Ok(is_published.then_some(root).into_iter().chain(old).collect())
}

/// Removes the [`remains`]. Nothing else may write the model.
///
/// # Errors
/// If one holds what others have made, or a folder cannot be removed.
pub fn remove_remains(target: &Path) -> Result<()> {
    let remains = remains(target)?;
    let root = with_end(target, UNFINISHED);
    if remains.contains(&root) {
        check_workspace(&root)?;
    }
    check_model(&replaced(target), true)?;
    remains.iter().try_for_each(|folder| remove(folder))
}

/// Checks that a model that is to be replaced is one that `glm pull` has made, without files of others.
///
/// # Errors
/// If it is not, or the folder cannot be read.
pub fn check_target(target: &Path) -> Result<()> {
    check_model(&replaced(target), true)?;
    check_model(target, Origin::of(target)?.is_some())
}

/// Checks that a folder holds nothing but files of a model.
fn check_model(folder: &Path, is_ours: bool) -> Result<()> {
    only(folder, &|entry| {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        is_ours && !is_folder && Quantizer::files().any(|name| entry.file_name() == name)
    })
}

/// Checks that a workspace holds nothing but what its head says.
fn check_workspace(root: &Path) -> Result<()> {
    let quantizing = format!("model{}", Quantizer::UNFINISHED);
    let ours = ["source", "skeletons", "shards", "model", &quantizing];
    only(root, &|entry| ours.iter().any(|name| entry.file_name() == *name))
}

/// What the windows of systems leave in folders that they have shown.
const OF_WINDOWS: [&str; 3] = [".DS_Store", "desktop.ini", "Thumbs.db"];

/// Checks that a folder that is removed holds nothing else than its origin and what is ours. There may be no such folder.
fn only(folder: &Path, is_ours: &dyn Fn(&fs::DirEntry) -> bool) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read.with_context(|| folder.display().to_string())?,
    };
    for entry in entries {
        let entry = entry.with_context(|| folder.display().to_string())?;
        let name = entry.file_name();
        let is_known = name == ORIGIN || OF_WINDOWS.iter().any(|other| name == *other);
        if !is_known && !file::is_part(&name) && !is_ours(&entry) {
            bail!(messages::not_of_pull(folder.display(), name.display()));
        }
    }
    Ok(())
}

/// Where the model is that is replaced by another.
fn replaced(target: &Path) -> PathBuf {
    with_end(target, REPLACED)
}

/// A path whose last name has something added.
fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| to.display().to_string())
}

/// Removes a folder, if there is one.
fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| folder.display().to_string())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "model-00001-of-00002.safetensors";

    fn origin(commit: &str) -> Origin {
        Origin { commit: commit.to_owned() }
    }

    /// A workspace with a skeleton and its shard.
    fn begun(target: &Path) -> Workspace {
        let workspace = Workspace::open(target, &origin("a"), "m").unwrap();
        fs::write(workspace.source().join(FILE), "skeleton").unwrap();
        fs::write(workspace.shard(FILE), "shard").unwrap();
        workspace
    }

    fn contents(workspace: &Workspace) -> String {
        fs::read_to_string(workspace.source().join(FILE)).unwrap()
    }

    #[test]
    fn a_shard_takes_the_place_of_its_skeleton_and_leaves_it() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = begun(&dir.path().join("int4"));
        assert!(workspace.complete().unwrap().is_empty());
        workspace.insert(FILE).unwrap();
        assert!(workspace.is_complete(FILE) && workspace.complete().unwrap() == [FILE]);
        assert_eq!(contents(&workspace), "shard");
        workspace.drop_shard(FILE).unwrap();
        assert!(!workspace.is_complete(FILE) && contents(&workspace) == "skeleton");
    }

    #[test]
    fn a_process_may_be_killed_while_it_inserts() {
        for (has_shard, expected) in [(true, "shard"), (false, "skeleton")] {
            let dir = tempfile::tempdir().unwrap();
            let target = dir.path().join("int4");
            let workspace = begun(&target);
            fs::rename(workspace.source().join(FILE), workspace.skeleton(FILE)).unwrap();
            if !has_shard {
                fs::remove_file(workspace.shard(FILE)).unwrap();
            }
            let workspace = Workspace::open(&target, &origin("a"), "m").unwrap();
            assert_eq!(contents(&workspace), expected);
            assert_eq!(workspace.is_complete(FILE), has_shard);
        }
    }

    #[test]
    fn another_origin_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("int4");
        begun(&target);
        assert!(Workspace::open(&target, &origin("a"), "m").unwrap().shard(FILE).exists());
        let other = Workspace::open(&target, &origin("b"), "m").unwrap();
        assert!(!other.shard(FILE).exists() && !other.source().join(FILE).exists());
    }

    #[test]
    fn a_process_may_be_killed_while_it_publishes() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("int4");
        begun(&target);
        fs::create_dir(replaced(&target)).unwrap();
        let remains = || remains(&target).unwrap();
        assert_eq!(remains(), [replaced(&target)], "the workspace is of use");
        fs::create_dir(&target).unwrap();
        origin("b").write(&target).unwrap();
        assert_eq!(remains(), [replaced(&target)], "the workspace is of another commit");
        origin("a").write(&target).unwrap();
        assert_eq!(remains().len(), 2);
        remove_remains(&target).unwrap();
        assert!(remains().is_empty());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_origin_that_cannot_be_read_is_none_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("int4");
        let workspace = begun(&target);
        let (shard, path) = (workspace.shard(FILE), workspace.root.join(ORIGIN));
        let check = || {
            let opened = Workspace::open(&target, &origin("b"), "m").map(drop);
            for failed in [opened, remains(&target).map(drop), remove_remains(&target)] {
                let said = crate::failure::message(&failed.unwrap_err());
                assert!(said.contains(ORIGIN), "{said}");
            }
            assert!(shard.exists());
        };
        for damaged in ["", "{", &" ".repeat(MAX_ORIGIN as usize + 1)] {
            fs::write(&path, damaged).unwrap();
            check();
        }
        // What cannot be read for another reason.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        check();
    }

    #[test]
    fn what_others_have_made_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("int4");
        let root = begun(&target).root;
        let mine = root.join("notes.txt");
        fs::write(&mine, "mine").unwrap();
        let refused = |done: Result<()>| {
            let said = done.unwrap_err().to_string();
            assert!(said.contains("notes.txt"), "{said}");
            assert!(mine.exists(), "{said}");
        };
        refused(Workspace::open(&target, &origin("b"), "m").map(drop));
        fs::remove_file(root.join(ORIGIN)).unwrap();
        refused(Workspace::open(&target, &origin("a"), "m").map(drop));
        refused(remove_remains(&target));
        let old = replaced(&target);
        fs::rename(&root, &old).unwrap();
        let said = remove_remains(&target).unwrap_err().to_string();
        assert!(old.exists() && said.contains("int4.old.part"), "{said}");
    }

    /// A workspace with a finished model.
    fn finished(target: &Path) -> Workspace {
        let workspace = begun(target);
        fs::create_dir(workspace.model()).unwrap();
        fs::write(workspace.model().join("LICENSE"), "new").unwrap();
        workspace
    }

    #[test]
    fn what_is_published_replaces_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("int4");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("config.json"), "").unwrap();
        origin("b").write(&target).unwrap();
        fs::write(target.join(".DS_Store"), "").unwrap();
        check_target(&target).unwrap();
        finished(&target).publish(&target).unwrap();
        assert!(target.join("LICENSE").exists() && !target.join("config.json").exists());
        assert_eq!(Origin::of(&target).unwrap(), Some(origin("a")));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_model_of_others_is_not_replaced() {
        // A file beside those of a model of `glm pull`, and a model that has no origin.
        for (name, is_of_pull) in [("notes.txt", true), ("model.safetensors", false)] {
            let dir = tempfile::tempdir().unwrap();
            let target = dir.path().join("int4");
            fs::create_dir(&target).unwrap();
            fs::write(target.join(name), "mine").unwrap();
            if is_of_pull {
                origin("b").write(&target).unwrap();
            }
            let workspace = finished(&target);
            let model = workspace.model();
            for refused in [check_target(&target), workspace.publish(&target)] {
                let said = refused.unwrap_err().to_string();
                assert!(said.contains(name), "{said}");
            }
            assert!(target.join(name).exists() && model.exists());
        }
    }
}
