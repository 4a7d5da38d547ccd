//! Attention compared with its definition, and the bits of queries in company.

use std::ops::Range;
use std::sync::LazyLock;

use half::f16;
use proptest::prelude::*;

use super::*;
use crate::reference;
use crate::testing::{close_to, values};

#[derive(Debug, Clone)]
struct Case {
    shape: KvShape,
    group: usize,
    position: usize,
    mask: Mask,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

fn cases() -> impl Strategy<Value = Case> {
    // In the second range, some rows of a task often see no key of a page that other rows see.
    let position = prop_oneof![0usize..200, 120usize..128];
    let prefix = prop_oneof![Just(0), 0..if cfg!(miri) { 140usize } else { 290 }];
    let (heads, groups, eighths, queries) = if cfg!(miri) { (2, 3, 3, 3) } else { (3, 4, 10, 9) };
    let sizes = (1usize..heads, 1usize..groups, 1usize..eighths, 1usize..queries);
    let kind = prop_oneof![Just(Values::Own), (1usize..80).prop_map(Values::Keys)];
    (sizes, position, prefix, kind).prop_flat_map(|(sizes, position, prefix, kind)| {
        let (heads, group, eighths, queries) = sizes;
        let head_size = eighths * 8;
        let values = match kind {
            Values::Own => Values::Own,
            Values::Keys(size) => Values::Keys(size.min(head_size)),
        };
        let shape = KvShape { layers: 2, heads, head_size, values };
        case(shape, group, position, queries, Mask { prefix })
    })
}

fn case(
    shape: KvShape,
    group: usize,
    position: usize,
    queries: usize,
    mask: Mask,
) -> impl Strategy<Value = Case> {
    let kv = shape.heads * shape.head_size * mask.visible(position + queries - 1);
    let q = queries * group * shape.heads * shape.head_size;
    (values(q), values(kv), values(kv)).prop_map(move |(queries, keys, mut values)| {
        if shape.shares() {
            values.clone_from(&keys);
        }
        Case { shape, group, position, mask, queries, keys, values }
    })
}

impl Case {
    /// Elements of a token's queries.
    fn width(&self) -> usize {
        self.shape.heads * self.group * self.shape.head_size
    }
}

fn store<E: Cached>(case: &Case, isa: Isa) -> KvCache<E> {
    let shape = case.shape;
    let mut cache = KvCache::new(shape);
    let width = shape.heads * shape.head_size;
    // Values that are a part of the keys are not read from the rows.
    let values = match shape.shares() {
        true => vec![f32::NAN; case.values.len()],
        false => case.values.clone(),
    };
    let rows = case.keys.chunks(width).zip(values.chunks(width));
    let rows: Vec<_> = rows.flat_map(|(k, v)| [k, v].concat()).collect();
    let stride = shape.head_size;
    let (k, v) = (Heads { first: 0, stride }, Heads { first: width, stride });
    // Two calls, as for a prompt in two chunks. Then NaN in all positions that no query may read.
    let (first, rest) = rows.split_at(rows.len() / width / 4 * 2 * width);
    let second = first.len() / 2 / width;
    let end = second + rest.len() / 2 / width;
    let pages = (end + 1).div_ceil(KEYS);
    (0..pages).for_each(|_| cache.push(KvPage::new(shape).unwrap()));
    let masked = vec![f32::NAN; pages * KEYS * 2 * width];
    let rest_of_page = &masked[end * 2 * width..];
    for (layer, position, rows) in
        [(0, 0, &masked[..]), (LAYER, 0, first), (LAYER, second, rest), (LAYER, end, rest_of_page)]
    {
        let rows = HeadRows { rows, width: 2 * width, keys: k, values: v };
        cache.store(isa, layer, position, rows);
    }
    cache
}

fn run<E: Cached>(case: &Case, cache: &KvCache<E>, isa: Isa, queries: Range<usize>) -> Vec<f32> {
    let heads = case.shape.heads * case.group;
    let width = heads * case.shape.head_size;
    let attention = Attention {
        queries: &case.queries[queries.start * width..queries.end * width],
        heads,
        cache,
        layer: LAYER,
        position: case.position + queries.start,
        mask: case.mask,
        scale: SCALE,
    };
    let mut out = vec![f32::NAN; queries.len() * heads * case.shape.value_size()];
    attention.forward(isa, &mut Partials::default(), &mut out);
    out
}

/// The layer under test. Layer 0 holds NaN, which must not be read.
const LAYER: usize = 1;

/// Keeps scores below about 100: the error of `exp` grows with the rounding error of the score.
const SCALE: f32 = 0.02;

/// Largest error measured in 400 cases, relative to [`conditioning`]: 4.4e-8.
const ATTENTION_ERROR: f32 = 1.5e-7;

/// As [`ATTENTION_ERROR`], where queries and weights are rounded to integers; measured: 4.4e-6.
const INTEGER_ERROR: f32 = 1.5e-5;

/// As [`INTEGER_ERROR`], where keys are stored as integers of one sign; measured: 3.0e-5.
const INTEGER_ERROR_WITH_MINIMUM: f32 = 1e-4;

/// The magnitude that rounding errors are proportional to: the error of a weight grows with the terms of its score, and the
/// error of an output with the largest value.
fn conditioning(case: &Case) -> f32 {
    let size = case.shape.head_size;
    let largest = |x: &[f32]| x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    let length = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>().sqrt();
    let longest = |x: &[f32]| x.chunks(size).map(length).fold(0.0, f32::max);
    let score = longest(&case.queries) * longest(&case.keys) * SCALE;
    largest(&case.values).max(1.0) * score.max(1.0)
}

proptest! {
    #[test]
    fn attention_equals_reference(case in cases()) {
        for isa in Isa::available() {
            let cache = store::<f32>(&case, isa);
            equals_reference(&case, &cache, isa);
        }
    }

    /// Compared with the definition on the dequantized cache, whose values are near the stored ones.
    #[test]
    fn attention_to_integers_equals_reference(case in cases()) {
        for isa in Isa::available() {
            let size = case.shape.head_size;
            let (bytes, words) = (store::<i8>(&case, isa), store::<i16>(&case, isa));
            equals_dequantized(&case, &bytes, isa);
            equals_dequantized(&case, &words, isa);
            let of_bytes = cached_and_stored(&case, &bytes).map(|head| (head, 127.0));
            let of_words = cached_and_stored(&case, &words).map(|head| (head, 8191.0));
            for ((cached, stored), most) in of_bytes.into_iter().chain(of_words) {
                for (cached, stored) in cached.chunks(size).zip(stored.chunks(size)) {
                    let largest = stored.iter().fold(0f32, |max, x| max.max(x.abs()));
                    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= largest * (0.5001 / most + 1e-6);
                    prop_assert!(cached.iter().zip(stored).all(near), "{} {:?} {:?}", isa, cached, stored);
                }
            }
            let cache = store::<Int4>(&case, isa);
            equals_dequantized(&case, &cache, isa);
            if case.shape.shares() {
                continue;
            }
            // Values have no anchor. No error is larger than that of the grid over the whole range, but for the rounding of its
            // scale and minimum to 11 bits.
            let (cached, stored) = cached_and_stored(&case, &cache)[1].clone();
            for (cached, stored) in cached.chunks(size).zip(stored.chunks(size)) {
                let largest = stored.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x));
                let least = stored.iter().fold(f32::INFINITY, |min, &x| min.min(x));
                let scale = (largest - least) / 15.0;
                let error = |x: f32| x - least - ((x - least) / scale.max(1e-30)).round() * scale;
                let length = |errors: &dyn Fn(usize) -> f32| (0..size).map(|i| errors(i).powi(2)).sum::<f32>().sqrt();
                let found = length(&|i| cached[i] - stored[i]);
                let rounding = (least.abs() + largest - least) / 2048.0 + 1e-6;
                let bound = length(&|i| error(stored[i])) * 1.001 + (size as f32).sqrt() * rounding;
                prop_assert!(found <= bound, "{}: {} > {}", isa, found, bound);
            }
        }
    }

    /// A query gets the same bits in any batch and on any number of threads.
    #[test]
    fn batch_and_threads_do_not_change_bits(case in cases(), threads in 1usize..5) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for isa in Isa::available() {
            pool.install(|| {
                bits_are_the_same(&case, &store::<f32>(&case, isa), isa);
                bits_are_the_same(&case, &store::<f16>(&case, isa), isa);
                bits_are_the_same(&case, &store::<i16>(&case, isa), isa);
                bits_are_the_same(&case, &store::<i8>(&case, isa), isa);
                bits_are_the_same(&case, &store::<Int4>(&case, isa), isa);
            });
        }
    }
}

