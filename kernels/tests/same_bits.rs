//! All instruction sets with a fused multiply-add give the same bits, on every architecture. Scalar Rust rounds twice and gives
//! different bits. The hashes are recorded here, so a machine with only one instruction set detects a difference, too.

use glm_kernels::quantize::{pack_panel, pack_scales, quantize_row};
use glm_kernels::{
    Activation, Attention, Bits, Cached, Gate, GroupForm, HeadRows, Heads, Input, Int4, Isa, KEYS,
    KvCache, KvPage, KvShape, LayerNorm, Linear, Mask, Matrix, Panels, Partials, Q8Rows, RmsNorm,
    Shape, Storage, Values,
};
use half::{bf16, f16};

const FUSED: u64 = 0xe349_aa9e_fa38_ccee;
const PLAIN: u64 = 0x22f8_0a8e_e67e_b20c;

const FUSED_OF_KEYS: u64 = 0x5b4e_cd68_981a_35d9;
const PLAIN_OF_KEYS: u64 = 0x70c9_5196_2cb2_c2dd;

const FUSED_WITH_MINIMUM: u64 = 0xe6f8_f157_ff78_d626;
const PLAIN_WITH_MINIMUM: u64 = 0x1101_0874_dfc7_b1e4;

const FUSED_WITH_ZERO_POINT: u64 = 0xdb7c_77a5_3c19_45f2;
const PLAIN_WITH_ZERO_POINT: u64 = 0x9f55_8fa9_bf97_cb42;

const FUSED_ROTATED: u64 = 0x5de4_804d_e140_1df1;
const PLAIN_ROTATED: u64 = 0xd067_3c89_06f3_a28d;

