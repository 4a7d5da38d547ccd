//! Quantizing a model whose files arrive one after another.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use rayon::ThreadPool;
use serde::{Deserialize, Serialize};

use super::mixed::Choice;
use super::output::{self, JOURNAL, NEW_JOURNAL, Output};
use super::plan::{Item, Plan};
use super::unfinished::Unfinished;
use super::{Progress, QuantizeOptions, Quantized, Source, bits};
use crate::calibrate::{Formats, Paused};
use crate::error::{Error, Result};
use crate::files::config::Config;
use crate::files::regular::read_regular;
use crate::limits::file::MAX_JOURNAL;
use crate::network::model::pool;

/// Quantizes a model whose files of weights arrive one after another, and writes the same folder as [`quantize`](super::quantize).
///
/// The source is a model folder in which the files of weights may be incomplete: a file has its full size and its true headers (see
/// [`write_skeleton`](crate::write_skeleton)), and the caller knows whether the rest is there. [`write`](Self::write) writes what the
/// complete files give. Between two calls, files may be completed and, once [`missing`](Self::missing) no longer lists them, made
/// incomplete again. Replace files for this by renaming others over them; do not change them in place.
///
/// All progress is in a folder beside the one that is written, until that is complete (see [`unfinished`](Self::unfinished)): a process
/// that is killed goes on with a new `Quantizer`.
pub struct Quantizer {
    source: PathBuf,
    pub(super) options: QuantizeOptions,
    pub(super) pool: ThreadPool,
    pub(super) output: Output,
    pub(super) journal: Journal,
    /// Where the calibration stopped: a number for each hidden element of all tokens of its texts.
    paused: Option<Paused>,
}

#[derive(Default, Serialize, Deserialize)]
pub(super) struct Journal {
    /// Whether head and embedding were compared, if there are both. They can be when both are complete.
    is_head_compared: bool,
    /// The head, if it is the same as the embedding.
    pub(super) shared: Option<String>,
    /// The formats that were chosen, if the bits of a weight are an average.
    #[serde(default)]
    pub(super) choice: Option<Choice>,
    /// The [fingerprint](Source::fingerprint) of the source, if all its files were complete from the beginning.
    #[serde(default)]
    source: Option<String>,
    /// The tensors that are written and on the disk.
    pub(super) written: BTreeSet<String>,
}

impl Quantizer {
    /// Begins to quantize the model in `source`, or goes on. `folder` must not exist or be empty; it is locked against other
    /// processes, and other `Quantizer`s, until this one is dropped. (Some file systems have no locks. Then nothing else may write to it.)
    ///
    /// # Errors
    /// If an option is outside its range, the folder has files, another writes it, its journal cannot be read, or an unfinished one cannot be
    /// removed; and if formats are to be chosen, an adapter is to be merged, or packed weights have an order of columns, which needs all
    /// files.
    pub fn open(
        source: impl Into<PathBuf>,
        folder: impl Into<PathBuf>,
        options: &QuantizeOptions,
    ) -> Result<Self> {
        if let Some(found) = options.target_bits {
            let range = "absent while the files of a model arrive".to_owned();
            let found = found.to_string();
            return Err(Error::Setting { setting: "target-bits", range, found });
        }
        if let Some(adapter) = &options.adapter {
            // Nothing on the disk says which adapter the files that are there were made with.
            let problem = "is an adapter, and none can be merged while the files of a model arrive: download the model, then run \
                           `glm quantize` with --adapter";
            return Err(Error::file(adapter, problem));
        }
        let source = source.into();
        let packing = Config::open(&*source).ok().and_then(|config| config.packing);
        if packing.is_some_and(|packing| packing.reordered) {
            let problem = "has its columns in an order (desc_act or actorder), which is known when all files are here: download it, then \
                           run `glm quantize`";
            return Err(Error::file(&source, problem));
        }
        Self::with_choice(source, folder, options)
    }

