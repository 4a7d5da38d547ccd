//! Adapters of P-Tuning v2: logits of the published arithmetic, the bits of any batch, the prefix cache, and errors.

mod common;
#[path = "common/forge.rs"]
#[allow(dead_code, reason = "this file writes valid files only")]
mod forge;
#[path = "common/tensors.rs"]
mod tensors;

use std::fs;

use common::adapter::{refused, tuned};
use common::fixture;
use common::runner::{Runner, bits, with};
use glm_model::{
    Activations, Adapter, Batch, BatchOptions, Calibration, CancelToken, Checkpoint, Chunk, Event,
    Generation, KvFormat, Model, Options, QuantizeOptions, Request, RunOptions, Sampling,
    Submission, calibration_bytes, quantize,
};
use serde_json::json;
use tempfile::TempDir;
use tensors::{Lcg, Tensor, bytes, half, safetensors, torch};

const ONE: &str = "chatglm-6b-tiny/bin-f16";
const TWO: &str = "chatglm2-6b-tiny/int4";
const PREFIX: &str = "transformer.prefix_encoder.";

/// The prefix encoder of a small model, whose layers have `width` keys and values in all.
fn encoder(name: &str, tokens: usize, projection: bool, seed: u32) -> Vec<Tensor> {
    let (hidden, width) = (128, if name == ONE { 3 * 2 * 4 * 32 } else { 3 * 2 * 2 * 32 });
    let mut lcg = Lcg(seed);
    let mut tensor = |name: &str, shape, scale| lcg.tensor(format!("{PREFIX}{name}"), shape, scale);
    if !projection {
        return vec![tensor("embedding.weight", [tokens, width], 2.0)];
    }
    let input = if name == ONE { hidden } else { width };
    vec![
        tensor("embedding.weight", [tokens, input], 2.0),
        tensor("trans.0.weight", [hidden, input], 0.5),
        tensor("trans.0.bias", [hidden, 1], 1.0),
        tensor("trans.2.weight", [width, hidden], 0.5),
        tensor("trans.2.bias", [width, 1], 1.0),
    ]
}

/// The configuration of a model with some fields changed.
fn config(name: &str, fields: &serde_json::Value) -> String {
    let config = fs::read_to_string(fixture(name).join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    for (field, value) in fields.as_object().unwrap() {
        config[field] = value.clone();
    }
    config.to_string()
}

/// The folder that a training leaves, with `config.json` of the model.
fn folder(name: &str, fields: &serde_json::Value, tensors: &[Tensor]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config(name, fields)).unwrap();
    fs::write(folder.path().join("pytorch_model.bin"), torch(tensors)).unwrap();
    folder
}

fn trained(name: &str, tokens: usize, projection: bool, seed: u32) -> TempDir {
    let fields = json!({"pre_seq_len": tokens, "prefix_projection": projection});
    folder(name, &fields, &encoder(name, tokens, projection, seed))
}

fn open_with(name: &str, kv: KvFormat, threads: usize) -> Model {
    let options = with(|options: &mut Options| {
        options.threads = Some(threads);
        options.activations = Some(Activations::F32);
        options.kv = Some(kv);
    });
    Model::open(fixture(name), &options).unwrap()
}

fn open(name: &str) -> Model {
    open_with(name, KvFormat::F32, 2)
}

fn ids(count: usize, seed: u32) -> Vec<u32> {
    let mut lcg = Lcg(seed);
    (0..count).map(|_| 10 + lcg.next() % 200).collect()
}

/// A prompt with three tokens of an answer.
fn prompt(name: &str) -> Vec<u32> {
    if name == ONE { [ids(6, 1), vec![301, 304], ids(3, 2)].concat() } else { ids(9, 3) }
}

