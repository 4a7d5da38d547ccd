//! Any supported checkpoint → a folder in the kernels' layout, ready to be mapped.
//! What is published in pieces is written whole.
//!
//! The output is one safetensors file whose data begin on a multiple of 64, beside copies of the configuration and the
//! tokenizer. Matrices become panels of integers (see `weights/stored.rs`); the official INT4 and INT8 keep their integers
//! and scales and are only put in order; all else is copied as it is. Tensor after tensor, in pieces: memory does not grow
//! with the model. The file has a temporary name until it is complete and on the disk, so a folder that was not finished
//! never loads.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use glm_kernels::{Bits, LANES, Shape};
use half::f16;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::error::{Error, Result};
use crate::files::checkpoint::{self, Checkpoint, Dtype};
use crate::files::config::{Config, GENERATION, UNWRITTEN};
use crate::files::model_dir::{CONFIG, CONFIG_NAME, ModelDir, TEMPLATE};
use crate::files::variant::tells;
use crate::files::weights::{
    GROUP_KEY, LAYOUT_KEY, LAYOUT_NAME, Map, Source, Stored, group_value, panel_shape, scale_name,
    scale_shape, vector,
};
use crate::network::model::pool;
use crate::text::tokenizer;

/// The file that is written, and the one that a folder is opened by.
const WEIGHTS: &str = "model.safetensors";

/// What goes along with weights, configuration and tokenizer, where it is there.
const COMPANIONS: [&str; 4] = [GENERATION, TEMPLATE, "LICENSE", "MODEL_LICENSE"];

fn companions() -> impl Iterator<Item = &'static str> {
    COMPANIONS.into_iter().chain(tokenizer::FILES)
}

/// How the name of an unfinished file begins.
const PART_START: &str = "model.";
/// How it ends.
const PART_END: &str = ".part";

/// The data of a file begin on a multiple of this.
const ALIGNMENT: usize = 64;

/// Bytes of panels that are in memory at a time.
const PIECE: usize = 8 << 20;

/// Columns that may share a scale.
pub const GROUPS: [usize; 3] = [32, 64, 128];

/// How weights are quantised that are not quantised yet.
#[derive(Debug, Clone)]
pub struct QuantizeOptions {
    /// Bits of a weight: 4 or 8.
    pub bits: usize,
    /// Columns that share a scale, one of [`GROUPS`].
    pub group: usize,
    /// Threads; by default as many as the process may use.
    pub threads: Option<usize>,
}

impl Default for QuantizeOptions {
    /// Four bits in groups of 32.
    fn default() -> Self {
        Self { bits: 4, group: 32, threads: None }
    }
}

/// What [`quantize`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quantized {
    /// Bytes of tensors read.
    pub source_bytes: u64,
    /// Bytes of the file written.
    pub bytes: u64,
    /// Matrices that were quantised.
    pub quantized: usize,
    /// Matrices that were quantised before and kept their integers and scales.
    pub kept: usize,
    /// A matrix left out because it is the same as the embedding.
    pub shared: Option<String>,
}

/// Writes the model in folder `source` to folder `target`, quantised. `progress` is told the bytes written, the bytes there
/// will be and the tensor at hand, and can break off.
///
/// # Errors
/// If the source is no supported model or is in the kernels' layout already, an option is outside its range, a weight is not
/// finite, the target holds a model, something cannot be read or written, or `progress` breaks off. The target is then as it
/// was, except that an empty folder may have been made.
pub fn quantize(
    source: &Path,
    target: &Path,
    options: &QuantizeOptions,
    progress: &mut (dyn FnMut(u64, u64, &str) -> ControlFlow<()> + Send),
) -> Result<Quantized> {
    let bits = bits(options)?;
    let pool = pool(options.threads)?;
    let config = Config::open(source)?;
    let checkpoint = Checkpoint::open(source)?;
    if checkpoint.metadata().contains_key(LAYOUT_KEY) {
        return Err(Error::file(source, "is quantised and in the kernels' layout already"));
    }
    let map = Map::of(&config, &checkpoint)?;
    let plan = Plan::new(&config, &map, &checkpoint, bits, options.group)?;
    fs::create_dir_all(target).map_err(Error::io(target))?;
    prepare(target)?;
    let mut file = temporary_file(target)?;
    let temporary = file.path().to_owned();
    let bytes = pool.install(|| plan.write(file.as_file_mut(), &temporary, progress))?;
    publish(source, target, file)?;
    Ok(Quantized { source_bytes: checkpoint.total_bytes(), bytes, ..plan.summary })
}

