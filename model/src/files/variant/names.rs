//! The names of a model, in lower case: where it was published, and where it is.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::Result;
use crate::files::model_dir::{CONFIG, CONFIG_NAME, ModelDir, TOKENIZER_CONFIG, TOKENIZER_MODEL};
use crate::limits::file::MAX_LINKS;

/// The folder of a repository in the cache of the Hugging Face hub starts with this: `models--OWNER--NAME`.
const HUB_START: &str = "models--";

/// All names, most reliable first: those that the files say, those of the folder, and of the folders around each of them.
///
/// # Errors
/// As [`ModelDir::json`].
pub(super) fn all(folder: &ModelDir) -> Result<Vec<String>> {
    let mut names = written(folder)?;
    names.extend(own(folder));
    for path in paths(folder)? {
        names.extend(parts(&path).rev().skip(1).map(of_part));
    }
    let places = places(folder);
    let files = [CONFIG, TOKENIZER_MODEL].map(|name| folder.path().join(name));
    let files = files.iter().filter_map(|file| file.canonicalize().ok());
    for place in places.iter().cloned().chain(files) {
        let place = place.to_string_lossy().into_owned();
        names.extend(parts(&place).rev().skip(1).map(of_part));
    }
    Ok(names)
}

/// The names in the files: the last part of the name or path under which the model was published or loaded, the repository of its
/// code, and the same of its tokenizer.
///
/// # Errors
/// As [`ModelDir::json`].
pub(super) fn written(folder: &ModelDir) -> Result<Vec<String>> {
    let names = paths(folder)?.into_iter().filter_map(|path| last(&path));
    Ok(names.collect())
}

/// The names of the folder on the disk, and of the links that lead to it.
pub(super) fn own(folder: &ModelDir) -> Vec<String> {
    places(folder).iter().filter_map(|path| last(&path.to_string_lossy())).collect()
}

/// The names and paths in `config.json` and `tokenizer_config.json`.
fn paths(folder: &ModelDir) -> Result<Vec<String>> {
    let (config, tokenizer) = (folder.json(CONFIG)?, folder.json(TOKENIZER_CONFIG)?);
    let named = |json: &Map<String, Value>, key: &str| {
        json.get(key).and_then(Value::as_str).map(str::to_owned)
    };
    let names = [
        named(&config, CONFIG_NAME),
        repository_of_code(&config),
        named(&tokenizer, "name_or_path"),
        repository_of_code(&tokenizer),
    ];
    Ok(names.into_iter().flatten().collect())
}

/// The repository in an `auto_map`: its entries are `OWNER/NAME--module.Class` once a model was loaded from the hub and saved.
fn repository_of_code(json: &Map<String, Value>) -> Option<String> {
    let entries = json.get("auto_map")?.as_object()?.values();
    let texts = entries.flat_map(|entry| match entry {
        Value::Array(entries) => entries.iter().filter_map(Value::as_str).collect(),
        entry => Vec::from_iter(entry.as_str()),
    });
    texts.filter_map(|text| Some(text.split_once("--")?.0.to_owned())).next()
}

/// The last part of a path; in the cache of the hub the repository, because the last part is a commit.
fn last(path: &str) -> Option<String> {
    let of_hub = parts(path).rev().take(3).find(|part| part.starts_with(HUB_START));
    of_hub.or_else(|| parts(path).next_back()).map(of_part)
}

/// The parts of a path of any system.
fn parts(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split(['/', '\\']).filter(|part| !part.is_empty() && !matches!(*part, "." | ".."))
}

/// A part of a path as a name; of a repository in the cache without its owner.
fn of_part(part: &str) -> String {
    let name = match part.strip_prefix(HUB_START) {
        Some(repository) => repository.rsplit("--").next().unwrap_or_default(),
        None => part,
    };
    name.to_lowercase()
}

/// The path of the folder, those of the links that it leads through, and the one at their end.
fn places(folder: &ModelDir) -> Vec<PathBuf> {
    let Ok(end) = folder.path().canonicalize() else { return Vec::new() };
    let mut places = Vec::new();
    let mut next = Some(folder.path().to_owned());
    while let Some(path) = next.take().filter(|_| places.len() < MAX_LINKS) {
        // A slash at the end would name what the link leads to.
        let path: PathBuf = path.components().collect();
        if let Ok(target) = fs::read_link(&path) {
            next = Some(path.parent().unwrap_or(Path::new("")).join(target));
        }
        places.push(path);
    }
    places.push(end);
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_called_as_it_was_published_and_by_its_folder() {
        for (published, tokenizer, expected) in [
            (Some("THUDM/ChatGLM3-6B"), None, &["chatglm3-6b", "q4"][..]),
            (Some("/base/chatglm2/"), Some("a/b"), &["chatglm2", "b", "q4"]),
            (Some("C:\\base\\x"), None, &["x", "q4"]),
            (Some("/"), None, &["q4"]),
            (None, Some("THUDM/chatglm2-6b"), &["chatglm2-6b", "q4"]),
            (
                Some("/root/.cache/huggingface/hub/models--THUDM--chatglm2-6b/snapshots/8fd7fba2/"),
                None,
                &["chatglm2-6b", "q4"],
            ),
        ] {
            let config = serde_json::json!({ CONFIG_NAME: published }).to_string();
            let tokenizer = serde_json::json!({ "name_or_path": tokenizer }).to_string();
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("Q4");
            fs::create_dir(&path).unwrap();
            fs::write(path.join(CONFIG), config).unwrap();
            fs::write(path.join(TOKENIZER_CONFIG), &tokenizer).unwrap();
            let folder = ModelDir::open(path.join(".")).unwrap();
            let mut names = [written(&folder).unwrap(), own(&folder)].concat();
            names.dedup();
            assert_eq!(names, expected, "{published:?} {tokenizer:?}");
        }
    }

    #[test]
    fn in_the_cache_of_the_hub_a_model_is_called_as_its_repository() {
        let dir = tempfile::tempdir().unwrap();
        for (path, name) in [
            ("models--THUDM--chatglm3-6b/snapshots/0123abcd", "chatglm3-6b"),
            ("models--THUDM--chatglm2-6b/int4", "chatglm2-6b"),
            ("models--gpt2/snapshots/0123abcd", "gpt2"),
            ("models/THUDM/chatglm2-6b", "chatglm2-6b"),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(&path).unwrap();
            assert_eq!(own(&ModelDir::open(&path).unwrap())[0], name);
        }
    }

    #[test]
    #[cfg(unix)]
    fn every_link_to_the_folder_has_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two, end] = ["one", "two", "end"].map(|name| dir.path().join(name));
        fs::create_dir(&end).unwrap();
        std::os::unix::fs::symlink("two", &one).unwrap();
        std::os::unix::fs::symlink(&end, &two).unwrap();
        let mut names = own(&ModelDir::open(one.join("")).unwrap());
        names.dedup();
        assert_eq!(names, ["one", "two", "end"]);
    }

    #[test]
    fn the_code_of_a_repository_names_it() {
        let json = serde_json::json!({ "auto_map": {
            "AutoConfig": "THUDM/chatglm2-6b--configuration_chatglm.ChatGLMConfig",
            "AutoTokenizer": ["THUDM/chatglm2-6b--tokenization_chatglm.ChatGLMTokenizer", null]
        } })
        .to_string();
        for file in [CONFIG, TOKENIZER_CONFIG] {
            let files = [(file, json.as_bytes())];
            assert_eq!(written(&ModelDir::of(&files)).unwrap(), ["chatglm2-6b"]);
        }
    }
}
