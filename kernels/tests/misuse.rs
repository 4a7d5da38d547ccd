//! Every safe function that reaches unsafe code, called with invalid arguments: it panics with its own message or returns an
//! error. It never reads or writes memory outside its arguments.
//!
//! Tests compare the message because they are compiled with overflow checks and releases are not: a panic by an overflow check
//! would not occur in a release.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use glm_kernels::quantize::{pack_panel, pack_scales, quantize_row};
use glm_kernels::{
    Activation, Attention, Bits, Cached, Element, Gate, GroupForm, HeadRows, Heads, Input, Isa,
    KEYS, Kernel, KvCache, KvPage, KvShape, LANES, LayerNorm, Linear, MAX_HEAD_SIZE, Mask, Matrix,
    OutOfMemory, Output, PairKernel, Panels, Partials, Q8Rows, RmsNorm, Rotation, Shape,
    SharedRows, Simd, Storage, Values, Vectors, angles, for_each, for_each_row, parallel_region,
    probe, rotate_halves, rotate_pairs,
};
use half::f16;

/// Asserts that `call` panics with a message that contains `expected`.
#[track_caller]
fn refuses<R>(expected: &str, call: impl FnOnce() -> R) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(call)) else {
        panic!("accepted, but should say: {expected}");
    };
    let message = match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => panic.downcast::<&str>().map_or_else(|_| String::new(), |s| s.to_string()),
    };
    assert!(message.contains(expected), "{message:?} should contain {expected:?}");
}

/// A number of rows for which `rows · cols` overflows to 0.
fn overflowing(cols: usize) -> usize {
    assert!(cols.is_power_of_two());
    (usize::MAX / cols) + 1
}

fn linear<'a>(weight: Matrix<'a>, bias: Option<&'a [f32]>) -> Linear<'a> {
    Linear { weight, bias, activation: Activation::None }
}

#[test]
fn matrices_of_other_sizes() {
    let shape = Shape::per_row(8, 32, Bits::Four);
    let (bytes, scales) = (vec![0; shape.bytes()], vec![f16::ONE; shape.scales()]);
    let panels = Panels::new(shape, &bytes, &scales);
    for (rows, cols) in [(2, 2), (0, 3), (3, 0), (usize::MAX, usize::MAX), (overflowing(2), 2)] {
        refuses("storage does not hold", || Matrix::new(rows, cols, Storage::F32(&[1.0; 3])));
        refuses("storage does not hold", || Matrix::new(rows, cols, Storage::F16(&[f16::ONE; 7])));
        refuses("storage does not hold", || Matrix::new(rows, cols, Storage::Panels(panels)));
    }
    // The product is 0 in 64 bits.
    refuses("storage does not hold", || Matrix::new(overflowing(4), 4, Storage::F32(&[])));
    refuses("storage does not hold", || Matrix::new(overflowing(4), 4, Storage::BF16(&[])));
    let matrix = Matrix::new(2, 2, Storage::F32(&[1.0; 4]));
    for (row, len) in [(2, 2), (usize::MAX, 2), (0, 1), (0, 3), (1, 0)] {
        refuses("row", || matrix.row(row, &mut vec![0.0; len]));
    }
    refuses("row", || Matrix::new(8, 32, Storage::Panels(panels)).row(8, &mut [0.0; 32]));
}

#[test]
fn panels_of_other_sizes() {
    let shape = Shape::grouped(9, 40, Bits::Eight, 32);
    let (bytes, scales) = (vec![0; shape.bytes()], vec![f16::ONE; shape.scales()]);
    refuses("bytes of the panels", || Panels::new(shape, &bytes[1..], &scales));
    refuses("scales of the panels", || Panels::new(shape, &bytes, &scales[1..]));
    for impossible in [shape, Shape::grouped(9, 64, Bits::Four, 32)] {
        let rotated = Shape { rotation: Rotation::Blocks, ..impossible };
        assert_eq!(impossible.rotated(), impossible);
        refuses("a rotation of four bits or of part of a block", || Panels::new(rotated, &[], &[]));
    }
    let minimum = shape.with_form(GroupForm::Minimum);
    let twice = scales.repeat(2);
    refuses("a minimum or a zero point of eight bits", || Panels::new(minimum, &bytes, &twice));
    let four = Shape { bits: Bits::Four, ..minimum };
    let half = &bytes[..four.bytes()];
    refuses("scales of the panels", || Panels::new(four, half, &scales));
    refuses("bytes of the panels", || Panels::new(shape, &[], &[]));
    refuses("group of 0", || Shape::grouped(8, 32, Bits::Four, 0));
    refuses("group of 33", || Shape::grouped(8, 32, Bits::Four, 33));
    let no_groups = Shape { group_blocks: 0, ..shape };
    refuses("groups of no columns", || Panels::new(no_groups, &bytes, &scales));
    // Products that are 0 in 64 bits.
    for bits in [Bits::Four, Bits::Eight] {
        let rows = Shape::grouped(overflowing(2), 64, bits, 32);
        refuses("overflow", || Panels::new(rows, &[], &[]));
        refuses("overflow", || rows.scales());
        let cols =
            Shape { group_blocks: usize::MAX, ..Shape::grouped(8, usize::MAX - 31, bits, 32) };
        refuses("overflow", || Panels::new(cols, &[], &[]));
    }
}