/// Refuses a folder with anything of a model in it, be it a link to nowhere, and removes what a killed run has left.
fn prepare(target: &Path) -> Result<()> {
    let refused = companions().chain([CONFIG]).map(str::to_owned).chain(checkpoint::entries());
    for name in refused {
        if target.join(&name).symlink_metadata().is_ok() {
            let problem = format!("holds {name} already: remove it, or name another folder");
            return Err(Error::file(target, problem));
        }
    }
    for entry in fs::read_dir(target).map_err(Error::io(target))? {
        let entry = entry.map_err(Error::io(target))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(PART_START) && name.ends_with(PART_END) {
            fs::remove_file(entry.path()).map_err(Error::io(&entry.path()))?;
        }
    }
    Ok(())
}

/// Puts the companions beside the finished file and gives it its name: last, for with it the folder is a model. At an error
/// everything is removed again.
fn publish(source: &Path, target: &Path, file: NamedTempFile) -> Result<()> {
    let path = target.join(WEIGHTS);
    let companions: Vec<_> = companions().filter(|name| source.join(name).is_file()).collect();
    let published = companions
        .iter()
        .try_for_each(|name| copy(&source.join(name), &target.join(name)))
        .and_then(|()| write(&target.join(CONFIG), &configuration(source)?))
        .and_then(|()| {
            let named = file.persist_noclobber(&path);
            named.map_err(|error| Error::Io { path: path.clone(), source: error.error })
        })
        .and_then(|_| sync_folder(target));
    if published.is_err() {
        for name in companions.into_iter().chain([CONFIG, WEIGHTS]) {
            // Best effort: the first error is the one to report.
            let _ = fs::remove_file(target.join(name));
        }
    }
    published
}

/// `config.json` of the new folder: that of the source, or the published one where there is none. A name that only the
/// source's folder told is written down.
fn configuration(source: &Path) -> Result<Vec<u8>> {
    let folder = ModelDir::open(source)?;
    if !folder.has(CONFIG) {
        return Ok(UNWRITTEN.as_bytes().to_vec());
    }
    let names = folder.names()?;
    let told = names.iter().position(|name| tells(name));
    match folder.own_name() {
        // The folder's own is the last of its names.
        Some(own)
            if told.is_some_and(|told| told + 1 == names.len()) && tells(&own.to_lowercase()) =>
        {
            let mut config = folder.json(CONFIG)?;
            config.insert(CONFIG_NAME.to_owned(), own.into());
            Ok(format!("{:#}\n", Value::Object(config)).into_bytes())
        }
        _ => Ok(folder.read(CONFIG)?.into_owned()),
    }
}

/// Writes a new file, until it is on the disk.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = File::create_new(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(Error::io(path))
}

/// Copies a file, until it is on the disk.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut source = File::open(from).map_err(Error::io(from))?;
    let copied = File::create_new(to).and_then(|mut file| {
        io::copy(&mut source, &mut file)?;
        file.sync_all()
    });
    copied.map_err(Error::io(to))
}

/// The bits of a weight, once all options are checked.
pub(crate) fn bits(options: &QuantizeOptions) -> Result<Bits> {
    let error = |setting, range: String, found: usize| Error::Setting {
        setting,
        range,
        found: found.to_string(),
    };
    if !GROUPS.contains(&options.group) {
        return Err(error("group", format!("one of {GROUPS:?}"), options.group));
    }
    match options.bits {
        4 => Ok(Bits::Four),
        8 => Ok(Bits::Eight),
        other => Err(error("bits", "4 or 8".to_owned(), other)),
    }
}

/// A file with a temporary name and the permissions of any new file.
fn temporary_file(folder: &Path) -> Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.prefix(PART_START).suffix(PART_END).tempfile_in(folder).map_err(Error::io(folder))
}

/// Makes the new name durable, where folders can be synced.
fn sync_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io(folder))?;
    }
    Ok(())
}

/// A tensor of the file to be.
struct Entry {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    start: usize,
    len: usize,
}

