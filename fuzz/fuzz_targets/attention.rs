//! Attention of any shape, format and mask over pages is that of its definition, and a query gets the same bits alone as among others.

#![no_main]

use glm_kernels::{
    Attention, Cached, HeadRows, Heads, Int4, Isa, KEYS, KvCache, KvPage, KvShape, Mask, Partials,
    Values, reference,
};
use half::f16;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Case {
    heads: u8,
    /// Whether the values are a part of the keys.
    shared: bool,
    value: u8,
    share: u8,
    eighths: u8,
    position: u16,
    queries: u8,
    prefix: u16,
    format: Format,
    /// Where the keys and values are stored in two calls.
    split: u16,
    isa: u8,
    seed: u32,
    /// Values that are not usual.
    odd: Vec<(u16, Odd)>,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Format {
    F32,
    F16,
    Int16,
    Int8,
    Int4,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Odd {
    Zero,
    Tiny,
    Large,
    Any(f32),
}

struct Input {
    shape: KvShape,
    share: usize,
    position: usize,
    queries: usize,
    total: usize,
    mask: Mask,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

const SCALE: f32 = 0.25;

impl Case {
    fn input(&self) -> Input {
        let (heads, share) = (usize::from(self.heads % 2) + 1, usize::from(self.share % 3) + 1);
        let head_size = (usize::from(self.eighths % 26) + 1) * 8;
        let (position, queries) =
            (usize::from(self.position % 300), usize::from(self.queries % 4) + 1);
        let mask = Mask { prefix: usize::from(self.prefix % 320) };
        let total = mask.visible(position + queries - 1);
        let mut state = self.seed;
        let mut number = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Exact in half precision.
            ((state >> 24) as f32 - 128.0) / 64.0
        };
        let mut numbers = |count: usize| (0..count).map(|_| number()).collect::<Vec<_>>();
        let values = match self.shared {
            true => Values::Keys(usize::from(self.value) % head_size + 1),
            false => Values::Own,
        };
        let shape = KvShape { layers: 2, heads, head_size, values };
        let mut q = numbers(queries * heads * share * head_size);
        let (mut k, mut v) =
            (numbers(total * heads * head_size), numbers(total * heads * head_size));
        for (index, (at, odd)) in self.odd.iter().take(6).enumerate() {
            let to = [&mut q, &mut k, &mut v][index % 3].as_mut_slice();
            let at = usize::from(*at) % to.len();
            to[at] = match odd {
                Odd::Zero => -0.0,
                Odd::Tiny => 1e-7,
                Odd::Large => 60_000.0,
                Odd::Any(x) => *x,
            };
        }
        if self.shared {
            v.clone_from(&k);
        }
        Input { shape, share, position, queries, total, mask, q, k, v }
    }

    fn run<E: Cached>(&self, input: &Input) -> Vec<f32> {
        let all = Isa::available();
        let isa = all[usize::from(self.isa) % all.len()];
        let Input { shape, total, .. } = *input;
        let (mut cache, width) = (KvCache::<E>::new(shape), shape.heads * shape.head_size);
        (0..total.div_ceil(KEYS)).for_each(|_| cache.push(KvPage::new(shape).expect("a page")));
        let rows: Vec<f32> = input
            .k
            .chunks(width)
            .zip(input.v.chunks(width))
            .flat_map(|(k, v)| [k, v].concat())
            .collect();
        let stride = shape.head_size;
        let (keys, values) = (Heads { first: 0, stride }, Heads { first: width, stride });
        let split = usize::from(self.split) % (total + 1);
        let (first, rest) = rows.split_at(split * 2 * width);
        for (position, rows) in [(0, first), (split, rest)] {
            cache.store(isa, 1, position, HeadRows { rows, width: 2 * width, keys, values });
        }
        let row = shape.heads * input.share * shape.head_size;
        let out_row = shape.heads * input.share * shape.value_size();
        let attend = |from: usize, count: usize| {
            let mut out = vec![f32::NAN; count * out_row];
            let queries = &input.q[from * row..][..count * row];
            let (heads, position) = (shape.heads * input.share, input.position + from);
            let attention = Attention {
                queries,
                heads,
                cache: &cache,
                layer: 1,
                position,
                mask: input.mask,
                scale: SCALE,
            };
            attention.forward(isa, &mut Partials::default(), &mut out);
            out
        };
        let all = attend(0, input.queries);
        if all.iter().all(|x| x.is_finite()) {
            for query in 0..input.queries {
                let same = attend(query, 1)
                    .iter()
                    .zip(&all[query * out_row..])
                    .all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{isa}: query {query} differs alone");
            }
        }
        all
    }
}

fuzz_target!(|case: Case| {
    let input = case.input();
    let found = match case.format {
        Format::F32 => case.run::<f32>(&input),
        Format::F16 => case.run::<f16>(&input),
        Format::Int16 => case.run::<i16>(&input),
        Format::Int8 => case.run::<i8>(&input),
        Format::Int4 => case.run::<Int4>(&input),
    };
    if !case.odd.is_empty() {
        return;
    }
    let Input { shape, share, position, mask, ref q, ref k, ref v, .. } = input;
    // Keys of integers change the weights of the values, so of these formats only the range of the result is known.
    let largest = v
        .chunks(shape.head_size)
        .map(|v| v.iter().map(|x| x * x).sum::<f32>().sqrt())
        .fold(0.0, f32::max);
    match case.format {
        Format::F32 | Format::F16 | Format::Int16 => {
            let error = if matches!(case.format, Format::Int16) { 0.05 } else { 1e-3 };
            let defined = reference::attention(q, k, v, shape, share, position, mask, SCALE);
            for (found, defined) in found.iter().zip(&defined) {
                assert!((found - defined).abs() <= error, "{found} should be {defined}");
            }
        }
        Format::Int8 | Format::Int4 => {
            assert!(
                found.iter().all(|x| x.abs() <= 1.2 * largest),
                "{found:?} of values up to {largest}"
            );
        }
    }
});