/// As GLM-4.7-Flash has it: 20 query heads and one KV head of 512 + 64 elements.
#[test]
fn attention_to_a_latent_head_equals_reference() {
    let shape = KvShape { layers: 2, heads: 1, head_size: 576, values: Values::Keys(512) };
    let (group, positions) = if cfg!(miri) { (2, 0usize..9) } else { (20, 0usize..300) };
    let cases = (positions, 1usize..3).prop_flat_map(move |(position, queries)| {
        case(shape, group, position, queries, Mask { prefix: 0 })
    });
    proptest!(ProptestConfig::with_cases(4), |(case in cases)| {
        for isa in Isa::available() {
            equals_reference(&case, &store::<f32>(&case, isa), isa);
            bits_are_the_same(&case, &store::<f16>(&case, isa), isa);
            bits_are_the_same(&case, &store::<i16>(&case, isa), isa);
            equals_dequantized(&case, &store::<i16>(&case, isa), isa);
            equals_dequantized(&case, &store::<i8>(&case, isa), isa);
            equals_dequantized(&case, &store::<Int4>(&case, isa), isa);
        }
    });
}

/// The sums of products are as large as they can be: all integers of a part, and of the weights, are equal. A rotation spreads one element
/// evenly.
#[test]
fn the_largest_sums_of_integers_fit() {
    let shape = KvShape { layers: 2, heads: 1, head_size: 64, values: Values::Keys(64) };
    let mut spike = vec![0.0; shape.head_size];
    spike[0] = 3.0;
    let (position, mask) = (KEYS - 1, Mask { prefix: 0 });
    for sign in [1.0, -1.0] {
        let queries: Vec<_> = spike.iter().map(|x| sign * x).collect();
        let (keys, values) = (spike.repeat(KEYS), spike.repeat(KEYS));
        let case = Case { shape, group: 1, position, mask, queries, keys, values };
        for isa in Isa::available() {
            for value in run(&case, &store::<i16>(&case, isa), isa, 0..1).chunks(shape.head_size) {
                // All weights are rounded alike: 2047.25 to 2047.
                let near = |(found, expected): (&f32, &f32)| (found - expected).abs() < 5e-4;
                assert!(value.iter().zip(&spike).all(near), "{isa}: {value:?}");
            }
        }
    }
}