/// A group may be longer than a row, and even longer than the address space.
#[test]
fn panels_of_one_group_longer_than_a_row() {
    let shape = Shape { group_blocks: usize::MAX, ..Shape::per_row(8, 64, Bits::Four) };
    let weights = [0.5; 64];
    let (mut integers, mut scale) = ([0; 64], [f16::ZERO]);
    quantize_row(&shape, &weights, &mut integers, &mut scale).unwrap();
    let (mut bytes, mut scales) = (vec![0; shape.bytes()], vec![f16::ZERO; shape.scales()]);
    pack_panel(&shape, &integers, &mut bytes);
    pack_scales(1, &scale, &mut scales);
    let weight = Matrix::new(8, 64, Storage::Panels(Panels::new(shape, &bytes, &scales)));
    for isa in Isa::available() {
        let (mut y, mut q) = ([f32::NAN; 8], Q8Rows::default());
        linear(weight, None).forward(isa, Input::F32(&[1.0; 64]), &mut y);
        assert_eq!(y, [32.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], "{isa}");
        q.quantize(isa, &[1.0; 64], 64, Rotation::None);
        linear(weight, None).forward(isa, Input::Q8(&q), &mut y);
        assert!((y[0] - 32.0).abs() < 1e-3, "{isa}: {}", y[0]);
    }
}

#[test]
fn linear_layers_with_other_lengths() {
    let weights = [1.0; 6];
    let weight = Matrix::new(2, 3, Storage::F32(&weights));
    for isa in Isa::available() {
        for output in [Output::Store, Output::Add] {
            let forward = |layer: Linear<'_>, x: Input<'_>, y: usize| {
                layer.forward_into(isa, x, output, &mut vec![0.0; y]);
            };
            let plain = linear(weight, None);
            refuses("rows of 3", || forward(plain, Input::F32(&[1.0; 4]), 2));
            for y in [0, 1, 3, 4] {
                refuses("outputs of 1 tokens", || forward(plain, Input::F32(&[1.0; 3]), y));
            }
            refuses("outputs of 0 tokens", || forward(plain, Input::F32(&[]), 2));
            for bias in [0, 1, 3] {
                let biased = linear(weight, Some(&weights[..bias]));
                refuses("biases of 2 rows", || forward(biased, Input::F32(&[1.0; 3]), 2));
            }
            // Rows without columns take no memory, whatever their number.
            for rows in [0, 1, usize::MAX] {
                let empty = linear(Matrix::new(rows, 0, Storage::F32(&[])), None);
                refuses("rows of 0", || forward(empty, Input::F32(&[]), 0));
                refuses("rows of 0", || forward(empty, Input::F32(&[1.0]), 1));
            }
            let mut q = Q8Rows::default();
            refuses("columns of the input", || forward(plain, Input::Q8(&q), 0));
            q.quantize(isa, &[1.0; 6], 3, Rotation::None);
            refuses("weights in panels", || forward(plain, Input::Q8(&q), 4));
            let shape = Shape::per_row(8, 32, Bits::Eight);
            let (bytes, scales) = (vec![0; shape.bytes()], [f16::ONE; 8]);
            for (weights, inputs) in
                [(Rotation::None, Rotation::Blocks), (Rotation::Blocks, Rotation::None)]
            {
                let panels = Panels::new(Shape { rotation: weights, ..shape }, &bytes, &scales);
                let layer = linear(Matrix::new(8, 32, Storage::Panels(panels)), None);
                q.quantize(isa, &[1.0; 32], 32, inputs);
                refuses("rotation of the input", || forward(layer, Input::Q8(&q), 8));
            }
            forward(plain, Input::F32(&[]), 0);
            forward(linear(Matrix::new(0, 3, Storage::F32(&[])), None), Input::F32(&[1.0; 3]), 0);
        }
    }
}