/// Computed in double precision by a program of its own, after the published code: the first logits of the first and the last token.
#[test]
fn logits_are_those_of_the_published_arithmetic() {
    for (name, tokens, projection, seed, first, last) in [
        (
            ONE,
            5,
            false,
            7,
            [2.46222, -2.82348, 1.40261, 1.32045],
            [0.99733, 6.00935, 5.67898, 0.38325],
        ),
        (
            ONE,
            130,
            false,
            8,
            [0.55615, -5.6975, 1.8461, 0.54544],
            [2.2849, 4.97978, 5.37336, 0.43229],
        ),
        (
            ONE,
            6,
            true,
            9,
            [1.03197, -4.4386, 0.86664, 1.48248],
            [1.23758, 5.20097, 4.94586, 0.94637],
        ),
        (
            TWO,
            5,
            false,
            7,
            [2.71614, 1.45123, -1.95082, -2.14583],
            [0.04901, 0.26869, -2.27851, 5.78658],
        ),
        (
            TWO,
            130,
            false,
            8,
            [0.04227, -2.58174, 2.5824, -5.62125],
            [-0.74366, 0.43963, -2.36218, 6.31878],
        ),
        (
            TWO,
            6,
            true,
            9,
            [2.46221, -5.09503, -2.38292, -2.40891],
            [-1.55446, -1.51022, -7.8984, 3.43201],
        ),
    ] {
        let model = open(name);
        let model = tuned(&model, trained(name, tokens, projection, seed).path());
        assert_eq!(model.adapter().unwrap().tokens(), tokens);
        let (vocab, ids) = (model.config().vocab, prompt(name));
        let logits = Runner::new(&model, 20).all(&ids);
        let rows = [&logits[..4], &logits[(ids.len() - 1) * vocab..][..4]];
        for (found, expected) in rows.into_iter().zip([first, last]) {
            for (found, expected) in found.iter().zip(expected) {
                let close = (found - expected).abs() < 2e-4;
                assert!(close, "{name} {tokens} {projection}: {found} and {expected}");
            }
        }
    }
}

/// One pass for all, with and without adapters, on one thread or three, in pieces and forks.
#[test]
fn sequences_with_adapters_have_the_same_bits_in_any_batch() {
    for (name, kv) in
        [(ONE, KvFormat::F32), (TWO, KvFormat::F16), (TWO, KvFormat::Int16), (TWO, KvFormat::Int4)]
    {
        let [short, long] = [trained(name, 5, false, 7), trained(name, 130, false, 8)];
        let ids = prompt(name);
        let alone: Vec<_> = {
            let model = open_with(name, kv, 1);
            [None, Some(&short), Some(&long)].map(|folder| match folder {
                None => bits(&Runner::new(&model, 20).last(&ids)),
                Some(folder) => bits(&Runner::new(&tuned(&model, folder.path()), 20).last(&ids)),
            })
        }
        .into();
        assert!(alone[0] != alone[1] && alone[1] != alone[2]);
        let model = open_with(name, kv, 3);
        let models = [model.clone(), tuned(&model, short.path()), tuned(&model, long.path())];
        let mut sequences = models.each_ref().map(|model| model.sequence(Some(20)).unwrap());
        let mut workspace = model.workspace_with_tile(3).unwrap();
        let split = if name == ONE { 8 } else { 2 };
        let mut last = Vec::new();
        for ids in [&ids[..split], &ids[split..]] {
            let mut chunks: Vec<_> = sequences.iter_mut().map(|s| Chunk::last(s, ids)).collect();
            let logits = model.run(&mut workspace, &mut chunks, RunOptions::default()).unwrap();
            last = (0..3).map(|chunk| bits(logits.last(chunk))).collect();
        }
        assert_eq!(last, alone, "{name} {kv:?}");
        // A fork goes on, and what was cleared begins with the prefix again.
        for (sequence, expected) in sequences.iter_mut().zip(&alone) {
            let mut fork = sequence.fork(split);
            let mut chunks = [Chunk::last(&mut fork, &ids[split..])];
            let logits = model.run(&mut workspace, &mut chunks, RunOptions::default()).unwrap();
            assert_eq!(&bits(logits.last(0)), expected);
            sequence.clear();
            let mut chunks = [Chunk::last(sequence, &ids)];
            let logits = model.run(&mut workspace, &mut chunks, RunOptions::default()).unwrap();
            assert_eq!(&bits(logits.last(0)), expected);
        }
        let page = model.kv_pool().page_bytes();
        drop(sequences);
        // One page of the short prefix and two of the long one.
        assert_eq!(model.kv_pool().used_bytes(), 3 * page);
        drop(models);
        assert_eq!(model.kv_pool().used_bytes(), 0);
    }
}

