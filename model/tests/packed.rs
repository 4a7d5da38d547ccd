//! Packed weights of GPTQ, AWQ, AutoRound and compressed-tensors: the layouts, exactness, and files that are not valid.

mod common;
#[path = "common/packed.rs"]
mod packed;
#[path = "common/stored.rs"]
mod stored;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use common::runner::{Runner, with};
use glm_model::{
    Activations, Adapter, Checkpoint, Dtype, Model, Options, QuantizeOptions, Quantizer,
    TensorSpec, quantize,
};
use half::f16;
use packed::{Layer, gptq, layers, model, words};
use serde_json::{Value, json};
use stored::{Stored, safetensors};
use tempfile::TempDir;

/// The weights of a layer as plain F32.
fn plain(name: &str, layer: &Layer) -> Vec<Stored> {
    let spec = TensorSpec::new(format!("{name}.weight"), Dtype::F32, [layer.rows, layer.cols]);
    vec![(spec, layer.weights().iter().flat_map(|weight| weight.to_le_bytes()).collect())]
}

fn logits(path: &Path, activations: Activations) -> Vec<f32> {
    let options = with(|options: &mut Options| options.activations = Some(activations));
    let model = Model::open(path, &options).unwrap();
    Runner::new(&model, 16).all(&[1, 5, 8, 2, 2, 7, 3, 4])
}

/// The logits with an adapter of LoRA for the layers with 128 columns and with 344.
fn logits_with_updates(path: &Path, layers: &[(&str, Layer)]) -> Vec<f32> {
    let mut numbers =
        (0..).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as f32 / 256.0 - 0.5);
    let mut tensor = |name: String, shape: [usize; 2]| {
        let numbers = numbers.by_ref().take(shape[0] * shape[1]);
        (TensorSpec::new(name, Dtype::F32, shape), numbers.flat_map(f32::to_le_bytes).collect())
    };
    let mut tensors: Vec<Stored> = Vec::new();
    for (name, layer) in layers {
        tensors.push(tensor(format!("base_model.model.{name}.lora_A.weight"), [2, layer.cols]));
        tensors.push(tensor(format!("base_model.model.{name}.lora_B.weight"), [layer.rows, 2]));
    }
    let folder = tempfile::tempdir().unwrap();
    let config = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 1});
    fs::write(folder.path().join("adapter_config.json"), config.to_string()).unwrap();
    fs::write(folder.path().join("adapter_model.safetensors"), safetensors(&tensors)).unwrap();
    let options = with(|options: &mut Options| options.activations = Some(Activations::F32));
    let model = Model::open(path, &options).unwrap();
    let adapter = Adapter::open(folder.path(), &model).unwrap();
    Runner::new(&model.with_adapter(Some(&adapter)).unwrap(), 16).all(&[1, 5, 8, 2, 2, 7, 3, 4])
}

/// The largest difference, relative to the largest value.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    let largest = b.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    a.iter().zip(b).fold(0.0f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

/// The configuration of asymmetric weights.
fn auto_round(extra: Value) -> Value {
    let mut config = json!({"quant_method": "auto-round", "bits": 4, "group_size": 32, "sym": false, "data_type": "int"});
    config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    config
}

fn compressed(actorder: Value) -> Value {
    json!({"quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int",
        "strategy": "group", "group_size": 32, "actorder": actorder}}}})
}

