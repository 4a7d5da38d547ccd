//! Adapters of LoRA: logits of peft, merged weights, the bits of any batch, and errors.

mod common;
#[path = "common/forge.rs"]
#[allow(dead_code, reason = "this file writes valid files only")]
mod forge;
#[path = "common/gguf.rs"]
mod gguf;
#[path = "common/tensors.rs"]
mod tensors;

use std::fs;
use std::path::Path;

use common::fixture;
use common::runner::{Runner, bits, with};
use glm_model::{
    Activations, Adapter, AdapterKind, Batch, BatchOptions, Calibration, Checkpoint, Chunk, Dtype,
    Event, Generation, Model, Options, QuantizeOptions, Quantizer, Request, RunOptions, Sampling,
    Submission, quantize,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tensors::{Lcg, Tensor, half, safetensors, torch};

const ONE: &str = "chatglm-6b-tiny/bin-f16";
const TWO: &str = "chatglm2-6b-tiny/int4";
const FOUR: &str = "glm-4-0414-layer";
const HF: &str = "glm-4-9b-chat-hf-layer";

/// The modules of one layer of a model of transformers, and the head: path, outputs and inputs.
const MODULES: [(&str, [usize; 2]); 7] = [
    ("model.layers.0.self_attn.q_proj", [128, 128]),
    ("model.layers.0.self_attn.k_proj", [64, 128]),
    ("model.layers.0.self_attn.v_proj", [64, 128]),
    ("model.layers.0.self_attn.o_proj", [128, 128]),
    ("model.layers.0.mlp.gate_up_proj", [688, 128]),
    ("model.layers.0.mlp.down_proj", [128, 344]),
    ("lm_head", [9, 128]),
];

/// The tensors of an adapter.
fn updates<'a>(
    modules: impl IntoIterator<Item = &'a (&'a str, [usize; 2])>,
    rank: impl Fn(&str) -> usize,
    seed: u32,
) -> Vec<Tensor> {
    let mut lcg = Lcg(seed);
    let pairs = modules.into_iter().flat_map(|&(path, [outputs, inputs])| {
        let (name, rank) = (format!("base_model.model.{path}.lora_"), rank(path));
        [
            lcg.tensor(format!("{name}A.weight"), [rank, inputs], 0.5),
            lcg.tensor(format!("{name}B.weight"), [outputs, rank], 0.5),
        ]
    });
    pairs.collect()
}

fn config(fields: &Value) -> String {
    let mut config = json!({"peft_type": "LORA", "base_model_name_or_path": "THUDM/some-model"});
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    config.to_string()
}

/// The folder that peft writes.
fn folder(fields: &Value, tensors: &[Tensor]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("adapter_config.json"), config(fields)).unwrap();
    fs::write(folder.path().join("adapter_model.safetensors"), safetensors(tensors)).unwrap();
    folder
}

fn open_with(path: &Path, threads: usize) -> Model {
    let options = with(|options: &mut Options| {
        options.threads = Some(threads);
        options.activations = Some(Activations::F32);
    });
    Model::open(path, &options).unwrap()
}

fn open(name: &str) -> Model {
    open_with(&fixture(name), 2)
}

/// The model with an adapter.
fn tuned(model: &Model, folder: &Path) -> Model {
    model.with_adapter(Some(&Adapter::open(folder, model).unwrap())).unwrap()
}

#[track_caller]
fn assert_close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    let error = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(error < tolerance, "{error}");
}

