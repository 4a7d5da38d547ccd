//! The files of adapters of LoRA: what is wrong with them is named, and folders with an adapter and a model.

mod common;
#[path = "common/forge.rs"]
#[allow(dead_code, reason = "this file writes valid files only")]
mod forge;
#[path = "common/gguf.rs"]
mod gguf;
#[path = "common/lora.rs"]
mod lora;
#[path = "common/tensors.rs"]
mod tensors;

use std::fs;

use common::adapter::{refused, tuned};
use common::fixture;
use common::runner::{Runner, bits, with};
use glm_model::{
    Adapter, Calibration, Checkpoint, Model, Options, QuantizeOptions, Quantizer, quantize,
};
use lora::{FOUR, MODULES, ONE, config, copy, folder, open, open_with, updates};
use serde_json::json;
use tempfile::TempDir;
use tensors::Tensor;

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

/// A rank larger than a side gains nothing, and the memory of a pass is for no larger one.
#[test]
fn a_rank_that_gains_nothing_is_refused() {
    let model = open(FOUR);
    let of_rank = |rank: usize| {
        let modules = [("model.layers.0.self_attn.k_proj", [64, 128]), MODULES[5], MODULES[6]];
        let rank_of = |path: &str| if path == "lm_head" { rank } else { 128 };
        let fields = json!({"r": 128, "lora_alpha": 8, "rank_pattern": {"lm_head": rank}});
        folder(&fields, &updates(&modules, rank_of, 7))
    };
    // The smaller side of the head is its vocabulary. The key is a part of a matrix of 256 rows.
    tuned(&model, of_rank(9).path());
    let parts =
        ["tensor base_model.model.lm_head.lora_A.weight: has rank 10", "a matrix of 9 × 128"];
    refused(&of_rank(10), &model, &parts);
}

#[test]
fn the_patterns_of_a_hostile_file_are_refused() {
    let fields = |pattern: &str| json!({"r": 4, "lora_alpha": 8, "rank_pattern": {pattern: 4}});
    let tensors = updates(&MODULES, |_| 4, 7);
    let model = open(FOUR);
    let large = [
        r"adapter_config.json: rank_pattern has the pattern",
        r"(\\w{50}){50}",
        "takes more than 65536 bytes",
    ];
    refused(&folder(&fields(r"(\w{50}){50}"), &tensors), &model, &large);
    let long = ["adapter_config.json: rank_pattern has a pattern of 5000 bytes, more than 1024"];
    refused(&folder(&fields(&"a".repeat(5000)), &tensors), &model, &long);
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
    let target = tempfile::tempdir().unwrap();
    let go_on = &mut |_, _, _: &str| std::ops::ControlFlow::Continue(());
    for model in [both.path(), &path] {
        assert_eq!(bits(&Runner::new(&open_with(model, 2), 20).all(&ids)), expected);
        let done = quantize(model, target.path(), &QuantizeOptions::default(), go_on);
        let error = done.unwrap_err().to_string();
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

/// DeepSpeed writes a file `latest` beside an adapter, as SwissArmyTransformer does in the folder of GLM-130B.
#[test]
fn an_adapter_of_deepspeed_is_not_taken_for_a_model() {
    let lora = folder(&json!({"r": 4, "lora_alpha": 8}), &updates(&MODULES, |_| 4, 7));
    fs::write(lora.path().join("latest"), "global_step100").unwrap();
    fs::create_dir(lora.path().join("global_step100")).unwrap();
    let refused = || Model::open(lora.path(), &Options::default()).err().unwrap().to_string();
    assert!(refused().contains("adapter_config.json: is an adapter (LoRA)"), "{}", refused());
    fs::copy(fixture(FOUR).join("config.json"), lora.path().join("config.json")).unwrap();
    assert!(refused().contains("adapter_config.json: is an adapter (LoRA)"), "{}", refused());
    tuned(&open(FOUR), lora.path());
    // A model beside it is still one.
    fs::copy(fixture(FOUR).join("model.safetensors"), lora.path().join("model.safetensors"))
        .unwrap();
    assert!(Model::open(lora.path(), &Options::default()).unwrap().adapter().is_some());
}