struct Case {
    what: &'static str,
    config: Value,
    change: fn(usize, Layer) -> Layer,
    write: fn(&Layer, &str) -> Vec<Stored>,
    /// The format of query, key and value.
    format: &'static str,
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            what: "GPTQ",
            config: gptq(json!({"sym": false})),
            change: |_, layer| layer,
            write: |layer, name| layer.gptq(name, true),
            format: "INT4 with zero points, groups of 32",
        },
        Case {
            what: "symmetric GPTQ",
            config: gptq(json!({"sym": true, "checkpoint_format": "gptq"})),
            change: |_, layer| layer.symmetric(),
            write: |layer, name| layer.gptq(name, true),
            format: "INT4, groups of 32",
        },
        Case {
            what: "GPTQ of version 2",
            config: gptq(json!({"sym": false, "checkpoint_format": "gptq_v2"})),
            change: |_, layer| layer,
            write: |layer, name| layer.gptq(name, false),
            format: "INT4 with zero points, groups of 32",
        },
        Case {
            what: "GPTQ of eight bits",
            config: gptq(json!({"sym": true, "bits": 8})),
            change: |_, layer| layer.eight(),
            write: |layer, name| layer.gptq(name, true),
            format: "INT8, groups of 32",
        },
        Case {
            what: "GPTQ with an order",
            config: gptq(json!({"sym": false, "desc_act": true})),
            // Query, key and value have the same inputs, and so the same order.
            change: |index, layer| layer.shuffled(if index < 3 { 0 } else { index as u64 }),
            write: |layer, name| layer.gptq(name, true),
            format: "INT4 with zero points, groups of 32, reordered",
        },
        Case {
            what: "GPTQ with an order for each of query, key and value",
            config: gptq(json!({"sym": true, "desc_act": true})),
            change: |index, layer| layer.symmetric().shuffled(index as u64),
            write: |layer, name| layer.gptq(name, true),
            format: "F32",
        },
        Case {
            what: "AWQ",
            config: json!({"quant_method": "awq", "bits": 4, "version": "gemm", "zero_point": true}),
            change: |_, layer| layer,
            write: Layer::awq,
            format: "INT4 with zero points, groups of 32",
        },
        Case {
            what: "AutoRound",
            config: json!({"quant_method": "auto-round", "bits": 4, "sym": true, "packing_format": "auto_round:auto_gptq"}),
            change: |_, layer| layer.symmetric(),
            write: |layer, name| layer.gptq(name, true),
            format: "INT4, groups of 32",
        },
        Case {
            what: "AutoRound with zero points",
            config: auto_round(json!({"packing_format": "auto_round"})),
            change: |_, layer| layer,
            write: |layer, name| layer.gptq(name, false),
            format: "INT4 with zero points, groups of 32",
        },
        Case {
            what: "AutoRound with zero points of GPTQ",
            config: auto_round(json!({"packing_format": "auto_round:auto_gptq"})),
            change: |_, layer| layer,
            write: |layer, name| layer.gptq(name, true),
            format: "INT4 with zero points, groups of 32",
        },
        Case {
            what: "AutoRound with zero points of GPTQModel",
            config: auto_round(
                json!({"packing_format": "auto_round:gptqmodel", "autoround_version": "0.6.0"}),
            ),
            change: |_, layer| layer,
            write: |layer, name| layer.gptq(name, false),
            format: "INT4 with zero points, groups of 32",
        },
        Case {
            what: "AutoRound with zero points of AWQ",
            config: auto_round(json!({"packing_format": "auto_round:auto_awq"})),
            change: |_, layer| layer,
            write: Layer::awq,
            format: "INT4 with zero points, groups of 32",
        },
        Case {
            what: "AutoRound before version 0.5",
            config: auto_round(json!({"backend": "auto_round:exllamav2"})),
            change: |_, layer| layer,
            write: |layer, name| layer.gptq(name, false),
            format: "INT4 with zero points, groups of 32",
        },
        Case {
            what: "AutoRound of GPTQ before version 0.5",
            config: auto_round(json!({"backend": "auto_round:gptq:exllamav2"})),
            change: |_, layer| layer,
            write: |layer, name| layer.gptq(name, true),
            format: "INT4 with zero points, groups of 32",
        },
        Case {
            what: "compressed-tensors",
            config: compressed(json!(null)),
            change: |_, layer| layer.symmetric(),
            write: |layer, name| layer.compressed(name, false),
            format: "INT4, groups of 32",
        },
        Case {
            what: "compressed-tensors with zero points and an order",
            config: compressed(json!("group")),
            change: |index, layer| layer.shuffled(if index < 3 { 0 } else { index as u64 }),
            write: |layer, name| layer.compressed(name, true),
            format: "INT4 with zero points, groups of 32, reordered",
        },
    ]
}

impl Case {
    fn layers(&self) -> Vec<(&'static str, Layer)> {
        let layers = layers(7).into_iter().enumerate();
        layers.map(|(index, (name, layer))| (name, (self.change)(index, layer))).collect()
    }

    fn model(&self) -> TempDir {
        let layers = self.layers();
        let stored: Vec<_> =
            layers.iter().map(|(name, layer)| (*name, (self.write)(layer, name))).collect();
        model(&stored, Some(self.config.clone()))
    }
}

/// Measured: 5.4e-7.
const LOGITS_ERROR: f32 = 2e-6;

