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

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::file;
use crate::models::{REPLACED, State, UNFINISHED};

/// The file that says what a model was made from.
const ORIGIN: &str = ".pull.json";

/// What a model was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub commit: String,
}

impl Origin {
    /// The origin of the model in a folder, if it is known.
    pub fn of(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(folder.join(ORIGIN)).ok()?).ok()
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
    /// If a file cannot be written or removed.
    pub fn open(target: &Path, origin: &Origin, name: &str) -> Result<Self> {
        let root = with_end(target, UNFINISHED);
        let is_new = Origin::of(&root).as_ref() != Some(origin);
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
    /// If a folder cannot be renamed or removed.
    pub fn publish(self, target: &Path) -> Result<()> {
        self.origin.write(&self.model())?;
        let old = replaced(target);
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
pub fn remains(target: &Path) -> Vec<PathBuf> {
    let root = with_end(target, UNFINISHED);
    // Its origin may be removed already.
    let is_published =
        root.exists() && Origin::of(&root).is_none_or(|origin| Origin::of(target) == Some(origin));
    let old = replaced(target);
    let old = old.exists().then_some(old);
    is_published.then_some(root).into_iter().chain(old).collect()
}

/// Removes the [`remains`]. Nothing else may write the model.
///
/// # Errors
/// If a folder cannot be removed.
pub fn remove_remains(target: &Path) -> Result<()> {
    remains(target).iter().try_for_each(|folder| remove(folder))
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
        assert_eq!(remains(&target), [replaced(&target)], "the workspace is of use");
        fs::create_dir(&target).unwrap();
        origin("b").write(&target).unwrap();
        assert_eq!(remains(&target), [replaced(&target)], "the workspace is of another commit");
        origin("a").write(&target).unwrap();
        assert_eq!(remains(&target).len(), 2);
        remove_remains(&target).unwrap();
        assert!(remains(&target).is_empty());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_published_replaces_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("int4");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("old"), "").unwrap();
        let workspace = begun(&target);
        fs::create_dir(workspace.model()).unwrap();
        fs::write(workspace.model().join("new"), "").unwrap();
        workspace.publish(&target).unwrap();
        assert!(target.join("new").exists() && !target.join("old").exists());
        assert_eq!(Origin::of(&target), Some(origin("a")));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
