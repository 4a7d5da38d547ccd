//! Any supported checkpoint → a folder in the kernels' layout, ready to be mapped. Split tensors are joined.
//!
//! The output is one safetensors file and copies of the configuration and the tokenizer. Matrices become panels of integers (see
//! `weights/stored.rs`). The official INT4 and INT8 keep their integers and scales; only their order changes. Everything else is
//! copied. Tensors are written one after another in pieces, so memory does not grow with the model. The file has a temporary name
//! until it is complete and on the disk, so an unfinished folder never loads.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use glm_kernels::{Bits, LANES, Shape};
use half::f16;
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::error::{Error, Result};
use crate::files::checkpoint::{self, Checkpoint, Dtype, SafetensorsLayout, TensorSpec};
use crate::files::config::{Config, GENERATION, UNWRITTEN};
use crate::files::model_dir::{CONFIG, CONFIG_NAME, ModelDir, TEMPLATE};
use crate::files::variant::tells;
use crate::files::weights::{
    LAYOUT_KEY, StoredMatrix, StoredNetwork, StoredVector, layout_metadata, panel_shape, resolve,
    scale_name, scale_shape,
};
use crate::network::model::pool;
use crate::text::tokenizer;

/// The file of weights in the new folder.
const WEIGHTS: &str = "model.safetensors";

/// Files that are copied if they exist, beside those of the tokenizer.
const COMPANIONS: [&str; 4] = [GENERATION, TEMPLATE, "LICENSE", "MODEL_LICENSE"];

fn companions() -> impl Iterator<Item = &'static str> {
    COMPANIONS.into_iter().chain(tokenizer::FILES)
}

/// Start of the name of an unfinished file.
const PART_START: &str = "model.";
/// End of the name of an unfinished file.
const PART_END: &str = ".part";

/// Bytes of a matrix that are in memory at a time.
const PIECE: usize = 8 << 20;

/// Columns that may share a scale.
pub const GROUPS: [usize; 3] = [32, 64, 128];

/// The format of weights that are quantized.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct QuantizeOptions {
    /// Bits of a weight: 4 or 8.
    pub bits: usize,
    /// Columns that share a scale, one of [`GROUPS`].
    pub group: usize,
    /// Threads. Default: as many as the process may use.
    pub threads: Option<usize>,
}

impl QuantizeOptions {
    /// `bits` a weight, `group` columns to a scale, and the default number of threads.
    pub fn new(bits: usize, group: usize) -> Self {
        Self { bits, group, threads: None }
    }
}

impl Default for QuantizeOptions {
    /// Four bits in groups of 32.
    fn default() -> Self {
        Self::new(4, 32)
    }
}

/// What [`quantize`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quantized {
    /// Bytes of tensors read.
    pub source_bytes: u64,
    /// Bytes of the file written.
    pub bytes: u64,
    /// Matrices that were quantized.
    pub quantized: usize,
    /// Matrices that were quantized before and kept their integers and scales.
    pub kept: usize,
    /// A matrix left out because it is the same as the embedding.
    pub shared: Option<String>,
}

/// Quantizes the model in folder `source` and writes it to folder `target`. `progress` gets the bytes written, the bytes in total
/// and the name of the tensor, and can cancel.
///
/// # Errors
/// If the source is no supported model or is in the kernels' layout already, an option is outside its range, a weight is not
/// finite, the target holds a model, a file cannot be read or written, or `progress` cancels. The target is then unchanged, except
/// that an empty folder may have been created.
pub fn quantize(
    source: impl AsRef<Path>,
    target: impl AsRef<Path>,
    options: &QuantizeOptions,
    progress: &mut (dyn FnMut(u64, u64, &str) -> ControlFlow<()> + Send),
) -> Result<Quantized> {
    let (source, target) = (source.as_ref(), target.as_ref());
    let bits = bits(options)?;
    let pool = pool(options.threads)?;
    let config = Config::open(source)?;
    let checkpoint = Checkpoint::open(source)?;
    if checkpoint.metadata().contains_key(LAYOUT_KEY) {
        return Err(Error::file(source, "is quantized and in the kernels' layout already"));
    }
    let network = resolve(&config, &checkpoint)?;
    let plan = Plan::new(&config, &network, bits, options.group);
    fs::create_dir_all(target).map_err(Error::io(target))?;
    prepare(target)?;
    let mut file = temporary_file(target)?;
    let temporary = file.path().to_owned();
    let bytes = pool.install(|| plan.write(file.as_file_mut(), &temporary, progress))?;
    publish(source, target, file)?;
    Ok(Quantized { source_bytes: checkpoint.total_bytes(), bytes, ..plan.summary })
}

