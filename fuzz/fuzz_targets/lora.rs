//! An adapter of any configuration and tensors is applied and merged, or refused.

#![no_main]

use std::fs;
use std::ops::ControlFlow;
use std::sync::LazyLock;

use glm_fuzz::{Number, Stored, Tiny, logits, one_thread, safetensors};
use glm_model::{Adapter, Dtype, Model, QuantizeOptions, TensorSpec, quantize};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use tempfile::TempDir;

#[derive(Debug, Arbitrary)]
struct Case<'a> {
    rank: u8,
    alpha: Number32,
    fields: Vec<(u8, Field<'a>)>,
    layers: Vec<Layer>,
    values: &'a [u8],
    is_merged: bool,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Number32 {
    Small(u8),
    Any(f64),
}

#[derive(Debug, Arbitrary)]
enum Field<'a> {
    Flag(bool),
    Text(&'a str),
    Number(f64),
    Pattern(&'a str, i16),
    List(Vec<i16>),
}

#[derive(Debug, Arbitrary)]
struct Layer {
    module: u8,
    wrapper: u8,
    /// Changes of the shapes of A and B.
    change: Option<(bool, bool, i8)>,
    is_half: bool,
    has_both: bool,
}

const FIELDS: [&str; 14] = [
    "peft_type",
    "r",
    "lora_alpha",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "use_dora",
    "lora_bias",
    "fan_in_fan_out",
    "target_modules",
    "modules_to_save",
    "init_lora_weights",
    "bias",
    "alora_invocation_tokens",
];

static MODEL: LazyLock<(TempDir, Model)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let tiny = Tiny { output_norms: false, tied_head: true, number: Number::F32 };
    Tiny::write(folder.path(), &tiny.config(), &tiny.tensors(Tiny::usual)).expect("a model");
    let model = Model::open(folder.path(), &one_thread()).expect("a model");
    (folder, model)
});

fn tensors(case: &Case) -> Vec<Stored> {
    let mut all: Vec<Stored> = Vec::new();
    let rank = usize::from(case.rank % 9);
    for layer in case.layers.iter().take(8) {
        let linear = Tiny::linear();
        let more =
            [("lm_head", [Tiny::VOCAB, Tiny::HIDDEN]), ("model.layers.1.mlp.down_proj", [8, 8])];
        let (module, [rows, cols]) =
            *linear.iter().chain(&more).nth(usize::from(layer.module) % 8).expect("one of 8");
        let wrapper =
            ["base_model.model.", "", "base_model.", "x."][usize::from(layer.wrapper / 64)];
        let mut shapes = [[rank, cols], [rows, rank]];
        if let Some((which, axis, by)) = layer.change {
            let length = &mut shapes[usize::from(which)][usize::from(axis)];
            *length = length.saturating_add_signed(by.into());
        }
        let dtype = if layer.is_half { Dtype::F16 } else { Dtype::F32 };
        for (end, shape) in ["A", "B"].iter().zip(shapes).take(1 + usize::from(layer.has_both)) {
            let name = format!("{wrapper}{module}.lora_{end}.weight");
            if all.iter().any(|(spec, _)| spec.name == name) {
                continue;
            }
            let spec = TensorSpec::new(name, dtype, shape);
            let bytes =
                case.values.iter().copied().chain([0x3c]).cycle().take(spec.bytes()).collect();
            all.push((spec, bytes));
        }
    }
    all
}

fuzz_target!(|case: Case| {
    let alpha = match case.alpha {
        Number32::Small(x) => f64::from(x),
        Number32::Any(x) => x,
    };
    let mut config = json!({ "peft_type": "LORA", "r": case.rank % 9, "lora_alpha": alpha });
    for (at, field) in case.fields.iter().take(6) {
        config[FIELDS[usize::from(*at) % FIELDS.len()]] = match field {
            Field::Flag(x) => json!(x),
            Field::Text(x) => json!(x),
            Field::Number(x) => json!(x),
            Field::Pattern(pattern, x) => json!({ *pattern: x }),
            Field::List(x) => json!(x),
        };
    }
    let folder = tempfile::tempdir().expect("a folder");
    let write =
        |name: &str, bytes: Vec<u8>| fs::write(folder.path().join(name), bytes).expect("a file");
    write("adapter_config.json", Value::to_string(&config).into_bytes());
    write("adapter_model.safetensors", safetensors(&tensors(&case)));
    let (source, model) = &*MODEL;
    if let Ok(adapter) = Adapter::open(folder.path(), model) {
        let adapted = model.with_adapter(Some(&adapter)).expect("an adapter of this model");
        assert_eq!(logits(&adapted, &[1, 2, 3]).expect("it runs").len(), Tiny::VOCAB);
    }
    if case.is_merged {
        let target = folder.path().join("target");
        let mut options = QuantizeOptions::new(8, 32);
        (options.threads, options.adapter) = (Some(1), Some(folder.path().to_owned()));
        match quantize(source.path(), &target, &options, &mut |_, _, _| ControlFlow::Continue(())) {
            Ok(_) => drop(Model::open(&target, &one_thread()).expect("what was merged opens")),
            Err(_) => assert!(!target.exists()),
        }
    }
});
