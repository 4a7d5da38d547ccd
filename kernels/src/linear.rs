//! `y = act(x·Wᵀ + b)`: check the lengths, split the rows of `W` among the threads, then compute panels of eight rows.
//!
//! The order of each sum depends on the columns alone, not on the number of tokens, threads or panels computed with it. So a
//! token gives the same bits in a prompt of any length.

use std::cell::RefCell;
use std::ops::Range;

use crate::parallel::{SharedRows, for_each};
use crate::quantized::Q8Rows;
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
    /// If a length does not fit, or if the inputs are quantized and the weights are not in panels or rotated otherwise.
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
        assert!(self.bias.is_none_or(|bias| bias.len() == rows), "biases of {rows} rows");
        if let Input::Q8(x) = x {
            assert_eq!(x.rotation(), self.weight.rotation(), "rotation of the input");
        }
        if tokens == 0 || rows == 0 {
            return;
        }
        let stream = self.stream();
        let step = (TASK_BYTES / (STREAMS * self.panel_bytes()).max(1)).clamp(1, stream);
        let y = &Target { rows: SharedRows::new(y, rows), output };
        for_each(stream.div_ceil(step), |task| {
            let places = task * step..((task + 1) * step).min(stream);
            match (self.weight.storage(), x) {
                (Storage::Panels(weight), Input::Q8(x)) => SCRATCH.with_borrow_mut(|scratch| {
                    Integers { linear: self, weight, x, places, y, scratch }.run(isa);
                }),
                (_, Input::Q8(_)) => panic!("quantized inputs need weights in panels"),
                (storage, Input::F32(x)) => {
                    let task = Floats { linear: self, tokens, x, places, y };
                    match storage {
                        Storage::F32(w) => isa.run(OfWeights(task, w)),
                        Storage::F16(w) => isa.run(OfWeights(task, w)),
                        Storage::BF16(w) => isa.run(OfWeights(task, w)),
                        Storage::Panels(w) => isa.run(OfWeights(task, w)),
                    }
                }
            }
        });
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
        // SAFETY: `forward_into` gives each place to one task, which writes only the panels at that place of the streams. So each
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
mod tests {
    use half::{bf16, f16};
    use proptest::prelude::*;

    use super::*;
    use crate::format::{Bits, GroupForm, Shape};
    use crate::testing::{self, close, values};
    use crate::{BLOCK, Panels, Rotation, reference};

    #[derive(Debug, Clone, Copy)]
    enum Kind {
        F32,
        F16,
        BF16,
        Panels(Bits, usize, GroupForm, Rotation),
    }

    #[derive(Debug, Clone)]
    struct Case {
        kind: Kind,
        tokens: usize,
        rows: usize,
        cols: usize,
        weight: Vec<f32>,
        bias: Option<Vec<f32>>,
        x: Vec<f32>,
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        let bits = prop_oneof![
            Just((Bits::Four, GroupForm::Scale, Rotation::None)),
            Just((Bits::Four, GroupForm::Minimum, Rotation::None)),
            Just((Bits::Four, GroupForm::ZeroPoint, Rotation::None)),
            Just((Bits::Eight, GroupForm::Scale, Rotation::None)),
            Just((Bits::Eight, GroupForm::Scale, Rotation::Blocks)),
        ];
        let group = prop_oneof![Just(0), Just(32), Just(64), Just(96), Just(128)];
        prop_oneof![
            1 => Just(Kind::F32),
            1 => Just(Kind::F16),
            1 => Just(Kind::BF16),
            4 => (bits, group).prop_map(|((bits, form, rotation), group)| {
                Kind::Panels(bits, group, form, rotation)
            }),
        ]
    }

    fn cases() -> impl Strategy<Value = Case> {
        let (tokens, rows, cols) = if cfg!(miri) { (6, 20, 40) } else { (28, 70, 200) };
        (kinds(), 1usize..tokens, 1usize..rows, 1usize..cols, any::<bool>()).prop_flat_map(
            |(kind, tokens, rows, cols, biased)| {
                let cols = match kind {
                    Kind::Panels(.., Rotation::Blocks) => cols.next_multiple_of(BLOCK),
                    _ => cols,
                };
                (values(rows * cols), values(rows), values(tokens * cols)).prop_map(
                    move |(weight, bias, x)| {
                        let bias = biased.then_some(bias);
                        Case { kind, tokens, rows, cols, weight, bias, x }
                    },
                )
            },
        )
    }