/// Checks that the folder has no file of a model, not even a dangling link, and removes unfinished files of killed runs.
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

/// Writes the companions and then renames the finished file: last, because its name makes the folder a model. After an error
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
            // Best effort; the first error is reported.
            let _ = fs::remove_file(target.join(name));
        }
    }
    published
}

/// `config.json` of the new folder: that of the source, or the published one if the source has none. If only the name of the
/// source folder tells the variant, the name is added to the file.
fn configuration(source: &Path) -> Result<Vec<u8>> {
    let folder = ModelDir::open(source)?;
    if !folder.has(CONFIG) {
        return Ok(UNWRITTEN.as_bytes().to_vec());
    }
    let names = folder.names()?;
    let told = names.iter().position(|name| tells(name));
    match folder.own_name() {
        // The name of the folder is the last of the names.
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

/// Writes a new file and waits until it is on the disk.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = File::create_new(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(Error::io(path))
}

/// Copies a file and waits until the copy is on the disk.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut source = File::open(from).map_err(Error::io(from))?;
    let copied = File::create_new(to).and_then(|mut file| {
        io::copy(&mut source, &mut file)?;
        file.sync_all()
    });
    copied.map_err(Error::io(to))
}

/// Checks all options; returns the bits of a weight.
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

/// A file with a temporary name and the usual permissions of a new file.
fn temporary_file(folder: &Path) -> Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.prefix(PART_START).suffix(PART_END).tempfile_in(folder).map_err(Error::io(folder))
}

/// Makes the new name durable, on systems that can sync folders.
fn sync_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io(folder))?;
    }
    Ok(())
}

