//! Any bytes are a GGUF file or an error, also its configuration, its tokenizer and its weights, which are loaded.
#![no_main]

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use glm_model::{Checkpoint, Config, Dtype, Format, Model, ModelFiles, Template, Tokenizer};

static VALID: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, model) = (folder.path().join("x.gguf"), glm_fuzz::gguf());
    fs::write(&path, &model).expect("a file");
    assert!(open(&path), "the model opens");
    let blocks = fs::read(glm_fuzz::fixture("gguf/blocks.gguf")).expect("a file of the tests");
    [model, blocks]
});

/// Whether the model runs, and its tokenizer and template open.
fn open(path: &Path) -> bool {
    let _ = Config::open(path);
    let model = ModelFiles::open(path).and_then(|files| {
        let model = Model::load(&files, &glm_fuzz::one_thread(), &mut |_, _| {})?;
        glm_fuzz::logits(&model, &[0])
    });
    let tokenizer = Tokenizer::open(path).and_then(|tokenizer| {
        let _ = tokenizer.encode("Hello 你好 <|user|>");
        Template::open(path, &tokenizer)
    });
    model.is_ok() && tokenizer.is_ok()
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let file = glm_fuzz::changed(input, &*VALID);
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
    if fs::write(&path, &file).is_ok() {
        open(&path);
    }
});
