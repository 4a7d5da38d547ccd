//! Models with experts and with latent attention: their files, quantizing, and what is refused. That they compute what the published code
//! does is tested in `family.rs`, and the bits in company in `batch.rs`.

mod common;
#[path = "common/experts.rs"]
mod experts;
#[path = "common/forge.rs"]
#[allow(dead_code, reason = "this file writes valid files only")]
mod forge;
#[path = "common/stored.rs"]
mod stored;
#[path = "common/tensors.rs"]
mod tensors;

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use common::runner::{Runner, bits, with};
use experts::{EXPERTS, HIDDEN, Kind, LAYERS, config, folder, joined, tensors as published, tiny};
use glm_model::{
    Activations, Adapter, Calibration, Checkpoint, Config, Dtype, Error, Model, Options,
    QuantizeOptions, quantize,
};
use serde_json::json;
use tempfile::TempDir;
use tensors::{Lcg, Tensor, safetensors};

const KINDS: [Kind; 2] = [Kind::Latent, Kind::Grouped];

const PROMPT: [u32; 9] = [1, 5, 8, 2, 2, 7, 3, 4, 90];

fn open(path: &Path, change: impl FnOnce(&mut Options)) -> Model {
    Model::open(path, &with(change)).unwrap()
}

/// All logits of a prompt, and of some tokens after it.
fn logits(model: &Model) -> Vec<f32> {
    let mut runner = Runner::new(model, 32);
    let mut all = runner.all(&PROMPT);
    for id in [6, 0, 3] {
        all.extend(runner.last(&[id]));
    }
    all
}

fn quantized(source: &Path, options: &QuantizeOptions) -> TempDir {
    let target = tempfile::tempdir().unwrap();
    quantize(source, target.path(), options, &mut |_, _, _| ControlFlow::Continue(())).unwrap();
    target
}