/// What is written where.
struct Plan<'a> {
    /// In the order of their data.
    entries: Vec<Entry>,
    /// Matrices with the entries of their panels and scales.
    matrices: Vec<(Stored<'a>, Shape, usize, usize)>,
    /// Matrices that are written as numbers, with their entry.
    copies: Vec<(Stored<'a>, usize)>,
    /// Vectors, with their entry.
    vectors: Vec<(Vec<u8>, usize)>,
    header: Vec<u8>,
    summary: Quantized,
}

impl<'a> Plan<'a> {
    fn new(
        config: &Config,
        map: &'a Map,
        checkpoint: &'a Checkpoint,
        bits: Bits,
        group: usize,
    ) -> Result<Self> {
        let shared = map.duplicate(config, checkpoint).map(|source| source.name.clone());
        let mut plan = Plan {
            entries: Vec::new(),
            matrices: Vec::new(),
            copies: Vec::new(),
            vectors: Vec::new(),
            header: Vec::new(),
            summary: Quantized { source_bytes: 0, bytes: 0, quantized: 0, kept: 0, shared: None },
        };
        let mut sources: Vec<_> = map.sources().collect();
        sources.retain(|source| Some(&source.name) != shared.as_ref());
        sources.sort_by_key(|source| &source.name);
        let (vectors, matrices): (Vec<_>, Vec<_>) =
            sources.into_iter().partition(|source| source.is_vector);
        let stored = matrices.into_iter().map(|source| Stored::find(checkpoint, source));
        let stored = stored.collect::<Result<Vec<_>>>()?;
        // A checkpoint that its authors quantised keeps what they left alone.
        let official = stored.iter().any(Stored::is_quantised);
        // Only ever looked up, row by row.
        let is_table =
            |name: &str| map.network.positions.iter().flatten().any(|table| table.name == name);
        for matrix in stored {
            let [rows, cols] = matrix.size();
            match matrix.shape() {
                Some(shape) => {
                    plan.summary.kept += 1;
                    plan.add_matrix(matrix, shape);
                }
                None if official || is_table(matrix.name) => plan.add_copy(matrix),
                None => {
                    plan.summary.quantized += 1;
                    plan.add_matrix(matrix, Shape::grouped(rows, cols, bits, group));
                }
            }
        }
        for source in vectors {
            plan.add_vector(checkpoint, source)?;
        }
        plan.summary.shared = shared;
        plan.place();
        plan.header = plan.header(if official { None } else { Some(group) });
        Ok(plan)
    }

    fn add(&mut self, name: &str, dtype: &str, shape: &[usize], len: usize) -> usize {
        let (name, dtype, shape) = (name.to_owned(), dtype.to_owned(), shape.to_vec());
        self.entries.push(Entry { name, dtype, shape, start: 0, len });
        self.entries.len() - 1
    }

    fn add_copy(&mut self, matrix: Stored<'a>) {
        let (dtype, [rows, cols]) = (matrix.joined_dtype(), matrix.size());
        let len = rows * cols * dtype.size();
        let entry = self.add(matrix.name, &dtype.to_string(), &[rows, cols], len);
        self.copies.push((matrix, entry));
    }

    /// A vector as its tensor has it, or put together in `f32`.
    fn add_vector(&mut self, checkpoint: &Checkpoint, source: &Source) -> Result<()> {
        let name = &source.name;
        let (dtype, bytes) = match checkpoint.get(name) {
            Some(tensor) => (tensor.dtype(), tensor.bytes().to_vec()),
            None => {
                let values = vector(checkpoint, source)?;
                (Dtype::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect())
            }
        };
        let entry = self.add(name, &dtype.to_string(), &[source.rows], bytes.len());
        self.vectors.push((bytes, entry));
        Ok(())
    }

    fn add_matrix(&mut self, matrix: Stored<'a>, shape: Shape) {
        let name = matrix.name;
        let panels = self.add(name, "U8", &panel_shape(&shape), shape.bytes());
        let scales = scale_name(name);
        let scales = self.add(&scales, "F16", &scale_shape(&shape), shape.scales() * 2);
        self.matrices.push((matrix, shape, panels, scales));
    }

    /// Gives every entry its place. The format allows no gaps, so those that would put the next one off a multiple of 64
    /// come last, the ones with the widest elements first.
    fn place(&mut self) {
        let mut order: Vec<_> = (0..self.entries.len()).collect();
        order.sort_by_key(|&i| {
            let entry = &self.entries[i];
            let last = !entry.len.is_multiple_of(ALIGNMENT);
            (last, last && entry.dtype != "F32", last && entry.dtype == "U8")
        });
        let mut start = 0;
        for i in order {
            self.entries[i].start = start;
            start += self.entries[i].len;
        }
    }

    fn header(&self, group: Option<usize>) -> Vec<u8> {
        // Names in order, whatever order the JSON library keeps: the same model gives the same bytes.
        let metadata =
            json!({ "format": "glm", GROUP_KEY: group_value(group), LAYOUT_KEY: LAYOUT_NAME });
        let mut entries = BTreeMap::from([("__metadata__", metadata)]);
        for entry in &self.entries {
            let offsets = [entry.start, entry.start + entry.len];
            let value =
                json!({ "data_offsets": offsets, "dtype": entry.dtype, "shape": entry.shape });
            entries.insert(&entry.name, value);
        }
        let header = entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let mut json = Value::Object(header).to_string().into_bytes();
        let padded = (json.len() + 8).next_multiple_of(ALIGNMENT) - 8;
        json.resize(padded, b' ');
        json
    }

    /// Writes the file and waits until it is on the disk; returns its size.
    fn write(
        &self,
        file: &mut File,
        path: &Path,
        progress: &mut (dyn FnMut(u64, u64, &str) -> ControlFlow<()> + Send),
    ) -> Result<u64> {
        let data = 8 + self.header.len();
        let total = (data + self.entries.iter().map(|entry| entry.len).sum::<usize>()) as u64;
        let mut out = Output { file, path: path.to_owned(), written: 0, total, progress };
        out.put(0, "header", &(self.header.len() as u64).to_le_bytes())?;
        out.put(8, "header", &self.header)?;
        for (bytes, entry) in &self.vectors {
            let entry = &self.entries[*entry];
            out.put(data + entry.start, &entry.name, bytes)?;
        }
        for (matrix, entry) in &self.copies {
            write_copy(matrix, data + self.entries[*entry].start, &mut out)?;
        }
        for (matrix, shape, panels, scales) in &self.matrices {
            let (panels, scales) = (&self.entries[*panels], &self.entries[*scales]);
            write_matrix(matrix, shape, (data + panels.start, data + scales.start), &mut out)?;
        }
        out.file.sync_all().map_err(Error::io(path))?;
        Ok(total)
    }
}

fn write_copy(matrix: &Stored<'_>, at: usize, out: &mut Output<'_>) -> Result<()> {
    let [rows, cols] = matrix.size();
    let row_bytes = cols * matrix.joined_dtype().size();
    let step = (PIECE / row_bytes).clamp(1, rows);
    let mut bytes = vec![0; step * row_bytes];
    for first in (0..rows).step_by(step) {
        let bytes = &mut bytes[..step.min(rows - first) * row_bytes];
        matrix.join(first, bytes);
        out.put(at + first * row_bytes, matrix.name, bytes)?;
    }
    Ok(())
}

fn write_matrix(
    matrix: &Stored<'_>,
    shape: &Shape,
    (panels_at, scales_at): (usize, usize),
    out: &mut Output<'_>,
) -> Result<()> {
    let name = matrix.name;
    let (panel_bytes, panel_scales) = (shape.panel_bytes(), shape.groups() * LANES);
    let step = (PIECE / panel_bytes).clamp(1, shape.panels());
    let mut bytes = vec![0; step * panel_bytes];
    let mut scales = vec![f16::ZERO; step * panel_scales];
    for first in (0..shape.panels()).step_by(step) {
        let n = step.min(shape.panels() - first);
        let (bytes, scales) = (&mut bytes[..n * panel_bytes], &mut scales[..n * panel_scales]);
        matrix.pack(shape, first, bytes, scales)?;
        out.put(panels_at + first * panel_bytes, name, bytes)?;
        out.put(scales_at + first * panel_scales * 2, name, bytemuck::cast_slice(scales))?;
    }
    Ok(())
}

/// The file that is being written.
struct Output<'a> {
    file: &'a mut File,
    path: PathBuf,
    written: u64,
    total: u64,
    progress: &'a mut (dyn FnMut(u64, u64, &str) -> ControlFlow<()> + Send),
}

impl Output<'_> {
    fn put(&mut self, at: usize, name: &str, bytes: &[u8]) -> Result<()> {
        let write = |file: &mut File| {
            file.seek(SeekFrom::Start(at as u64))?;
            file.write_all(bytes)
        };
        write(self.file).map_err(Error::io(&self.path))?;
        self.written += bytes.len() as u64;
        match (self.progress)(self.written, self.total, name) {
            ControlFlow::Break(()) => Err(Error::Cancelled),
            ControlFlow::Continue(()) => Ok(()),
        }
    }
}
