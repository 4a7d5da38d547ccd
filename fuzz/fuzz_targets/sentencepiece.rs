//! No bytes for a SentencePiece model make the tokenizer panic, be it when it is built or when it is
//! used, whichever model's it is said to be.

#![no_main]

use std::sync::LazyLock;

use glm_model::Tokenizer;
use libfuzzer_sys::fuzz_target;

static VALID: LazyLock<[Vec<u8>; 1]> = LazyLock::new(|| [glm_fuzz::pieces()]);

const GLM_130B: (&str, &[u8]) = ("latest", b"49300");

const ADDED: (&str, &[u8]) = (
    "added_tokens.json",
    br#"{"[CLS]": 70000, "<|endoftext|>": 70001, "<|startofpiece|>": 70002, "<|endofpiece|>": 70003}"#,
);

fuzz_target!(|input: &[u8]| {
    let model = &*glm_fuzz::changed(input, &*VALID);
    let folders: [&[(&str, &[u8])]; 4] = [
        &[("ice_text.model", model)],
        &[("ice_text.model", model), GLM_130B],
        &[("tokenizer.model", model)],
        &[("cog-pretrain.model", model), ADDED],
    ];
    for folder in folders {
        if let Ok(tokenizer) = Tokenizer::from_files(folder) {
            let ids = tokenizer
                .encode("[MASK] hello\n\t  你好 é ﬁ a\u{323}\u{302} 👋")
                .expect("a short text");
            tokenizer.decode(&ids).expect("its own ids");
        }
    }
});