/// Where the data of a tensor of the new file come from.
enum Data<'a> {
    /// A matrix in panels. The next tensor of the plan has its scales.
    Panels(&'a StoredMatrix, Shape),
    /// A matrix that is copied as it is.
    Copy(&'a StoredMatrix),
    Vector(Vec<u8>),
}

/// The tensors of the new file and their data.
struct Plan<'a> {
    tensors: Vec<TensorSpec>,
    /// Each with the index of its (first) tensor.
    data: Vec<(usize, Data<'a>)>,
    layout: SafetensorsLayout,
    summary: Quantized,
}

impl<'a> Plan<'a> {
    fn new(config: &Config, network: &'a StoredNetwork, bits: Bits, group: usize) -> Self {
        let shared = network.duplicate_head(config).map(|head| head.name.clone());
        let mut matrices: Vec<_> = network.matrices().collect();
        matrices.retain(|matrix| Some(&matrix.name) != shared.as_ref());
        matrices.sort_by_key(|matrix| &matrix.name);
        let mut vectors: Vec<_> = network.vectors().collect();
        vectors.sort_by_key(|vector| &vector.name);
        // What the authors of a quantized checkpoint left unquantized stays so.
        let official = matrices.iter().any(|matrix| matrix.is_quantized());
        let group = (!official).then_some(group);
        // Only single rows of these are ever looked up.
        let is_table =
            |name: &str| network.positions.iter().flatten().any(|table| table.name == name);
        let mut plan = Plan {
            tensors: Vec::new(),
            data: Vec::new(),
            layout: SafetensorsLayout::new(&[], &[]),
            summary: Quantized { source_bytes: 0, bytes: 0, quantized: 0, kept: 0, shared },
        };
        for matrix in matrices {
            let [rows, cols] = matrix.size();
            match (matrix.shape(), group) {
                (Some(shape), _) => {
                    plan.summary.kept += 1;
                    plan.add_panels(matrix, shape);
                }
                (None, Some(group)) if !is_table(&matrix.name) => {
                    plan.summary.quantized += 1;
                    plan.add_panels(matrix, Shape::grouped(rows, cols, bits, group));
                }
                (None, _) => {
                    let dtype = matrix.joined_dtype();
                    let tensor = TensorSpec::new(&matrix.name, dtype, [rows, cols]);
                    plan.add(tensor, Data::Copy(matrix));
                }
            }
        }
        vectors.into_iter().for_each(|vector| plan.add_vector(vector));
        plan.layout = SafetensorsLayout::new(&plan.tensors, &layout_metadata(group));
        plan
    }

    fn add(&mut self, tensor: TensorSpec, data: Data<'a>) {
        self.data.push((self.tensors.len(), data));
        self.tensors.push(tensor);
    }

    fn add_panels(&mut self, matrix: &'a StoredMatrix, shape: Shape) {
        let panels = TensorSpec::new(&matrix.name, Dtype::U8, panel_shape(&shape));
        self.add(panels, Data::Panels(matrix, shape));
        let scales = TensorSpec::new(scale_name(&matrix.name), Dtype::F16, scale_shape(&shape));
        self.tensors.push(scales);
    }

    /// Adds a vector: its tensor as it is, or its pieces joined in `f32`.
    fn add_vector(&mut self, vector: &StoredVector) {
        let (dtype, bytes) = match vector.whole() {
            Some(tensor) => (tensor.dtype(), tensor.bytes().to_vec()),
            None => {
                let values = vector.load();
                (Dtype::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect())
            }
        };
        self.add(TensorSpec::new(&vector.name, dtype, [vector.len]), Data::Vector(bytes));
    }

    /// Writes the file and waits until it is on the disk; returns its size.
    fn write(
        &self,
        file: &mut File,
        path: &Path,
        progress: &mut (dyn FnMut(u64, u64, &str) -> ControlFlow<()> + Send),
    ) -> Result<u64> {
        let total = self.layout.file_len() as u64;
        let mut out = Output { file, path: path.to_owned(), written: 0, total, progress };
        out.put(0, "header", self.layout.header())?;
        for (index, data) in &self.data {
            let at = self.layout.range(*index).start;
            match data {
                Data::Vector(bytes) => out.put(at, &self.tensors[*index].name, bytes)?,
                Data::Copy(matrix) => write_copy(matrix, at, &mut out)?,
                Data::Panels(matrix, shape) => {
                    let scales_at = self.layout.range(index + 1).start;
                    write_panels(matrix, shape, (at, scales_at), &mut out)?;
                }
            }
        }
        out.file.sync_all().map_err(Error::io(path))?;
        Ok(total)
    }
}

fn write_copy(matrix: &StoredMatrix, at: usize, out: &mut Output<'_>) -> Result<()> {
    let [rows, cols] = matrix.size();
    let row_bytes = cols * matrix.joined_dtype().size();
    let step = (PIECE / row_bytes).clamp(1, rows);
    let mut bytes = vec![0; step * row_bytes];
    for first in (0..rows).step_by(step) {
        let bytes = &mut bytes[..step.min(rows - first) * row_bytes];
        matrix.join(first, bytes);
        out.put(at + first * row_bytes, &matrix.name, bytes)?;
    }
    Ok(())
}

fn write_panels(
    matrix: &StoredMatrix,
    shape: &Shape,
    (panels_at, scales_at): (usize, usize),
    out: &mut Output<'_>,
) -> Result<()> {
    let name = &matrix.name;
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