/// Of the same heads, five bits have half the error of four. In the second page, whose anchor is a mean: the anchor of the first
/// one is a key, which adds its own noise to all others.
#[test]
fn keys_of_int4_have_five_bits() {
    let shape = KvShape { layers: 2, heads: 1, head_size: 64, values: Values::Own };
    let page = KEYS * shape.head_size;
    let heads = prop::collection::vec(-1.0f32..1.0, 2 * page);
    proptest!(ProptestConfig::with_cases(4), |(keys in heads)| {
        let (position, queries) = (2 * KEYS - 1, vec![0.0; shape.head_size]);
        let (mask, values) = (Mask { prefix: 0 }, keys.clone());
        let case = Case { shape, group: 1, position, mask, queries, keys, values };
        for isa in Isa::available() {
            let [keys, values] = cached_and_stored(&case, &store::<Int4>(&case, isa)).map(|(cached, stored)| {
                let errors = cached[page..].iter().zip(&stored[page..]).map(|(a, b)| (a - b).powi(2));
                errors.sum::<f32>().sqrt()
            });
            prop_assert!(keys < 0.6 * values, "{}: {} {}", isa, keys, values);
        }
    });
}

/// All instruction sets with a fused multiply-add store the same bytes.
#[test]
fn all_isas_store_the_same_bytes() {
    proptest!(|(case in cases())| {
        let fused: Vec<_> = Isa::available().into_iter().skip(1).collect();
        let stored = |isa| {
            let (int8, int4) = (store::<i8>(&case, isa), store::<Int4>(&case, isa));
            let int16 = store::<i16>(&case, isa);
            let pages = case.mask.visible(case.position + case.queries.len() / case.width() - 1) / KEYS;
            let bytes = |page| [int16.page_bytes(page), int8.page_bytes(page), int4.page_bytes(page)].concat().concat();
            (0..pages).map(bytes).collect::<Vec<_>>()
        };
        for pair in fused.windows(2) {
            prop_assert!(stored(pair[0]) == stored(pair[1]), "{} {}", pair[0], pair[1]);
        }
    });
}