    impl Case {
        /// Runs `test` with the matrix as it is stored.
        fn with_matrix(&self, test: impl FnOnce(Matrix<'_>)) {
            let (rows, cols) = (self.rows, self.cols);
            let matrix = |storage: Storage<'_>| test(Matrix::new(rows, cols, storage));
            match self.kind {
                Kind::F32 => matrix(Storage::F32(&self.weight)),
                Kind::F16 => {
                    let w: Vec<_> = self.weight.iter().map(|&w| f16::from_f32(w)).collect();
                    matrix(Storage::F16(&w));
                }
                Kind::BF16 => {
                    let w: Vec<_> = self.weight.iter().map(|&w| bf16::from_f32(w)).collect();
                    matrix(Storage::BF16(&w));
                }
                Kind::Panels(bits, group, form, rotation) => {
                    let shape = match group {
                        0 => Shape::per_row(rows, cols, bits),
                        group => Shape::grouped(rows, cols, bits, group),
                    }
                    .with_form(form);
                    let shape = Shape { rotation, ..shape };
                    let (bytes, scales) = testing::quantize(&shape, &self.weight);
                    matrix(Storage::Panels(Panels::new(shape, &bytes, &scales)));
                }
            }
        }

        fn linear<'a>(&'a self, weight: Matrix<'a>, activation: Activation) -> Linear<'a> {
            Linear { weight, bias: self.bias.as_deref(), activation }
        }
    }

    /// Largest `|error| / (1 + Σ|w·x|)` seen in 1500 cases: 6.7e-7. A sum of up to 200 products allows 2e-6.
    const LINEAR_ERROR: f32 = 1.3e-6;

    proptest! {
        #[test]
        fn linear_is_its_definition(case in cases(), gelu in any::<bool>()) {
            let activation = if gelu { Activation::GeluTanh } else { Activation::None };
            case.with_matrix(|weight| {
                let linear = case.linear(weight, activation);
                let expected = reference::linear(&linear, &case.x);
                let bound = reference::magnitude(&linear, &case.x);
                for isa in Isa::available() {
                    let mut y = vec![f32::NAN; case.tokens * case.rows];
                    linear.forward(isa, Input::F32(&case.x), &mut y);
                    testing::close_to(&y, &expected, &bound, LINEAR_ERROR, isa);
                }
            });
        }

        /// The integer path is exact on activations that quantization does not change.
        #[test]
        fn quantized_inputs_give_what_their_values_give(case in cases(), gelu in any::<bool>()) {
            let activation = if gelu { Activation::GeluTanh } else { Activation::None };
            case.with_matrix(|weight| {
                let Storage::Panels(_) = weight.storage() else { return };
                let linear = case.linear(weight, activation);
                for isa in Isa::available() {
                    let mut q = Q8Rows::default();
                    q.quantize(isa, &case.x, case.cols, weight.rotation());
                    let x = testing::dequantize(&q);
                    let expected = reference::linear(&linear, &x);
                    let bound = reference::magnitude(&linear, &x);
                    let mut y = vec![f32::NAN; case.tokens * case.rows];
                    linear.forward(isa, Input::Q8(&q), &mut y);
                    testing::close_to(&y, &expected, &bound, LINEAR_ERROR, isa);
                }
            });
        }

        /// Adding gives the old value plus the stored one, to the bit, and so also the definition.
        #[test]
        fn added_outputs_are_the_stored_ones(case in cases(), gelu in any::<bool>()) {
            let activation = if gelu { Activation::GeluErf } else { Activation::None };
            let old: Vec<_> = (0..case.tokens * case.rows).map(|i| (i as f32).sin()).collect();
            case.with_matrix(|weight| {
                let linear = case.linear(weight, activation);
                for isa in Isa::available() {
                    let mut q = Q8Rows::default();
                    q.quantize(isa, &case.x, case.cols, weight.rotation());
                    let quantized = testing::dequantize(&q);
                    let mut inputs = vec![(Input::F32(&case.x), &case.x)];
                    if let Storage::Panels(_) = weight.storage() {
                        inputs.push((Input::Q8(&q), &quantized));
                    }
                    for (input, x) in inputs {
                        let (mut stored, mut y) = (vec![f32::NAN; old.len()], old.clone());
                        linear.forward(isa, input, &mut stored);
                        linear.forward_into(isa, input, Output::Add, &mut y);
                        for ((y, old), stored) in y.iter().zip(&old).zip(&stored) {
                            assert_eq!(y.to_bits(), (old + stored).to_bits(), "{isa}");
                        }
                        let mut expected = old.clone();
                        reference::linear_into(&linear, x, Output::Add, &mut expected);
                        let mut bound = reference::magnitude(&linear, x);
                        bound.iter_mut().zip(&old).for_each(|(bound, old)| *bound += old.abs());
                        testing::close_to(&y, &expected, &bound, LINEAR_ERROR, isa);
                    }
                }
            });
        }

        /// A token gets the same bits alone, in a batch, and on any number of threads.
        #[test]
        fn tokens_and_threads_do_not_change_bits(case in cases(), threads in 2usize..5) {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            case.with_matrix(|weight| {
                let linear = case.linear(weight, Activation::GeluTanh);
                for isa in Isa::available() {
                    let run = |x: &[f32]| {
                        let mut y = vec![f32::NAN; x.len() / case.cols * case.rows];
                        if let Storage::Panels(_) = weight.storage() {
                            let mut q = Q8Rows::default();
                            q.quantize(isa, x, case.cols, weight.rotation());
                            linear.forward(isa, Input::Q8(&q), &mut y);
                            let bits: Vec<_> = y.iter().map(|y| y.to_bits()).collect();
                            linear.forward(isa, Input::F32(x), &mut y);
                            return bits.into_iter().zip(y.iter().map(|y| y.to_bits())).collect();
                        }
                        linear.forward(isa, Input::F32(x), &mut y);
                        y.iter().map(|y| (y.to_bits(), 0)).collect::<Vec<_>>()
                    };
                    let batched = pool.install(|| run(&case.x));
                    let alone: Vec<_> = case.x.chunks(case.cols).flat_map(run).collect();
                    assert_eq!(batched, alone, "{isa}");
                }
            });
        }
    }

