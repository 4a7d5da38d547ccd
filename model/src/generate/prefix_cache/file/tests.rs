//! How the file is written.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, SystemTime};

use super::*;
use crate::generate::batch::{Batch, BatchOptions, Submission};
use crate::generate::generation::Request;
use crate::generate::sampling::Sampling;
use crate::network::model::Options;

fn model() -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/chatglm2-6b-tiny/int4");
    let options = Options { threads: Some(1), ..Options::default() };
    Model::open(folder, &options).unwrap()
}

/// A batch that keeps a prompt of this many tokens.
fn batch(model: &Model, tokens: usize) -> Batch {
    let options = BatchOptions { cache_bytes: 1 << 30, ..BatchOptions::default() };
    let mut batch = Batch::new(model, options).unwrap();
    let mut request = Request::new(Sampling::greedy());
    request.max_new_tokens = Some(1);
    let prompt = (0..tokens as u32).map(|i| 10 + i * i % 50).collect();
    batch.submit(Submission::new(prompt, request)).unwrap();
    while !batch.is_idle() {
        batch.pass(&mut |_, _| {});
    }
    batch
}

fn read(model: &Model, path: &Path) -> usize {
    let options = BatchOptions { cache_bytes: 1 << 30, ..BatchOptions::default() };
    Batch::new(model, options).unwrap().load_cache(path).unwrap()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn a_save_that_is_cancelled_leaves_the_old_file() {
    let (folder, model) = (tempfile::tempdir().unwrap(), model());
    let file = folder.path().join("cache");
    let cancel = CancelToken::default();
    batch(&model, 100).save_cache(&file, &cancel).unwrap();
    let kept = read(&model, &file);
    #[cfg(unix)]
    {
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
    cancel.cancel();
    let cancelled = batch(&model, 200).save_cache(&file, &cancel);
    assert!(matches!(cancelled, Err(Error::Cancelled)), "{cancelled:?}");
    assert_eq!((read(&model, &file), files(folder.path())), (kept, vec![file.clone()]));
    cancel.reset();
    batch(&model, 200).save_cache(&file, &cancel).unwrap();
    assert_eq!(read(&model, &file), kept + 100);
}

#[test]
fn several_may_save_to_one_file() {
    let (folder, model) = (tempfile::tempdir().unwrap(), model());
    let file = folder.path().join("cache");
    let batches = [100, 150].map(|tokens| batch(&model, tokens));
    let save = |batch: Batch| {
        for _ in 0..20 {
            batch.save_cache(&file, &CancelToken::default()).unwrap();
        }
    };
    thread::scope(|scope| {
        batches.into_iter().for_each(|batch| drop(scope.spawn(|| save(batch))));
    });
    let kept = read(&model, &file);
    assert!([100, 150].contains(&kept), "{kept}");
    assert_eq!(files(folder.path()), [file]);
}

#[test]
fn what_a_killed_process_left_is_removed() {
    let (folder, model) = (tempfile::tempdir().unwrap(), model());
    let in_folder = |name: &str| folder.path().join(name);
    let old = SystemTime::now() - 2 * part::NEW;
    // The first alone was left. The second has just been created, the third belongs to a process that was stopped, and the rest are files of the
    // user or of another cache.
    let names = [
        "cache.glm-Ab3xYzAb3xYzAb3x.part",
        "cache.glm-Cd4xYzAb3xYzAb3x.part",
        "cache.glm-Ef5xYzAb3xYzAb3x.part",
        "cache.glm-letter.part",
        "cache.glm-Ab3xYzAb3xYzAb3x.parts",
        "cache.backup.part",
        "cache.b.part",
        "a.glm-Ab3xYzAb3xYzAb3x.part",
    ];
    let files_of = names.map(|name| File::create(in_folder(name)).unwrap());
    for (index, file) in files_of.iter().enumerate().filter(|(index, _)| *index != 1) {
        file.set_modified(old).unwrap();
        if index == 2 {
            file.lock().unwrap();
        }
    }
    batch(&model, 100).save_cache(in_folder("cache"), &CancelToken::default()).unwrap();
    let mut left: Vec<_> =
        names[1..].iter().chain(&["cache"]).map(|name| in_folder(name)).collect();
    left.sort();
    assert_eq!(files(folder.path()), left);
}

#[test]
fn a_part_is_locked_until_it_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    let part = part::create(&path).unwrap();
    part.as_file().set_modified(SystemTime::now() - 2 * part::NEW).unwrap();
    part::remove_abandoned(&path);
    assert!(part.path().exists(), "its process was stopped");
    let left = part.into_temp_path();
    // A program that another test starts at this moment has the lock until it runs.
    for _ in 0..100 {
        part::remove_abandoned(&path);
        if !left.exists() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("its process was killed");
}
