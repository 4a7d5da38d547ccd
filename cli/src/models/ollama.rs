//! Models in the store of Ollama, by the names that it gives them: `ollama:glm4`, `ollama:glm4:9b`, `ollama:hf.co/OWNER/NAME:TAG`.
//!
//! ```text
//! manifests/HOST/OWNER/NAME/TAG    JSON with the digests of the model's files
//! blobs/sha256-DIGEST              the files; one is a GGUF file
//! ```
//!
//! The host is `registry.ollama.ai`, the owner `library` and the tag `latest` if the name has none.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use glm_model::read_regular;
use serde::Deserialize;

use crate::folders;
use crate::limits::model::MAX_MANIFEST;
use crate::messages;

/// What the names of these models begin with.
pub const PREFIX: &str = "ollama:";

const HOST: &str = "registry.ollama.ai";
const OWNER: &str = "library";
const TAG: &str = "latest";

/// The type of the file with the weights.
const MODEL: &str = "application/vnd.ollama.image.model";

#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
}

/// The GGUF file of the model with this name, which begins with [`PREFIX`].
///
/// # Errors
/// If there is none, or its manifest cannot be read or names no GGUF file.
pub fn find(name: &str) -> Result<PathBuf> {
    let Some(below) = manifest(name.strip_prefix(PREFIX).unwrap_or(name)) else {
        bail!(messages::no_ollama_name(name));
    };
    let stores = folders::ollama();
    for store in &stores {
        if let Some(file) = find_in(store, &below)? {
            return Ok(file);
        }
    }
    let stores: Vec<_> = stores.iter().map(|store| store.display().to_string()).collect();
    bail!(messages::no_ollama_model(name, stores.join(", ")))
}

/// The model in one store; `None` if it is not there.
fn find_in(store: &Path, below: &Path) -> Result<Option<PathBuf>> {
    let path = store.join("manifests").join(below);
    let json = match read_regular(&path, MAX_MANIFEST) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        read => read.with_context(|| path.display().to_string())?,
    };
    let manifest: Manifest =
        serde_json::from_slice(&json).with_context(|| path.display().to_string())?;
    let model = manifest.layers.iter().find(|layer| layer.media_type == MODEL);
    let Some(blob) = model.and_then(|layer| blob(&layer.digest)) else {
        bail!(messages::no_ollama_gguf(path.display()));
    };
    Ok(Some(store.join("blobs").join(blob)))
}

/// The name of the file with this digest.
fn blob(digest: &str) -> Option<String> {
    let hash = digest.strip_prefix("sha256:")?;
    let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then(|| format!("sha256-{hash}"))
}

/// The manifest of the model `[[HOST/]OWNER/]NAME[:TAG]`, below the manifests.
fn manifest(name: &str) -> Option<PathBuf> {
    let (name, tag) = name.rsplit_once(':').unwrap_or((name, TAG));
    let parts: Vec<_> = name.split('/').collect();
    let parts = match parts[..] {
        [name] => [HOST, OWNER, name, tag],
        [owner, name] => [HOST, owner, name, tag],
        [host, owner, name] => [host, owner, name, tag],
        _ => return None,
    };
    // Nothing else is part of a name, and a path must not lead out of the store.
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    parts.iter().all(|part| is_part(part)).then(|| parts.iter().collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_name_has_defaults_for_host_owner_and_tag() {
        for (name, path) in [
            ("glm4", "registry.ollama.ai/library/glm4/latest"),
            ("glm4:9b", "registry.ollama.ai/library/glm4/9b"),
            ("me/glm4", "registry.ollama.ai/me/glm4/latest"),
            ("hf.co/a/b-GGUF:Q4_K_M", "hf.co/a/b-GGUF/Q4_K_M"),
        ] {
            assert_eq!(manifest(name).unwrap(), Path::new(path), "{name}");
        }
        for name in ["", ":", "a:", "../x", "a/../b", "/a", "a/b/c/d", "a\\b", "a b", ".", "a:.."] {
            assert_eq!(manifest(name), None, "{name}");
        }
    }

    #[test]
    fn the_manifest_names_the_file_of_the_weights() {
        let store = tempfile::tempdir().unwrap();
        let below = manifest("glm4").unwrap();
        let path = store.path().join("manifests").join(&below);
        assert_eq!(find_in(store.path(), &below).unwrap(), None);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let hash = "0a".repeat(32);
        let write = |media_type: &str, digest: &str| {
            let layers = serde_json::json!([
                { "mediaType": "application/vnd.ollama.image.template", "digest": "sha256:00", "size": 1 },
                { "mediaType": media_type, "digest": digest, "size": 9 },
            ]);
            let manifest = serde_json::json!({ "schemaVersion": 2, "layers": layers });
            fs::write(&path, manifest.to_string()).unwrap();
        };
        write(MODEL, &format!("sha256:{hash}"));
        let blob = store.path().join("blobs").join(format!("sha256-{hash}"));
        assert_eq!(find_in(store.path(), &below).unwrap(), Some(blob));
        write(MODEL, "sha256:../../x");
        assert!(find_in(store.path(), &below).is_err());
        write("application/vnd.ollama.image.tensor", &format!("sha256:{hash}"));
        let error = find_in(store.path(), &below).unwrap_err().to_string();
        assert!(error.contains("GGUF"), "{error}");
        fs::write(&path, "{").unwrap();
        assert!(find_in(store.path(), &below).is_err());
        #[cfg(unix)]
        {
            fs::remove_file(&path).unwrap();
            crate::file::make_pipe(&path);
            assert!(find_in(store.path(), &below).is_err());
        }
    }
}
