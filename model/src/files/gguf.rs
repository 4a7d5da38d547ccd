//! Models in the GGUF format, which cannot be read yet: errors that say so.

use std::fs;
use std::path::Path;

use crate::error::Error;
use crate::files::checkpoint;
use crate::files::model_dir::is_there;

/// The error about a file of this format.
pub(crate) fn error(path: &Path) -> Option<Error> {
    let is_gguf = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    let problem = "is a GGUF file, which cannot be read yet: download the original model, as in `glm pull THUDM/chatglm-6b`";
    is_gguf.then(|| Error::file(path, problem))
}

/// The error about a folder in which something is missing: `error`, or that a GGUF file is its only checkpoint.
pub(crate) fn explain(folder: &Path, error: Error) -> Error {
    if checkpoint::entries().any(|name| is_there(&folder.join(name))) {
        return error;
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut errors = entries.filter_map(|entry| self::error(&entry.path()));
    errors.next().unwrap_or(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Checkpoint, Config, Tokenizer};

    #[test]
    fn a_folder_with_nothing_else_is_said_to_hold_a_gguf_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("chatglm3-6b.Q4_K_M.gguf");
        fs::write(&file, "GGUF").unwrap();
        let errors = [
            Config::open(dir.path()).unwrap_err(),
            Config::open(&file).unwrap_err(),
            Tokenizer::open(dir.path()).err().unwrap(),
            Checkpoint::open(dir.path()).err().unwrap(),
        ];
        for error in errors.map(|error| error.to_string()) {
            assert!(
                error.contains("Q4_K_M.gguf: is a GGUF file") && error.contains("glm pull"),
                "{error}"
            );
        }
        // Beside a checkpoint the missing file is what is wrong.
        fs::write(dir.path().join("model.safetensors"), "").unwrap();
        assert!(Config::open(dir.path()).unwrap_err().to_string().contains("config.json"));
    }
}
