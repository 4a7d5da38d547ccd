//! No bytes for tiktoken ranks, `vocab.json`, `merges.txt`, `added_tokens.json`, `tokenizer.json` or
//! `tokenizer_config.json` make the tokenizer panic, be it when it is built or when it is used.

#![no_main]

use glm_model::Tokenizer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &[u8], &[u8])| {
    let (first, second, settings) = input;
    let settings = ("tokenizer_config.json", settings);
    let folders: [&[(&str, &[u8])]; 3] = [
        &[("tokenizer.model", first), settings],
        &[("vocab.json", first), ("merges.txt", second), ("added_tokens.json", second), settings],
        &[("tokenizer.json", first), settings],
    ];
    for folder in folders {
        if let Ok(tokenizer) = Tokenizer::from_files(folder) {
            let ids = tokenizer.encode("[MASK] it's\n\t  12345 你好 👋  ").expect("a short text");
            tokenizer.decode(&ids).expect("its own ids");
        }
    }
});