/// What a page holds does not depend on how many positions are stored at a time.
#[test]
fn a_page_is_the_same_position_by_position() {
    proptest!(|(case in cases())| {
        let isa = Isa::available().pop().unwrap();
        let cache = store::<Int4>(&case, isa);
        let (shape, width) = (case.shape, case.shape.heads * case.shape.head_size);
        let mut each = KvCache::<Int4>::new(shape);
        (0..cache.pages()).for_each(|_| each.push(KvPage::new(shape).unwrap()));
        let rows = case.keys.chunks(width).zip(case.values.chunks(width));
        for (position, (k, v)) in rows.enumerate() {
            let stride = shape.head_size;
            let (keys, values) = (Heads { first: 0, stride }, Heads { first: width, stride });
            let rows = HeadRows { rows: &[k, v].concat(), width: 2 * width, keys, values };
            each.store(isa, LAYER, position, rows);
        }
        let positions = case.keys.len() / width;
        prop_assert_eq!(each.values(LAYER, positions), cache.values(LAYER, positions));
    });
}

/// The keys, and the values: of the cache, and those that were stored; all rotated.
fn cached_and_stored<E: Cached>(case: &Case, cache: &KvCache<E>) -> [(Vec<f32>, Vec<f32>); 2] {
    let size = case.shape.head_size;
    let [keys, values] = cache.values(LAYER, case.keys.len() / case.shape.heads / size);
    let rotated = |x: &[f32]| x.chunks(size).flat_map(reference::rotated).collect();
    [(keys, rotated(&case.keys)), (values, rotated(&case.values))]
}

fn equals_dequantized<E: Cached>(case: &Case, cache: &KvCache<E>, isa: Isa) {
    let size = case.shape.head_size;
    let cached = cache.values(LAYER, case.keys.len() / case.shape.heads / size);
    // A rotation is its own inverse.
    let [keys, values] = cached.map(|x| x.chunks(size).flat_map(reference::rotated).collect());
    let error = match case.shape.shares() {
        true if E::Key::MINIMUM => INTEGER_ERROR_WITH_MINIMUM,
        true => INTEGER_ERROR,
        false => ATTENTION_ERROR,
    };
    equals(&Case { keys, values, ..case.clone() }, cache, isa, error);
}

fn equals_reference<E: Cached>(case: &Case, cache: &KvCache<E>, isa: Isa) {
    equals(case, cache, isa, ATTENTION_ERROR);
}

