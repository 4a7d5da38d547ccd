//! Merging adapters of LoRA: merged weights are what the adapter computes, and what cannot be merged is named.

mod common;
#[path = "common/forge.rs"]
#[allow(dead_code, reason = "this file writes valid files only")]
mod forge;
#[path = "common/lora.rs"]
mod lora;
#[path = "common/tensors.rs"]
mod tensors;

use std::fs;
use std::path::Path;

use common::adapter::tuned;
use common::fixture;
use common::runner::Runner;
use glm_model::{Checkpoint, Dtype, QuantizeOptions, quantize};
use lora::{
    FOUR, MODULES, ONE, TWO, assert_close, config, copy, folder, of_authors, open, open_with,
    prompt, updates,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tensors::{Tensor, half, safetensors};

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