#[test]
fn quantized_rows_of_other_sizes() {
    for isa in Isa::available() {
        let mut q = Q8Rows::default();
        refuses("part of a block", || q.quantize(isa, &[1.0; 40], 40, Rotation::Blocks));
        refuses("part of a block", || Rotation::Blocks.apply(&mut [1.0; 31]));
        refuses("rows of 3", || q.quantize(isa, &[1.0; 4], 3, Rotation::None));
        refuses("rows of 0", || q.quantize(isa, &[1.0; 4], 0, Rotation::None));
        refuses("rows of 0", || q.quantize(isa, &[], 0, Rotation::None));
        refuses("rows of 5", || {
            q.fill(isa, &mut [1.0; 4], 5, Rotation::None, |_, _| unreachable!())
        });
        assert_eq!((q.rows(), q.cols()), (0, 0));
        q.quantize(isa, &[], usize::MAX, Rotation::None);
        assert_eq!((q.rows(), q.cols()), (0, usize::MAX));
        // After a panic in `fill`, the rows can be used again.
        refuses("on purpose", || {
            q.fill(isa, &mut [1.0; 40], 4, Rotation::None, |_, _| panic!("on purpose"))
        });
        q.quantize(isa, &[1.0; 3], 3, Rotation::None);
        assert_eq!((q.rows(), q.cols()), (1, 3));
    }
    for (rows, cols) in [(usize::MAX, 1), (usize::MAX - 1, 64), (overflowing(2), 33)] {
        refuses("quantized rows", || Q8Rows::bytes(rows, cols));
        refuses("quantized rows", || Q8Rows::with_capacity(rows, cols));
    }
    refuses("bytes of the quantized rows", || Q8Rows::bytes(overflowing(8), 32));
}

#[test]
fn quantizing_other_lengths() {
    let shape = Shape::grouped(8, 40, Bits::Four, 32);
    let quantize = |shape: Shape, row: usize, integers: usize, scales: usize| {
        let (mut integers, mut scales) = (vec![0; integers], vec![f16::ZERO; scales]);
        quantize_row(&shape, &vec![1.0; row], &mut integers, &mut scales)
    };
    refuses("columns of the row", || quantize(shape, 39, 40, 2));
    refuses("columns of the row", || quantize(shape, 40, 41, 2));
    refuses("scales of the row", || quantize(shape, 40, 40, 1));
    refuses("no columns", || quantize(Shape { group_blocks: 0, ..shape }, 40, 40, 2));
    assert_eq!(quantize(Shape { cols: 0, ..shape }, 0, 0, 0), Ok(()));

    let pack = |shape: Shape, integers: usize, panel: usize| {
        pack_panel(&shape, &vec![0; integers], &mut vec![0; panel]);
    };
    let bytes = shape.panel_bytes();
    refuses("rows of the panel", || pack(shape, 41, bytes));
    refuses("rows of the panel", || pack(shape, 9 * 40, bytes));
    refuses("rows of the panel", || pack(Shape { cols: 0, ..shape }, 0, 0));
    refuses("bytes of the panel", || pack(shape, 40, bytes - 1));
    refuses("overflow", || pack(Shape { cols: usize::MAX, ..shape }, 0, 0));

    let pack = |groups: usize, scales: usize, panel: usize| {
        pack_scales(groups, &vec![f16::ONE; scales], &mut vec![f16::ZERO; panel]);
    };
    refuses("scales of the panel's rows", || pack(0, 0, 0));
    refuses("scales of the panel's rows", || pack(2, 3, 16));
    refuses("scales of the panel's rows", || pack(2, 18, 16));
    refuses("scales of the panel", || pack(2, 4, 15));
    refuses("scales of the panel", || pack(overflowing(8), 0, 0));
}

