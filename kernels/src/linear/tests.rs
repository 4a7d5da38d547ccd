//! Linear layers compared with their definition, and the bits of tokens in company.

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

proptest! {
    /// Layers that are computed at once give the bits that each gives alone: layers of their own and ranges of one matrix, with
    /// sections that several layers read, or none.
    #[test]
    fn layers_at_once_have_the_bits_of_each(
        case in cases(), cuts in prop::collection::vec(0usize..30, 0..4),
        chosen in prop::collection::vec((0usize..9, any::<bool>()), 0..5),
    ) {
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(case.tokens)).collect();
        cuts.extend([0, case.tokens]);
        cuts.sort_unstable();
        let sections: Vec<_> = cuts.windows(2).map(|cut| cut[1] - cut[0]).collect();
        case.with_matrix(|weight| {
            // Ranges begin and end with a panel.
            let half = match case.rows / 2 / LANES * LANES {
                0 => case.rows,
                half => half,
            };
            let parts = [0, half].map(|first| first..first + half);
            let parts = parts.map(|rows| {
                weight.row_range(if rows.end <= case.rows { rows } else { 0..half })
            });
            let layers: Vec<_> = chosen
                .iter()
                .map(|&(section, second)| {
                    let weight = parts[usize::from(second)];
                    let bias = case.bias.as_ref().map(|bias| &bias[..half]);
                    let linear = Linear { weight, bias, activation: Activation::GeluTanh };
                    (linear, section % sections.len())
                })
                .collect();
            for isa in Isa::available() {
                let mut q = Q8Rows::default();
                let mut inputs = vec![Input::F32(&case.x)];
                if let Storage::Panels(_) = weight.storage() {
                    let mut x = vec![f32::NAN; case.x.len()];
                    q.fill_sections(isa, &mut x, &sections, case.cols, weight.rotation(), |row, to| {
                        to.copy_from_slice(&case.x[row * case.cols..][..case.cols]);
                    });
                    inputs.push(Input::Q8(&q));
                }
                for input in inputs {
                    let mut expected = Vec::new();
                    for &(linear, section) in &layers {
                        let first = cuts[section] * case.cols;
                        let x = &case.x[first..cuts[section + 1] * case.cols];
                        let mut y = vec![f32::NAN; sections[section] * half];
                        let mut q = Q8Rows::default();
                        let x = match input {
                            Input::F32(_) => Input::F32(x),
                            Input::Q8(_) => {
                                q.quantize(isa, x, case.cols, weight.rotation());
                                Input::Q8(&q)
                            }
                        };
                        linear.forward(isa, x, &mut y);
                        expected.extend(y);
                    }
                    let mut y = vec![f32::NAN; expected.len()];
                    Linear::forward_each(isa, &layers, &sections, input, &mut y);
                    let bits = |y: &[f32]| y.iter().map(|y| y.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&y), bits(&expected), "{isa}");
                }
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
    let sign = |i: usize, k: usize| if (i & k).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
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
            for (form, offset) in
                [(GroupForm::Scale, 0.0), (GroupForm::Minimum, 1.0), (GroupForm::ZeroPoint, 9.0)]
            {
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
