//! No file of a prefix cache makes its reader panic, and one that is refused leaves nothing in memory. The magic, the fingerprint and
//! the hash at the end are right, so that the bytes between them are read. `GLM_MODEL` is the folder of a causal model.

#![no_main]

use glm_model::{Batch, BatchOptions, CancelToken, Model, Request, Sampling, Submission};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use std::fs;
use std::sync::LazyLock;

/// Magic, version and fingerprint.
const HEADER: usize = 16 + 4 + 32;

static MODEL: LazyLock<Model> = LazyLock::new(glm_fuzz::model);

/// Files of a cache, with and without a sequence, between their beginnings and their hashes.
static VALID: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| FILES.clone().map(body));

static FILES: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    let mut kept = batch();
    let mut request = Request::new(Sampling::greedy());
    request.max_new_tokens = Some(1);
    let prompt = (0..200).map(|id| id % 50).collect();
    kept.submit(Submission::new(prompt, request)).expect("a prompt");
    while !kept.is_idle() {
        kept.pass(&mut |_, _| {});
    }
    let files = [&kept, &batch()].map(saved);
    let mut again = batch();
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), &files[0]).expect("the file is written");
    assert!(again.load_cache(file.path()).expect("its own file") > 0);
    files
});

fn saved(batch: &Batch) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("cache");
    batch.save_cache(&file, &CancelToken::default()).expect("a cache");
    fs::read(file).expect("the file")
}

fn body(file: Vec<u8>) -> Vec<u8> {
    file[HEADER..file.len() - 32].to_vec()
}

fn batch() -> Batch {
    let mut options = BatchOptions::default();
    options.cache_bytes = 1 << 20;
    Batch::new(&MODEL, options).expect("a batch")
}

fuzz_target!(|input: &[u8]| {
    let mut content = [&FILES[0][..HEADER], &*glm_fuzz::changed(input, &*VALID)].concat();
    content.extend_from_slice(&Sha256::digest(&content));
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), content).expect("the file is written");
    let mut batch = batch();
    let read = batch.load_cache(file.path());
    assert!(batch.stats().cache_bytes <= 1 << 20);
    assert!(read.is_ok() || MODEL.kv_pool().used_bytes() == 0);
});