#[test]
fn vectors_of_other_lengths() {
    for isa in Isa::available() {
        for lens in [[9, 8, 9, 9], [8, 9, 9, 9], [9, 9, 0, 9], [9, 9, 9, 10]] {
            let [x, weight, bias, mut y] = lens.map(|n| vec![1.0; n]);
            let (x, weight, bias, y) = (&x[..], &weight[..], &bias[..], &mut y[..]);
            refuses("lengths", || isa.run(LayerNorm { x, weight, bias, eps: 1e-5, y }));
        }
        for lens in [[9, 8, 9], [8, 9, 9], [9, 9, 0]] {
            let [x, other, mut y] = lens.map(|n| vec![1.0; n]);
            let (x, other, y) = (&x[..], &other[..], &mut y[..]);
            refuses("lengths", || isa.run(RmsNorm { x, weight: other, eps: 1e-5, y }));
            let activation = Activation::Silu;
            refuses("lengths", || isa.run(Gate { activation, gate: x, up: other, y }));
        }
        isa.run(LayerNorm { x: &[], weight: &[], bias: &[], eps: 0.0, y: &mut [] });
        isa.run(RmsNorm { x: &[], weight: &[], eps: 0.0, y: &mut [] });
        isa.run(Gate { activation: Activation::GeluErf, gate: &[], up: &[], y: &mut [] });
    }
    refuses("angles", || angles(&[1.0; 2], 1.0, &mut [[0.0; 2]; 3]));
    for n in [0, 3, 5] {
        refuses("rotated", || rotate_halves(&mut vec![0.0; n], &[[1.0, 0.0]; 2]));
        refuses("rotated", || rotate_pairs(&mut vec![0.0; n], &[[1.0, 0.0]; 2]));
    }
    let mut huge = [[0.0; 2]];
    angles(&[f32::MAX], f32::MAX, &mut huge);
    rotate_halves(&mut [1.0; 2], &huge);
}

const KV: KvShape = KvShape { layers: 2, heads: 2, head_size: 16, values: Values::Own };

/// A cache of shape [`KV`].
fn kv_cache<E: Cached>(pages: usize) -> KvCache<E> {
    let mut cache = KvCache::new(KV);
    (0..pages).for_each(|_| cache.push(KvPage::new(KV).unwrap()));
    cache
}

#[test]
fn kv_pages_of_other_sizes() {
    fn new<E: Cached>(layers: usize, heads: usize, head_size: usize) -> Result<(), OutOfMemory> {
        KvPage::<E>::new(KvShape { layers, heads, head_size, values: Values::Own }).map(|_| ())
    }
    fn check<E: Cached>() {
        for head_size in [0, 1, 12, MAX_HEAD_SIZE + 8, usize::MAX - 7, usize::MAX] {
            refuses("head of", || new::<E>(1, 1, head_size));
        }
        for size in [0, 17, usize::MAX] {
            let values = Values::Keys(size);
            let shape = KvShape { layers: 1, heads: 1, head_size: 16, values };
            refuses("value of", || KvPage::<E>::new(shape));
        }
        for (layers, heads) in [(usize::MAX, 2), (2, usize::MAX), (overflowing(2), 2)] {
            refuses("heads of all layers", || new::<E>(layers, heads, 16));
        }
        // Words of eight bytes, the keys and the values of a head.
        let words = 2 * 16 * KEYS * size_of::<E>() / 8;
        refuses("elements of a page", || new::<E>(overflowing(words), 1, 16));
        // The number of words fits in `usize`, their bytes do not.
        assert_eq!(new::<E>(overflowing(words) / 2, 1, 16), Err(OutOfMemory));
        assert_eq!(new::<E>(0, usize::MAX, 16), Ok(()));
        let keys = KvShape {
            layers: overflowing(words),
            heads: 1,
            head_size: 16,
            values: Values::Keys(16),
        };
        // Without values, half of the words: this number fits.
        assert_eq!(KvPage::<E>::new(keys).map(|_| ()), Err(OutOfMemory));
        let sizes = [usize::MAX, overflowing(8), overflowing(2 * KEYS)];
        for size in sizes {
            for [layers, heads, head_size] in [[size, 2, 16], [2, size, 16], [2, 2, size]] {
                for values in [Values::Own, Values::Keys(8)] {
                    let shape = KvShape { layers, heads, head_size, values };
                    refuses("bytes of a page", || shape.page_bytes::<E>());
                }
            }
        }
    }
    check::<f32>();
    check::<f16>();
    check::<i8>();
}