/// The logits of the first and the last token, computed by `lora.py`.
#[test]
fn logits_are_those_of_peft() {
    let patterns = json!({
        "r": 3, "lora_alpha": 5, "rank_pattern": {"k_proj": 2, r"layers\.\d\.mlp\.down_proj": 6},
        "alpha_pattern": {"self_attn.q_proj": 9, "^lm_head": 1, "v_proj|o_proj": 2}
    });
    let rank = |path: &str| match path {
        path if path.ends_with("k_proj") => 2,
        path if path.ends_with("mlp.down_proj") => 6,
        _ => 3,
    };
    for (name, tensors, fields, layers, first, last) in [
        (
            FOUR,
            updates(&MODULES, |_| 4, 7),
            json!({"r": 4, "lora_alpha": 8}),
            5,
            [-0.65916, 2.78338, -2.17291, -3.3798, -1.35609, 0.92871, -1.19123, 4.08129, 5.43231],
            [0.16407, 0.3318, -0.49514, -1.10332, 3.30161, 3.03698, -0.15583, -9.15284, 1.84023],
        ),
        (
            FOUR,
            updates(&MODULES, rank, 8),
            patterns,
            5,
            [-0.27958, 2.37786, 0.18271, -2.1557, 1.89656, 0.76009, -2.56488, 4.8402, 5.01457],
            [-3.61734, 4.09396, 3.12323, -0.246, 0.35296, 4.28376, -0.62324, -4.24113, -0.45879],
        ),
        (
            HF,
            updates([0, 2, 4].map(|index| &MODULES[index]), |_| 5, 9),
            json!({"r": 5, "lora_alpha": 4, "use_rslora": true}),
            2,
            [2.74932, -2.90581, -3.31867, -4.4774, 0.36899, 2.55278, -2.16452, 2.57451, -0.33444],
            [-1.2847, -0.52672, 2.43889, 4.39123, -3.68761, -0.15, -3.20644, 2.07414, -3.13596],
        ),
    ] {
        let model = open(name);
        let folder = folder(&fields, &tensors);
        let model = tuned(&model, folder.path());
        assert_eq!(model.adapter().unwrap().kind(), AdapterKind::LowRank { layers });
        let logits = Runner::new(&model, 20).all(&[1, 5, 3, 8, 2, 7]);
        assert_close(&logits[..9], &first, 2e-4);
        assert_close(&logits[5 * 9..], &last, 2e-4);
        // What `torch.save` writes.
        fs::remove_file(folder.path().join("adapter_model.safetensors")).unwrap();
        fs::write(folder.path().join("adapter_model.bin"), torch(&tensors)).unwrap();
        let again = Runner::new(&tuned(&open(name), folder.path()), 20).all(&[1, 5, 3, 8, 2, 7]);
        assert_eq!(bits(&logits), bits(&again));
    }
}

/// Updates of everything in a model of three layers with the names of the authors' code.
fn of_authors(name: &str, seed: u32) -> (Value, Vec<Tensor>) {
    let (layers, attention, qkv, up, down, head) = match name {
        ONE => ("transformer.layers", "attention", 384, 512, 512, "lm_head"),
        _ => (
            "transformer.encoder.layers",
            "self_attention",
            256,
            688,
            344,
            "transformer.output_layer",
        ),
    };
    let paths: Vec<_> = (0..3)
        .flat_map(|layer| {
            let at = format!("{layers}.{layer}");
            [
                (format!("{at}.{attention}.query_key_value"), [qkv, 128]),
                (format!("{at}.{attention}.dense"), [128, 128]),
                (format!("{at}.mlp.dense_h_to_4h"), [up, 128]),
                (format!("{at}.mlp.dense_4h_to_h"), [128, down]),
            ]
        })
        .chain([(head.to_owned(), [320, 128])])
        .collect();
    let modules: Vec<_> = paths.iter().map(|(path, shape)| (&**path, *shape)).collect();
    (json!({"r": 3, "lora_alpha": 2}), updates(&modules, |_| 3, seed))
}

