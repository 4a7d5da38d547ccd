//! Mixed bits: formats that are chosen for a number of bits on average.

#[path = "common/forge.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod forge;
#[path = "common/split.rs"]
mod split;
#[path = "common/stored.rs"]
mod stored;

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use glm_model::{
    Calibration, Checkpoint, Error, Format, Inventory, Model, Options, QuantizeOptions, Quantizer,
    Result, TensorSpec, calibration_bytes, quantize,
};
use serde_json::Value;
use split::split;
use tempfile::TempDir;

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/f16")
}

/// Layers of the [small model](small).
const LAYERS: usize = 3;

/// Rows of its embedding. The tokenizer of the demonstration model has more ids.
const VOCAB: usize = 512;

/// A model that is measured quickly: the first layers, rows and columns of the demonstration model. With `vocab` below that of the
/// demonstration model it has no tokenizer, so that formats are measured with random ids.
fn small(vocab: usize) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    let read = |name: &str| fs::read(demo().join(name)).unwrap();
    let mut config: Value = serde_json::from_slice(&read("config.json")).unwrap();
    if config["vocab_size"] == vocab {
        for name in ["ice_text.model", "tokenizer_config.json"] {
            write(name, &read(name));
        }
    }
    for (name, value) in [
        ("num_layers", LAYERS),
        ("num_attention_heads", 4),
        ("hidden_size", 128),
        ("inner_hidden_size", 256),
        ("vocab_size", vocab),
    ] {
        config[name] = value.into();
    }
    write("config.json", config.to_string().as_bytes());
    let size = |size: &usize| match size {
        // The hidden size, that of queries, keys and values, and that of the MLP.
        256 => 128,
        768 => 384,
        1024 => 256,
        _ => vocab,
    };
    let checkpoint = Checkpoint::open(demo()).unwrap();
    let is_kept = |name: &&str| {
        let layer = name.strip_prefix("transformer.layers.").and_then(|rest| rest.split_once('.'));
        layer.is_none_or(|(layer, _)| layer.parse::<usize>().unwrap() < LAYERS)
    };
    let cut = |name: &str| {
        let tensor = checkpoint.tensor(name).unwrap();
        let shape: Vec<_> = tensor.shape().iter().map(size).collect();
        let row = |shape: &[usize]| shape[1..].iter().product::<usize>() * tensor.dtype().size();
        let rows = tensor.bytes().chunks_exact(row(tensor.shape())).take(shape[0]);
        let bytes = rows.flat_map(|bytes| &bytes[..row(&shape)]).copied().collect();
        (TensorSpec::new(name, tensor.dtype(), shape), bytes)
    };
    let tensors: Vec<_> = checkpoint.names().filter(is_kept).map(cut).collect();
    write("model.safetensors", &stored::safetensors(&tensors));
    dir
}

fn options(target: f64, calibration: Option<Calibration>, threads: usize) -> QuantizeOptions {
    let mut options = QuantizeOptions::default();
    options.target_bits = Some(target);
    options.calibration = calibration;
    options.threads = Some(threads);
    options
}

/// Texts of 64 ids with a blank in the middle.
fn calibration(texts: u32) -> Calibration {
    let text = |text: u32| {
        let ids = (0..64).map(|at| 9 + (text * 64 + at) * 97 % (VOCAB as u32 - 9));
        let mut ids: Vec<_> = ids.collect();
        // `[gMASK]` and `<sop>`.
        ids[32..34].copy_from_slice(&[5, 7]);
        ids
    };
    Calibration::of_ids((0..texts).map(text).collect()).unwrap()
}

fn run(source: &Path, target: &Path, options: &QuantizeOptions) -> Result<()> {
    let going = &mut |_: u64, _: u64, _: &str| ControlFlow::Continue(());
    quantize(source, target, options, going).map(|_| ())
}

fn file(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("model.safetensors")).unwrap()
}

fn inventory(folder: &Path) -> Inventory {
    Model::open(folder, &Options::default()).unwrap().inventory().clone()
}

