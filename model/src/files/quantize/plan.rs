//! The tensors of the new file, and writing them.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::ops::{ControlFlow, Range};
use std::path::Path;

use glm_kernels::quantize::Unquantizable;
use glm_kernels::{BLOCK, LANES, Shape};
use half::f16;

use super::{Progress, QuantizeOptions, Quantized, Source, bits};
use crate::calibrate::{CalibrationInfo, Formats, Packed};
use crate::error::{Error, Result};
use crate::files::checkpoint::{Dtype, SafetensorsLayout, Tensor, TensorSpec};
use crate::files::gguf::GROUP;
use crate::files::prefix::StoredPrefix;
use crate::files::weights::{
    Groups, StoredMatrix, StoredVector, TARGET_BITS_KEY, layout_metadata, order_name, panel_shape,
    scale_name, scale_shape, widen_into,
};
use crate::memory::{room, zeros};
use crate::network::layer::LinearRole;

/// Bytes of a matrix that are in memory at a time.
const PIECE: usize = 8 << 20;

/// Where the data of a tensor of the new file come from.
enum Data<'a> {
    /// A matrix in panels. The next tensor of the plan has its scales, and the one after that the order of its columns if they have one.
    Panels(&'a StoredMatrix, Shape),
    /// A matrix that is copied as it is.
    Copy(&'a StoredMatrix),
    Vector(&'a StoredVector),
}

impl<'a> Data<'a> {
    /// The name of the (first) tensor.
    fn name(&self) -> &'a str {
        match self {
            Data::Panels(matrix, _) | Data::Copy(matrix) => &matrix.name,
            Data::Vector(vector) => &vector.name,
        }
    }
}

/// The tensors of the new file and their data.
pub(super) struct Plan<'a> {
    tensors: Vec<TensorSpec>,
    /// Each with the index of its (first) tensor.
    data: Vec<(usize, Data<'a>)>,
    /// Where each is in `data`, by name.
    places: HashMap<&'a str, usize>,
    layout: SafetensorsLayout,
    /// Matrices that are quantized.
    quantized: usize,
    /// Matrices that are quantized already.
    kept: usize,
    /// The matrix left out because it is the same as the embedding.
    shared: Option<String>,
}

impl<'a> Plan<'a> {
    /// The plan without the matrix `shared`, which is the same as the embedding. Matrices that have one of `formats` get it, and others
    /// that of the options. Reads no weights.
    ///
    /// # Errors
    /// If an option is outside its range.
    pub(super) fn new(
        source: &'a Source,
        options: &QuantizeOptions,
        formats: Option<&Formats>,
        shared: Option<String>,
    ) -> Result<Self> {
        let Source { network, prefix, .. } = source;
        let (bits, group, form) = (bits(options)?, options.group, options.form());
        let mut matrices: Vec<_> = network.matrices().collect();
        matrices.retain(|matrix| Some(&matrix.name) != shared.as_ref());
        matrices.sort_by_key(|matrix| &matrix.name);
        let mut vectors: Vec<_> = network.vectors().collect();
        vectors.sort_by_key(|vector| &vector.name);
        // What the authors of a quantized checkpoint left unquantized stays so.
        let official = matrices.iter().any(|matrix| matrix.is_quantized());
        // Only single rows of positions are ever looked up. A router is small, and its rounding would choose other experts.
        let positions = network.positions.iter().flatten().map(|table| &*table.name);
        let routers = network.linears().filter(|(role, _)| *role == LinearRole::Router);
        let plain: HashSet<_> =
            positions.chain(routers.map(|(_, router)| &*router.weight.name)).collect();
        let mut plan = Plan {
            tensors: Vec::new(),
            data: Vec::new(),
            places: HashMap::new(),
            layout: SafetensorsLayout::new(&[], &[]),
            quantized: 0,
            kept: 0,
            shared,
        };
        for matrix in matrices {
            let [rows, cols] = matrix.size();
            match matrix.shape() {
                Some(shape) => {
                    plan.kept += 1;
                    plan.add_panels(matrix, shape);
                }
                None if !official && !plain.contains(&*matrix.name) => {
                    plan.quantized += 1;
                    let own = formats.and_then(|formats| formats.get(&matrix.name));
                    let uniform =
                        || Shape::grouped(rows, cols, bits, group).with_form(form).rotated();
                    let shape = own.map_or_else(uniform, |own| own.shape([rows, cols]));
                    plan.add_panels(matrix, shape);
                }
                None => plan.add_copy(matrix),
            }
        }
        // A prefix is read once, so it would gain nothing from fewer bits.
        prefix.iter().flat_map(StoredPrefix::matrices).for_each(|matrix| plan.add_copy(matrix));
        vectors.extend(prefix.iter().flat_map(StoredPrefix::vectors));
        vectors.into_iter().for_each(|vector| plan.add_vector(vector));
        let calibration = options.calibration.iter().flat_map(CalibrationInfo::write);
        let shapes = || {
            plan.data.iter().filter_map(|(_, data)| match data {
                Data::Panels(_, shape) => Some(shape),
                _ => None,
            })
        };
        // What is quantized already has a scale for a row, or, in GGUF files, for 32 columns.
        let is_in_blocks = shapes().all(|shape| shape.group_blocks * BLOCK == GROUP);
        let target = options.target_bits.map(|bits| (TARGET_BITS_KEY, bits.to_string()));
        let groups = match (official, &target) {
            (true, _) if is_in_blocks => Groups::Columns(GROUP),
            (true, _) => Groups::Rows,
            (false, Some(_)) => Groups::Mixed,
            (false, None) => Groups::Columns(group),
        };
        let has_order = network.matrices().any(|matrix| matrix.order().is_some());
        let layout = layout_metadata(groups, shapes().collect::<Vec<_>>(), has_order);
        let metadata: Vec<_> = layout.into_iter().chain(target).chain(calibration).collect();
        plan.layout = SafetensorsLayout::new(&plan.tensors, &metadata);
        let names = plan.data.iter().map(|(_, data)| data.name()).enumerate();
        plan.places = names.map(|(place, name)| (name, place)).collect();
        Ok(plan)
    }

    fn add(&mut self, tensor: TensorSpec, data: Data<'a>) {
        self.data.push((self.tensors.len(), data));
        self.tensors.push(tensor);
    }

    fn add_copy(&mut self, matrix: &'a StoredMatrix) {
        let tensor = TensorSpec::new(&matrix.name, matrix.joined_dtype(), matrix.size());
        self.add(tensor, Data::Copy(matrix));
    }

    fn add_panels(&mut self, matrix: &'a StoredMatrix, shape: Shape) {
        let panels = TensorSpec::new(&matrix.name, Dtype::U8, panel_shape(&shape));
        self.add(panels, Data::Panels(matrix, shape));
        let scales = TensorSpec::new(scale_name(&matrix.name), Dtype::F16, scale_shape(&shape));
        self.tensors.push(scales);
        let order = matrix.order().map(|_| order_name(&matrix.name));
        self.tensors.extend(order.map(|name| TensorSpec::new(name, Dtype::I32, [shape.cols])));
    }

    /// Adds a vector: its tensor as it is, or its pieces joined in `f32`.
    fn add_vector(&mut self, vector: &'a StoredVector) {
        let dtype = vector.whole().map_or(Dtype::F32, Tensor::dtype);
        let tensor = TensorSpec::new(&vector.name, dtype, [vector.len]);
        self.add(tensor, Data::Vector(vector));
    }

    /// Bytes of the file.
    pub(super) fn file_len(&self) -> u64 {
        self.layout.file_len() as u64
    }

    /// The first bytes of the file, which name every tensor with its type and shape.
    pub(super) fn header(&self) -> &[u8] {
        self.layout.header()
    }

    /// What the source gives, item by item.
    pub(super) fn items(&self) -> impl Iterator<Item = Item<'_>> {
        (0..self.data.len()).map(|index| Item { plan: self, index })
    }

    /// The matrix or vector with this name.
    pub(super) fn item(&self, name: &str) -> Option<Item<'_>> {
        let index = *self.places.get(name)?;
        Some(Item { plan: self, index })
    }

    /// What was planned, as a report.
    pub(super) fn summary(&self, source: &Source) -> Quantized {
        let (source_bytes, bytes) = (source.bytes, self.file_len());
        let Self { quantized, kept, .. } = *self;
        Quantized { source_bytes, bytes, quantized, kept, shared: self.shared.clone() }
    }

    /// Empties the file, gives it its length, and writes the header.
    pub(super) fn begin(&self, mut file: &File, path: &Path) -> Result<()> {
        let begun = file.set_len(0).and_then(|()| file.set_len(self.file_len()));
        let written =
            begun.and_then(|()| file.rewind()).and_then(|()| file.write_all(self.header()));
        written.map_err(Error::io(path))
    }

    /// Writes `items`, after `written` bytes of others, and waits until they are on the disk.
    pub(super) fn write(
        &self,
        items: &[Item<'_>],
        written: u64,
        file: &File,
        path: &Path,
        progress: Progress<'_>,
    ) -> Result<()> {
        let written = written + self.header().len() as u64;
        let mut out = Output { file, path, written, total: self.file_len(), progress };
        for item in items {
            let (index, data) = &self.data[item.index];
            let at = self.layout.range(*index).start;
            match data {
                Data::Vector(vector) => write_vector(vector, at, &mut out)?,
                Data::Copy(matrix) => write_copy(matrix, at, &mut out)?,
                Data::Panels(matrix, shape) => {
                    let scales_at = self.layout.range(index + 1).start;
                    write_panels(matrix, shape, (at, scales_at), &mut out)?;
                    if let Some(order) = matrix.order() {
                        let mut bytes = room(size_of_val(&**order), &matrix.name)?;
                        bytes.extend(order.iter().flat_map(|col| col.to_le_bytes()));
                        out.put(self.layout.range(index + 2).start, &matrix.name, &bytes)?;
                    }
                }
            }
        }
        out.file.sync_all().map_err(Error::io(path))
    }
}

