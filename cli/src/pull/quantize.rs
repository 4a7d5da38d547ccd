//! `glm pull --quantize`: each file of weights is quantized as it arrives and then removed.
//!
//! First come the small files, and of each file of weights only its headers: they say what the new file holds and which files a
//! tensor needs. Then one thread downloads the files one after another, and another quantizes what has arrived. On the disk are the
//! new model, the file that is quantized, the next one, and those of which a tensor needs a part that has not come yet.

mod supply;
mod workspace;

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::Result;
use glm_model::{QuantizeOptions, Quantized, Quantizer, write_skeleton};

use super::download::Downloader;
use super::hub::{Listing, RemoteFile};
use super::progress::Progress;
use super::select::Selected;
use crate::messages;
use crate::units::bytes;
use supply::Supply;
use workspace::{Origin, Workspace};

/// A model that is downloaded and quantized.
pub struct Job<'a> {
    pub downloader: &'a Downloader,
    pub listing: &'a Listing,
    pub selected: &'a Selected<'a>,
    pub options: &'a QuantizeOptions,
    /// The folder that is written.
    pub target: &'a Path,
}

impl Job<'_> {
    /// Downloads and quantizes the model, or goes on with what a run before has left. `None` if it is there already: made from the same
    /// commit, or by `glm quantize`.
    ///
    /// # Errors
    /// If a download fails, the source is no supported model or is damaged, a file cannot be written, or the program shall stop. What
    /// was done stays for the next run.
    pub fn run(&self) -> Result<Option<Quantized>> {
        let origin = Origin { commit: self.listing.commit.clone() };
        if self.target.exists() && Origin::of(self.target).is_none_or(|found| found == origin) {
            return Ok(None);
        }
        let workspace = Workspace::open(self.target, &origin, self.listing.repository.name())?;
        if workspace.is_finished() {
            workspace.publish(self.target)?;
            return Ok(None);
        }
        let mut quantizer = Quantizer::open(workspace.source(), workspace.model(), self.options)?;
        let progress = Progress::new(self.files().map(|file| file.size).sum());
        let filled = self.fill(&workspace, &mut quantizer, &progress);
        progress.finish();
        filled?;
        let done = quantizer.finish()?;
        workspace.publish(self.target)?;
        Ok(Some(done))
    }

    /// Downloads what is missing and quantizes it.
    fn fill(
        &self,
        workspace: &Workspace,
        quantizer: &mut Quantizer,
        progress: &Progress,
    ) -> Result<()> {
        self.describe(workspace, progress)?;
        let missing = quantizer.missing()?;
        let needed: Vec<_> = missing
            .iter()
            .filter_map(|path| self.file(path))
            .filter(|file| !workspace.is_complete(&file.path))
            .collect();
        self.check_space(workspace, quantizer, &needed)?;
        let is_needed = |file: &RemoteFile| needed.iter().any(|other| other.path == file.path);
        let rest = self.selected.weights.iter().filter(|file| !is_needed(file));
        progress.found(rest.map(|file| file.size).sum());
        let Self { downloader, .. } = *self;
        let repository = &self.listing.repository;
        let supply = Supply { downloader, workspace, repository, files: needed, progress };
        supply.run(|supplied| self.convert(workspace, quantizer, progress, supplied))
    }

    /// Gets the small files, and the headers of the files of weights.
    fn describe(&self, workspace: &Workspace, progress: &Progress) -> Result<()> {
        for file in &self.selected.others {
            let path = workspace.source().join(&file.path);
            match has_size(&path, file.size) {
                true => progress.found(file.size),
                false => self.downloader.fetch(file, &path, progress)?,
            }
        }
        progress.message(&messages::reading_headers());
        for file in &self.selected.weights {
            let path = workspace.source().join(&file.path);
            if !has_size(&path, file.size) {
                let read = &mut |range| self.downloader.range(file, range);
                write_skeleton::<anyhow::Error>(&path, file.size, read)?;
            }
        }
        Ok(())
    }

    /// Quantizes what `next` supplies until nothing is missing.
    fn convert(
        &self,
        workspace: &Workspace,
        quantizer: &mut Quantizer,
        progress: &Progress,
        next: &mut dyn FnMut() -> Result<String>,
    ) -> Result<()> {
        let is_complete = |path: &Path| file_name(path).is_some_and(|it| workspace.is_complete(it));
        let mut show = |done: u64, total: u64, _: &str| {
            progress.message(&messages::quantized_so_far(bytes(done), bytes(total)));
            match self.downloader.http().stop.is_requested() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        loop {
            quantizer.write(&is_complete, &mut show)?;
            let missing = quantizer.missing()?;
            for name in workspace.complete()? {
                if !missing.contains(&workspace.source().join(&name)) {
                    workspace.drop_shard(&name)?;
                }
            }
            if missing.is_empty() {
                return Ok(());
            }
            workspace.insert(&next()?)?;
        }
    }

    /// Checks that the new model and the two largest of the files fit on the disk.
    fn check_space(
        &self,
        workspace: &Workspace,
        quantizer: &Quantizer,
        files: &[&RemoteFile],
    ) -> Result<()> {
        let mut sizes: Vec<_> = files.iter().map(|file| file.size).collect();
        sizes.sort_unstable_by(|one, other| other.cmp(one));
        let shards: u64 = sizes.iter().take(2).sum();
        let there = on_disk(&workspace.model()) + on_disk(&workspace.shard(""));
        let needed = (quantizer.bytes()? + shards).saturating_sub(there);
        super::space::check(&workspace.model(), needed)
    }

    fn files(&self) -> impl Iterator<Item = &RemoteFile> {
        self.selected.others.iter().chain(&self.selected.weights).copied()
    }

    /// The file of weights at a path of the source.
    fn file(&self, path: &Path) -> Option<&RemoteFile> {
        let name = file_name(path)?;
        self.selected.weights.iter().find(|file| file.path == name).copied()
    }
}

fn file_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

fn has_size(path: &Path, size: u64) -> bool {
    fs::metadata(path).is_ok_and(|file| file.len() == size)
}

/// Bytes that the files in a folder take on the disk: holes take none.
fn on_disk(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|file| allocated(&file)).sum()
}

#[cfg(unix)]
fn allocated(file: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(file) * 512
}

#[cfg(not(unix))]
fn allocated(file: &fs::Metadata) -> u64 {
    file.len()
}