#[test]
fn packed_models_have_the_logits_of_their_weights() {
    for case in cases() {
        let layers = case.layers();
        let plain: Vec<_> =
            layers.iter().map(|(name, layer)| (*name, plain(name, layer))).collect();
        let expected = logits(model(&plain, None).path(), Activations::F32);
        let dir = case.model();
        let found = logits(dir.path(), Activations::F32);
        let error = difference(&found, &expected);
        println!("{}: {error:e}", case.what);
        assert!(error <= LOGITS_ERROR, "{}: {error:e}", case.what);
        let opened = Model::open(dir.path(), &Options::default()).unwrap();
        let qkv = opened.inventory().matrices.iter().find(|it| it.shape == [256, 128]).unwrap();
        assert_eq!(qkv.format, case.format, "{}", case.what);

        // The folder that is written gives the same bits, and is mapped.
        let target = tempfile::tempdir().unwrap();
        let go_on = &mut |_, _, _: &str| ControlFlow::Continue(());
        let done = quantize(dir.path(), target.path(), &QuantizeOptions::default(), go_on).unwrap();
        let kept = if case.format == "F32" { 3 } else { 4 };
        assert_eq!((done.kept, done.quantized), (kept, 0), "{}", case.what);
        let written = Model::open(target.path(), &Options::default()).unwrap();
        assert_eq!(written.inventory().matrices, opened.inventory().matrices, "{}", case.what);
        assert_eq!(written.inventory().copied_bytes, 0, "{}", case.what);
        for activations in [Activations::F32, Activations::Int8] {
            let (own, other) =
                (logits(dir.path(), activations), logits(target.path(), activations));
            assert_eq!(own, other, "{}", case.what);
        }
    }
}

/// The inputs of an adapter stay in their own order.
#[test]
fn updates_of_reordered_weights_take_the_inputs_as_they_are() {
    let case = cases().into_iter().find(|case| case.what == "GPTQ with an order").unwrap();
    let layers = case.layers();
    let whole: Vec<_> = layers.iter().map(|(name, layer)| (*name, plain(name, layer))).collect();
    let expected = logits_with_updates(model(&whole, None).path(), &layers);
    let packed = case.model();
    let found = logits_with_updates(packed.path(), &layers);
    let error = difference(&found, &expected);
    assert!(error <= LOGITS_ERROR, "{error:e}");
    let without = difference(&logits(packed.path(), Activations::F32), &expected);
    assert!(without > 0.01, "the adapter changes nothing: {without:e}");
}

/// Integers, zero points and scales of the panels, read by their definition.
#[test]
fn integers_and_zero_points_are_kept() {
    for case in cases().iter().filter(|case| case.config["bits"] != 8) {
        let (dir, target) = (case.model(), tempfile::tempdir().unwrap());
        let go_on = &mut |_, _, _: &str| ControlFlow::Continue(());
        quantize(dir.path(), target.path(), &QuantizeOptions::default(), go_on).unwrap();
        let checkpoint = Checkpoint::open(target.path()).unwrap();
        for (name, layer) in &case.layers()[3..] {
            let tensor = |end: &str| checkpoint.get(&format!("{name}.weight{end}"));
            let (panels, scales) = (tensor("").unwrap(), tensor("_scale").unwrap());
            let order: Vec<usize> = match tensor("_order") {
                None => (0..layer.cols).collect(),
                Some(order) => {
                    let words = order.bytes().as_chunks().0.iter();
                    words.map(|b| i32::from_le_bytes(*b) as usize).collect()
                }
            };
            let numbers: Vec<_> =
                scales.bytes().as_chunks().0.iter().map(|b| f16::from_le_bytes(*b)).collect();
            let of_group = scales.shape()[2..].iter().product::<usize>();
            let panel = panels.bytes().len() / panels.shape()[0];
            for row in 0..layer.rows {
                for (place, &col) in order.iter().enumerate() {
                    let byte =
                        panels.bytes()[row / 8 * panel + place / 8 * 32 + row % 8 * 4 + place % 4];
                    let nibble = if place % 8 < 4 { byte & 15 } else { byte >> 4 };
                    assert_eq!(u32::from(nibble), layer.integer(row, col), "{}: {name}", case.what);
                }
                for group in 0..layer.groups {
                    let at = (row / 8 * layer.groups + group) * of_group + row % 8;
                    assert_eq!(numbers[at], layer.scales[row * layer.groups + group]);
                    let zero = if of_group == 16 { -numbers[at + 8].to_f32() } else { 8.0 };
                    assert_eq!(zero, layer.zero(row, group) as f32, "{}: {name}", case.what);
                }
            }
        }
    }
}

