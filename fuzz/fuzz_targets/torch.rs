//! Any bytes are a torch checkpoint or an error.
#![no_main]

use glm_model::{Checkpoint, Format};

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    let Ok(checkpoint) = Checkpoint::from_bytes(Format::Torch, file.to_vec()) else { return };
    for tensor in checkpoint.names().filter_map(|name| checkpoint.get(name)) {
        let count: usize = tensor.shape().iter().product();
        assert_eq!(tensor.bytes().len(), count * tensor.dtype().size());
    }
});