/// The context counts tokens alone.
#[test]
fn a_prefix_takes_no_context() {
    let model = open(TWO);
    let model = tuned(&model, trained(TWO, 130, false, 8).path());
    let mut runner = Runner::new(&model, 9);
    runner.last(&prompt(TWO));
    assert_eq!((runner.sequence.len(), runner.sequence.capacity()), (9, 9));
}

/// As many keys and values as a projection computes, without one.
#[test]
fn a_projection_gives_what_it_computes() {
    for name in [ONE, TWO] {
        let tensors = encoder(name, 6, true, 9);
        let apply = |rows: &[f32], weight: &Tensor, bias: &Tensor| -> Vec<f32> {
            let cols = weight.shape[1];
            let output = |row: &[f32], o: usize| {
                let products = row.iter().zip(&weight.values[o * cols..][..cols]);
                let sum: f64 = products.map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                (sum + f64::from(bias.values[o])) as f32
            };
            let rows = rows.chunks(cols);
            rows.flat_map(|row| (0..weight.shape[0]).map(move |o| output(row, o))).collect()
        };
        let mut hidden = apply(&tensors[0].values, &tensors[1], &tensors[2]);
        hidden.iter_mut().for_each(|x| *x = x.tanh());
        let values = apply(&hidden, &tensors[3], &tensors[4]);
        let shape = vec![6, values.len() / 6];
        let computed = Tensor { name: format!("{PREFIX}embedding.weight"), shape, values };
        let computed = folder(name, &json!({"pre_seq_len": 6}), &[computed]);
        let model = open(name);
        let [a, b] = [trained(name, 6, true, 9), computed]
            .map(|folder| Runner::new(&tuned(&model, folder.path()), 20).last(&prompt(name)));
        let error = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(error < 2e-4, "{name}: {error}");
    }
}

fn request() -> Request {
    let mut request = Request::new(Sampling::greedy());
    request.max_new_tokens = Some(6);
    request
}

/// The greedy answer of one model alone.
fn answer(model: &Model, prompt: &[u32]) -> Vec<u32> {
    let sequence = model.sequence(None).unwrap();
    let answer = Generation::new(model, sequence, prompt, request()).unwrap();
    answer.map(Result::unwrap).collect()
}

/// Submits a prompt with each adapter and returns the answers and the tokens of the prompts that were reused.
fn answers(
    batch: &mut Batch,
    prompt: &[u32],
    adapters: &[Option<Adapter>],
) -> Vec<(Vec<u32>, usize)> {
    let tickets: Vec<_> = adapters
        .iter()
        .map(|adapter| {
            let mut submission = Submission::new(prompt.to_vec(), request());
            submission.adapter = adapter.clone();
            batch.submit(submission).unwrap()
        })
        .collect();
    let mut found = vec![(Vec::new(), 0); tickets.len()];
    while !batch.is_idle() {
        batch.pass(&mut |ticket, event| {
            let found = &mut found[tickets.iter().position(|other| *other == ticket).unwrap()];
            match event {
                Event::Token { token, .. } => found.0.push(token.id),
                Event::Started { cached } => found.1 = cached,
                Event::Failed(error) => panic!("{error}"),
                _ => {}
            }
        });
    }
    found
}

