//! Any bytes are a GGUF file or an error, also its configuration, its tokenizer and its weights, which are loaded.
#![no_main]

use std::fs;

use glm_model::{Checkpoint, Config, Dtype, Format, Model, ModelFiles, Template, Tokenizer};

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    let Ok(checkpoint) = Checkpoint::from_bytes(Format::Gguf, file.to_vec()) else { return };
    let mut bytes = 0;
    for tensor in checkpoint.names().filter_map(|name| checkpoint.get(name)) {
        let count: usize = tensor.shape().iter().product();
        if !matches!(tensor.dtype(), Dtype::Block(_)) {
            assert_eq!(tensor.bytes().len(), count * tensor.dtype().size());
        }
        bytes += tensor.bytes().len();
    }
    assert!(bytes <= file.len());
    let Ok(folder) = tempfile::tempdir() else { return };
    let path = folder.path().join("x.gguf");
    if fs::write(&path, file).is_err() {
        return;
    }
    let _ = Config::open(&path);
    if let Ok(files) = ModelFiles::open(&path) {
        let options = glm_fuzz::one_thread();
        if let Ok(model) = Model::load(&files, &options, &mut |_, _| {}) {
            let _ = glm_fuzz::logits(&model, &[0]);
        }
    }
    if let Ok(tokenizer) = Tokenizer::open(&path) {
        let _ = Template::open(&path, &tokenizer);
        let _ = tokenizer.encode("Hello 你好 <|user|>");
    }
});