    #[test]
    fn every_panel_has_one_place() {
        for rows in 1..=300 {
            let (weight, mut y) = (vec![0.0; rows], vec![0.0; rows]);
            let weight = Matrix::new(rows, 1, Storage::F32(&weight));
            let linear = Linear { weight, bias: None, activation: Activation::None };
            let y = &Target { rows: SharedRows::new(&mut y, rows), output: Output::Store };
            let mut times = vec![0; rows.div_ceil(LANES)];
            for place in 0..linear.stream() {
                let out = Outputs::new(crate::simd::scalar::Scalar, &linear, y, place);
                for n in 0..STREAMS {
                    let Some(there) = out.further(n) else { continue };
                    times[there.panel] += 1;
                    let by_steps = (0..n).try_fold(out, |out, _| out.further(1));
                    assert_eq!(by_steps.map(|out| out.panel), Some(there.panel));
                }
                assert!(out.further(STREAMS).is_none());
            }
            assert!(times.iter().all(|&n| n == 1), "{rows} rows: {times:?}");
        }
    }

    /// The largest products of rotated blocks: where one sign pattern has all of the weights and of the inputs, and where the integers are
    /// the largest.
    #[test]
    fn extremes_of_rotated_blocks_do_not_saturate_on_all_isas() {
        let shape = Shape::per_row(8, BLOCK, Bits::Eight).rotated();
        let sign =
            |i: usize, k: usize| if (i & k).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
        for pattern in 0..BLOCK {
            // The rotated inputs are all ±127.
            let spike: [f32; BLOCK] =
                std::array::from_fn(|k| if k == pattern { 127.0 * 32f32.sqrt() } else { 0.0 });
            // They are 127 · √32 in one place.
            let flat: [f32; BLOCK] = std::array::from_fn(|k| 127.0 * sign(pattern, k));
            for largest in [127i8, -127, -128] {
                let integers: [i8; 8 * BLOCK] = std::array::from_fn(|at| {
                    let positive = sign(pattern, at % BLOCK) > 0.0;
                    if positive { largest } else { largest.saturating_neg() }
                });
                let mut bytes = vec![0; shape.bytes()];
                crate::quantize::pack_panel(&shape, &integers, &mut bytes);
                let panels = Panels::new(shape, &bytes, &[f16::ONE; 8]);
                let weight = Matrix::new(8, BLOCK, Storage::Panels(panels));
                let linear = Linear { weight, bias: None, activation: Activation::None };
                for x in [spike, flat] {
                    let expected = reference::linear(&linear, &x);
                    let bound = reference::magnitude(&linear, &x);
                    for isa in Isa::available() {
                        let mut q = Q8Rows::default();
                        q.quantize(isa, &x, BLOCK, Rotation::Blocks);
                        for input in [Input::Q8(&q), Input::F32(&x)] {
                            let mut y = [f32::NAN; 8];
                            linear.forward(isa, input, &mut y);
                            testing::close_to(&y, &expected, &bound, LINEAR_ERROR, isa);
                        }
                    }
                }
            }
        }
    }

    /// The largest products: their partial sums must not overflow.
    #[test]
    fn extreme_integers_do_not_saturate() {
        for (bits, low, high) in [(Bits::Four, -8, 7), (Bits::Eight, -128, 127)] {
            let shape = Shape::per_row(8, BLOCK, bits);
            for (w, x) in [(low, 127.0), (low, -127.0), (high, 127.0), (high, -127.0)] {
                let mut bytes = vec![0; shape.bytes()];
                crate::quantize::pack_panel(&shape, &[w; 8 * BLOCK], &mut bytes);
                let scales = [f16::ONE; 16];
                // With a second number of 1, the nibble that stands for 0 is −1.
                for (form, offset) in [
                    (GroupForm::Scale, 0.0),
                    (GroupForm::Minimum, 1.0),
                    (GroupForm::ZeroPoint, 9.0),
                ] {
                    if bits == Bits::Eight && form != GroupForm::Scale {
                        continue;
                    }
                    let (shape, scales) = (shape.with_form(form), &scales[..8 * form.numbers()]);
                    let panels = Panels::new(shape, &bytes, scales);
                    let weight = Matrix::new(8, BLOCK, Storage::Panels(panels));
                    let linear = Linear { weight, bias: None, activation: Activation::None };
                    for isa in Isa::available() {
                        let mut q = Q8Rows::default();
                        q.quantize(isa, &[x; BLOCK], BLOCK, Rotation::None);
                        let mut y = [f32::NAN; 8];
                        linear.forward(isa, Input::Q8(&q), &mut y);
                        close(&y, &[(f32::from(w) + offset) * x * 32.0; 8], 1e-6, isa);
                    }
                }
            }
        }
    }
}