#[test]
fn kv_pages_of_other_shapes_and_indices() {
    let other = KvShape { layers: 4, heads: 1, head_size: 16, values: Values::Own };
    let page = |shape: KvShape| KvPage::<i8>::new(shape).unwrap();
    let mut cache = kv_cache::<i8>(2);
    for other in [other, KvShape { values: Values::Keys(8), ..KV }] {
        refuses("shape of a page", || cache.push(page(other)));
        refuses("shapes of the pages", || cache.replace(0, page(other)));
        refuses("shapes of the pages", || page(KV).copy_from(&page(other)));
    }
    for index in [2, usize::MAX] {
        refuses("page", || cache.replace(index, page(KV)));
        refuses("page", || cache.is_shared(index));
    }
    assert_eq!(cache.fork(usize::MAX).pages(), 2);
    cache.truncate(usize::MAX, |_| unreachable!());
    // A panic of the caller's function loses the other pages, but not the cache.
    refuses("on purpose", || cache.truncate(0, |_| panic!("on purpose")));
    assert_eq!(cache.pages(), 0);
    assert_eq!(cache.fork(1).pages(), 0);
}

#[test]
fn keys_and_values_of_other_lengths() {
    fn check<E: Cached>(isa: Isa) {
        let width = 2 * KV.heads * KV.head_size;
        let (keys, values) =
            (Heads { first: 0, stride: 16 }, Heads { first: width / 2, stride: 16 });
        let zeros = vec![0.0; (KEYS + 1) * width];
        let store = |cache: &mut KvCache<E>, layer, position, rows: usize| {
            let rows = HeadRows { rows: &zeros[..rows * width], width, keys, values };
            cache.store(isa, layer, position, rows);
        };
        let mut cache = kv_cache::<E>(1);
        for layer in [2, usize::MAX] {
            refuses("layer", || store(&mut cache, layer, 0, 1));
        }
        for (position, rows) in [(KEYS, 1), (KEYS - 1, 2), (0, KEYS + 1), (usize::MAX - 1, 1)] {
            refuses("positions in 1 pages", || store(&mut cache, 0, position, rows));
        }
        for rows in [1, 2, KEYS] {
            refuses("position of the last row", || store(&mut cache, 0, usize::MAX, rows));
        }
        refuses("positions in 0 pages", || store(&mut kv_cache(0), 0, 0, 1));
        store(&mut cache, 0, usize::MAX, 0);
        store(&mut cache, 1, KEYS - 1, 1);

        let mut fork = cache.fork(1);
        for cache in [&mut cache, &mut fork] {
            refuses("a shared page is not written", || store(cache, 0, 0, 1));
        }
        drop(fork);
        store(&mut cache, 0, 0, 1);

        let mut rows = |rows: &[f32], width, keys, values| {
            cache.store(isa, 0, 0, HeadRows { rows, width, keys, values });
        };
        refuses("rows of 0", || rows(&[], 0, keys, values));
        refuses("rows of 64", || rows(&zeros[..65], width, keys, values));
        for heads in [
            Heads { first: 33, stride: 16 },
            Heads { first: 0, stride: 49 },
            Heads { first: usize::MAX, stride: 16 },
            Heads { first: usize::MAX - 15, stride: 0 },
            Heads { first: 0, stride: usize::MAX },
            Heads { first: 1, stride: usize::MAX },
        ] {
            refuses("heads in rows of 64", || rows(&zeros[..width], width, heads, values));
            refuses("heads in rows of 64", || rows(&zeros[..width], width, keys, heads));
        }

        // Values that are a part of the keys are not read from the rows.
        let shape = KvShape { values: Values::Keys(8), ..KV };
        let mut cache = KvCache::<E>::new(shape);
        cache.push(KvPage::new(shape).unwrap());
        let none = Heads { first: usize::MAX, stride: usize::MAX };
        let mut rows = |keys, values| {
            cache.store(isa, 0, 0, HeadRows { rows: &zeros[..width], width, keys, values });
        };
        rows(keys, none);
        refuses("heads in rows of 64", || rows(none, values));

        // Shapes without heads or with a wrong head size, for which no page exists.
        for (heads, head_size) in [(0, 16), (usize::MAX, 16), (1, usize::MAX), (1, usize::MAX - 7)]
        {
            let mut cache =
                KvCache::<E>::new(KvShape { layers: 1, heads, head_size, values: Values::Own });
            let rows = HeadRows { rows: &zeros[..width], width, keys, values };
            refuses("heads in rows of 64", || cache.store(isa, 0, 0, rows));
        }
    }
    for isa in Isa::available() {
        check::<f32>(isa);
        check::<f16>(isa);
        check::<i8>(isa);
    }
}