fn equals<E: Cached>(case: &Case, cache: &KvCache<E>, isa: Isa, error: f32) {
    let width = case.shape.heads * case.group * case.shape.head_size;
    let expected = reference::attention(
        &case.queries,
        &case.keys,
        &case.values,
        case.shape,
        case.group,
        case.position,
        case.mask,
        SCALE,
    );
    let bound = vec![conditioning(case); expected.len()];
    let out = run(case, cache, isa, 0..case.queries.len() / width);
    close_to(&out, &expected, &bound, error, isa);
}

static ONE_THREAD: LazyLock<rayon::ThreadPool> =
    LazyLock::new(|| rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap());

fn bits_are_the_same<E: Cached>(case: &Case, cache: &KvCache<E>, isa: Isa) {
    let width = case.shape.heads * case.group * case.shape.head_size;
    let queries = case.queries.len() / width;
    let bits = |out: Vec<f32>| out.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let batched = bits(run(case, cache, isa, 0..queries));
    let one_by_one: Vec<_> =
        (0..queries).flat_map(|q| bits(run(case, cache, isa, q..q + 1))).collect();
    assert_eq!(batched, one_by_one, "{isa}");
    let by_one_thread = bits(ONE_THREAD.install(|| run(case, cache, isa, 0..queries)));
    assert_eq!(batched, by_one_thread, "{isa}");
}

#[test]
fn a_shared_page_is_replaced_before_it_is_written() {
    for values in [Values::Own, Values::Keys(5)] {
        replace_a_shared_page(KvShape { layers: 1, heads: 1, head_size: 8, values });
    }
}

fn replace_a_shared_page(shape: KvShape) {
    let page = || KvPage::<f32>::new(shape).unwrap();
    let mut a = KvCache::new(shape);
    a.push(page());
    let heads = Heads { first: 0, stride: 8 };
    let isa = Isa::available().pop().unwrap();
    let store = |cache: &mut KvCache<f32>, position: usize, value: f32| {
        let rows = HeadRows { rows: &[value; 8], width: 8, keys: heads, values: heads };
        cache.store(isa, 0, position, rows);
    };
    store(&mut a, 0, 1.0);
    let mut b = a.fork(1);
    assert!(a.is_shared(0) && b.is_shared(0));
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| store(&mut b, 1, 2.0)));
    assert!(refused.is_err());
    assert!(b.replace(0, page()).is_none(), "the other cache still uses it");
    store(&mut b, 1, 2.0);
    store(&mut a, 1, 3.0);
    for i in 0..2 {
        let stored = |cache: &KvCache<f32>| cache.values(0, 2)[i].clone();
        assert_eq!((stored(&a)[0], stored(&a)[8]), (1.0, 3.0));
        assert_eq!((stored(&b)[0], stored(&b)[8]), (1.0, 2.0));
    }
    let mut freed = 0;
    let c = a.fork(1);
    a.truncate(0, |_| freed += 1);
    assert_eq!(freed, 0);
    drop(c);
    b.truncate(0, |_| freed += 1);
    assert_eq!((freed, b.pages()), (1, 0));
}

#[test]
fn rows_are_split_where_there_are_few_pages() {
    // One page on two threads: 2 · 10 rows. Three pages: 6 halves, in three turns instead of two turns of whole ones.
    assert_eq!([1, 2, 3, 4, 32].map(|pages| row_parts(pages, 20, 2)), [2, 1, 2, 1, 1]);
    assert_eq!([1, 32].map(|pages| row_parts(pages, 20, 1)), [1, 1]);
    assert_eq!([1, 8].map(|pages| row_parts(pages, 20, 64)), [4, 4]);
    assert_eq!(row_parts(7, 1, 64), 1);
}

#[test]
fn visible_keys_of_prefix_and_causal_masks() {
    let prefix = Mask { prefix: 3 };
    assert_eq!([0, 2, 3, 7].map(|q| prefix.visible(q)), [3, 3, 4, 8]);
    let causal = Mask { prefix: 0 };
    assert_eq!([0, 2, 7].map(|q| causal.visible(q)), [1, 3, 8]);
}
