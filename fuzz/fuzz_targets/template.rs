//! No chat template makes its reader or its rendering panic, or takes more than it may.
//! `GLM_TOKENIZER` is the folder of a tokenizer of GLM-4.

#![no_main]

use glm_model::{Message, Role, Template, Tokenizer};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(glm_fuzz::tokenizer);

fuzz_target!(|source: &[u8]| {
    let files = [("chat_template.jinja", source)];
    if let Ok(template) = Template::from_files(&files, &TOKENIZER) {
        let messages =
            [Role::System, Role::User].map(|role| Message::new(role, " Hello, 'world'\n"));
        let _ = template.prompt_ids(&TOKENIZER, &messages);
    }
});
