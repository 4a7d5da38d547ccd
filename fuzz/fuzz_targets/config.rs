//! No `config.json` makes its reader panic, and what it accepts has sizes that can be worked with.

#![no_main]

use glm_model::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(config) = Config::from_files(&[("config.json", text.as_bytes())]) {
        assert!(config.heads.is_multiple_of(config.kv_heads) && config.vocab > 0);
        assert!(config.head_size > 0 && config.head_size.is_multiple_of(8));
    }
});