/// Words that the packing code of AutoGPTQ, AutoAWQ and compressed-tensors makes of the same integers and zero points: those at the
/// places [0, 0], [0, 1], [1, 0] and at the end.
#[test]
fn words_are_those_of_the_published_code() {
    let (rows, cols) = (64, 64);
    let mut layer = Layer::new(rows, cols, 2, 0);
    for row in 0..rows {
        for col in 0..cols {
            layer.integers[row * cols + col] = ((row * 5 + col * 3 + row * col / 7) % 16) as u32;
        }
        for group in 0..2 {
            layer.zeros[row * 2 + group] = (1 + (row * 7 + group * 3) % 15) as u32;
        }
    }
    let check = |stored: &[Stored], end: &str, shape: [usize; 2], expected: [u32; 4]| {
        let (found, words) = words(stored, end);
        assert_eq!(found, shape, "{end}");
        let places = [0, 1, shape[1], words.len() - 1];
        assert_eq!(places.map(|at| words[at]), expected, "{end}");
    };
    let gptq = layer.gptq("x", true);
    check(&gptq, ".qweight", [8, 64], [0x52fc_9630, 0xb741_eb85, 0xda74_1eb8, 0xf37b_f37b]);
    check(&gptq, ".qzeros", [2, 8], [0x4c5d_6e70, 0x0819_2a3b, 0x7081_92a3, 0x92a3_b4c5]);
    let awq = layer.awq("x");
    check(&awq, ".qweight", [64, 8], [0x39f5_e4a0, 0xb17d_6c28, 0x7c28_17d3, 0xf37b_159d]);
    check(&awq, ".qzeros", [2, 8], [0x5678_def1, 0x1234_9abc, 0x89ab_1234, 0xabcd_3456]);
    let compressed = layer.compressed("x", true);
    check(&compressed, "_packed", [64, 8], [0x52fc_9630, 0xda74_1eb8, 0xb741_eb85, 0xf37b_f37b]);
    check(&compressed, "_point", [8, 2], [0x5d6e_7f81, 0x8192_a3b4, 0x192a_3b4c, 0xa3b4_c5d6]);
}

/// The error of a model one of whose tensors is changed, removed or added.
fn refused(case: &Case, change: impl FnOnce(&mut Vec<Stored>)) -> String {
    let layers = case.layers();
    let mut stored: Vec<_> =
        layers.iter().map(|(name, layer)| (*name, (case.write)(layer, name))).collect();
    change(&mut stored[3].1);
    let dir = model(&stored, Some(case.config.clone()));
    Model::open(dir.path(), &Options::default()).err().map_or_else(String::new, |e| e.to_string())
}

fn of<'a>(stored: &'a mut [Stored], end: &str) -> &'a mut Stored {
    stored.iter_mut().find(|(spec, _)| spec.name.ends_with(end)).unwrap()
}

#[test]
fn what_is_wrong_with_a_tensor_is_said() {
    let cases = cases();
    let gptq = cases.iter().find(|case| case.what == "GPTQ with an order").unwrap();
    let symmetric = cases.iter().find(|case| case.what == "symmetric GPTQ").unwrap();
    let compressed = cases.iter().find(|case| case.what == "compressed-tensors").unwrap();
    let set = |end: &'static str, at: usize, value: u32| {
        move |stored: &mut Vec<Stored>| {
            of(stored, end).1[4 * at..][..4].copy_from_slice(&value.to_le_bytes());
        }
    };
    let remove = |end: &'static str| {
        move |stored: &mut Vec<Stored>| stored.retain(|(spec, _)| !spec.name.ends_with(end))
    };
    let cut = |end: &'static str, shape: [usize; 2]| {
        move |stored: &mut Vec<Stored>| {
            let (spec, bytes) = of(stored, end);
            spec.shape = shape.to_vec();
            *bytes = vec![0; spec.bytes()];
        }
    };
    for (error, expected) in [
        (refused(gptq, set("g_idx", 5, 2)), "o_proj.g_idx: [5] is 2, and there are 2 groups"),
        (refused(gptq, set("g_idx", 5, u32::MAX)), "o_proj.g_idx: [5] is -1"),
        (
            refused(gptq, |stored| of(stored, "g_idx").1[..500].fill(1)),
            "o_proj.g_idx: [0] is 16843009",
        ),
        (refused(gptq, remove("qzeros")), "o_proj.qzeros: is missing"),
        (refused(gptq, remove(".scales")), "o_proj.scales: is missing"),
        (
            refused(gptq, cut("qzeros", [2, 15])),
            "o_proj.qzeros: expected I32 [2, 16], found I32 [2, 15]",
        ),
        (refused(gptq, cut("qweight", [15, 128])), "o_proj.qweight: expected I32 [16, 128]"),
        (refused(gptq, cut(".scales", [8, 128])), "o_proj.scales: has 8 groups of 128 columns"),
        (refused(gptq, cut(".scales", [0, 128])), "o_proj.scales: has 0 groups"),
        (
            refused(gptq, |stored| of(stored, ".scales").1[..2].copy_from_slice(&[0, 0x7c])),
            "o_proj.scales: the scale of row 0, group 0 is not finite",
        ),
        (
            refused(symmetric, set("qzeros", 0, 0x7777_7776)),
            "o_proj.qzeros: the zero point of row 0, group 0 is 7, and config.json says that weights are symmetric",
        ),
        (
            refused(compressed, |stored| of(stored, "_shape").1[0] = 127),
            "o_proj.weight_shape: says [127, 128], and config.json says [128, 128]",
        ),
        (
            refused(compressed, |stored| {
                let (spec, _) = of(stored, "_packed");
                spec.name = spec.name.replace("weight_packed", "qweight");
            }),
            "o_proj.qweight: is not what quantization_config says: compressed-tensors",
        ),
    ] {
        assert!(error.contains(expected), "{error} is not: {expected}");
    }
}