/// The weights of a model in f32, with the updates of an adapter of rank 3 and alpha 2 added.
fn merged(name: &str, tensors: &[Tensor]) -> TempDir {
    let checkpoint = Checkpoint::open(fixture(name)).unwrap();
    let numbers = |name: &str| -> Vec<f32> {
        let tensor = checkpoint.tensor(name).unwrap();
        match tensor.dtype() {
            Dtype::F16 => {
                let halves = tensor.bytes().as_chunks::<2>().0;
                halves.iter().map(|b| half(u16::from_le_bytes(*b))).collect()
            }
            Dtype::I8 => tensor.bytes().iter().map(|b| f32::from(*b as i8)).collect(),
            Dtype::BF16 => {
                let halves = tensor.bytes().as_chunks::<2>().0;
                halves.iter().map(|b| f32::from_le_bytes([0, 0, b[0], b[1]])).collect()
            }
            other => panic!("{other}"),
        }
    };
    let mut all = Vec::new();
    for name in checkpoint.names().filter(|name| !name.ends_with("_scale")) {
        let tensor = checkpoint.tensor(name).unwrap();
        let (mut shape, mut values) = (tensor.shape().to_vec(), numbers(name));
        if tensor.dtype() == Dtype::I8 {
            // Two in a byte, the first in the high half, and a scale for each row.
            let scales = numbers(&format!("{name}_scale"));
            let bytes = values.iter().map(|byte| *byte as i8);
            let pairs = bytes.flat_map(|byte| [byte >> 4, byte << 4 >> 4]);
            shape[1] *= 2;
            values = pairs.enumerate().map(|(i, n)| f32::from(n) * scales[i / shape[1]]).collect();
        }
        let path = name.strip_suffix(".weight").unwrap_or(name);
        let half = |half| {
            let name = format!("base_model.model.{path}.lora_{half}.weight");
            tensors.iter().find(|tensor| tensor.name == name)
        };
        if let (Some(a), Some(b)) = (half("A"), half("B")) {
            let (rank, scale) = (a.shape[0], 2.0 / 3.0);
            for (row, weights) in values.chunks_mut(shape[1]).enumerate() {
                for (col, weight) in weights.iter_mut().enumerate() {
                    let products = (0..rank)
                        .map(|k| scale * b.values[row * rank + k] * a.values[k * shape[1] + col]);
                    *weight += products.sum::<f32>();
                }
            }
        }
        all.push(Tensor { name: name.to_owned(), shape, values });
    }
    let folder = tempfile::tempdir().unwrap();
    let config = fs::read_to_string(fixture(name).join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config.as_object_mut().unwrap().remove("quantization_bit");
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    fs::write(folder.path().join("model.safetensors"), safetensors(&all)).unwrap();
    folder
}

/// Ids of a prompt with three tokens of an answer.
fn prompt(name: &str) -> Vec<u32> {
    let mut lcg = Lcg(3);
    let mut ids = |count| (0..count).map(|_| 10 + lcg.next() % 200).collect::<Vec<_>>();
    if name == ONE { [ids(6), vec![301, 304], ids(3)].concat() } else { ids(9) }
}

#[test]
fn updates_are_as_good_as_merged_weights() {
    for name in [ONE, TWO] {
        let (fields, tensors) = of_authors(name, 5);
        let model = tuned(&open(name), folder(&fields, &tensors).path());
        let merged = open_with(merged(name, &tensors).path(), 2);
        let ids = prompt(name);
        let [found, expected] = [&model, &merged].map(|model| Runner::new(model, 20).all(&ids));
        assert_close(&found, &expected, 2e-4);
        let plain = Runner::new(&open(name), 20).all(&ids);
        assert!(plain.iter().zip(&found).any(|(a, b)| (a - b).abs() > 0.5), "{name}");
    }
}

#[test]
fn the_types_of_a_file_may_have_16_bits() {
    let mut tensors = updates(&MODULES, |_| 4, 7);
    let values = tensors.iter_mut().flat_map(|tensor| &mut tensor.values);
    values.for_each(|value| *value = f32::from_bits(value.to_bits() & 0xffff_0000));
    let fields = json!({"r": 4, "lora_alpha": 8});
    let wide = folder(&fields, &tensors);
    let narrow = tempfile::tempdir().unwrap();
    fs::write(narrow.path().join("adapter_config.json"), config(&fields)).unwrap();
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for Tensor { name, shape, values } in &tensors {
        let start = data.len();
        data.extend(
            values.iter().flat_map(|value| [value.to_le_bytes()[2], value.to_le_bytes()[3]]),
        );
        // With the name that the adapter had in the training, as some programs save it.
        let name = name.replace(".weight", ".default.weight");
        header.insert(
            name,
            json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, data.len()]}),
        );
    }
    let file = forge::safetensors(&Value::Object(header).to_string(), &data);
    fs::write(narrow.path().join("adapter_model.safetensors"), file).unwrap();
    let model = open(FOUR);
    let [a, b] = [&wide, &narrow].map(|folder| {
        bits(&Runner::new(&tuned(&model, folder.path()), 20).all(&[1, 5, 3, 8, 2, 7]))
    });
    assert_eq!(a, b);
}

