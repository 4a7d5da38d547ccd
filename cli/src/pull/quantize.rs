//! `glm pull --quantize`: each file of weights is quantized as it arrives and then removed.
//!
//! First come the small files, and of each file of weights only its headers: they say what the new file holds and which files a
//! tensor needs. Then one thread downloads the files one after another, and another quantizes what has arrived. On the disk are the
//! new model, the file that is quantized, the next one, and those of which a tensor needs a part that has not come yet.

mod supply;
mod workspace;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Error, Result, bail};
use glm_model::{QuantizeOptions, Quantized, Quantizer, write_skeleton};

use super::download::Downloader;
use super::hub::{Listing, RemoteFile};
use super::lock;
use super::progress::Progress;
use super::select::{self, Selected};
use super::store::{check_space, sum};
use super::{check_config, check_small, read_small};
use crate::file::Lock;
use crate::messages;
use crate::models::{self, State};
use crate::units::{bytes, count};
use supply::Supply;
use workspace::{Origin, Workspace};

/// Downloads and quantizes a model to folder `target`, or goes on with what a run before has left. `None` if it is there already: made
/// from the same commit, or by `glm quantize`.
///
/// # Errors
/// If a download fails, the source is no supported model or is damaged, `target` holds what others have made, the disk has too little
/// space, or the program shall stop. What was done stays for the next run.
pub fn run(
    downloader: &Downloader,
    listing: &Listing,
    options: &QuantizeOptions,
    target: &Path,
) -> Result<Option<Quantized>> {
    let origin = Origin { commit: listing.commit.clone() };
    let is_current = || Origin::of(target).map(|found| found.is_none_or(|found| found == origin));
    let is_there = || Ok::<_, Error>(State::of(target).is_ready() && is_current()?);
    if is_there()? && workspace::remains(target)?.is_empty() {
        return Ok(None);
    }
    // Here `glm quantize` writes, for hours, and not `glm pull`.
    if let Some(begun) = Quantizer::begun(target) {
        bail!(messages::calibration_is_there(begun.display()));
    }
    let _lock = lock(downloader, listing, target)?;
    // Another process may have made it meanwhile.
    if is_there()? {
        workspace::remove_remains(target)?;
        return Ok(None);
    }
    // Before hours of work, and again after them.
    workspace::check_target(target)?;
    let workspace = Workspace::open(target, &origin, listing.repository.name())?;
    if workspace.is_finished() {
        workspace.publish(target)?;
        return Ok(None);
    }
    let selected = select(downloader, listing, &workspace).inspect_err(|_| workspace.forget())?;
    let progress = Progress::new(size(selected.all()));
    let job = Job { downloader, listing, selected, workspace: &workspace, progress };
    let mut quantizer = Quantizer::open(workspace.source(), workspace.model(), options)?;
    let filled = job.fill(&mut quantizer);
    job.progress.finish();
    filled?;
    let done = quantizer.finish()?;
    workspace.publish(target)?;
    Ok(Some(done))
}

/// Locks the folder that is written, against other processes.
fn lock(downloader: &Downloader, listing: &Listing, target: &Path) -> Result<File> {
    let format = target.file_name().unwrap_or_default().to_string_lossy();
    let path = models::lock_file(&listing.repository, &format)?;
    let name = format!("{}:{format}", listing.repository);
    lock::lock(&path, Lock::Exclusive, &name, &downloader.http().stop, &Progress::hidden())
}

/// The files that are needed. Configuration and index are downloaded for this.
fn select<'a>(
    downloader: &Downloader,
    listing: &'a Listing,
    workspace: &Workspace,
) -> Result<Selected<'a>> {
    let fetch = |file: &RemoteFile| -> Result<PathBuf> {
        check_small(file)?;
        let path = workspace.source().join(&file.path);
        if !has_size(&path, file.size) {
            downloader.fetch(file, &path, &Progress::hidden())?;
        }
        Ok(path)
    };
    let config = select::config(listing)?;
    check_config(&read_small(config, &fetch(config)?)?, &listing.repository)?;
    select::select(listing, |file| read_small(file, &fetch(file)?))
}

/// A model that is downloaded and quantized.
struct Job<'a> {
    downloader: &'a Downloader,
    listing: &'a Listing,
    selected: Selected<'a>,
    workspace: &'a Workspace,
    progress: Progress,
}

impl Job<'_> {
    /// Downloads what is missing and quantizes it.
    fn fill(&self, quantizer: &mut Quantizer) -> Result<()> {
        let Self { downloader, workspace, ref progress, .. } = *self;
        self.describe()?;
        let missing = quantizer.missing()?;
        // All lists may have a hundred thousand names.
        let of_path: HashMap<_, _> =
            self.selected.weights.iter().map(|file| (&*file.path, *file)).collect();
        let needed: Vec<_> = missing
            .iter()
            .filter_map(|path| of_path.get(file_name(path)?).copied())
            .filter(|file| !workspace.is_complete(&file.path))
            .collect();
        self.check_space(quantizer, &needed)?;
        let are_needed: HashSet<_> = needed.iter().map(|file| &file.path).collect();
        let rest = self.selected.weights.iter().filter(|file| !are_needed.contains(&file.path));
        progress.found(size(rest.copied()));
        let repository = &self.listing.repository;
        let (missing, total) = (size(needed.iter().copied()), size(self.selected.all()));
        let files = count(self.selected.all().count(), "file");
        progress.note(&messages::pulling(repository, bytes(missing), bytes(total), files));
        progress.message(&repository.to_string());
        let supply = Supply { downloader, workspace, repository, files: needed, progress };
        supply.run(|supplied| self.convert(quantizer, supplied))
    }

    /// Gets the small files, and the headers of the files of weights.
    fn describe(&self) -> Result<()> {
        let Self { workspace, progress, .. } = self;
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
        quantizer: &mut Quantizer,
        next: &mut dyn FnMut() -> Result<String>,
    ) -> Result<()> {
        let Self { workspace, progress, .. } = self;
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
            let missing: HashSet<_> = quantizer.missing()?.into_iter().collect();
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

    /// Checks that the new model and four files fit on the disk: that of the embedding, that of the head that is compared with it, and two
    /// with the parts of a layer.
    fn check_space(&self, quantizer: &Quantizer, files: &[&RemoteFile]) -> Result<()> {
        let workspace = self.workspace;
        let mut sizes: Vec<_> = files.iter().map(|file| file.size).collect();
        sizes.sort_unstable_by(|one, other| other.cmp(one));
        let shards = sum(sizes.into_iter().take(4));
        let there = on_disk(quantizer.unfinished()) + on_disk(&workspace.shard(""));
        let needed = quantizer.bytes()?.saturating_add(shards).saturating_sub(there);
        check_space(quantizer.unfinished(), needed)
    }
}

/// Bytes of these files.
fn size<'a>(files: impl IntoIterator<Item = &'a RemoteFile>) -> u64 {
    sum(files.into_iter().map(|file| file.size))
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
