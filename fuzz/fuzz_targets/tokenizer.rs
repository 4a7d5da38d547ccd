//! Any text can be encoded, its ids decoded, and the streamed text is the whole one.
//! `GLM_TOKENIZER` is the folder of the tokenizer, any of the family's.

#![no_main]

use glm_model::{TextStream, Tokenizer};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(glm_fuzz::tokenizer);

fuzz_target!(|input: (&str, Vec<u16>)| {
    let (text, more) = input;
    let mut ids = TOKENIZER.encode(text).expect("a short text");
    ids.extend(more.iter().map(|&n| u32::from(n) * 3 % TOKENIZER.vocab_size() as u32));
    ids.retain(|&id| TOKENIZER.knows(id));
    let mut stream = TextStream::new(&TOKENIZER);
    let streamed: String = ids.iter().map(|&id| stream.push(id).expect("a known id")).collect();
    assert_eq!(streamed + &stream.finish(), TOKENIZER.decode(&ids).expect("known ids"));
});
