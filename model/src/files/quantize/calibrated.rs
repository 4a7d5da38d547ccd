//! Quantizing with a calibration. What is written stays if the process is killed, and the next run goes on behind it.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::Path;

use glm_kernels::Shape;

use super::folder::JOURNAL;
use super::plan::{Item, Plan};
use super::quantizer::{Journal, Part, Quantizer};
use super::{Progress, QuantizeOptions, Quantized, Source, folder};
use crate::calibrate::{self, Calibration, Packed, Store};
use crate::error::{Error, Result};
use crate::files::weights::StoredMatrix;
use crate::network::layer::Weight;

/// As [`quantize`](super::quantize) with [`QuantizeOptions::calibration`]. If it fails or is cancelled, a folder that is no model stays,
/// and the same call goes on with it.
pub(super) fn quantize(
    source: &Path,
    target: &Path,
    options: &QuantizeOptions,
    calibration: &Calibration,
    progress: Progress<'_>,
) -> Result<Quantized> {
    let opened = Source::open(source)?;
    if let Some(matrix) = opened.network.matrices().find(|matrix| matrix.is_quantized()) {
        let problem =
            format!("{} is quantized already: calibration needs the original weights", matrix.name);
        return Err(Error::file(source, problem));
    }
    fs::create_dir_all(target).map_err(Error::io(target))?;
    if !target.join(JOURNAL).exists() {
        folder::check(target)?;
    }
    let mut quantizer = Quantizer::of_any(source.to_owned(), target.to_owned(), options.clone())?;
    // Another process may have finished it before it was locked.
    folder::check_weights(target)?;
    quantizer.compare_head(&opened, &|_| true);
    let plan = quantizer.plan(&opened)?;
    quantizer.begin(&plan)?;
    let Quantizer { pool, journal, folder, part, .. } = &mut quantizer;
    let item = |matrix: &StoredMatrix| plan.item(&matrix.name);
    let matrices = calibrate::matrices(&opened.network, |matrix| item(matrix).is_some());
    let bytes = matrices.filter_map(item).map(Item::bytes).sum();
    let mut store = Folder { folder, journal, plan: &plan, part, bytes, progress };
    let done = pool
        .install(|| calibrate::calibrate(&opened.network, &opened.config, calibration, &mut store));
    if done.is_err() && journal.written.is_empty() {
        // Nothing to go on with. Best effort; the first error is reported.
        let _ = fs::remove_file(&part.path);
    }
    done?;
    quantizer.write(&|_| true, progress)?;
    quantizer.finish()
}

/// The unfinished file and its journal.
struct Folder<'a, 'p> {
    folder: &'a Path,
    journal: &'a mut Journal,
    plan: &'a Plan<'a>,
    part: &'a Part,
    /// Bytes of all matrices that are calibrated.
    bytes: u64,
    progress: Progress<'p>,
}

impl<'a> Folder<'a, '_> {
    fn item(&self, matrix: &StoredMatrix) -> Option<Item<'a>> {
        self.plan.item(&matrix.name)
    }
}

impl Store for Folder<'_, '_> {
    fn shape(&self, matrix: &StoredMatrix) -> Option<Shape> {
        self.item(matrix)?.shape()
    }

    fn get(&self, matrix: &StoredMatrix) -> Result<Option<Weight>> {
        let written = self.item(matrix).filter(|_| self.journal.written.contains(&matrix.name));
        let Some((shape, [bytes_at, scales_at])) = written.and_then(Item::panels) else {
            return Ok(None);
        };
        let read = |at: usize, len: usize| {
            let mut bytes = vec![0; len];
            let mut file = &self.part.file;
            let done =
                file.seek(SeekFrom::Start(at as u64)).and_then(|_| file.read_exact(&mut bytes));
            done.map(|()| bytes).map_err(Error::io(&self.part.path))
        };
        let (bytes, scales) =
            (read(bytes_at, shape.bytes())?, read(scales_at, 2 * shape.scales())?);
        Ok(Some(Weight::panels(shape, bytes.into(), &scales.into())))
    }

    fn put(&mut self, matrix: &StoredMatrix, packed: &Packed) -> Result<()> {
        let Some(item) = self.item(matrix) else { return Ok(()) };
        item.write_packed(packed, &self.part.file, &self.part.path)?;
        self.journal.written.insert(matrix.name.clone());
        self.journal.write(self.folder)
    }

    fn progress(&mut self, matrix: &StoredMatrix, done: f64) -> ControlFlow<()> {
        let done = (self.bytes as f64 * done) as u64;
        (self.progress)(done, self.plan.file_len(), &matrix.name)
    }
}
