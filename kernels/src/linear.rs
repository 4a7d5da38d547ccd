//! `y = act(x·Wᵀ + b)`: check the lengths, split the rows of `W` among the threads, then compute panels of eight rows.
//!
//! The order of each sum depends on the columns alone, not on the number of tokens, threads or panels computed with it. So a
//! token gives the same bits in a prompt of any length.

use std::cell::RefCell;
use std::ops::Range;

use crate::parallel::{SharedRows, for_each};
use crate::quantized::{Q8Rows, Q8Section};
use crate::simd::{Kernel, LANES, Vectors};
use crate::{Activation, Isa, Matrix, Storage};

/// Streams of panels that a thread reads concurrently. They lie a quarter of the matrix apart, so each continues from one task
/// to the next. Those of four adjacent panels would all end with the panel, and the start of a stream is slow.
const STREAMS: usize = 4;

mod dense;
mod integers;
mod pairs;
mod widened;

use integers::{Integers, Scratch};

/// Weight bytes of a task, unless [`STREAMS`] panels are more: enough to stream, and few enough to balance the load. (Tests
/// split their small matrices, too.)
const TASK_BYTES: usize = if cfg!(test) { 1 << 10 } else { 64 << 10 };

/// The inputs of a linear layer.
#[derive(Clone, Copy)]
pub enum Input<'a> {
    /// `[tokens][cols]`
    F32(&'a [f32]),
    /// Quantized; only for weights in panels.
    Q8(&'a Q8Rows),
}

impl Input<'_> {
    #[track_caller]
    fn tokens(&self, cols: usize) -> usize {
        match self {
            Input::F32(x) => {
                let whole = cols > 0 && x.len().is_multiple_of(cols);
                assert!(whole, "input is not a whole number of rows of {cols}");
                x.len() / cols
            }
            Input::Q8(x) => {
                assert_eq!(x.cols(), cols, "columns of the input");
                x.rows()
            }
        }
    }
}

/// What happens to the outputs `act(x·Wᵀ + b)` of a linear layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// `y = act(x·Wᵀ + b)`; what `y` held does not matter.
    #[default]
    Store,
    /// `y += act(x·Wᵀ + b)`: the sum of the old `y` and the very `f32` that [`Output::Store`] would store.
    Add,
}

/// A linear layer: the weights, and the bias and activation that are applied to the outputs in registers.
#[derive(Clone, Copy)]
pub struct Linear<'a> {
    /// `[outputs][inputs]`
    pub weight: Matrix<'a>,
    /// `[outputs]`
    pub bias: Option<&'a [f32]>,
    /// Applied last.
    pub activation: Activation,
}