#[test]
fn attention_of_other_sizes() {
    fn check<E: Cached>(isa: Isa) {
        let (cache, zeros) = (kv_cache::<E>(2), vec![0.0; 8 * 16]);
        let valid = Attention {
            queries: &zeros[..4 * 16],
            heads: 4,
            cache: &cache,
            layer: 0,
            position: 0,
            mask: Mask { prefix: 0 },
            scale: 1.0,
        };
        let forward = |attention: Attention<'_, E>, out: usize| {
            attention.forward(isa, &mut Partials::default(), &mut vec![0.0; out]);
        };
        forward(valid, 64);
        for heads in [1, 3, 5, usize::MAX] {
            refuses("query heads for 2 KV heads", || forward(Attention { heads, ..valid }, 64));
        }
        refuses("queries of 0", || forward(Attention { heads: 0, ..valid }, 64));
        for heads in [usize::MAX - 1, overflowing(16)] {
            refuses("elements of the query heads", || forward(Attention { heads, ..valid }, 64));
        }
        for layer in [2, usize::MAX] {
            refuses("layer", || forward(Attention { layer, ..valid }, 64));
        }
        for queries in [1, 63, 65] {
            let queries = &zeros[..queries];
            refuses("queries of 64", || forward(Attention { queries, ..valid }, queries.len()));
        }
        for out in [0, 63, 65, 128] {
            refuses("outputs of the queries", || forward(valid, out));
        }
        // One query uses partial results, two do not.
        for n in [1, 2] {
            let queries = Attention { queries: &zeros[..n * 64], ..valid };
            let forward = |attention| forward(attention, n * 64);
            for position in [2 * KEYS + 1 - n, usize::MAX - n, usize::MAX - (n - 1)] {
                refuses("in 2 pages", || forward(Attention { position, ..queries }));
            }
            for prefix in [2 * KEYS + 1, usize::MAX] {
                let mask = Mask { prefix };
                refuses("in 2 pages", || forward(Attention { mask, ..queries }));
            }
            forward(Attention { position: 2 * KEYS - n, ..queries });
        }
        let two = Attention { queries: &zeros, ..valid };
        refuses("position of the last query", || {
            forward(Attention { position: usize::MAX, ..two }, 128);
        });
        forward(Attention { queries: &[], position: usize::MAX, ..valid }, 0);

        // Shapes for which no page exists.
        let empty = |layers, heads, head_size| {
            KvCache::<E>::new(KvShape { layers, heads, head_size, values: Values::Own })
        };
        refuses("in 0 pages", || forward(Attention { cache: &empty(1, 2, 16), ..valid }, 64));
        refuses("in 0 pages", || forward(Attention { cache: &empty(1, 2, 1), ..valid }, 64));
        refuses("for 0 KV heads", || forward(Attention { cache: &empty(1, 0, 16), ..valid }, 64));
        refuses("layer", || forward(Attention { cache: &empty(0, 2, 16), ..valid }, 64));
        refuses("queries of 0", || forward(Attention { cache: &empty(1, 2, 0), ..valid }, 64));
        refuses("elements of the query heads", || {
            forward(Attention { cache: &empty(1, 2, usize::MAX), ..valid }, 64);
        });
        // Scores that are not finite.
        for scale in [f32::NAN, f32::INFINITY, f32::MAX, 0.0] {
            forward(Attention { scale, ..valid }, 64);
        }
    }
    for isa in Isa::available() {
        check::<f32>(isa);
        check::<f16>(isa);
        check::<i8>(isa);
    }
    for (heads, size, positions) in [
        (usize::MAX, 16, KEYS),
        (overflowing(2), 16, 2 * KEYS),
        (1 << 58, 8, 1),
        (1, usize::MAX, KEYS),
    ] {
        refuses("bytes of the partial results", || Partials::bytes(heads, size, positions));
    }
    assert_eq!(Partials::bytes(0, usize::MAX, usize::MAX), 0);
    assert_eq!(Mask { prefix: 3 }.visible(usize::MAX), usize::MAX);
}