/// Pseudo-random numbers in −1..1, the same on every machine.
fn numbers(n: usize, mut state: u64) -> Vec<f32> {
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// FNV-1a hash of all bits.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    fn add(&mut self, values: &[f32]) {
        assert!(values.iter().all(|x| x.is_finite()));
        for byte in values.iter().flat_map(|x| x.to_bits().to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

fn linear(isa: Isa, hash: &mut Hash) {
    // More blocks than are unpacked at a time; the last block is partial.
    let (rows, cols) = (83, 600);
    let (weights, bias) = (numbers(rows * cols, 1), numbers(rows, 2));
    for (bits, group) in [(Bits::Four, 32), (Bits::Four, 128), (Bits::Eight, 64)] {
        quantized(isa, hash, Shape::grouped(rows, cols, bits, group), &weights, &bias);
    }
    let (f16, bf16): (Vec<_>, Vec<_>) =
        weights.iter().map(|&w| (f16::from_f32(w), bf16::from_f32(w))).unzip();
    for storage in [Storage::F32(&weights), Storage::F16(&f16), Storage::BF16(&bf16)] {
        let weight = Matrix::new(rows, cols, storage);
        let linear = Linear { weight, bias: None, activation: Activation::Silu };
        let (x, mut y) = (numbers(5 * cols, 4), vec![f32::NAN; 5 * rows]);
        linear.forward(isa, Input::F32(&x), &mut y);
        hash.add(&y);
    }
}

fn quantized(isa: Isa, hash: &mut Hash, shape: Shape, weights: &[f32], bias: &[f32]) {
    let (bytes, scales) = packed(shape, weights);
    forward(isa, hash, Panels::new(shape, &bytes, &scales), bias);
}

fn packed(shape: Shape, weights: &[f32]) -> (Vec<u8>, Vec<f16>) {
    let cols = shape.cols;
    let (mut bytes, mut scales) = (vec![0; shape.bytes()], vec![f16::ZERO; shape.scales()]);
    let panels = weights.chunks(8 * cols).zip(bytes.chunks_mut(shape.panel_bytes()));
    for ((weights, bytes), to) in panels.zip(scales.chunks_mut(8 * shape.row_scales())) {
        let mut integers = vec![0; weights.len()];
        let mut scales = vec![f16::ZERO; weights.len() / cols * shape.row_scales()];
        let rows = weights.chunks(cols).zip(integers.chunks_mut(cols));
        for ((row, integers), scales) in rows.zip(scales.chunks_mut(shape.row_scales())) {
            quantize_row(&shape, row, integers, scales).unwrap();
        }
        pack_panel(&shape, &integers, bytes);
        pack_scales(shape.row_scales(), &scales, to);
    }
    (bytes, scales)
}

fn forward(isa: Isa, hash: &mut Hash, panels: Panels<'_>, bias: &[f32]) {
    let shape = panels.shape();
    let (rows, cols) = (shape.rows, shape.cols);
    let weight = Matrix::new(rows, cols, Storage::Panels(panels));
    for tokens in [1, 3, 7, 41] {
        let linear = Linear { weight, bias: Some(bias), activation: Activation::GeluTanh };
        let (x, mut y) = (numbers(tokens * cols, 3), vec![f32::NAN; tokens * rows]);
        let mut quantized = Q8Rows::default();
        quantized.quantize(isa, &x, cols, shape.rotation);
        linear.forward(isa, Input::Q8(&quantized), &mut y);
        hash.add(&y);
        linear.forward(isa, Input::F32(&x), &mut y);
        hash.add(&y);
    }
}

fn small(isa: Isa, hash: &mut Hash) {
    let n = 203;
    let (x, weight, bias) = (numbers(n, 5), numbers(n, 6), numbers(n, 7));
    let mut y = vec![f32::NAN; n];
    isa.run(LayerNorm { x: &x, weight: &weight, bias: &bias, eps: 1e-5, y: &mut y });
    hash.add(&y);
    isa.run(RmsNorm { x: &x, weight: &weight, eps: 1e-5, y: &mut y });
    hash.add(&y);
    isa.run(Gate { activation: Activation::GeluErf, gate: &x, up: &weight, y: &mut y });
    hash.add(&y);
}

/// A cache of `shape` whose first `positions` positions are filled.
fn cache<E: Cached>(isa: Isa, shape: KvShape, positions: usize) -> KvCache<E> {
    let mut cache = KvCache::new(shape);
    (0..positions.div_ceil(KEYS)).for_each(|_| cache.push(KvPage::new(shape).unwrap()));
    let (width, size) = (2 * shape.heads * shape.head_size, shape.head_size);
    let rows = numbers(positions * width, 8);
    let keys = Heads { first: 0, stride: size };
    let values = Heads { first: shape.heads * size, stride: size };
    cache.store(isa, 0, 0, HeadRows { rows: &rows, width, keys, values });
    cache
}

fn attention<E: Cached>(isa: Isa, head_size: usize, values: Values, hash: &mut Hash) {
    let (heads, shape) = (4, KvShape { layers: 1, heads: 2, head_size, values });
    let cache = cache::<E>(isa, shape, 300);
    for (position, queries) in [(299, 1), (290, 10)] {
        let mask = Mask { prefix: 40 };
        let q = numbers(queries * heads * head_size, 9);
        let mut out = vec![f32::NAN; queries * heads * shape.value_size()];
        let mut partials = Partials::default();
        let queries =
            Attention { queries: &q, heads, cache: &cache, layer: 0, position, mask, scale: 0.2 };
        queries.forward(isa, &mut partials, &mut out);
        hash.add(&out);
    }
}

#[test]
fn all_isas_give_the_recorded_bits() {
    for isa in Isa::available() {
        let mut hash = Hash(0xcbf2_9ce4_8422_2325);
        linear(isa, &mut hash);
        small(isa, &mut hash);
        attention::<f32>(isa, 24, Values::Own, &mut hash);
        attention::<f16>(isa, 24, Values::Own, &mut hash);
        attention::<i16>(isa, 24, Values::Own, &mut hash);
        attention::<i8>(isa, 24, Values::Own, &mut hash);
        attention::<Int4>(isa, 24, Values::Own, &mut hash);
        let recorded = if isa.name() == "scalar" { PLAIN } else { FUSED };
        assert_eq!(format!("{:#x}", hash.0), format!("{recorded:#x}"), "{isa}");
    }
}

#[test]
fn all_isas_give_the_recorded_bits_where_values_are_keys() {
    for isa in Isa::available() {
        let mut hash = Hash(0xcbf2_9ce4_8422_2325);
        // Heads of one part and of several.
        for (size, values) in [(24, 24), (200, 150), (576, 512)] {
            attention::<f32>(isa, size, Values::Keys(values), &mut hash);
            attention::<f16>(isa, size, Values::Keys(values), &mut hash);
            attention::<i16>(isa, size, Values::Keys(values), &mut hash);
            attention::<i8>(isa, size, Values::Keys(values), &mut hash);
            attention::<Int4>(isa, size, Values::Keys(values), &mut hash);
        }
        let recorded = if isa.name() == "scalar" { PLAIN_OF_KEYS } else { FUSED_OF_KEYS };
        assert_eq!(format!("{:#x}", hash.0), format!("{recorded:#x}"), "{isa}");
    }
}

#[test]
fn all_isas_give_the_recorded_bits_with_a_minimum() {
    let (rows, cols) = (83, 600);
    // Not symmetric about 0.
    let weights: Vec<_> = numbers(rows * cols, 1).iter().map(|w| w + 0.25).collect();
    for isa in Isa::available() {
        let mut hash = Hash(0xcbf2_9ce4_8422_2325);
        for group in [32, 64, 96, 128] {
            let shape = Shape::grouped(rows, cols, Bits::Four, group).with_form(GroupForm::Minimum);
            quantized(isa, &mut hash, shape, &weights, &numbers(rows, 2));
        }
        let recorded = if isa.name() == "scalar" { PLAIN_WITH_MINIMUM } else { FUSED_WITH_MINIMUM };
        assert_eq!(format!("{:#x}", hash.0), format!("{recorded:#x}"), "{isa}");
    }
}

#[test]
fn all_isas_give_the_recorded_bits_with_zero_points() {
    let (rows, cols) = (83, 600);
    let weights = numbers(rows * cols, 1);
    for isa in Isa::available() {
        let mut hash = Hash(0xcbf2_9ce4_8422_2325);
        for group in [32, 64, 96, 128] {
            let symmetric = Shape::grouped(rows, cols, Bits::Four, group);
            let (bytes, scales) = packed(symmetric, &weights);
            let zero = |at: usize| -f16::from_f32((at % 17) as f32);
            let groups = scales.chunks(8).enumerate();
            let both = groups.flat_map(|(group, scales)| {
                scales.iter().copied().chain((0..8).map(move |row| zero(3 * group + row)))
            });
            let (shape, both) =
                (symmetric.with_form(GroupForm::ZeroPoint), both.collect::<Vec<_>>());
            forward(isa, &mut hash, Panels::new(shape, &bytes, &both), &numbers(rows, 2));
        }
        let recorded =
            if isa.name() == "scalar" { PLAIN_WITH_ZERO_POINT } else { FUSED_WITH_ZERO_POINT };
        assert_eq!(format!("{:#x}", hash.0), format!("{recorded:#x}"), "{isa}");
    }
}

#[test]
fn all_isas_give_the_recorded_bits_of_rotated_weights() {
    let (rows, cols) = (83, 608);
    let weights = numbers(rows * cols, 1);
    for isa in Isa::available() {
        let mut hash = Hash(0xcbf2_9ce4_8422_2325);
        for group in [32, 64, 128] {
            let shape = Shape::grouped(rows, cols, Bits::Eight, group).rotated();
            quantized(isa, &mut hash, shape, &weights, &numbers(rows, 2));
        }
        let recorded = if isa.name() == "scalar" { PLAIN_ROTATED } else { FUSED_ROTATED };
        assert_eq!(format!("{:#x}", hash.0), format!("{recorded:#x}"), "{isa}");
    }
}

/// A batch of queries compared with each query computed separately. The tasks have several row blocks, and in some pages only
/// some rows have visible keys.
fn many_queries<E: Cached>(isa: Isa, shape: KvShape, queries: usize) {
    let (heads, head_size) = (8 * shape.heads, shape.head_size);
    let (cache, width) = (cache::<E>(isa, shape, 204), heads * head_size);
    let (q, out_width) = (numbers(queries * width, 9), heads * shape.value_size());
    let run = |first: usize, count: usize| {
        let q = &q[first * width..][..count * width];
        let (mut partials, mut out) = (Partials::default(), vec![f32::NAN; count * out_width]);
        let (position, mask) = (204 - queries + first, Mask { prefix: 0 });
        let queries =
            Attention { queries: q, heads, cache: &cache, layer: 0, position, mask, scale: 0.2 };
        queries.forward(isa, &mut partials, &mut out);
        out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let batched = run(0, queries);
    for first in (0..queries).step_by(7) {
        assert_eq!(
            batched[first * out_width..][..out_width],
            run(first, 1),
            "{isa}: query {first}"
        );
    }
}

/// Values that are the first `size` elements of the keys compared with stored values that equal the keys: they have the same bits, or differ by
/// `error` at most.
fn keys_as_values<E: Cached>(
    isa: Isa,
    [heads, group, head_size, size]: [usize; 4],
    queries: usize,
    error: f32,
) {
    let (positions, stride) = (204, head_size);
    let rows = numbers(positions * heads * head_size, 8);
    let q = numbers(queries * heads * group * head_size, 9);
    let [own, keys] = [Values::Own, Values::Keys(size)].map(|values| {
        let shape = KvShape { layers: 1, heads, head_size, values };
        let value_size = shape.value_size();
        let mut cache = KvCache::<E>::new(shape);
        (0..positions.div_ceil(KEYS)).for_each(|_| cache.push(KvPage::new(shape).unwrap()));
        let (width, both) = (heads * head_size, Heads { first: 0, stride });
        cache.store(isa, 0, 0, HeadRows { rows: &rows, width, keys: both, values: both });
        let mut out = vec![f32::NAN; queries * heads * group * value_size];
        let (position, mask) = (positions - queries, Mask { prefix: 0 });
        let (heads, cache) = (heads * group, &cache);
        let queries = Attention { queries: &q, heads, cache, layer: 0, position, mask, scale: 0.2 };
        queries.forward(isa, &mut Partials::default(), &mut out);
        out.chunks(value_size).flat_map(|value| &value[..size]).copied().collect::<Vec<_>>()
    });
    assert_eq!(own.len(), keys.len());
    for (own, keys) in own.iter().zip(&keys) {
        let same = own.to_bits() == keys.to_bits() || error > 0.0 && (own - keys).abs() <= error;
        assert!(
            same,
            "{isa}: {heads} · {group} heads of {head_size}, {queries} queries: {own} {keys}"
        );
    }
}

#[test]
fn keys_as_values_give_what_stored_ones_give() {
    for isa in Isa::available() {
        for (shape, queries) in [
            ([1, 20, 576, 512], 2),
            ([1, 20, 576, 576], 1),
            ([2, 3, 24, 17], 5),
            ([1, 1, 72, 64], 1),
            ([1, 3, 40, 24], 3),
            ([1, 20, 64, 3], 40),
        ] {
            keys_as_values::<f32>(isa, shape, queries, 0.0);
            keys_as_values::<f16>(isa, shape, queries, 0.0);
            // Queries and weights are rounded to integers.
            keys_as_values::<i16>(isa, shape, queries, 3e-4);
            keys_as_values::<i8>(isa, shape, queries, 3e-4);
        }
    }
}

/// One query, whose pages are split among tasks of unequal size.
fn long_context<E: Cached>(isa: Isa, kv_heads: usize, values: Values) {
    let (heads, positions) = (4, 1100);
    let shape = KvShape { layers: 1, heads: kv_heads, head_size: 24, values };
    let (cache, q) = (cache::<E>(isa, shape, positions), numbers(heads * shape.head_size, 9));
    let run = |threads| {
        let (mut partials, mut out) =
            (Partials::default(), vec![f32::NAN; heads * shape.value_size()]);
        let (position, mask) = (positions - 1, Mask { prefix: 0 });
        let query =
            Attention { queries: &q, heads, cache: &cache, layer: 0, position, mask, scale: 0.2 };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| query.forward(isa, &mut partials, &mut out));
        out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let single = run(1);
    for threads in 2..6 {
        assert_eq!(run(threads), single, "{isa}: {threads} threads");
    }
}

#[test]
fn threads_do_not_change_bits_of_a_long_context() {
    for isa in Isa::available() {
        for (heads, values) in [(2, Values::Own), (1, Values::Own), (1, Values::Keys(16))] {
            long_context::<f32>(isa, heads, values);
            long_context::<f16>(isa, heads, values);
            long_context::<i16>(isa, heads, values);
            long_context::<i8>(isa, heads, values);
            long_context::<Int4>(isa, heads, values);
        }
    }
}

#[test]
fn batching_queries_does_not_change_bits() {
    for isa in Isa::available() {
        for (heads, head_size, values, queries) in [
            (2, 8, Values::Own, 200),
            (2, 24, Values::Own, 100),
            (2, 256, Values::Own, 50),
            (2, 24, Values::Keys(9), 100),
            (1, 576, Values::Keys(512), 40),
        ] {
            let shape = KvShape { layers: 1, heads, head_size, values };
            many_queries::<f32>(isa, shape, queries);
            many_queries::<f16>(isa, shape, queries);
            many_queries::<i16>(isa, shape, queries);
            many_queries::<i8>(isa, shape, queries);
            many_queries::<Int4>(isa, shape, queries);
        }
    }
}
