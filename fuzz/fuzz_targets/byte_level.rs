//! No bytes for tiktoken ranks, `vocab.json`, `merges.txt`, `added_tokens.json`, `tokenizer.json` or
//! `tokenizer_config.json` make the tokenizer panic, be it when it is built or when it is used.

#![no_main]

use std::sync::LazyLock;

use glm_fuzz::Files;
use glm_model::Tokenizer;
use libfuzzer_sys::fuzz_target;

static VALID: LazyLock<[Files; 3]> = LazyLock::new(|| {
    let folders = glm_fuzz::byte_level();
    assert!(folders.iter().all(open), "the tokenizers open");
    folders
});

fn open(files: &Files) -> bool {
    let files: Vec<_> = files.iter().map(|(name, file)| (*name, &file[..])).collect();
    let Ok(tokenizer) = Tokenizer::from_files(&files) else { return false };
    let ids = tokenizer.encode("[MASK] it's\n\t  12345 你好 👋  ").expect("a short text");
    tokenizer.decode(&ids).expect("its own ids");
    true
}

// The first byte chooses the file that the others change.
fuzz_target!(|input: &[u8]| {
    let [place, input @ ..] = input else { return };
    let of_folder = |files| (0..Files::len(files)).map(move |file| (files, file));
    let places: Vec<_> = VALID.iter().flat_map(of_folder).collect();
    let (files, file) = places[usize::from(*place) % places.len()];
    let mut files = files.clone();
    files[file].1 = glm_fuzz::changed(input, std::slice::from_ref(&files[file].1)).into_owned();
    open(&files);
});
