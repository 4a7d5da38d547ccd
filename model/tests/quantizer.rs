//! Quantizing a model whose files arrive one after another.

#[path = "common/forge.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod forge;
#[path = "common/split.rs"]
mod split;
#[path = "common/stored.rs"]
mod stored;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use glm_model::{Calibration, Error, Format, QuantizeOptions, Quantizer, quantize, write_skeleton};
use split::split;

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/f16")
}

/// The files of a folder by name.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

/// A folder like `original` in which the files of weights are skeletons.
fn skeletons(original: &Path, folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for (name, bytes) in files(original) {
        let path = folder.join(&name);
        if !name.contains("-of-") {
            fs::write(&path, &bytes).unwrap();
            continue;
        }
        let mut read = |range: Range<u64>| {
            Ok::<_, Error>(bytes[range.start as usize..range.end as usize].to_vec())
        };
        write_skeleton(&path, bytes.len() as u64, &mut read).unwrap();
    }
}

/// Quantizes `original` with a few complete files at a time, each step by a new `Quantizer`; compares with [`quantize`].
fn check(format: Format, head: Option<u8>, options: &QuantizeOptions) {
    let go_on = &mut |_: u64, _: u64, _: &str| ControlFlow::Continue(());
    let dir = tempfile::tempdir().unwrap();
    let [original, source, target, expected] =
        ["original", "source", "target", "expected"].map(|name| dir.path().join(name));
    split(&demo(), &original, format, 5, head);
    let direct = quantize(&original, &expected, options, go_on).unwrap();

    skeletons(&original, &source);
    let mut complete = BTreeSet::new();
    loop {
        // A process that was killed while it wrote the journal.
        let unfinished = dir.path().join("target.quantize.part");
        fs::create_dir_all(&unfinished).unwrap();
        for (name, text) in [(".glm-quantize", ""), ("journal.json.part", "{")] {
            fs::write(unfinished.join(name), text).unwrap();
        }
        let quantizer = Quantizer::open(&source, &target, options).unwrap();
        let missing = quantizer.missing().unwrap();
        // Weights that are no longer needed go at once: a skeleton again.
        let done: Vec<PathBuf> =
            complete.iter().filter(|file| !missing.contains(file)).cloned().collect();
        for file in done {
            fs::write(dir.path().join("zeros"), vec![0; fs::read(&file).unwrap().len()]).unwrap();
            fs::rename(dir.path().join("zeros"), &file).unwrap();
            let bytes = fs::read(original.join(file.file_name().unwrap())).unwrap();
            let mut read = |range: Range<u64>| {
                Ok::<_, Error>(bytes[range.start as usize..range.end as usize].to_vec())
            };
            write_skeleton(&file, bytes.len() as u64, &mut read).unwrap();
            complete.remove(&file);
        }
        let Some(next) = missing.iter().find(|file| !complete.contains(*file)) else {
            assert!(missing.is_empty(), "{format:?} {head:?}: {missing:?}");
            assert_eq!(quantizer.bytes().unwrap(), direct.bytes);
            assert_eq!(quantizer.finish().unwrap(), direct);
            break;
        };
        assert!(quantizer.finish().unwrap_err().to_string().contains("is not complete"));
        let mut quantizer = Quantizer::open(&source, &target, options).unwrap();
        let name = next.file_name().unwrap();
        fs::copy(original.join(name), dir.path().join(name)).unwrap();
        fs::rename(dir.path().join(name), next).unwrap();
        complete.insert(next.clone());
        // That of a tied embedding to the end, that of the head it is compared with, and those of the matrix.
        let most = if head == Some(0) { 4 } else { 3 };
        assert!(complete.len() <= most, "{complete:?}");
        quantizer.write(&|file| complete.contains(file), go_on).unwrap();
    }
    assert!(files(&target) == files(&expected), "{format:?} {head:?}");
}

#[test]
fn the_result_is_that_of_quantize() {
    check(Format::Safetensors, None, &QuantizeOptions::default());
    check(Format::Safetensors, Some(1), &QuantizeOptions::new(8, 64));
    check(Format::Torch, Some(0), &QuantizeOptions::default());
    let mut calibrated = QuantizeOptions::new(8, 32);
    calibrated.calibration = Some(Calibration::of_ids(vec![(5..25).collect()]).unwrap());
    check(Format::Safetensors, Some(1), &calibrated);
}

/// A `Quantizer` that gets one file after the other goes on from the layer where it stopped: it does not compute the layers before again.
#[test]
fn layers_are_calibrated_once() {
    let go_on = &mut |_: u64, _: u64, _: &str| ControlFlow::Continue(());
    let mut calibrated = QuantizeOptions::new(8, 32);
    calibrated.calibration = Some(Calibration::of_ids(vec![(5..25).collect()]).unwrap());
    for (parts, options) in [(5, QuantizeOptions::default()), (12, calibrated)] {
        let dir = tempfile::tempdir().unwrap();
        let [source, target, expected] =
            ["source", "target", "expected"].map(|name| dir.path().join(name));
        split(&demo(), &source, Format::Safetensors, parts, None);
        quantize(&source, &expected, &options, go_on).unwrap();
        let mut quantizer = Quantizer::open(&source, &target, &options).unwrap();
        let mut complete = BTreeSet::new();
        let mut steps = BTreeMap::<String, BTreeSet<usize>>::new();
        loop {
            let missing = quantizer.missing().unwrap();
            let Some(next) = missing.into_iter().find(|file| !complete.contains(file)) else {
                break;
            };
            complete.insert(next);
            let mut see = |_: u64, _: u64, name: &str| {
                steps.entry(name.to_owned()).or_default().insert(complete.len());
                ControlFlow::Continue(())
            };
            quantizer.write(&|file| complete.contains(file), &mut see).unwrap();
        }
        quantizer.finish().unwrap();
        assert!(files(&target) == files(&expected), "{parts} files");
        assert!(complete.len() >= 4, "{complete:?}");
        // Only the layer that was begun is computed again: parts of it are in up to three files.
        for (name, steps) in &steps {
            let (first, last) = (steps.first().unwrap(), steps.last().unwrap());
            assert!(last - first <= 2, "{name} in steps {steps:?}");
        }
    }
}

#[test]
fn a_cancelled_step_is_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let [source, target, expected] =
        ["source", "target", "expected"].map(|name| dir.path().join(name));
    split(&demo(), &source, Format::Safetensors, 3, None);
    let options = QuantizeOptions::default();
    let go_on = &mut |_: u64, _: u64, _: &str| ControlFlow::Continue(());
    let mut quantizer = Quantizer::open(&source, &target, &options).unwrap();
    let mut stop = |done, total, _: &str| {
        if done > total / 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let first = quantizer.missing().unwrap()[0].clone();
    quantizer.write(&|file| file == first, go_on).unwrap();
    let error = quantizer.write(&|_| true, &mut stop).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    // Only one may write to a folder.
    let other = Quantizer::open(&source, &target, &options).map(|_| ()).unwrap_err();
    assert!(other.to_string().contains("is being written by another process"), "{other}");
    drop(quantizer);
    // Other options would give another file.
    let other = Quantizer::open(&source, &target, &QuantizeOptions::new(8, 32))
        .unwrap()
        .write(&|_| true, go_on);
    assert!(other.unwrap_err().to_string().contains("was begun for another model"));
    let mut quantizer = Quantizer::open(&source, &target, &options).unwrap();
    quantizer.write(&|_| true, go_on).unwrap();
    quantizer.finish().unwrap();
    quantize(&source, &expected, &options, go_on).unwrap();
    assert!(files(&target) == files(&expected));
}
