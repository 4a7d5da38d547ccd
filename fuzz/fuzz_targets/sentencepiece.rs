//! No bytes for `ice_text.model` make the tokenizer panic, be it when it is built or when it is
//! used.

#![no_main]

use glm_model::Tokenizer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|model: &[u8]| {
    if let Ok(tokenizer) = Tokenizer::from_sentencepiece(model, None) {
        let ids = tokenizer
            .encode("[MASK] hello\n\t  你好 é ﬁ a\u{323}\u{302} 👋")
            .expect("a short text");
        tokenizer.decode(&ids).expect("its own ids");
    }
});
