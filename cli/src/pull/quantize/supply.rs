//! The downloads of files of weights, one ahead of their use.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::mpsc::{self, SyncSender};
use std::thread;

use anyhow::{Result, anyhow};

use super::workspace::Workspace;
use crate::folders;
use crate::pull::cache::Cache;
use crate::pull::download::Downloader;
use crate::pull::hub::RemoteFile;
use crate::pull::progress::Progress;
use crate::repository::Repository;

pub struct Supply<'a> {
    pub downloader: &'a Downloader,
    pub workspace: &'a Workspace,
    pub repository: &'a Repository,
    /// In the order in which they are needed.
    pub files: Vec<&'a RemoteFile>,
    pub progress: &'a Progress,
}

impl Supply<'_> {
    /// Runs `consume` while the files arrive. The function that it gets waits for the next file and returns its name: the file is then
    /// in the folder of shards. The file after that is downloaded meanwhile.
    ///
    /// # Errors
    /// That of `consume`, which is told of failed downloads. The downloads are then stopped.
    pub fn run<T>(
        &self,
        consume: impl FnOnce(&mut dyn FnMut() -> Result<String>) -> Result<T>,
    ) -> Result<T> {
        thread::scope(|scope| {
            // Nothing waits in the channel: a file that nobody takes yet keeps the next from being begun.
            let (sender, receiver) = mpsc::sync_channel(0);
            scope.spawn(move || self.send(&sender));
            let mut next = || receiver.recv().unwrap_or_else(|_| Err(anyhow!("no file is left")));
            let done = consume(&mut next);
            drop(receiver);
            if done.is_err() {
                // The scope waits for the other thread.
                self.downloader.http().stop.cancel.cancel();
            }
            done
        })
    }

    fn send(&self, to: &SyncSender<Result<String>>) {
        for file in &self.files {
            let fetched = self.fetch(file);
            let is_last = fetched.is_err();
            if to.send(fetched.map(|()| file.path.clone())).is_err() || is_last {
                return;
            }
        }
    }

    /// Gets a file into the folder of shards, from the hub's cache if it is there.
    fn fetch(&self, file: &RemoteFile) -> Result<()> {
        let shard = self.workspace.shard(&file.path);
        let is_there = fs::metadata(&shard).is_ok_and(|shard| shard.len() == file.size);
        if is_there || self.link_blob(file)? {
            self.progress.found(file.size);
            return Ok(());
        }
        self.downloader.fetch(file, &shard, self.progress)
    }

    /// Makes the shard a link to the blob in the hub's cache, if there is one of the right size and the system has links.
    fn link_blob(&self, file: &RemoteFile) -> Result<bool> {
        let cache = Cache::new(&folders::hub()?, self.repository);
        let shard = self.workspace.shard(&file.path);
        // A link that a killed run left can be there: it points to the same blob.
        Ok(cache.has(file) && link(&cache.blob(file), &shard).is_ok())
    }
}

#[cfg(unix)]
fn link(to: &Path, at: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(std::path::absolute(to)?, at)
}

#[cfg(not(unix))]
fn link(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