/// A matrix or a vector of the plan.
#[derive(Clone, Copy)]
pub(super) struct Item<'p> {
    plan: &'p Plan<'p>,
    index: usize,
}

impl<'p> Item<'p> {
    pub(super) fn name(self) -> &'p str {
        self.plan.data[self.index].1.name()
    }

    /// The shape of a matrix that is written in panels.
    pub(super) fn shape(self) -> Option<Shape> {
        match self.plan.data[self.index].1 {
            Data::Panels(_, shape) => Some(shape),
            _ => None,
        }
    }

    /// The shape of a matrix in panels, and where its panels and its scales begin in the file.
    pub(super) fn panels(self) -> Option<(Shape, [usize; 2])> {
        let (index, _) = self.plan.data[self.index];
        let at = |index: usize| self.plan.layout.range(index).start;
        self.shape().map(|shape| (shape, [at(index), at(index + 1)]))
    }

    /// The type of its (first) tensor, and the bytes of the file that it takes.
    pub(super) fn tensor(self) -> (Dtype, Range<usize>) {
        let (index, _) = self.plan.data[self.index];
        (self.plan.tensors[index].dtype, self.plan.layout.range(index))
    }

    /// Writes a matrix that is quantized already.
    pub(super) fn write_packed(self, packed: &Packed, file: &File, path: &Path) -> Result<()> {
        let Some((_, [bytes_at, scales_at])) = self.panels() else { return Ok(()) };
        let mut file = file;
        let mut write = |at: usize, bytes: &[u8]| {
            file.seek(SeekFrom::Start(at as u64))?;
            file.write_all(bytes)
        };
        let done = write(bytes_at, &packed.bytes)
            .and_then(|()| write(scales_at, bytemuck::cast_slice(&packed.scales)));
        done.map_err(Error::io(path))
    }

    /// Bytes that it takes in the file.
    pub(super) fn bytes(self) -> u64 {
        let (index, data) = &self.plan.data[self.index];
        let tensors = match data {
            Data::Panels(matrix, _) => 2 + usize::from(matrix.order().is_some()),
            _ => 1,
        };
        let tensors = &self.plan.tensors[*index..index + tensors];
        tensors.iter().map(|tensor| tensor.bytes() as u64).sum()
    }

    /// The files of the source that it is read from.
    pub(super) fn files(self) -> impl Iterator<Item = &'p Path> {
        let tensors = match &self.plan.data[self.index].1 {
            Data::Panels(matrix, _) | Data::Copy(matrix) => {
                [matrix.tensors(), matrix.companions()].concat()
            }
            Data::Vector(vector) => vector.tensors(),
        };
        tensors.into_iter().map(Tensor::path)
    }
}

