//! No file of a prefix cache makes its reader panic, and one that is refused leaves nothing in memory. The magic, the fingerprint and
//! the hash at the end are right, so that the bytes between them are read. `GLM_MODEL` is the folder of a causal model.

#![no_main]

use glm_model::{Batch, BatchOptions, CancelToken, Model};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use std::fs;
use std::sync::LazyLock;

/// Magic, version and fingerprint.
const HEADER: usize = 16 + 4 + 32;

static MODEL: LazyLock<Model> = LazyLock::new(glm_fuzz::model);

static HEAD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("cache");
    batch().save_cache(&file, &CancelToken::default()).expect("an empty cache");
    fs::read(file).expect("the file")[..HEADER].to_vec()
});

fn batch() -> Batch {
    let mut options = BatchOptions::default();
    options.cache_bytes = 1 << 20;
    Batch::new(&MODEL, options).expect("a batch")
}

fuzz_target!(|body: &[u8]| {
    let mut content = [&HEAD, body].concat();
    content.extend_from_slice(&Sha256::digest(&content));
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), content).expect("the file is written");
    let mut batch = batch();
    let read = batch.load_cache(file.path());
    assert!(batch.stats().cache_bytes <= 1 << 20);
    assert!(read.is_ok() || MODEL.kv_pool().used_bytes() == 0);
});