/// Relative root mean square.
fn error(found: &[f32], expected: &[f32]) -> f32 {
    let squares = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>();
    let error = squares(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    (error / squares(&mut expected.iter().copied())).sqrt()
}

#[test]
fn experts_in_one_tensor_give_the_same_bits_and_are_not_copied() {
    for kind in KINDS {
        let [apart, one] = [published(kind), joined(published(kind))]
            .map(|tensors| folder(&config(kind), &tensors));
        let [apart, one] = [&apart, &one].map(|dir| open(dir.path(), |_| {}));
        assert_eq!(bits(&logits(&apart)), bits(&logits(&one)), "{kind:?}");
        for model in [&apart, &one] {
            // What is joined or transposed is copied, and no expert.
            let inventory = model.inventory();
            assert!(inventory.has_prediction_layer);
            let own = (LAYERS - 1) * EXPERTS * 3 * 32 * HIDDEN * 4;
            assert_eq!(inventory.expert_bytes, own as u64, "{kind:?}");
            assert!(inventory.mapped_bytes() > own as u64, "{kind:?}: {inventory:?}");
            let read = inventory.bytes() - inventory.table_bytes();
            let chosen = inventory.expert_bytes / EXPERTS as u64 * 2;
            assert_eq!(inventory.bytes_per_token, read - inventory.expert_bytes + chosen);
            // Two tokens have 2 of 6 experts each: an expert is left out by both with a probability of 4/9.
            let two = inventory.expert_bytes * 5 / 9;
            assert_eq!(inventory.bytes_of_pass(1), inventory.bytes_per_token);
            assert_eq!(inventory.bytes_of_pass(2), read - inventory.expert_bytes + two);
            assert_eq!(inventory.bytes_of_pass(1000), read);
        }
    }
}

#[test]
fn experts_that_are_requested_from_the_disk_are_the_same() {
    let dir = tiny(Kind::Latent);
    let expected = logits(&open(dir.path(), |_| {}));
    for (reads_ahead, no_mmap) in [(true, false), (false, true), (true, true)] {
        let model = open(dir.path(), |options| {
            (options.reads_ahead, options.no_mmap) = (reads_ahead, no_mmap);
        });
        assert_eq!(bits(&logits(&model)), bits(&expected));
    }
}

/// Measured with 8 bits: 0.030 and 0.014; with 4 bits: 0.46, where other experts are chosen, and 0.097.
#[test]
fn quantized_models_are_near_the_original() {
    for (kind, bounds) in [(Kind::Latent, [0.04, 0.6]), (Kind::Grouped, [0.02, 0.13])] {
        let dir = tiny(kind);
        let expected = logits(&open(dir.path(), |_| {}));
        for (bits, largest) in [8, 4].into_iter().zip(bounds) {
            let target = quantized(dir.path(), &QuantizeOptions::new(bits, 32));
            let model = open(target.path(), |options| options.activations = Some(Activations::F32));
            let error = error(&logits(&model), &expected);
            println!("{kind:?}, {bits} bits: {error}");
            assert!(error < largest, "{kind:?}, {bits} bits: {error}");
            assert_eq!(model.inventory().copied_bytes, 0, "{kind:?}");
            let checkpoint = Checkpoint::open(target.path()).unwrap();
            let router = checkpoint.tensor("model.layers.1.mlp.gate.weight").unwrap();
            assert_eq!(router.dtype(), Dtype::F32);
            let next = format!("model.layers.{LAYERS}.");
            assert!(checkpoint.names().all(|name| !name.starts_with(&next)));
            assert!(!model.inventory().has_prediction_layer);
            // Of the kind that models have by default.
            let error = self::error(&logits(&open(target.path(), |_| {})), &expected);
            println!("{kind:?}, {bits} bits and 8-bit activations: {error}");
            assert!(error < largest, "{kind:?}, {bits} bits and 8-bit activations: {error}");
        }
    }
}

#[test]
fn groups_of_experts_and_layers_without_some_are_read() {
    let with = |kind, name: &str, value| {
        let mut config = config(kind);
        config[name] = value;
        Config::from_files(&[("config.json", config.to_string().as_bytes())])
    };
    let experts = with(Kind::Latent, "n_group", json!(3)).unwrap().experts.unwrap();
    assert_eq!((experts.count, experts.used, experts.groups, experts.used_groups), (6, 2, 3, 1));
    let dense =
        with(Kind::Grouped, "mlp_layer_types", json!(["dense", "dense", "sparse"])).unwrap();
    assert_eq!(dense.experts.unwrap().first_layer, 2);
    for (kind, name, value, problem) in [
        (Kind::Latent, "n_group", json!(4), "6 experts cannot be chosen from 1 of 4 groups"),
        (Kind::Latent, "n_group", json!(6), "cannot be chosen from 1 of 6 groups"),
        (Kind::Latent, "num_experts_per_tok", json!(7), "num_experts_per_tok must be"),
        (Kind::Latent, "num_experts_per_tok", json!(4), "cannot be chosen"),
        (Kind::Latent, "kv_lora_rank", json!(36), "kv_lora_rank must be a multiple of 8"),
        (Kind::Latent, "kv_lora_rank", json!(1024), "1032 together"),
        (Kind::Latent, "attention_bias", json!(true), "attention_bias is not supported"),
        (Kind::Latent, "rope_interleave", json!(false), "rope_interleave must be true"),
        (Kind::Latent, "topk_method", json!("greedy"), "topk_method must be \"noaux_tc\""),
        (Kind::Grouped, "n_routed_experts", json!(5000), "n_routed_experts must be"),
        (Kind::Grouped, "mlp_layer_types", json!(["dense", "sparse"]), "must have 3 entries"),
        (Kind::Grouped, "mlp_layer_types", json!(["sparse", "dense", "sparse"]), "must have 3"),
        (Kind::Grouped, "first_k_dense_replace", json!(4), "first_k_dense_replace must be"),
        (Kind::Grouped, "n_shared_experts", json!(1 << 20), "n_shared_experts must be"),
    ] {
        let error = with(kind, name, value).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
    let mut large = config(Kind::Grouped);
    (large["n_routed_experts"], large["num_hidden_layers"]) = (json!(1024), json!(64));
    let error = Config::from_files(&[("config.json", large.to_string().as_bytes())]).unwrap_err();
    assert!(error.to_string().contains("more than 32768 experts"), "{error}");
}

#[test]
fn what_is_wrong_in_the_tensors_is_named() {
    let refused = |change: &dyn Fn(&mut Vec<Tensor>), is_joined: bool| {
        let mut tensors = published(Kind::Latent);
        if is_joined {
            tensors = joined(tensors);
        }
        change(&mut tensors);
        let dir = folder(&config(Kind::Latent), &tensors);
        Model::open(dir.path(), &Options::default()).err().unwrap().to_string()
    };
    fn find<'t>(tensors: &'t mut [Tensor], name: &str) -> &'t mut Tensor {
        tensors.iter_mut().find(|tensor| tensor.name.ends_with(name)).unwrap()
    }
    let missing = refused(
        &|tensors| tensors.retain(|tensor| !tensor.name.ends_with("experts.3.up_proj.weight")),
        false,
    );
    assert!(missing.contains("model.layers.1.mlp.experts.3.up_proj.weight"), "{missing}");
    let shape = refused(
        &|tensors| find(tensors, "layers.2.mlp.experts.gate_up_proj").shape = vec![64, 6, 64],
        true,
    );
    assert!(shape.contains("layers.2.mlp.experts.gate_up_proj: expected"), "{shape}");
    let short = refused(
        &|tensors| {
            let bias = find(tensors, "e_score_correction_bias");
            bias.values.pop();
            bias.shape[0] -= 1;
        },
        false,
    );
    assert!(short.contains("e_score_correction_bias: expected"), "{short}");
    let added = refused(
        &|tensors| {
            let mut other = tensors[0].clone();
            other.name = format!("model.layers.{}.mlp.gate.weight", LAYERS + 1);
            tensors.push(other);
        },
        false,
    );
    assert!(added.contains("is no part of"), "{added}");
}