/// One pass for all, with and without adapters, on one thread or three, in pieces and forks.
#[test]
fn sequences_with_adapters_have_the_same_bits_in_any_batch() {
    for (name, activations) in
        [(ONE, Activations::F32), (TWO, Activations::Int8), (FOUR, Activations::F32)]
    {
        let open = |threads| {
            let options = with(|options: &mut Options| {
                (options.threads, options.activations) = (Some(threads), Some(activations));
            });
            Model::open(fixture(name), &options).unwrap()
        };
        let [one, other] = [5, 6].map(|seed| match name {
            FOUR => folder(&json!({"r": 3, "lora_alpha": 2}), &updates(&MODULES, |_| 3, seed)),
            _ => {
                let (fields, tensors) = of_authors(name, seed);
                // The other has updates of half of the layers only.
                folder(&fields, &tensors[..if seed == 5 { tensors.len() } else { 12 }])
            }
        });
        let ids = if name == FOUR { vec![1, 5, 3, 8, 2, 7, 4, 4, 6] } else { prompt(name) };
        let alone = {
            let model = open(1);
            [None, Some(&one), Some(&other)].map(|folder| match folder {
                None => bits(&Runner::new(&model, 20).last(&ids)),
                Some(folder) => bits(&Runner::new(&tuned(&model, folder.path()), 20).last(&ids)),
            })
        };
        assert!(alone[0] != alone[1] && alone[1] != alone[2] && alone[0] != alone[2]);
        let model = open(3);
        let models = [model.clone(), tuned(&model, one.path()), tuned(&model, other.path())];
        // Two of each, so that some are beside their like.
        let order = [1, 0, 2, 2, 1, 0];
        let split = if name == ONE { 8 } else { 2 };
        for (tile, is_hooked) in [(3, false), (256, true), (256, false)] {
            let mut sequences = order.map(|which| models[which].sequence(Some(20)).unwrap());
            let mut workspace = model.workspace_with_tile(tile).unwrap();
            let mut last = Vec::new();
            for ids in [&ids[..split], &ids[split..]] {
                let mut chunks: Vec<_> =
                    sequences.iter_mut().map(|s| Chunk::last(s, ids)).collect();
                let mut hook = |_, _: &glm_model::HookRows<'_>| {};
                let options = RunOptions::default();
                let options = if is_hooked { options.with_hook(&mut hook) } else { options };
                let logits = model.run(&mut workspace, &mut chunks, options).unwrap();
                last = (0..order.len()).map(|chunk| bits(logits.last(chunk))).collect();
            }
            assert_eq!(last, order.map(|which| alone[which].clone()), "{name} {tile}");
            // A fork goes on, and what was cleared begins again.
            for (sequence, which) in sequences.iter_mut().zip(order) {
                let mut fork = sequence.fork(split);
                let mut chunks = [Chunk::last(&mut fork, &ids[split..])];
                let logits = model.run(&mut workspace, &mut chunks, RunOptions::default()).unwrap();
                assert_eq!(bits(logits.last(0)), alone[which]);
                sequence.clear();
                let mut chunks = [Chunk::last(sequence, &ids)];
                let logits = model.run(&mut workspace, &mut chunks, RunOptions::default()).unwrap();
                assert_eq!(bits(logits.last(0)), alone[which]);
            }
        }
        assert_eq!(model.kv_pool().used_bytes(), 0);
    }
}

fn request() -> Request {
    let mut request = Request::new(Sampling::greedy());
    request.max_new_tokens = Some(6);
    request
}

