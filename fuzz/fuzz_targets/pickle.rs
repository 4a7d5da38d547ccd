//! Any bytes, as the pickle of an otherwise sound torch file, are a checkpoint or an error.
#![no_main]

#[allow(dead_code)]
#[path = "../../model/tests/common/forge.rs"]
mod forge;

use glm_model::{Checkpoint, Format};

libfuzzer_sys::fuzz_target!(|pickle: &[u8]| {
    let file = forge::torch(pickle, &[("0", &[0; 24])]);
    let _ = Checkpoint::from_bytes(Format::Torch, file);
});