#[test]
fn the_bits_are_kept_and_used_and_the_file_says_what_was_asked_for() {
    // With the text of the library, and with random ids.
    for (target, vocab) in [(4.5, 4096), (7.0, VOCAB)] {
        let (source, dir) = (small(vocab), tempfile::tempdir().unwrap());
        run(source.path(), dir.path(), &options(target, None, 2)).unwrap();
        let found = inventory(dir.path());
        let bits = found.bits_per_weight().unwrap();
        let formats: BTreeSet<_> = found.matrices.iter().map(|matrix| &matrix.format).collect();
        println!("{target}: {bits} {formats:?}");
        assert!(bits <= target && bits > target - 0.25, "{target}: {bits}");
        assert!(formats.len() > 1 && found.target_bits == Some(target), "{formats:?}");
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let metadata = checkpoint.metadata();
        assert!(metadata["glm.target_bits"] == target.to_string());
        assert!(!metadata.contains_key("glm.group"), "{metadata:?}");
    }
}

#[test]
fn the_file_is_the_same_at_any_number_of_threads() {
    let (source, dir) = (small(VOCAB), tempfile::tempdir().unwrap());
    let folder = |name: &str| dir.path().join(name);
    run(source.path(), &folder("one"), &options(4.75, None, 1)).unwrap();
    run(source.path(), &folder("three"), &options(4.75, None, 3)).unwrap();
    assert!(file(&folder("one")) == file(&folder("three")));
}

#[test]
fn a_calibration_that_was_stopped_goes_on_with_the_same_formats() {
    let (source, dir) = (small(VOCAB), tempfile::tempdir().unwrap());
    let source = source.path();
    let folder = |name: &str| dir.path().join(name);
    let options = |target| options(target, Some(calibration(2)), 2);
    run(source, &folder("whole"), &options(4.75)).unwrap();
    let whole = inventory(&folder("whole"));
    assert!(whole.bits_per_weight().unwrap() <= 4.75 && whole.calibration.is_some());

    let stopped = folder("stopped");
    let journal = || {
        fs::read_to_string(dir.path().join("stopped.quantize.part/journal.json"))
            .unwrap_or_default()
    };
    // While the matrices are measured, when the formats are chosen, and later.
    for part in [0.05, 0.11, 0.5] {
        let mut last = 0;
        let mut stop = |done: u64, total: u64, _: &str| {
            assert!(done >= last && done <= total, "{done} of {total} after {last}");
            last = done;
            match done as f64 > part * total as f64 {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let result = quantize(source, &stopped, &options(4.75), &mut stop);
        assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
        assert_eq!(journal().contains("formats"), part > 0.1, "{}", journal());
    }
    // Other bits would give another file.
    let error = run(source, &stopped, &options(6.0)).unwrap_err().to_string();
    assert!(error.contains("was begun for another model or other options"), "{error}");
    run(source, &stopped, &options(4.75)).unwrap();
    assert!(file(&stopped) == file(&folder("whole")));
}

#[test]
fn a_head_of_its_own_has_its_own_format_and_one_like_the_embedding_is_left_out() {
    let original = small(VOCAB);
    for (head, is_left_out) in [(0, true), (1, false)] {
        let dir = tempfile::tempdir().unwrap();
        let [source, target] = ["source", "target"].map(|name| dir.path().join(name));
        split(original.path(), &source, Format::Safetensors, 3, Some(head));
        let options = options(5.0, None, 2);
        assert!(calibration_bytes(&source, &options).unwrap() > 0);
        run(&source, &target, &options).unwrap();
        let found = inventory(&target);
        assert!(found.bits_per_weight().unwrap() <= 5.0);
        let has_head = found.matrices.iter().any(|matrix| matrix.name == "head");
        assert_eq!(has_head, !is_left_out);
    }
}

#[test]
fn what_cannot_be_chosen_is_refused_before_anything_is_written() {
    let (source, dir) = (small(VOCAB), tempfile::tempdir().unwrap());
    let source = source.path();
    let target = dir.path().join("target");
    for bits in [4.0, 9.5, f64::NAN, f64::INFINITY, -1.0] {
        for calibration in [None, Some(calibration(1))] {
            let error = run(source, &target, &options(bits, calibration, 1)).unwrap_err();
            let Error::Setting { setting, range, .. } = &error else { panic!("{error}") };
            assert!(*setting == "target-bits" && range.starts_with("from 4."), "{error}");
        }
    }
    let official = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/chatglm-6b-tiny/int4");
    let error = run(&official, &target, &options(4.5, None, 1)).unwrap_err().to_string();
    assert!(error.contains("is quantized already"), "{error}");
    let error = Quantizer::open(source, &target, &options(4.5, None, 1)).err().unwrap();
    assert!(error.to_string().contains("target-bits"), "{error}");
    assert!(!target.exists());
}