#[test]
fn a_batch_does_not_mix_the_prompts_of_adapters() {
    let model = open(TWO);
    let [one, other] = [5, 6].map(|seed| {
        let (fields, tensors) = of_authors(TWO, seed);
        Adapter::open(folder(&fields, &tensors).path(), &model).unwrap()
    });
    assert!(one != other && one.fingerprint() != other.fingerprint());
    let prompt: Vec<u32> = (0..150).map(|i| 10 + i * 7 % 200).collect();
    let adapters = [None, Some(one), Some(other)];
    let expected = adapters.each_ref().map(|adapter| {
        let model = model.with_adapter(adapter.as_ref()).unwrap();
        let answer = Generation::new(&model, model.sequence(None).unwrap(), &prompt, request());
        answer.unwrap().map(Result::unwrap).collect::<Vec<_>>()
    });
    assert!(expected[0] != expected[1] && expected[1] != expected[2]);
    let options = with(|options: &mut BatchOptions| options.cache_bytes = 1 << 30);
    let mut batch = Batch::new(&model, options).unwrap();
    // The second time, each prompt finds its own beginning.
    for prompt_cached in [0, 149] {
        let tickets = adapters.each_ref().map(|adapter| {
            let mut submission = Submission::new(prompt.clone(), request());
            submission.adapter = adapter.clone();
            batch.submit(submission).unwrap()
        });
        let mut found = [const { (Vec::new(), 0) }; 3];
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
        assert_eq!(found, expected.each_ref().map(|ids| (ids.clone(), prompt_cached)));
    }
}

#[track_caller]
fn refused(folder: &TempDir, model: &Model, expected: &[&str]) {
    let error = Adapter::open(folder.path(), model).unwrap_err().to_string();
    assert!(expected.iter().all(|part| error.contains(part)), "{error}");
}