#[test]
fn rows_outside_the_matrix() {
    for (n, width) in [(4, 0), (0, 0), (4, 3), (4, 5), (4, usize::MAX)] {
        refuses("rows of", || _ = SharedRows::new(&mut vec![1.0; n], width));
    }
    refuses("rows of 3", || for_each_row(&mut [1.0; 4], 3, |_, _| ()));
    let (mut values, mut nothing) = ([1.0; 6], [(); 6]);
    let rows = SharedRows::new(&mut values, 3);
    for (row, columns) in [
        (2, 0..1),
        (usize::MAX, 0..1),
        (1, 0..4),
        #[allow(clippy::reversed_empty_ranges)]
        (0, 2..1),
        (0, usize::MAX..usize::MAX),
        (0, 0..usize::MAX),
    ] {
        // SAFETY: there is no other user of the rows.
        refuses("outside the matrix", || unsafe { rows.row(row, columns).len() });
    }
    let rows = SharedRows::new(&mut nothing, 3);
    // SAFETY: there is no other user of the rows.
    refuses("outside the matrix", || unsafe { rows.row(2, 0..3).len() });
}

#[test]
fn loops_of_any_number() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    for_each(0, |_| unreachable!());
    pool.install(|| {
        for_each(0, |_| unreachable!());
        refuses("tasks", || for_each(usize::MAX, |_| unreachable!()));
        refuses("tasks", || for_each(1 << 32, |_| unreachable!()));
        // Caught within the region, which goes on. The panic of a task that ran on another thread reaches the caller of the region
        // as well, at its end.
        let reached = AtomicUsize::new(0);
        let _ = catch_unwind(AssertUnwindSafe(|| {
            parallel_region(|| {
                refuses("", || for_each(100, |i| assert_ne!(i, 50)));
                refuses("tasks", || for_each(usize::MAX, |_| unreachable!()));
                for_each(100, |_| {
                    reached.fetch_add(1, Relaxed);
                });
            });
        }));
        assert_eq!(reached.load(Relaxed), 100);
    });
}

#[test]
fn probes_of_extreme_sizes() {
    for isa in Isa::available() {
        probe::read(isa, &[]);
        probe::read(isa, &[1]);
        assert_eq!(probe::multiply_adds(isa, 0, usize::MAX), 0);
        assert_eq!(probe::multiply_adds(isa, 1000, 0), 0);
    }
}

#[test]
fn unknown_instruction_sets() {
    for name in ["", " ", "AVX2", "avx3", "\0"] {
        assert!(name.parse::<Isa>().is_err());
    }
}

/// Operations on values outside their ranges: any result is allowed, and in a debug build a panic by an overflow check.
struct Extremes([f32; LANES]);

impl Kernel for Extremes {
    type Output = ();
    fn run<S: Vectors>(self, simd: S) {
        let v = simd.load(&self.0);
        simd.store_i8(v, &mut [0; LANES]);
        simd.store_f16(v, &mut [f16::ZERO; LANES]);
        let mut lanes = [0.0; LANES];
        simd.store(simd.round(v), &mut lanes);
        simd.store(simd.exp2_integral(v), &mut lanes);
    }
}

impl PairKernel for Extremes {
    type Output = ();
    const INTEGERS: bool = true;
    fn run<S: Simd>(self, simd: S) {
        let mut pair = [[0.0; LANES]; 2];
        let v = simd.pair_load(&[self.0; 2]);
        simd.pair_store(simd.pair_fma(v, v, v), &mut pair);
        simd.pair_store(simd.pair_accumulate(v, v, v), &mut pair);
    }
}

#[test]
fn operations_on_values_outside_of_their_ranges() {
    for isa in Isa::available() {
        for x in [f32::NAN, f32::INFINITY, f32::MIN, 1e9, -1e9, 128.0] {
            let _ = catch_unwind(|| isa.run(Extremes([x; LANES])));
            isa.run_pairs(Extremes([x; LANES]));
        }
    }
}

/// An `Element` implemented by the caller may return anything.
#[test]
fn elements_implemented_by_the_caller() {
    #[derive(Clone, Copy)]
    struct Liar;
    impl Element for Liar {
        fn widen(self) -> f32 {
            f32::NAN
        }
        fn load<S: Vectors>(simd: S, _: &[Self; LANES]) -> S::F32 {
            simd.splat(f32::NAN)
        }
    }
    struct Load;
    impl Kernel for Load {
        type Output = f32;
        fn run<S: Vectors>(self, simd: S) -> f32 {
            simd.sum(Liar::load(simd, &[Liar; LANES]))
        }
    }
    for isa in Isa::available() {
        assert!(isa.run(Load).is_nan());
    }
}
