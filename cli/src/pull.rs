//! `glm pull`: downloads a model from a hub.
//!
//! Listing → the files that are needed → each to the cache of the Hugging Face hub, several at a time → a snapshot with links to them.

mod cache;
mod download;
mod hash;
mod http;
mod hub;
mod lock;
mod progress;
mod quantize;
mod redirect;
mod retry;
mod select;
mod stop;
mod store;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use glm_model::{Config, Error, QuantizeOptions, Tokenizer, read_regular};

use self::download::Downloader;
use self::http::Http;
use self::hub::{Endpoint, Listing, RemoteFile};
use self::stop::Stop;
use crate::args::{Pull, weight_format};
use crate::interrupt::{self, Again, Termination};
use crate::limits::hub::MAX_SMALL;
use crate::output::{self, note};
use crate::repository::Repository;
use crate::{failure, messages, models, units};

pub fn run(args: &Pull) -> Result<()> {
    let started = Instant::now();
    let endpoint = Endpoint::of_environment(args.from)?;
    let options = args.quantize.map(|bits| weight_format(bits, args.group, args.symmetric));
    let options = options.transpose()?;
    let stop = Stop { cancel: interrupt::token(Again::Exits)?, termination: Termination::catch()? };
    let http = Http::new(stop);
    let listing = endpoint.list(&http, &args.repository, args.revision.as_deref(), &note)?;
    let downloader = Downloader::new(http, endpoint.authorization.clone());
    let pulled = match options {
        Some(options) => quantized(args, options, &downloader, &listing),
        None => store::store(&downloader, &listing),
    };
    let folder = pulled.map_err(|error| {
        if failure::is_cancelled(&error) {
            note(&messages::same_command_goes_on());
        }
        endpoint.explain(error, &args.repository, &listing.revision)
    })?;
    let stored = models::all()?.into_iter().find(|model| model.folder == folder);
    let name = stored.as_ref().map_or_else(|| folder.display().to_string(), models::Stored::name);
    let (size, time) = (stored.map_or(0, |model| model.bytes()), units::seconds(started.elapsed()));
    note(&match args.quantize {
        // The sizes were said.
        Some(_) => messages::took(time),
        None => messages::pulled(&name, units::bytes(size), time),
    });
    match Tokenizer::is_in(&folder) {
        Ok(false) => note(&messages::source_has_no_tokenizer(&name)),
        _ => note(&messages::talk_to(&name)),
    }
    output::line(&folder.display().to_string())
}

/// Downloads and quantizes a model, and returns its folder.
fn quantized(
    args: &Pull,
    mut options: QuantizeOptions,
    downloader: &Downloader,
    listing: &Listing,
) -> Result<PathBuf> {
    options.threads = args.threads;
    let folder = models::quantized_folder(&args.repository, &options)?;
    let format = folder.file_name().unwrap_or_default().to_string_lossy();
    let name = format!("{}:{format}", args.repository);
    match quantize::run(downloader, listing, &options, &folder)? {
        Some(done) => {
            let lines = crate::quantize::summary(&options, &name, &done);
            lines.iter().for_each(|line| note(line));
        }
        None => note(&messages::nothing_to_pull(&name)),
    }
    Ok(folder)
}

/// Checks that this program can run a model with this configuration.
fn check_config(config: &[u8], repository: &Repository) -> Result<()> {
    match Config::from_files(&[("config.json", config)]) {
        Ok(_) => Ok(()),
        Err(Error::File { problem, .. }) => {
            bail!(messages::model_is_not_supported(repository, problem))
        }
        Err(error) => Err(error.into()),
    }
}

/// The contents of a small file that was downloaded.
fn read_small(file: &RemoteFile, path: &Path) -> Result<Vec<u8>> {
    read_regular(path, MAX_SMALL).with_context(|| format!("{}: {}", file.path, path.display()))
}

/// # Errors
/// If a file that is read as a whole is too large.
fn check_small(file: &RemoteFile) -> Result<()> {
    ensure!(file.size <= MAX_SMALL, messages::file_is_too_large(&file.path, MAX_SMALL));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::hub::Hash;
    use super::*;

    #[test]
    fn what_is_on_the_disk_has_a_bound_whatever_was_listed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let hash = Hash::Sha256("0".repeat(64));
        let remote = RemoteFile { path: "config.json".into(), size: 2, hash, url: String::new() };
        std::fs::write(file.path(), "{}").unwrap();
        assert_eq!(read_small(&remote, file.path()).unwrap(), b"{}");
        file.as_file().set_len(1 << 40).unwrap();
        let said = failure::message(&read_small(&remote, file.path()).unwrap_err());
        assert!(said.contains("config.json") && said.contains("larger than"), "{said}");
    }
}