/// Columns that are no multiple of the size of the groups. Some programs give the last columns a group of their own.
#[test]
fn a_last_group_with_fewer_columns_is_named() {
    let down = "model.layers.0.mlp.down_proj";
    let output = "model.layers.0.self_attn.o_proj";
    for (name, layer, size, expected) in [
        (down, Layer::new(128, 344, 11, 5), 32, "has 11 groups of 344 columns: only groups of"),
        // As many groups as there would be of 64 columns.
        (output, Layer::new(128, 128, 2, 5), 96, "has groups of 96 of 128 columns: a last group"),
    ] {
        let config = gptq(json!({"sym": false, "group_size": size}));
        let dir = model(&[(name, layer.gptq(name, true))], Some(config));
        let error = Model::open(dir.path(), &Options::default()).err().unwrap().to_string();
        assert!(error.contains(&format!("{name}.scales: {expected}")), "{error}");
    }
}

#[test]
fn packed_files_need_the_configuration() {
    let case = &cases()[0];
    let stored: Vec<_> =
        case.layers().iter().map(|(name, layer)| (*name, layer.gptq(name, true))).collect();
    let dir = model(&stored, None);
    let error = Model::open(dir.path(), &Options::default()).err().unwrap().to_string();
    assert!(error.contains(".qweight: is packed, and no quantization_config"), "{error}");
    // As AutoGPTQ wrote it at first.
    fs::write(dir.path().join("quantize_config.json"), r#"{"bits": 4, "group_size": 32}"#).unwrap();
    assert_eq!(logits(dir.path(), Activations::F32), logits(case.model().path(), Activations::F32));
}

#[test]
fn layers_may_be_plain_and_have_biases_of_zeros() {
    let case = &cases()[0];
    let layers = case.layers();
    let mut stored: Vec<_> =
        layers[3..].iter().map(|(name, layer)| (*name, layer.gptq(name, true))).collect();
    let bias = |byte| {
        let spec = TensorSpec::new("model.layers.0.self_attn.o_proj.bias", Dtype::F16, [128]);
        (spec, vec![byte; 256])
    };
    let without = logits(model(&stored, Some(case.config.clone())).path(), Activations::F32);
    stored[0].1.push(bias(0));
    let with = logits(model(&stored, Some(case.config.clone())).path(), Activations::F32);
    assert_eq!(with, without);
    *stored[0].1.last_mut().unwrap() = bias(1);
    let dir = model(&stored, Some(case.config.clone()));
    let error = Model::open(dir.path(), &Options::default()).err().unwrap().to_string();
    assert!(error.contains("o_proj.bias: is no part of"), "{error}");
}

#[test]
fn an_order_is_known_when_all_files_are_complete() {
    let cases = cases();
    let open = |what: &str, target: &Path| {
        let dir = cases.iter().find(|case| case.what == what).unwrap().model();
        Quantizer::open(dir.path(), target, &QuantizeOptions::default()).map(|_| ())
    };
    let target = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { target.path().join(name) };
    open("GPTQ", &path("a")).unwrap();
    let error = open("GPTQ with an order", &path("b")).unwrap_err().to_string();
    assert!(error.contains("desc_act") && error.contains("glm quantize"), "{error}");
}