#[test]
fn a_batch_does_not_mix_the_prompts_of_adapters() {
    let model = open(TWO);
    let [short, long] = [(5, 7), (130, 8)].map(|(tokens, seed)| {
        // Strong enough to change an answer after a prompt of several pages.
        let mut tensors = encoder(TWO, tokens, false, seed);
        tensors.iter_mut().flat_map(|tensor| &mut tensor.values).for_each(|value| *value *= 8.0);
        let folder = folder(TWO, &json!({"pre_seq_len": tokens}), &tensors);
        Adapter::open(folder.path(), &model).unwrap()
    });
    let prompt = ids(150, 4);
    let adapters = [None, Some(short.clone()), Some(long.clone())];
    let expected = adapters
        .each_ref()
        .map(|adapter| answer(&model.with_adapter(adapter.as_ref()).unwrap(), &prompt));
    assert!(expected[0] != expected[1] && expected[1] != expected[2]);
    let options = with(|options: &mut BatchOptions| options.cache_bytes = 1 << 30);
    let mut batch = Batch::new(&model, options.clone()).unwrap();
    // The second time, each prompt finds its own beginning.
    for cached in [0, 149] {
        let found = answers(&mut batch, &prompt, &adapters);
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found, &(expected.clone(), cached));
        }
    }
    // A file has the prompts of one adapter, and is read with that alone.
    let file = tempfile::tempdir().unwrap();
    let file = file.path().join("cache");
    for adapter in [&short, &long] {
        let tuned = model.with_adapter(Some(adapter)).unwrap();
        let mut batch = Batch::new(&tuned, options.clone()).unwrap();
        let computed = answers(&mut batch, &prompt, &[None]);
        answers(&mut batch, &[&prompt[..140], &[9, 8, 7][..]].concat(), &[None]);
        batch.save_cache(&file, &CancelToken::default()).unwrap();
        let error = Batch::new(&model, options.clone()).unwrap().load_cache(&file).unwrap_err();
        assert_eq!(error.code(), "cache");
        let mut batch = Batch::new(&tuned, options.clone()).unwrap();
        batch.load_cache(&file).unwrap();
        assert_eq!(answers(&mut batch, &prompt, &[None]), [(computed[0].0.clone(), 149)]);
    }
    let other = open(TWO);
    let mut submission = Submission::new(prompt, request());
    submission.adapter = Some(short.clone());
    let refused = Batch::new(&other, options).unwrap().submit(submission).unwrap_err();
    assert_eq!(refused.code(), "other_model");
    assert_eq!(other.with_adapter(Some(&short)).err().unwrap().code(), "other_model");
}

/// The tensors of a published checkpoint and those of a prefix encoder, as a training of all weights saves them.
fn whole(name: &str, fields: &serde_json::Value, tensors: &[Tensor]) -> TempDir {
    let checkpoint = Checkpoint::open(fixture(name)).unwrap();
    let mut all: Vec<Tensor> = Vec::new();
    for tensor in checkpoint.names().map(|name| checkpoint.tensor(name).unwrap()) {
        assert_eq!(tensor.dtype(), glm_model::Dtype::F16);
        let half = |b: &[u8; 2]| half(u16::from_le_bytes(*b));
        let values = tensor.bytes().as_chunks().0.iter().map(half).collect();
        all.push(Tensor { name: tensor.name().to_owned(), shape: tensor.shape().to_vec(), values });
    }
    all.extend_from_slice(tensors);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config(name, fields)).unwrap();
    fs::write(folder.path().join("model.safetensors"), safetensors(&all)).unwrap();
    folder
}

#[test]
fn a_prefix_in_the_files_of_the_model_is_used() {
    for projection in [false, true] {
        let tensors = encoder(ONE, 6, projection, 9);
        let fields = json!({"pre_seq_len": 6, "prefix_projection": projection});
        let own = whole(ONE, &fields, &tensors);
        let options = Options::default();
        let model = Model::open(own.path(), &options).unwrap();
        let apart = Model::open(whole(ONE, &json!({}), &[]).path(), &options).unwrap();
        // Its keys and values count as those of so many tokens more.
        let cache = |model: &Model, tokens| model.inventory().context_bytes(tokens).0;
        assert!(cache(&model, 128) > cache(&apart, 128));
        assert_eq!(cache(&model, 128), cache(&apart, 134));
        let apart = tuned(&apart, own.path());
        let expected = bits(&Runner::new(&apart, 20).last(&prompt(ONE)));
        assert_eq!(bits(&Runner::new(&model, 20).last(&prompt(ONE))), expected);
        let without = model.with_adapter(None).unwrap();
        assert_ne!(bits(&Runner::new(&without, 20).last(&prompt(ONE))), expected);
        // Quantizing keeps the prefix as it is.
        let target = tempfile::tempdir().unwrap();
        let target = target.path().join("q8");
        let go_on = &mut |_, _, _: &str| std::ops::ControlFlow::Continue(());
        quantize(own.path(), &target, &QuantizeOptions::new(8, 32), go_on).unwrap();
        let quantized = Model::open(&target, &options).unwrap();
        assert_eq!(
            quantized.adapter().unwrap().fingerprint(),
            model.adapter().unwrap().fingerprint()
        );
        let checkpoint = Checkpoint::open(&target).unwrap();
        let kept = checkpoint.tensor(&tensors[0].name).unwrap();
        assert_eq!(kept.bytes(), bytes(&tensors[0].values));
    }
}

