//! Packed weights of any words, groups and zero points open and run, or are refused.

#![no_main]

use std::fs;
use std::ops::ControlFlow;

use glm_fuzz::{Number, Stored, Tiny, logits, one_thread};
use glm_model::{Activations, Dtype, Model, QuantizeOptions, TensorSpec, quantize};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

#[derive(Debug, Arbitrary)]
struct Case<'a> {
    method: Method,
    eight: bool,
    symmetric: bool,
    reordered: bool,
    second: bool,
    /// Columns of a group: all of them, 64, 32 or 16.
    group: u8,
    /// The bytes of all words, repeated.
    words: &'a [u8],
    zeros: &'a [u8],
    scales: &'a [u8],
    /// The groups of the columns; in order without.
    groups: Vec<i8>,
    /// Changes of tensors: which, of which axis, by how much; or removed.
    changes: Vec<(u8, bool, Option<i8>)>,
    float_activations: bool,
    quantized: bool,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Method {
    Gptq,
    Awq,
    CompressedTensors,
}

/// Bytes of a tensor, repeated.
fn stored(name: String, dtype: Dtype, shape: [usize; 2], bytes: &[u8], default: u8) -> Stored {
    let spec = TensorSpec::new(name, dtype, shape);
    let bytes = bytes.iter().copied().chain([default]).cycle().take(spec.bytes()).collect();
    (spec, bytes)
}

impl Case<'_> {
    fn config(&self, group: i64) -> Value {
        let bits = if self.eight { 8 } else { 4 };
        match self.method {
            Method::Gptq => json!({
                "quant_method": "gptq", "bits": bits, "group_size": group, "sym": self.symmetric,
                "desc_act": self.reordered, "checkpoint_format": if self.second { "gptq_v2" } else { "gptq" },
            }),
            Method::Awq => json!({
                "quant_method": "awq", "bits": bits, "group_size": group, "zero_point": !self.symmetric, "version": "gemm",
            }),
            Method::CompressedTensors => json!({
                "quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["lm_head"],
                "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": bits, "type": "int",
                    "symmetric": self.symmetric, "strategy": "group", "group_size": group,
                    "actorder": if self.reordered { json!("group") } else { Value::Null }}}},
            }),
        }
    }

    fn layer(&self, name: &str, [rows, cols]: [usize; 2], group: usize) -> Vec<Stored> {
        let (n, groups) = (if self.eight { 4 } else { 8 }, cols.div_ceil(group.min(cols)));
        let part = |end: &str| format!("{name}.{end}");
        let index: Vec<u8> = (0..cols)
            .flat_map(|col| {
                let given = self.groups.get(col).map(|&group| i32::from(group));
                given.unwrap_or((col / group) as i32).to_le_bytes()
            })
            .collect();
        let index_of = |end: &str| (TensorSpec::new(part(end), Dtype::I32, [cols]), index.clone());
        let words = |end, shape| stored(part(end), Dtype::I32, shape, self.words, 0x5a);
        let zeros = |end, shape| stored(part(end), Dtype::I32, shape, self.zeros, 0x88);
        let scales = |end, shape| stored(part(end), Dtype::F16, shape, self.scales, 0x2c);
        match self.method {
            Method::Gptq => vec![
                words("qweight", [cols.div_ceil(n), rows]),
                zeros("qzeros", [groups, rows.div_ceil(n)]),
                scales("scales", [groups, rows]),
                index_of("g_idx"),
            ],
            Method::Awq => vec![
                words("qweight", [cols, rows.div_ceil(n)]),
                zeros("qzeros", [groups, rows.div_ceil(n)]),
                scales("scales", [groups, rows]),
            ],
            Method::CompressedTensors => {
                let shape = [rows, cols].map(|n| (n as i64).to_le_bytes()).concat();
                let mut all = vec![
                    words("weight_packed", [rows, cols.div_ceil(n)]),
                    scales("weight_scale", [rows, groups]),
                    (TensorSpec::new(part("weight_shape"), Dtype::I64, [2]), shape),
                ];
                if !self.symmetric {
                    all.push(zeros("weight_zero_point", [rows.div_ceil(n), groups]));
                }
                if self.reordered {
                    all.push(index_of("weight_g_idx"));
                }
                all
            }
        }
    }
}

fuzz_target!(|case: Case| {
    let group = [usize::MAX, 64, 32, 16][usize::from(case.group) % 4];
    let model = Tiny { output_norms: true, tied_head: false, number: Number::F32 };
    let mut tensors = model.tensors(Tiny::usual);
    for (name, shape) in Tiny::linear() {
        tensors.retain(|(spec, _)| spec.name != format!("{name}.weight"));
        tensors.extend(case.layer(name, shape, group));
    }
    for &(at, last, by) in case.changes.iter().take(4) {
        let at = usize::from(at) % tensors.len();
        let Some(by) = by else {
            tensors.remove(at);
            continue;
        };
        let (spec, bytes) = &mut tensors[at];
        let axis = if last { spec.shape.len() - 1 } else { 0 };
        spec.shape[axis] = spec.shape[axis].saturating_add_signed(by.into());
        bytes.resize(spec.bytes(), 0);
    }
    let mut config = model.config();
    config["quantization_config"] =
        case.config(if group == usize::MAX { -1 } else { group as i64 });
    let folder = tempfile::tempdir().expect("a folder");
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    fs::create_dir(&source).expect("a folder");
    Tiny::write(&source, &config, &tensors).expect("a model");
    let mut options = one_thread();
    options.activations = case.float_activations.then_some(Activations::F32);
    let opened = Model::open(&source, &options).and_then(|model| logits(&model, &[1, 2, 3]));
    if !case.quantized {
        return;
    }
    let mut format = QuantizeOptions::new(4, 32);
    format.threads = Some(1);
    match quantize(&source, &target, &format, &mut |_, _, _| ControlFlow::Continue(())) {
        Ok(_) => {
            let model = Model::open(&target, &options).expect("what was quantized opens");
            assert_eq!(logits(&model, &[1, 2, 3]).expect("it runs").len(), Tiny::VOCAB);
            assert!(opened.is_ok(), "only {:?} was refused", opened.err());
        }
        Err(_) => assert!(!target.exists()),
    }
});
