//! Any bytes are a torch checkpoint or an error.
#![no_main]

use std::sync::LazyLock;

use glm_model::{Checkpoint, Format};

static VALID: LazyLock<[Vec<u8>; 1]> = LazyLock::new(|| {
    let archive = glm_fuzz::torch_archive();
    let checkpoint = Checkpoint::from_bytes(Format::Torch, archive.clone()).expect("a checkpoint");
    assert_eq!(checkpoint.names().count(), 2);
    [archive]
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let file = glm_fuzz::changed(input, &*VALID);
    let Ok(checkpoint) = Checkpoint::from_bytes(Format::Torch, file.into_owned()) else { return };
    for tensor in checkpoint.names().filter_map(|name| checkpoint.get(name)) {
        let count: usize = tensor.shape().iter().product();
        assert_eq!(tensor.bytes().len(), count * tensor.dtype().size());
    }
});
