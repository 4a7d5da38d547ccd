//! Mixed bits: formats that are chosen for a number of bits on average.

#[path = "common/forge.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod forge;
#[path = "common/split.rs"]
mod split;

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use glm_model::{
    Calibration, Checkpoint, Config, Error, Format, Inventory, Model, Options, QuantizeOptions,
    Quantizer, Result, Tokenizer, calibration_bytes, quantize,
};
use split::split;

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/f16")
}

fn options(target: f64, calibration: Option<Calibration>, threads: usize) -> QuantizeOptions {
    let mut options = QuantizeOptions::default();
    options.target_bits = Some(target);
    options.calibration = calibration;
    options.threads = Some(threads);
    options
}

fn calibration(tokens: usize) -> Calibration {
    let config = Config::open(demo()).unwrap();
    let tokenizer = Tokenizer::open(demo()).unwrap();
    Calibration::of_text(&config, &tokenizer, None, tokens).unwrap()
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
    for target in [4.5, 7.0] {
        let dir = tempfile::tempdir().unwrap();
        run(&demo(), dir.path(), &options(target, None, 2)).unwrap();
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
    let dir = tempfile::tempdir().unwrap();
    let folder = |name: &str| dir.path().join(name);
    run(&demo(), &folder("one"), &options(4.75, None, 1)).unwrap();
    run(&demo(), &folder("three"), &options(4.75, None, 3)).unwrap();
    assert!(file(&folder("one")) == file(&folder("three")));
}

#[test]
fn a_calibration_that_was_stopped_goes_on_with_the_same_formats() {
    let dir = tempfile::tempdir().unwrap();
    let folder = |name: &str| dir.path().join(name);
    let options = |target| options(target, Some(calibration(256)), 2);
    run(&demo(), &folder("whole"), &options(4.75)).unwrap();
    let whole = inventory(&folder("whole"));
    assert!(whole.bits_per_weight().unwrap() <= 4.75 && whole.calibration.is_some());

    let stopped = folder("stopped");
    let journal = || fs::read_to_string(stopped.join("journal.json")).unwrap_or_default();
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
        let result = quantize(demo(), &stopped, &options(4.75), &mut stop);
        assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
        assert_eq!(journal().contains("formats"), part > 0.1, "{}", journal());
    }
    // Other bits would give another file.
    let error = run(&demo(), &stopped, &options(6.0)).unwrap_err().to_string();
    assert!(error.contains("was begun for another model or other options"), "{error}");
    run(&demo(), &stopped, &options(4.75)).unwrap();
    assert!(file(&stopped) == file(&folder("whole")));
}

#[test]
fn a_head_of_its_own_has_its_own_format_and_one_like_the_embedding_is_left_out() {
    for (head, is_left_out) in [(0, true), (1, false)] {
        let dir = tempfile::tempdir().unwrap();
        let [source, target] = ["source", "target"].map(|name| dir.path().join(name));
        split(&demo(), &source, Format::Safetensors, 3, Some(head));
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
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("target");
    for bits in [4.0, 9.5, f64::NAN, f64::INFINITY, -1.0] {
        for calibration in [None, Some(calibration(64))] {
            let error = run(&demo(), &target, &options(bits, calibration, 1)).unwrap_err();
            let Error::Setting { setting, range, .. } = &error else { panic!("{error}") };
            assert!(*setting == "target-bits" && range.starts_with("from 4."), "{error}");
        }
    }
    let official = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/chatglm-6b-tiny/int4");
    let error = run(&official, &target, &options(4.5, None, 1)).unwrap_err().to_string();
    assert!(error.contains("is quantized already"), "{error}");
    let error = Quantizer::open(demo(), &target, &options(4.5, None, 1)).err().unwrap();
    assert!(error.to_string().contains("target-bits"), "{error}");
    assert!(!target.exists());
}
