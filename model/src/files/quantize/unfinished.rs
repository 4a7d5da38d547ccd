//! Filling the new file: first the tensors that are converted one by one, then the matrices that are rounded for their inputs.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use glm_kernels::{Bits, Shape};
use rayon::ThreadPool;

use super::plan::{Item, Plan};
use super::quantizer::Journal;
use super::{Progress, QuantizeOptions, Source};
use crate::calibrate::{self, Calibration, Method, Packed, Paused, Store, Tensors};
use crate::error::{Error, Result};
use crate::files::weights::{StoredMatrix, StoredVector, widen_into};
use crate::memory::zeros;
use crate::network::layer::Weight;

/// The unfinished file, what it has, and where its tensors come from.
pub(super) struct Unfinished<'a> {
    pub(super) source: &'a Source,
    pub(super) options: &'a QuantizeOptions,
    pub(super) plan: &'a Plan<'a>,
    pub(super) file: &'a File,
    pub(super) path: &'a Path,
    pub(super) journal: &'a mut Journal,
    /// Where the calibration stopped in an earlier call.
    pub(super) paused: &'a mut Option<Paused>,
    /// The folder of the journal, if it is kept on the disk.
    pub(super) folder: Option<&'a Path>,
}

impl Unfinished<'_> {
    /// Writes every tensor that is not yet written and whose files are complete, and, if it is rounded for its inputs, the matrices
    /// before it too.
    pub(super) fn fill(
        self,
        pool: &ThreadPool,
        is_complete: &dyn Fn(&Path) -> bool,
        progress: Progress<'_>,
    ) -> Result<()> {
        let Self { source, options, plan, file, path, journal, paused, folder } = self;
        let calibration = calibration(source, options)?;
        let rounded: BTreeSet<_> = match calibration {
            Some(ref calibration) => {
                let is_planned = |matrix: &StoredMatrix| plan.item(&matrix.name).is_some();
                let matrices = calibrate::matrices(&source.network, is_planned);
                let shape = |matrix: &StoredMatrix| plan.item(&matrix.name).and_then(Item::shape);
                let matrices = matrices.filter(|matrix| {
                    shape(matrix).is_some_and(|shape| is_rounded(&shape, calibration.method()))
                });
                matrices.map(|matrix| matrix.name.as_str()).collect()
            }
            None => BTreeSet::new(),
        };
        let ready = |journal: &Journal| -> Vec<Item<'_>> {
            let unwritten = plan.items().filter(|item| !journal.written.contains(item.name()));
            unwritten.filter(|item| item.files().all(is_complete)).collect()
        };
        let mut direct = ready(journal);
        direct.retain(|item| !rounded.contains(item.name()));
        let bytes = |journal: &Journal| -> u64 {
            let written = plan.items().filter(|item| journal.written.contains(item.name()));
            written.map(Item::bytes).sum()
        };
        let write = || plan.write(&direct, bytes(journal), file, path, progress);
        source.checked(pool.install(write))?;
        journal.written.extend(direct.iter().map(|item| item.name().to_owned()));
        if let Some(folder) = folder {
            journal.write(folder)?;
        }
        let Some(calibration) = calibration.filter(|_| !rounded.is_empty()) else { return Ok(()) };
        let ready = ready(journal).iter().map(|item| item.name()).collect();
        let matrices = plan.items().filter(|item| rounded.contains(item.name()));
        let others = plan.file_len() - matrices.map(Item::bytes).sum::<u64>();
        let (is_saved, saved) = (true, None);
        let mut target = Target {
            source,
            plan,
            file,
            path,
            journal,
            folder,
            ready,
            is_saved,
            saved,
            others,
            progress,
        };
        let Source { network, config, prefix, .. } = source;
        // Random ids say little of the inputs, with a prefix or without.
        let prefix = prefix.as_ref().filter(|_| options.calibration.is_some());
        let calibrate = || {
            let done =
                calibrate::calibrate(network, config, prefix, &calibration, paused, &mut target);
            // Also what was done before an error.
            done.and(target.save())
        };
        let done = source.checked(pool.install(calibrate));
        if done.is_err() {
            // It may be of a file that has changed.
            *paused = None;
        }
        done
    }
}

/// Whether a matrix is rounded for its inputs. The importance of columns makes no difference to eight bits.
fn is_rounded(shape: &Shape, method: Method) -> bool {
    method == Method::Gptq || shape.bits == Bits::Four
}

