//! The files of a repository that are needed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context, Error, Result, bail, ensure};
use glm_model::{MOST_IN_INDEX, check_json_values, checkpoint_files, companion_files, utf8};
use serde::Deserialize;

use super::hub::{Listing, RemoteFile};
use crate::messages;

const CONFIG: &str = "config.json";

/// The end of the name of an index.
const INDEX: &str = ".index.json";

/// The files that are downloaded.
#[derive(Debug)]
pub struct Selected<'a> {
    /// Configuration, tokenizer, licence and index.
    pub others: Vec<&'a RemoteFile>,
    pub weights: Vec<&'a RemoteFile>,
}

/// The index of weights in several files.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Selected<'_> {
    pub fn all(&self) -> impl Iterator<Item = &RemoteFile> {
        self.others.iter().chain(&self.weights).copied()
    }
}

/// The configuration of the model.
///
/// # Errors
/// If the repository has none.
pub fn config(listing: &Listing) -> Result<&RemoteFile> {
    if let Some(config) = find(listing, CONFIG) {
        return Ok(config);
    }
    let repository = &listing.repository;
    if listing.files.iter().any(|file| file.path.to_lowercase().ends_with(".gguf")) {
        bail!(messages::only_gguf(repository));
    }
    bail!(messages::no_config(repository))
}

/// What is needed of a repository with a configuration. `read` gets the contents of a small file. Of safetensors and torch, only
/// safetensors are needed.
///
/// # Errors
/// If the repository has no weights of these formats, its index is wrong, or a file cannot be read.
pub fn select(
    listing: &Listing,
    read: impl Fn(&RemoteFile) -> Result<Vec<u8>>,
) -> Result<Selected<'_>> {
    let mut others = vec![config(listing)?];
    others.extend(companion_files().filter_map(|name| find(listing, name)));
    let first = checkpoint_files().find_map(|name| find(listing, &name));
    let first = first.with_context(|| no_weights(listing))?;
    if !first.path.ends_with(INDEX) {
        return Ok(Selected { others, weights: vec![first] });
    }
    let weights = shards(listing, &read(first)?).with_context(|| first.path.clone())?;
    others.push(first);
    Ok(Selected { others, weights })
}

/// The files that an index names.
fn shards<'a>(listing: &'a Listing, index: &[u8]) -> Result<Vec<&'a RemoteFile>> {
    check_json_values(index, MOST_IN_INDEX).map_err(Error::msg)?;
    let index: Index = serde_json::from_str(utf8(index)?)?;
    let names: BTreeSet<_> = index.weight_map.values().collect();
    ensure!(!names.is_empty(), no_weights(listing));
    // Both lists may have a hundred thousand names.
    let files: HashMap<_, _> = listing.files.iter().map(|file| (&file.path, file)).collect();
    let file = |name: &&String| {
        let file = files.get(name).copied();
        file.with_context(|| messages::file_not_in_repository(name.escape_debug()))
    };
    names.iter().map(file).collect()
}

fn no_weights(listing: &Listing) -> String {
    let files = checkpoint_files().filter(|name| !name.ends_with(INDEX)).collect::<Vec<_>>();
    messages::no_weights(&listing.repository, files.join(", "))
}

fn find<'a>(listing: &'a Listing, path: &str) -> Option<&'a RemoteFile> {
    listing.files.iter().find(|file| file.path == path)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::hub::Hash;
    use super::*;
    use crate::limits::hub::MAX_FILES;

    fn listing(paths: &[&str]) -> Listing {
        let file = |path: &&str| RemoteFile {
            path: (*path).to_owned(),
            size: 1,
            hash: Hash::Sha256("0".repeat(64)),
            url: String::new(),
        };
        Listing {
            repository: "a/b".parse().unwrap(),
            commit: "0".repeat(40),
            revision: "main".into(),
            files: paths.iter().map(file).collect(),
        }
    }

    fn selected(paths: &[&str], index: &str) -> Result<(Vec<String>, Vec<String>)> {
        let listing = listing(paths);
        let selected = select(&listing, |_| Ok(index.as_bytes().to_vec()))?;
        let paths =
            |files: &[&RemoteFile]| files.iter().map(|file| file.path.clone()).collect::<Vec<_>>();
        Ok((paths(&selected.others), paths(&selected.weights)))
    }

    #[test]
    fn of_two_formats_one_is_needed() {
        let index =
            r#"{"weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "1.safetensors"}}"#;
        let paths = [
            "config.json",
            "README.md",
            "modeling_chatglm.py",
            "tokenizer.json",
            "LICENSE",
            "1.safetensors",
            "2.safetensors",
            "model.safetensors.index.json",
            "pytorch_model.bin",
            "x.gguf",
            "model.onnx",
            "sub/tokenizer.json",
        ];
        let (others, weights) = selected(&paths, index).unwrap();
        assert_eq!(weights, ["1.safetensors", "2.safetensors"]);
        assert_eq!(others.first().unwrap(), "config.json");
        assert_eq!(others.last().unwrap(), "model.safetensors.index.json");
        assert_eq!(others.len(), 4, "{others:?}");
        let (_, weights) = selected(&["config.json", "pytorch_model.bin"], "").unwrap();
        assert_eq!(weights, ["pytorch_model.bin"]);
    }

    #[test]
    fn each_of_many_files_is_found_at_once() {
        let names: Vec<_> = (0..MAX_FILES - 2).map(|number| format!("{number}")).collect();
        let index = "model.safetensors.index.json";
        let paths: Vec<_> =
            names.iter().map(|name| &**name).chain(["config.json", index]).collect();
        let map: BTreeMap<_, _> = names.iter().map(|name| (name, name)).collect();
        let index = serde_json::json!({ "weight_map": map }).to_string();
        let started = Instant::now();
        let (_, weights) = selected(&paths, &index).unwrap();
        assert_eq!(weights.len(), names.len());
        // A search through the list for each name compares five thousand million times.
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }

    #[test]
    fn what_is_no_model_is_refused() {
        let refusal = |paths: &[&str], index| selected(paths, index).unwrap_err().to_string();
        assert!(refusal(&["a.GGUF"], "").contains("GGUF"));
        assert!(refusal(&["a.txt"], "").contains("config.json"));
        assert!(refusal(&["config.json", "a.gguf"], "").contains("model.safetensors"));
        let paths = ["config.json", "pytorch_model.bin.index.json"];
        for index in ["", "{}", r#"{"weight_map": {}}"#, r#"{"weight_map": {"a": "../x"}}"#] {
            selected(&paths, index).unwrap_err();
        }
        let many =
            format!(r#"{{"weight_map": {{{}"b": ""}}}}"#, r#""a":"","#.repeat(MOST_IN_INDEX));
        let error = format!("{:#}", selected(&paths, &many).unwrap_err());
        assert!(error.ends_with("has more than 262144 values"), "{error}");
    }
}