/// The inputs of the first layer do not depend on a prefix, and those behind its attention do.
#[test]
fn a_calibration_is_behind_the_prefix() {
    let fields = json!({"pre_seq_len": 5});
    let sources = [whole(ONE, &fields, &encoder(ONE, 5, false, 7)), whole(ONE, &json!({}), &[])];
    let texts = Calibration::of_ids(vec![[ids(60, 1), vec![301, 304], ids(60, 2)].concat()]);
    let mut options = QuantizeOptions::default();
    options.calibration = Some(texts.unwrap());
    let [tuned, plain] = sources.map(|source| {
        let target = tempfile::tempdir().unwrap();
        let go_on = &mut |_, _, _: &str| std::ops::ControlFlow::Continue(());
        let bytes = calibration_bytes(source.path(), &options).unwrap();
        quantize(source.path(), target.path(), &options, go_on).unwrap();
        (Checkpoint::open(target.path()).unwrap(), bytes)
    });
    let is_same = |name: &str| {
        let name = format!("transformer.layers.{name}.weight");
        tuned.0.tensor(&name).unwrap().bytes() == plain.0.tensor(&name).unwrap().bytes()
    };
    assert!(is_same("0.attention.query_key_value"));
    assert!(!is_same("0.attention.dense") && !is_same("1.attention.query_key_value"));
    // At least its keys and values in a layer.
    assert!(tuned.1 > plain.1 + 5 * 2 * 128 * 2, "{} {}", tuned.1, plain.1);
}

#[test]
fn what_is_wrong_with_an_adapter_is_named() {
    let (one, two) = (open(ONE), open(TWO));
    let tensor = "pytorch_model.bin: tensor transformer.prefix_encoder.embedding.weight: ";
    let encoder = encoder(ONE, 5, false, 7);
    let with_fields = |fields| folder(ONE, &fields, &encoder);
    refused(
        &trained(ONE, 5, false, 7),
        &two,
        &[tensor, "expected [5, 384]", "found [5, 768]", "another model"],
    );
    refused(
        &with_fields(json!({"pre_seq_len": 6})),
        &one,
        &[tensor, "has 5 rows", "pre_seq_len in config.json is 6"],
    );
    refused(&with_fields(json!({})), &one, &["config.json: has no pre_seq_len"]);
    refused(
        &with_fields(json!({"pre_seq_len": 0})),
        &one,
        &["pre_seq_len must be an integer from 1 to 65536"],
    );
    let projects = json!({"pre_seq_len": 5, "prefix_projection": true});
    refused(&with_fields(projects), &one, &[tensor, "expected [5, 128]"]);
    let projected = folder(ONE, &json!({"pre_seq_len": 6}), &self::encoder(ONE, 6, true, 9));
    refused(&projected, &one, &["trans.0.weight: is there, and prefix_projection"]);
    let mut broken = self::encoder(ONE, 6, true, 9);
    broken.pop();
    let fields = json!({"pre_seq_len": 6, "prefix_projection": true});
    refused(&folder(ONE, &fields, &broken), &one, &["trans.2.bias: is missing"]);
}

#[test]
fn an_adapter_is_not_taken_for_a_model() {
    let open = |folder: &TempDir| {
        Model::open(folder.path(), &Options::default()).err().unwrap().to_string()
    };
    let error = open(&trained(TWO, 5, false, 7));
    let parts = ["is an adapter (P-Tuning v2)", "THUDM/chatglm2-6b", "--adapter"];
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    // A prefix that would be ignored, and one that is not there.
    let error = open(&whole(ONE, &json!({}), &encoder(ONE, 5, false, 7)));
    assert!(error.contains("embedding.weight: belongs to a trained prefix"), "{error}");
    let error = open(&whole(ONE, &json!({"pre_seq_len": 5}), &[]));
    assert!(
        error.contains("embedding.weight: is missing") && error.contains("pre_seq_len"),
        "{error}"
    );
}