/// The inputs that matrices are rounded for: those of the texts that were asked for, or random ones.
pub(super) fn calibration<'a>(
    source: &Source,
    options: &'a QuantizeOptions,
) -> Result<Option<Cow<'a, Calibration>>> {
    if let Some(calibration) = &options.calibration {
        calibration.check(&source.config)?;
        return Ok(Some(Cow::Borrowed(calibration)));
    }
    let is_plain = !source.network.matrices().any(StoredMatrix::is_quantized);
    Ok(is_plain.then(|| Cow::Owned(Calibration::without_texts(&source.config))))
}

/// The unfinished file as a store of quantized matrices.
struct Target<'a, 'p> {
    source: &'a Source,
    plan: &'a Plan<'a>,
    file: &'a File,
    path: &'a Path,
    journal: &'a mut Journal,
    folder: Option<&'a Path>,
    /// Names of what is not yet written, but complete in the source.
    ready: BTreeSet<&'a str>,
    /// Whether the journal on the disk has all that is written.
    is_saved: bool,
    /// When it was written.
    saved: Option<Instant>,
    /// Bytes of the file that are not of calibrated matrices.
    others: u64,
    progress: Progress<'p>,
}

/// What a process that goes on after another was killed may have to quantize again. Experts are many and small: to wait for the disk after
/// each, and to write the names of all, would take longer than to quantize them.
const SAVE_EVERY: Duration = Duration::from_secs(1);

impl Target<'_, '_> {
    /// Writes the journal, once what it lists is on the disk.
    fn save(&mut self) -> Result<()> {
        if let Some(folder) = self.folder.filter(|_| !self.is_saved) {
            self.file.sync_data().map_err(Error::io(self.path))?;
            self.journal.write(folder)?;
        }
        (self.is_saved, self.saved) = (true, Some(Instant::now()));
        Ok(())
    }

    /// The bytes of a tensor that is written.
    fn read(&self, name: &str, at: usize, len: usize) -> Result<Vec<u8>> {
        let mut bytes = zeros(len, name)?;
        let mut file = self.file;
        let read = file.seek(SeekFrom::Start(at as u64)).and_then(|_| file.read_exact(&mut bytes));
        read.map(|()| bytes).map_err(Error::io(self.path))
    }
}

impl Tensors for Target<'_, '_> {
    fn matrix(&self, matrix: &StoredMatrix) -> Result<Weight> {
        let item = self.plan.item(&matrix.name).filter(|item| self.is_written(item.name()));
        let Some(item) = item else { return matrix.load() };
        if let Some((shape, [bytes_at, scales_at])) = item.panels() {
            let bytes = self.read(&matrix.name, bytes_at, shape.bytes())?;
            let scales = self.read(&matrix.name, scales_at, 2 * shape.scales())?;
            let weight = Weight::panels(&matrix.name, shape, bytes.into(), &scales.into())?;
            return Ok(weight.with_order(matrix.order().cloned()));
        }
        let (dtype, range) = item.tensor();
        let bytes = self.read(&matrix.name, range.start, range.len())?;
        Weight::plain(&matrix.name, dtype, matrix.size(), &bytes.into())
    }

    fn vector(&self, vector: &StoredVector) -> Result<Vec<f32>> {
        let item = self.plan.item(&vector.name).filter(|item| self.is_written(item.name()));
        let Some((dtype, range)) = item.map(Item::tensor) else { return vector.load() };
        let mut values = zeros(vector.len, &vector.name)?;
        let bytes = self.read(&vector.name, range.start, range.len())?;
        widen_into(dtype, &bytes, &mut values);
        Ok(values)
    }
}

impl Store for Target<'_, '_> {
    fn shape(&self, matrix: &StoredMatrix) -> Option<Shape> {
        self.plan.item(&matrix.name)?.shape()
    }

    fn is_written(&self, name: &str) -> bool {
        self.journal.written.contains(name)
    }

    fn is_ready(&self, name: &str) -> bool {
        self.is_written(name) || self.ready.contains(name)
    }

    fn put(&mut self, matrix: &StoredMatrix, packed: &Packed) -> Result<()> {
        let Some(item) = self.plan.item(&matrix.name) else { return Ok(()) };
        // The journal has only what is right.
        self.source.files.check()?;
        item.write_packed(packed, self.file, self.path)?;
        self.journal.written.insert(matrix.name.clone());
        self.is_saved = false;
        match self.saved {
            Some(saved) if saved.elapsed() < SAVE_EVERY => Ok(()),
            _ => self.save(),
        }
    }

    fn progress(&mut self, matrix: &StoredMatrix, done: f64) -> ControlFlow<()> {
        let total = self.plan.file_len();
        let done = self.others + ((total - self.others) as f64 * done) as u64;
        (self.progress)(done, total, &matrix.name)
    }
}