#[test]
fn attention_may_have_a_low_rank_update_and_experts_not() {
    let dir = tiny(Kind::Latent);
    let model = open(dir.path(), |_| {});
    let adapter = |modules: &[(&str, [usize; 2])]| {
        let mut random = Lcg(5);
        let tensors = modules.iter().flat_map(|(module, [outputs, inputs])| {
            let name =
                |half| format!("base_model.model.model.layers.1.{module}.lora_{half}.weight");
            [
                random.tensor(name("A"), [2, *inputs], 1.0),
                random.tensor(name("B"), [*outputs, 2], 1.0),
            ]
        });
        let tensors: Vec<_> = tensors.collect();
        let folder = tempfile::tempdir().unwrap();
        let config = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4});
        fs::write(folder.path().join("adapter_config.json"), config.to_string()).unwrap();
        fs::write(folder.path().join("adapter_model.safetensors"), safetensors(&tensors)).unwrap();
        folder
    };
    let updates = [
        ("self_attn.q_a_proj", [32, HIDDEN]),
        ("self_attn.q_b_proj", [4 * 32, 32]),
        ("self_attn.kv_a_proj_with_mqa", [40, HIDDEN]),
        ("self_attn.o_proj", [HIDDEN, 64]),
    ];
    // Each changes something. That all have their right size is seen when they are merged.
    let base = logits(&model);
    for update in &updates {
        let folder = adapter(std::slice::from_ref(update));
        let adapted =
            model.with_adapter(Some(&Adapter::open(folder.path(), &model).unwrap())).unwrap();
        assert!(error(&logits(&adapted), &base) > 1e-3, "{}", update.0);
    }
    let folder = adapter(&updates);
    let adapted = model.with_adapter(Some(&Adapter::open(folder.path(), &model).unwrap())).unwrap();
    // Merged into the weights, the same within rounding.
    let target = tempfile::tempdir().unwrap();
    let mut options = QuantizeOptions::new(8, 32);
    options.adapter = Some(folder.path().to_owned());
    quantize(dir.path(), target.path(), &options, &mut |_, _, _| ControlFlow::Continue(()))
        .unwrap();
    let merged = open(target.path(), |options| options.activations = Some(Activations::F32));
    let error = error(&logits(&merged), &logits(&adapted));
    assert!(error < 0.1, "{error}");
    for module in ["mlp.experts.3.up_proj", "mlp.gate", "self_attn.kv_b_proj"] {
        let folder = adapter(&[(module, [32, HIDDEN])]);
        let error = Adapter::open(folder.path(), &model).err().unwrap().to_string();
        assert!(error.contains("no updates are supported"), "{error}");
    }
}