impl Linear<'_> {
    /// Stores the outputs of all tokens of `x` in `y`, `[tokens][outputs]`, on the threads of the current rayon pool.
    ///
    /// # Panics
    /// If a length does not fit; and of quantized inputs, if there are several sections, or the weights are not in panels or rotated
    /// otherwise.
    #[track_caller]
    pub fn forward(&self, isa: Isa, x: Input<'_>, y: &mut [f32]) {
        self.forward_into(isa, x, Output::Store, y);
    }

    /// As [`forward`](Self::forward), storing in `y` or adding to it.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    #[track_caller]
    pub fn forward_into(&self, isa: Isa, x: Input<'_>, output: Output, y: &mut [f32]) {
        let (rows, cols) = (self.weight.rows(), self.weight.cols());
        let tokens = x.tokens(cols);
        assert_eq!(Some(y.len()), tokens.checked_mul(rows), "outputs of {tokens} tokens");
        self.check(&x);
        if let Input::Q8(x) = x {
            assert_eq!(x.sections().len(), 1, "sections of the quantized rows");
        }
        if tokens == 0 || rows == 0 {
            return;
        }
        run(isa, &[Job::new(*self, x.section(0, 0..tokens, cols), output, y, 0)]);
    }

    /// Computes several layers at once, all with as many inputs. `x` consists of sections of as many rows as `sections` says,
    /// for `Q8` those of [`Q8Rows::fill_sections`]. Each layer is computed for the section whose index is beside it, and `y` has the
    /// outputs `[tokens][outputs]` of the first layer, then those of the second, and so on.
    ///
    /// The bits are those of [`forward`](Self::forward) for each.
    ///
    /// # Panics
    /// As [`forward`](Self::forward); if the layers differ in the number of their inputs, or in the rotation of their inputs if those are quantized; and if
    /// there is no section of an index.
    #[track_caller]
    pub fn forward_each(
        isa: Isa,
        layers: &[(Linear<'_>, usize)],
        sections: &[usize],
        x: Input<'_>,
        y: &mut [f32],
    ) {
        let Some((first, _)) = layers.first() else {
            return assert!(y.is_empty(), "outputs of no layer");
        };
        let cols = first.weight.cols();
        let tokens = x.tokens(cols);
        assert_eq!(sections.iter().sum::<usize>(), tokens, "rows of the sections");
        if let Input::Q8(x) = x {
            assert!(x.sections().eq(sections.iter().copied()), "rows of the quantized sections");
        }
        let of_layer =
            |(linear, section): &(Linear<'_>, usize)| sections[*section] * linear.weight.rows();
        assert_eq!(
            y.len(),
            layers.iter().map(of_layer).sum::<usize>(),
            "outputs of {} layers",
            layers.len()
        );
        let starts: Vec<usize> = sections
            .iter()
            .scan(0, |end, rows| Some(std::mem::replace(end, *end + rows)))
            .collect();
        let (mut jobs, mut left, mut tasks) = (Vec::with_capacity(layers.len()), y, 0);
        for &(linear, section) in layers {
            assert_eq!(linear.weight.cols(), cols, "inputs of the layers");
            linear.check(&x);
            let tokens = starts[section]..starts[section] + sections[section];
            let (y, rest) =
                std::mem::take(&mut left).split_at_mut(tokens.len() * linear.weight.rows());
            left = rest;
            if !y.is_empty() {
                let job =
                    Job::new(linear, x.section(section, tokens, cols), Output::Store, y, tasks);
                tasks = job.tasks.end;
                jobs.push(job);
            }
        }
        run(isa, &jobs);
    }

    #[track_caller]
    fn check(&self, x: &Input<'_>) {
        let rows = self.weight.rows();
        assert!(self.bias.is_none_or(|bias| bias.len() == rows), "biases of {rows} rows");
        if let Input::Q8(x) = x {
            let panels = matches!(self.weight.storage(), Storage::Panels(_));
            assert!(panels, "quantized inputs need weights in panels");
            assert_eq!(x.rotation(), self.weight.rotation(), "rotation of the input");
        }
    }

    /// Panels of a stream. The panels at the same place in all streams are computed together: `place`, `place + stream`,
    /// `place + 2·stream`, and so on.
    fn stream(&self) -> usize {
        self.weight.rows().div_ceil(LANES).div_ceil(STREAMS)
    }

    fn panel_bytes(&self) -> usize {
        match self.weight.storage() {
            Storage::F32(_) => LANES * self.weight.cols() * 4,
            Storage::F16(_) | Storage::BF16(_) => LANES * self.weight.cols() * 2,
            Storage::Panels(p) => p.shape().panel_bytes(),
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The inputs of a layer: a section of an [`Input`].
#[derive(Clone, Copy)]
enum Inputs<'a> {
    F32(&'a [f32]),
    Q8(Q8Section<'a>),
}

impl<'a> Input<'a> {
    /// Section `index`, which has the rows `tokens`.
    fn section(self, index: usize, tokens: Range<usize>, cols: usize) -> Inputs<'a> {
        match self {
            Input::F32(x) => Inputs::F32(&x[tokens.start * cols..tokens.end * cols]),
            Input::Q8(x) => Inputs::Q8(x.section(index)),
        }
    }
}

/// A layer with its inputs and outputs, and its tasks among those of all layers computed at once.
struct Job<'a> {
    linear: Linear<'a>,
    x: Inputs<'a>,
    y: Target<'a>,
    tasks: Range<usize>,
    /// Places of a task.
    step: usize,
}

impl<'a> Job<'a> {
    /// `y` has at least one row, and at least one element in each.
    fn new(
        linear: Linear<'a>,
        x: Inputs<'a>,
        output: Output,
        y: &'a mut [f32],
        first: usize,
    ) -> Self {
        let stream = linear.stream();
        let step = (TASK_BYTES / (STREAMS * linear.panel_bytes()).max(1)).clamp(1, stream);
        let y = Target { rows: SharedRows::new(y, linear.weight.rows()), output };
        Self { linear, x, y, tasks: first..first + stream.div_ceil(step), step }
    }

    fn task(&self, isa: Isa, task: usize) {
        let Self { linear, x, y, tasks, step } = self;
        let first = (task - tasks.start) * step;
        let places = first..(first + step).min(linear.stream());
        match (linear.weight.storage(), *x) {
            (Storage::Panels(weight), Inputs::Q8(x)) => SCRATCH.with_borrow_mut(|scratch| {
                Integers { linear, weight, x, places, y, scratch }.run(isa);
            }),
            (_, Inputs::Q8(_)) => unreachable!("checked by `Linear::check`"),
            (storage, Inputs::F32(x)) => {
                let tokens = x.len() / linear.weight.cols();
                let task = Floats { linear, tokens, x, places, y };
                match storage {
                    Storage::F32(w) => isa.run(OfWeights(task, w)),
                    Storage::F16(w) => isa.run(OfWeights(task, w)),
                    Storage::BF16(w) => isa.run(OfWeights(task, w)),
                    Storage::Panels(w) => isa.run(OfWeights(task, w)),
                }
            }
        }
    }
}

/// Runs the tasks of all jobs, which are numbered in order.
fn run(isa: Isa, jobs: &[Job<'_>]) {
    for_each(jobs.last().map_or(0, |last| last.tasks.end), |task| {
        jobs[jobs.partition_point(|job| job.tasks.end <= task)].task(isa, task);
    });
}

/// The outputs `[tokens][rows]`, and what happens to them.
struct Target<'a> {
    rows: SharedRows<'a>,
    output: Output,
}

/// A task on `f32` inputs: the panels at `places` of the streams, see [`Linear::stream`].
struct Floats<'a> {
    linear: &'a Linear<'a>,
    tokens: usize,
    x: &'a [f32],
    places: Range<usize>,
    y: &'a Target<'a>,
}

/// Weights that are multiplied by `f32` inputs.
trait Weights: Copy {
    /// The number of streams whose panels are computed together for as many tokens.
    fn streams(tokens: usize) -> usize;
    /// The outputs of the panel of `out`, and of those computed with it, for all tokens of `x`, `[tokens][cols]`.
    fn panels<S: Vectors>(self, out: Outputs<'_, S>, tokens: usize, x: &[f32]);
}

/// [`Floats`] with their weights. A kernel for each kind of them, because the time to compile a function grows with the square of its
/// size.
struct OfWeights<'a, W>(Floats<'a>, W);

impl<W: Weights> Kernel for OfWeights<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Vectors>(self, simd: S) {
        let Self(Floats { linear, tokens, x, places, y }, weights) = self;
        for n in (0..STREAMS).step_by(W::streams(tokens)) {
            for place in places.clone() {
                if let Some(out) = Outputs::new(simd, linear, y, place).further(n) {
                    weights.panels(out, tokens, x);
                }
            }
        }
    }
}

/// Writes the eight outputs of a panel, and those of the panels computed with it.
#[derive(Clone, Copy)]
struct Outputs<'a, S> {
    simd: S,
    linear: &'a Linear<'a>,
    y: &'a Target<'a>,
    panel: usize,
    /// Panels from it to the next one that is computed with it, [`Linear::stream`].
    stream: usize,
}

impl<'a, S: Vectors> Outputs<'a, S> {
    #[inline(always)]
    fn new(simd: S, linear: &'a Linear<'a>, y: &'a Target<'a>, place: usize) -> Self {
        let stream = linear.stream();
        debug_assert!(place < stream);
        Self { simd, linear, y, panel: place, stream }
    }

    /// The panel at the same place, `n` streams further; the last streams may be shorter.
    #[inline(always)]
    fn further(self, n: usize) -> Option<Self> {
        let panel = self.panel + n * self.stream;
        (panel * LANES < self.linear.weight.rows()).then_some(Self { panel, ..self })
    }

    /// The first row of the panel, and how many of its eight rows exist.
    #[inline(always)]
    fn rows(&self) -> (usize, usize) {
        let first = self.panel * LANES;
        (first, (self.linear.weight.rows() - first).min(LANES))
    }

    /// The epilogue of a tile for this panel. A token that the tile repeats is stored once: it would be added twice.
    #[inline(always)]
    fn store_tile<const T: usize>(&self, tokens: [usize; T], sums: [S::F32; T]) {
        for t in 0..T {
            if t == 0 || tokens[t] != tokens[t - 1] {
                self.store(tokens[t], sums[t]);
            }
        }
    }

    /// The epilogue of `token` for this panel: adds the bias, applies the activation, and stores the outputs or adds them.
    #[inline(always)]
    fn store(&self, token: usize, sums: S::F32) {
        let (first, rows) = self.rows();
        // SAFETY: a job gives each place to one task, which writes only the panels at that place of the streams. So each
        // panel belongs to one task, and panels are disjoint columns of `y`.
        let y = unsafe { self.y.rows.row(token, first..first + rows) };
        let simd = self.simd;
        let mut sums = sums;
        if let Some(bias) = self.linear.bias {
            sums = simd.add(sums, load(simd, &bias[first..][..rows]));
        }
        let mut out = self.linear.activation.apply(simd, sums);
        if self.y.output == Output::Add {
            out = simd.add(load(simd, y), out);
        }
        match y.as_mut_array() {
            Some(y) => simd.store(out, y),
            None => {
                let mut lanes = [0.0; LANES];
                simd.store(out, &mut lanes);
                y.copy_from_slice(&lanes[..rows]);
            }
        }
    }
}

/// Loads up to eight values, and zeros for the others.
#[inline(always)]
fn load<S: Vectors>(simd: S, from: &[f32]) -> S::F32 {
    match from.as_array() {
        Some(from) => simd.load(from),
        None => {
            let mut lanes = [0.0; LANES];
            lanes[..from.len()].copy_from_slice(from);
            simd.load(&lanes)
        }
    }
}

#[cfg(test)]
mod tests;