    /// As [`Self::open`]; formats may be chosen if all files of the source are complete.
    pub(super) fn with_choice(
        source: impl Into<PathBuf>,
        folder: impl Into<PathBuf>,
        options: &QuantizeOptions,
    ) -> Result<Self> {
        let (source, options) = (source.into(), options.clone());
        bits(&options)?;
        let pool = pool(options.threads)?;
        let output = Output::open(&folder.into(), true)?;
        let journal = Journal::open(output.folder())?;
        Ok(Self { source, options, pool, output, journal, paused: None })
    }

    /// What is added to the name of a folder for the one beside it that has the progress.
    pub const UNFINISHED: &str = output::UNFINISHED;

    /// The names of the files that a finished folder may have, and one that is not finished.
    pub fn files() -> impl Iterator<Item = &'static str> {
        output::ours()
    }

    /// The folder with the progress.
    pub fn unfinished(&self) -> &Path {
        self.output.folder()
    }

    /// The folder in which an unfinished `Quantizer`, or [`quantize`](super::quantize) with a calibration, has left progress for another.
    pub fn begun(folder: impl AsRef<Path>) -> Option<PathBuf> {
        output::unfinished(folder.as_ref()).ok().filter(|folder| folder.join(JOURNAL).exists())
    }

    /// The files of weights that are still needed, in the order in which they should be completed.
    ///
    /// # Errors
    /// If the source is no supported model.
    pub fn missing(&self) -> Result<Vec<PathBuf>> {
        let source = Source::open(&self.source, &self.options)?;
        let plan = self.plan(&source)?;
        let mut files = Vec::new();
        if !self.journal.is_head_compared
            && let Some(both) = source.network.head_like_embedding(&source.config)
        {
            files.extend(both.tensors.map(|tensor| tensor.path().to_owned()));
        }
        let mut unwritten: Vec<_> = self.unwritten(&plan).collect();
        let order = source.network.order();
        unwritten.sort_by_key(|item| order.get(item.name()));
        files.extend(unwritten.into_iter().flat_map(Item::files).map(Path::to_owned));
        let mut seen = BTreeSet::new();
        files.retain(|file| seen.insert(file.clone()));
        Ok(files)
    }

    /// Bytes of the file of weights that is written: an upper bound until head and embedding are complete.
    ///
    /// # Errors
    /// If the source is no supported model.
    pub fn bytes(&self) -> Result<u64> {
        Ok(self.plan(&Source::open(&self.source, &self.options)?)?.file_len())
    }

    /// Writes every tensor whose files are all complete and that is not yet written. `progress` gets the bytes written, the bytes in
    /// total and the name of the tensor, and can cancel.
    ///
    /// # Errors
    /// If the source is no supported model, a weight is not finite, a file cannot be read or written, or `progress` cancels. What
    /// earlier calls have written stays.
    pub fn write(
        &mut self,
        is_complete: &dyn Fn(&Path) -> bool,
        progress: Progress<'_>,
    ) -> Result<()> {
        let source = Source::open(&self.source, &self.options)?;
        if !self.compare_head(&source, is_complete)? {
            return Ok(());
        }
        let plan = self.plan(&source)?;
        self.begin(&plan)?;
        if self.journal.written.is_empty() {
            // Another source may still take the place of this one.
            self.paused = None;
        }
        let unfinished = Unfinished {
            source: &source,
            options: &self.options,
            plan: &plan,
            file: self.output.file(),
            path: self.output.path(),
            journal: &mut self.journal,
            paused: &mut self.paused,
            folder: Some(self.output.folder()),
        };
        unfinished.fill(&self.pool, is_complete, progress)
    }

    /// Compares head and embedding, on which the header of the file depends. `false` if they are not both complete.
    ///
    /// # Errors
    /// If a file of theirs was changed.
    pub(super) fn compare_head(
        &mut self,
        source: &Source,
        is_complete: &dyn Fn(&Path) -> bool,
    ) -> Result<bool> {
        if !self.journal.is_head_compared {
            if let Some(both) = source.network.head_like_embedding(&source.config) {
                if !both.tensors.iter().all(|tensor| is_complete(tensor.path())) {
                    return Ok(false);
                }
                let are_equal = both.are_equal();
                both.tensors.iter().try_for_each(|tensor| tensor.data().check())?;
                self.journal.shared = are_equal.then(|| both.name.to_owned());
            }
            self.journal.is_head_compared = true;
        }
        Ok(true)
    }

    /// Adds configuration and tokenizer, and makes the folder a model.
    ///
    /// # Errors
    /// If files are [`missing`](Self::missing), or a file cannot be written.
    pub fn finish(self) -> Result<Quantized> {
        let source = Source::open(&self.source, &self.options)?;
        let plan = self.plan(&source)?;
        if let Some(item) = self.unwritten(&plan).next() {
            let problem = format!("is not complete: {} is missing", item.name());
            return Err(Error::file(self.output.folder(), problem));
        }
        self.begin(&plan)?;
        self.output.publish(&self.source)?;
        Ok(plan.summary(&source))
    }

    pub(super) fn plan<'a>(&self, source: &'a Source) -> Result<Plan<'a>> {
        Plan::new(source, &self.options, self.formats(), self.journal.shared.clone())
    }

    /// Checks that what was written is of this source. All its files are complete.
    pub(super) fn keep_to(&mut self, source: &Source) -> Result<()> {
        let found = source.fingerprint();
        match self.journal.source.replace(found.clone()) {
            Some(begun) if begun != found => Err(self.of_another()),
            _ => Ok(()),
        }
    }

    pub(super) fn of_another(&self) -> Error {
        Error::file(self.output.folder(), "was begun for another model or other options: remove it")
    }

    /// The formats that were chosen for the options.
    pub(super) fn formats(&self) -> Option<&Formats> {
        self.journal.choice.as_ref()?.formats(&self.options)
    }

    fn unwritten<'p>(&self, plan: &'p Plan<'p>) -> impl Iterator<Item = Item<'p>> {
        plan.items().filter(|item| !self.journal.written.contains(item.name()))
    }

    /// Checks that the unfinished file is of this plan; begins it if nothing is written yet.
    pub(super) fn begin(&self, plan: &Plan<'_>) -> Result<()> {
        let (path, file) = (self.output.path(), self.output.file());
        if self.journal.written.is_empty() {
            return plan.begin(file, path);
        }
        let mut header = vec![0; plan.header().len()];
        let len = file.metadata().map_err(Error::io(path))?.len();
        let mut reader = file;
        let read = reader.rewind().and_then(|()| reader.read_exact(&mut header));
        if len != plan.file_len() || read.is_err() || header != plan.header() {
            return Err(self.of_another());
        }
        Ok(())
    }
}