#[test]
fn what_is_wrong_with_an_adapter_is_named() {
    let (one, four) = (open(ONE), open(FOUR));
    let fields = json!({"r": 4, "lora_alpha": 8});
    let tensors = updates(&MODULES, |_| 4, 7);
    let changed = |change: &dyn Fn(&mut Vec<Tensor>)| {
        let mut tensors = tensors.clone();
        change(&mut tensors);
        folder(&fields, &tensors)
    };
    let renamed =
        |index: usize, name: &str| changed(&|tensors| tensors[index].name = name.to_owned());
    refused(
        &folder(&fields, &tensors),
        &one,
        &[
            "tensor base_model.model.model.layers.0.mlp.down_proj.lora_A.weight: belongs to no linear layer of ",
            "with 3 layers: the adapter was trained for another model, THUDM/some-model",
        ],
    );
    let q = "base_model.model.model.layers.0.self_attn.q_proj.lora_";
    refused(
        &folder(&json!({"r": 5, "lora_alpha": 8}), &tensors),
        &four,
        &["lora_A.weight: expected [5, 128], of rank 5", "found [4, 128]", "THUDM/some-model"],
    );
    refused(
        &changed(&|tensors| {
            (tensors[1].shape, tensors[1].values) = (vec![120, 4], vec![0.0; 480]);
        }),
        &four,
        &[&format!("{q}B.weight: expected [128, 4]"), "found [120, 4]"],
    );
    refused(
        &changed(&|tensors| drop(tensors.remove(0))),
        &four,
        &[&format!("{q}A.weight: is missing")],
    );
    refused(&changed(&Vec::clear), &four, &["has no tensors"]);
    for name in [
        "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector.weight",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "base_model.model.lm_head.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias",
        "base_model.model.model.layers.0.self_attn.q_proj.bias",
    ] {
        let parts = [&format!("tensor {name}: is no part of an adapter"), "merge_and_unload()"];
        refused(&renamed(0, name), &four, &parts);
    }
    let twice = changed(&|tensors| {
        let mut other = tensors[0].clone();
        other.name = format!("{q}A.default.weight");
        tensors.push(other);
    });
    refused(&twice, &four, &[&format!("{q}A.weight: is there twice: also as {q}A.default.weight")]);
    // The same layer under the name of the whole and of a part.
    let overlapping = changed(&|tensors| {
        tensors.extend(updates(&[("model.layers.0.self_attn.qkv_proj", [256, 128])], |_| 4, 1));
    });
    refused(&overlapping, &four, &["updates the same weights as"]);
    let layer = renamed(0, "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight");
    refused(
        &layer,
        &four,
        &["layers.1.self_attn.q_proj.lora_A.weight: belongs to no linear layer"],
    );
    refused(
        &folder(&json!({"r": 4, "lora_alpha": 8, "use_dora": true}), &tensors),
        &four,
        &["use_dora"],
    );
    let empty = tempfile::tempdir().unwrap();
    fs::write(empty.path().join("adapter_config.json"), config(&fields)).unwrap();
    refused(&empty, &four, &["adapter_model.safetensors: is missing"]);
    fs::write(empty.path().join("adapter_config.json"), r#"{"peft_type": "IA3"}"#).unwrap();
    refused(&empty, &four, &[r#"type "IA3", which is not supported"#]);
    let other = Adapter::open(folder(&fields, &tensors).path(), &four).unwrap();
    assert_eq!(open(FOUR).with_adapter(Some(&other)).err().unwrap().code(), "other_model");
}

/// The model in a folder of its own.
fn copy(name: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(fixture(name).join(file), copy.path().join(file)).unwrap();
    }
    copy
}

#[test]
fn an_adapter_beside_the_model_is_used() {
    let (fields, tensors) = (json!({"r": 4, "lora_alpha": 8}), updates(&MODULES, |_| 4, 7));
    let apart = folder(&fields, &tensors);
    let both = copy(FOUR);
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(apart.path().join(file), both.path().join(file)).unwrap();
    }
    let model = open_with(both.path(), 2);
    let ids = [1, 5, 3, 8];
    let expected = bits(&Runner::new(&tuned(&open(FOUR), apart.path()), 20).all(&ids));
    assert_eq!(bits(&Runner::new(&model, 20).all(&ids)), expected);
    let without = model.with_adapter(None).unwrap();
    let plain = bits(&Runner::new(&open(FOUR), 20).all(&ids));
    assert_eq!(bits(&Runner::new(&without, 20).all(&ids)), plain);

    // One that cannot be read stops only those who want it.
    fs::write(both.path().join("adapter_config.json"), config(&json!({"use_dora": true}))).unwrap();
    assert!(Model::open(both.path(), &Options::default()).is_err());
    let options = with(|options: &mut Options| options.without_own_adapter = true);
    assert!(Model::open(both.path(), &options).unwrap().adapter().is_none());
}

/// Whether the folder or the file in it is named.
#[test]
fn an_adapter_beside_a_gguf_file_is_used() {
    let (fields, tensors) = (json!({"r": 4, "lora_alpha": 8}), updates(&MODULES, |_| 4, 7));
    let apart = folder(&fields, &tensors);
    let checkpoint = Checkpoint::open(fixture(FOUR)).unwrap();
    let file = gguf::of_transformers(gguf::layer("glm4"), &checkpoint, &|_, _, _| None);
    let (both, path) = gguf::written(&file);
    let ids = [1, 5, 3, 8];
    let expected = bits(&Runner::new(&tuned(&open_with(&path, 2), apart.path()), 20).all(&ids));
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(apart.path().join(file), both.path().join(file)).unwrap();
    }
    for model in [both.path(), &path] {
        assert_eq!(bits(&Runner::new(&open_with(model, 2), 20).all(&ids)), expected);
        let error = quantized(model, 4, None).unwrap_err();
        assert!(error.contains("is an adapter beside the model"), "{error}");
    }
}

/// It would be applied once more to the weights beside it.
#[test]
fn a_folder_with_an_adapter_takes_no_weights() {
    let target = folder(&json!({"r": 4, "lora_alpha": 8}), &updates(&MODULES, |_| 4, 7));
    let go_on = &mut |_, _, _: &str| std::ops::ControlFlow::Continue(());
    let mut options = QuantizeOptions::default();
    let plain = quantize(fixture(FOUR), target.path(), &options, go_on).map(|_| ());
    let arriving = Quantizer::open(fixture(FOUR), target.path(), &options).map(|_| ());
    options.calibration = Some(Calibration::of_ids(vec![vec![1, 5, 3, 8]]).unwrap());
    let calibrated = quantize(fixture(FOUR), target.path(), &options, go_on).map(|_| ());
    for result in [plain, arriving, calibrated] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains("holds adapter_config.json already"), "{error}");
    }
}

