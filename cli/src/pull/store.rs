//! Downloads a model to the hub's cache.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Error, Result, ensure};

use super::cache::Cache;
use super::download::Downloader;
use super::hub::{Listing, RemoteFile};
use super::progress::Progress;
use super::select::{self, Selected};
use super::{check_config, check_small, read_small};
use crate::output::note;
use crate::{folders, messages, units};

/// Files that are downloaded at once.
const CONNECTIONS: usize = 4;

/// Downloads what is needed of a listing and not in the cache, and returns the snapshot.
///
/// # Errors
/// If the model is not supported, the disk has too little space, a download fails, or the program shall stop. What was downloaded
/// stays; the revision then points to where it did before.
pub fn store(downloader: &Downloader, listing: &Listing) -> Result<PathBuf> {
    let config = select::config(listing)?;
    check_small(config)?;
    let hub = folders::hub()?;
    let cache = Cache::new(&hub, &listing.repository);
    let lock = cache.lock(&listing.repository, &downloader.http().stop)?;
    let mut is_new = false;
    let selected = supported(&cache, downloader, listing, config, &mut is_new);
    let (selected, _lock) = match selected {
        Ok(selected) => (selected, lock),
        Err(error) => {
            cache.discard(is_new.then_some(config), lock);
            return Err(error);
        }
    };
    let total = sum(selected.all().map(|file| file.size));
    let missing = sum(selected.all().map(|file| file.size - cache.present(file)));
    check_space(&hub, missing)?;
    let name = &listing.repository;
    if missing > 0 {
        let files = units::count(selected.all().count(), "file");
        note(&messages::pulling(name, units::bytes(missing), units::bytes(total), files));
    } else {
        note(&messages::nothing_to_pull(name));
    }
    let progress = Progress::new(total);
    progress.message(&name.to_string());
    let done = all(&cache, downloader, listing, &selected, &progress);
    progress.finish();
    done?;
    cache.point(listing)?;
    Ok(cache.snapshot(listing))
}

/// The files of a model that this program can run. `is_new` becomes whether its configuration was downloaded for this.
fn supported<'a>(
    cache: &Cache,
    downloader: &Downloader,
    listing: &'a Listing,
    config: &RemoteFile,
    is_new: &mut bool,
) -> Result<Selected<'a>> {
    let fetch = |file: &RemoteFile| {
        check_small(file)?;
        cache.fetch(downloader, file, &Progress::hidden())
    };
    *is_new = fetch(config)?;
    check_config(&read_small(config, &cache.blob(config))?, &listing.repository)?;
    select::select(listing, |file| {
        fetch(file)?;
        read_small(file, &cache.blob(file))
    })
}

/// The sum of sizes that a server names.
pub fn sum(sizes: impl Iterator<Item = u64>) -> u64 {
    sizes.fold(0, u64::saturating_add)
}

/// Checks that the disk of a folder has space for so many bytes. Where the system does not say, writing will.
pub fn check_space(folder: &Path, needed: u64) -> Result<()> {
    if let Ok(free) = fs4::available_space(folder) {
        let (needed_text, free_text) = (units::bytes(needed), units::bytes(free));
        let folder = folder.display();
        ensure!(needed <= free, messages::disk_is_too_small(folder, needed_text, free_text));
    }
    Ok(())
}

/// Downloads all files and links them. The first failure stops all.
fn all(
    cache: &Cache,
    downloader: &Downloader,
    listing: &Listing,
    selected: &Selected<'_>,
    progress: &Progress,
) -> Result<()> {
    let queue = Mutex::new(selected.all());
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    let work = || {
        while let Some(file) = next() {
            let done = cache.fetch(downloader, file, progress);
            if let Err(error) = done.and_then(|_| cache.link(listing, file)) {
                if let Ok(mut failed) = failed.lock() {
                    failed.get_or_insert(error);
                }
                // The other threads wait for the network.
                downloader.http().stop.cancel.cancel();
                return;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(work);
        }
    });
    match failed.into_inner() {
        Ok(Some(error)) => Err(error),
        Ok(None) => Ok(()),
        Err(_) => Err(glm_model::Error::Failed).context(messages::thread_failed()),
    }
}