/// Texts of random ids.
fn texts(count: usize, seed: u32) -> Calibration {
    let mut random = Lcg(seed);
    let mut text = || (0..64).map(|_| random.next() % 96).collect();
    Calibration::of_ids((0..count).map(|_| text()).collect()).unwrap()
}

fn calibrated(source: &Path, texts: Calibration, threads: usize) -> TempDir {
    let mut options = QuantizeOptions::new(4, 32);
    (options.calibration, options.threads) = (Some(texts), Some(threads));
    quantized(source, &options)
}

fn weights(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("model.safetensors")).unwrap()
}

/// Of many tokens: where scores of experts are nearly equal, a small change chooses others, and the error of a few tokens differs by a half.
#[test]
fn experts_are_calibrated() {
    let mut random = Lcg(3);
    let ids: Vec<_> = (0..2048).map(|_| random.next() % 96).collect();
    let logits = |model: &Model| {
        let mut runner = Runner::new(model, 32);
        let each = ids.chunks(32).flat_map(|ids| {
            runner.sequence.clear();
            runner.all(ids)
        });
        each.collect::<Vec<_>>()
    };
    // Measured: 0.92, where other experts are chosen, and 0.44.
    for (kind, bound) in [(Kind::Latent, 0.97), (Kind::Grouped, 0.8)] {
        let dir = tiny(kind);
        let expected = logits(&open(dir.path(), |_| {}));
        let plain = quantized(dir.path(), &QuantizeOptions::new(4, 32));
        let calibrated = calibrated(dir.path(), texts(64, 1), 2);
        let [plain, calibrated] = [&plain, &calibrated].map(|target| {
            let model = open(target.path(), |options| options.activations = Some(Activations::F32));
            error(&logits(&model), &expected)
        });
        println!("{kind:?}: {plain} {calibrated}");
        assert!(calibrated < bound * plain, "{kind:?}: {calibrated} {plain}");
    }
}

#[test]
fn calibrated_experts_are_the_same_however_they_are_stored_and_computed() {
    for kind in KINDS {
        let [apart, one] = [published(kind), joined(published(kind))]
            .map(|tensors| folder(&config(kind), &tensors));
        let expected = weights(calibrated(apart.path(), texts(8, 2), 1).path());
        assert!(expected == weights(calibrated(one.path(), texts(8, 2), 3).path()), "{kind:?}");
        // Stopped again and again, among the experts, too.
        let target = tempfile::tempdir().unwrap();
        let mut options = QuantizeOptions::new(4, 32);
        options.calibration = Some(texts(8, 2));
        let (mut stops, mut among_experts) = (0, 0);
        loop {
            let mut calls = 0;
            let mut stop = |_: u64, _: u64, name: &str| {
                calls += 1;
                // Each run gets a little further, also in the part that is not kept.
                if calls <= 6 + 4 * stops {
                    return ControlFlow::Continue(());
                }
                among_experts += usize::from(name.contains(".experts."));
                ControlFlow::Break(())
            };
            match quantize(apart.path(), target.path(), &options, &mut stop) {
                Err(Error::Cancelled) => stops += 1,
                done => break drop(done.unwrap()),
            }
            assert!(stops < 200);
        }
        println!("{kind:?}: {stops} stops, {among_experts} among experts");
        assert!(among_experts > 1, "{kind:?}: {stops} {among_experts}");
        assert!(expected == weights(target.path()), "{kind:?}: after {stops} stops");
    }
}