#[test]
fn an_adapter_is_merged_when_all_files_are_there() {
    let mut options = QuantizeOptions::default();
    options.adapter = Some("my-adapter".into());
    let target = tempfile::tempdir().unwrap();
    let error = Quantizer::open(fixture(FOUR), target.path(), &options).err().unwrap().to_string();
    let parts = ["my-adapter: is an adapter", "files of a model arrive", "`glm quantize`"];
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
}

#[test]
fn an_adapter_is_not_taken_for_a_model() {
    let open = |folder: &TempDir| {
        Model::open(folder.path(), &Options::default()).err().unwrap().to_string()
    };
    let lora = folder(&json!({"r": 4, "lora_alpha": 8}), &updates(&MODULES, |_| 4, 7));
    let parts = ["adapter_config.json: is an adapter (LoRA)", "THUDM/some-model", "--adapter"];
    let error = open(&lora);
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    // Some trainings save the configuration of the model, too.
    fs::copy(fixture(FOUR).join("config.json"), lora.path().join("config.json")).unwrap();
    let error = open(&lora);
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
}

/// Quantizes with an adapter, or without one.
fn quantized(source: &Path, bits: usize, adapter: Option<&Path>) -> Result<TempDir, String> {
    let mut options = QuantizeOptions::new(bits, 32);
    options.adapter = adapter.map(Path::to_owned);
    let target = tempfile::tempdir().unwrap();
    let go_on = &mut |_, _, _: &str| std::ops::ControlFlow::Continue(());
    let done = quantize(source, target.path(), &options, go_on);
    done.map(|_| target).map_err(|error| error.to_string())
}

#[test]
fn quantizing_merges_an_adapter() {
    for (name, count) in [(ONE, 14), (FOUR, 6)] {
        let (fields, tensors) = match name {
            ONE => of_authors(name, 5),
            _ => (json!({"r": 3, "lora_alpha": 2}), updates(&MODULES, |_| 3, 5)),
        };
        let adapter = folder(&fields, &tensors);
        let merged = merged(name, &tensors);
        for bits in [8, 4] {
            let found = quantized(&fixture(name), bits, Some(adapter.path())).unwrap();
            let expected = quantized(merged.path(), bits, None).unwrap();
            let [of_found, of_expected] =
                [&found, &expected].map(|folder| Checkpoint::open(folder.path()).unwrap());
            // Integers and scales; vectors keep the type that they have in the source.
            let names: Vec<_> = of_found.names().filter(|name| name.ends_with("_scale")).collect();
            assert_eq!(names.len(), count, "{name}");
            for scales in names {
                for name in [scales, scales.strip_suffix("_scale").unwrap()] {
                    let [a, b] = [&of_found, &of_expected].map(|of| of.tensor(name).unwrap());
                    assert!(a.bytes() == b.bytes(), "{name}");
                }
            }
            if bits == 8 {
                let ids = if name == ONE { prompt(name) } else { vec![1, 5, 3, 8] };
                let apart = tuned(&open(name), adapter.path());
                let [a, b] = [&open_with(found.path(), 2), &apart]
                    .map(|model| Runner::new(model, 20).all(&ids));
                assert_close(&a, &b, 0.3);
            }
        }
    }
}

#[test]
fn what_cannot_be_merged_is_named() {
    let (fields, tensors) = of_authors(TWO, 5);
    let adapter = folder(&fields, &tensors);
    let error = quantized(&fixture(TWO), 4, Some(adapter.path())).unwrap_err();
    let parts = ["dense_4h_to_h.lora_B.weight: cannot be merged into", "which is quantized"];
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    let prefix = tempfile::tempdir().unwrap();
    let error = quantized(&fixture(ONE), 4, Some(prefix.path())).unwrap_err();
    assert!(error.contains("adapter_config.json: is missing: only an adapter of LoRA"), "{error}");
    let both = copy(FOUR);
    fs::write(both.path().join("adapter_config.json"), config(&fields)).unwrap();
    let error = quantized(both.path(), 4, None).unwrap_err();
    assert!(error.contains("adapter_config.json: is an adapter beside the model"), "{error}");
}