impl Journal {
    /// The journal in a folder; an empty one if there is none.
    fn open(folder: &Path) -> Result<Self> {
        let (path, new) = (folder.join(JOURNAL), folder.join(NEW_JOURNAL));
        output::remove(&new)?;
        match read_regular(&path, MAX_JOURNAL) {
            Ok(json) => {
                serde_json::from_slice(&json).map_err(|error| Error::file(&path, error.to_string()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Error::io(&path)(error)),
        }
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let (path, new) = (folder.join(JOURNAL), folder.join(NEW_JOURNAL));
        let json = serde_json::to_vec(self).map_err(|error| Error::io(&path)(error.into()))?;
        let mut file = File::create(&new).map_err(Error::io(&new))?;
        io::Write::write_all(&mut file, &json).map_err(Error::io(&new))?;
        file.sync_all().map_err(Error::io(&new))?;
        drop(file);
        fs::rename(&new, &path).map_err(Error::io(&path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_has_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Journal::open(dir.path()).unwrap().written.is_empty());
        File::create(dir.path().join(JOURNAL)).unwrap().set_len(1 << 40).unwrap();
        let said = Journal::open(dir.path()).map(drop).unwrap_err().to_string();
        assert!(said.contains(JOURNAL) && said.contains("larger than"), "{said}");
    }
}