/// Writes a vector: the bytes of its tensor, or its pieces joined in `f32`.
///
/// # Errors
/// If a weight is not finite, or it cannot be written.
fn write_vector(vector: &StoredVector, at: usize, out: &mut Output<'_>) -> Result<()> {
    let mut values = vector.load()?;
    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
        let problem = format!("[{at}] of {} is {}, which is no weight", vector.name, values[at]);
        return Err(vector.tensors()[0].error(problem));
    }
    if let Some(tensor) = vector.whole() {
        return out.put(at, &vector.name, tensor.bytes());
    }
    // In the byte order of the file.
    values.iter_mut().for_each(|value| *value = f32::from_bits(value.to_bits().to_le()));
    out.put(at, &vector.name, bytemuck::cast_slice(&values))
}

fn write_copy(matrix: &StoredMatrix, at: usize, out: &mut Output<'_>) -> Result<()> {
    let [rows, cols] = matrix.size();
    let dtype = matrix.joined_dtype();
    let row_bytes = cols * dtype.size();
    let step = (PIECE / row_bytes).clamp(1, rows);
    let mut bytes = zeros(step * row_bytes, &matrix.name)?;
    let mut values = zeros(step * cols, &matrix.name)?;
    for first in (0..rows).step_by(step) {
        let bytes = &mut bytes[..step.min(rows - first) * row_bytes];
        matrix.join(first, bytes)?;
        let values = &mut values[..bytes.len() / dtype.size()];
        widen_into(dtype, bytes, values);
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let bad = Unquantizable { col: at % cols, value: values[at] };
            return Err(matrix.unquantizable(first + at / cols, bad));
        }
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
    let (panel_bytes, panel_scales) = (shape.panel_bytes(), shape.row_scales() * LANES);
    let step = (PIECE / panel_bytes).clamp(1, shape.panels());
    let mut bytes = zeros(step * panel_bytes, name)?;
    let mut scales = zeros::<f16>(step * panel_scales, name)?;
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
    file: &'a File,
    path: &'a Path,
    written: u64,
    total: u64,
    progress: Progress<'a>,
}

impl Output<'_> {
    fn put(&mut self, at: usize, name: &str, bytes: &[u8]) -> Result<()> {
        let mut file = self.file;
        let written = file.seek(SeekFrom::Start(at as u64)).and_then(|_| file.write_all(bytes));
        written.map_err(Error::io(self.path))?;
        self.written += bytes.len() as u64;
        match (self.progress)(self.written, self.total, name) {
            ControlFlow::Break(()) => Err(Error::Cancelled),
            ControlFlow::Continue(()) => Ok(()),
        }
    }
}
