//! ModelScope, as its Python package asks it, <https://github.com/modelscope/modelscope>.
//!
//! ```text
//! GET /api/v1/models/REPOSITORY/repo/files?Revision=REVISION&Recursive=true
//!     {"Code": 200, "Data": {"Files": [{"Type", "Path", "Size", "Sha256"}]}}
//! GET /api/v1/models/REPOSITORY/repo?Revision=REVISION&FilePath=PATH
//! ```

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use sha1::{Digest, Sha1};

use super::{Client, Hash, Listing, MAX_FILES, RemoteFile, escaped};
use crate::messages;
use crate::repository::Repository;

pub const ENDPOINT: &str = "https://modelscope.cn";

pub const REVISION: &str = "master";

/// Owners on the Hugging Face hub whose models belong to this owner on ModelScope.
const OWNERS: [&str; 2] = ["THUDM", "zai-org"];
const OWNER: &str = "ZhipuAI";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    data: Option<Data>,
    message: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    files: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    r#type: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    sha256: String,
}

/// The name of a repository on ModelScope.
pub fn name(repository: &Repository) -> String {
    let name = repository.to_string();
    match name.split_once('/') {
        Some((owner, rest)) if OWNERS.contains(&owner) => format!("{OWNER}/{rest}"),
        _ => name,
    }
}

pub fn list(hub: &Client<'_>, repository: &Repository, revision: &str) -> Result<Listing> {
    let name = name(repository);
    if name != repository.to_string() {
        (hub.note)(&messages::name_on_model_scope(repository, &name));
    }
    let api = format!("{}/api/v1/models/{name}/repo", hub.endpoint.base);
    let query = format!("Revision={}", escaped(revision, b""));
    let url = format!("{api}/files?{query}&Recursive=true");
    let (answer, _) = hub.json::<Answer>(&url)?;
    let said = answer.message.unwrap_or_default();
    let data = answer.data.with_context(|| said.escape_debug().to_string());
    let entries = data.with_context(|| messages::nonsense(&url))?.files;
    ensure!(entries.len() <= MAX_FILES, messages::too_many_files(repository, MAX_FILES));
    let mut files = Vec::new();
    for Entry { path, size, sha256, .. } in
        entries.into_iter().filter(|entry| entry.r#type == "blob")
    {
        let url = format!("{api}?{query}&FilePath={}", escaped(&path, b""));
        let hash = Hash::sha256(&sha256).with_context(|| path.escape_debug().to_string())?;
        files.push(RemoteFile { path, size, hash, url });
    }
    let commit = snapshot(&files);
    Ok(Listing { repository: repository.clone(), commit, revision: revision.to_owned(), files })
}

/// A name for these files, because ModelScope does not say which commit a branch is at.
fn snapshot(files: &[RemoteFile]) -> String {
    let mut lines: Vec<_> =
        files.iter().map(|file| format!("{} {}\n", file.hash.name(), file.path)).collect();
    lines.sort();
    super::super::hash::hex(&Sha1::digest(lines.concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_have_other_names() {
        let of = |text: &str| name(&text.parse().unwrap());
        assert_eq!(of("THUDM/chatglm-6b"), "ZhipuAI/chatglm-6b");
        assert_eq!(of("zai-org/glm-4-9b-chat-hf"), "ZhipuAI/glm-4-9b-chat-hf");
        assert_eq!(of("ZhipuAI/chatglm-6b"), "ZhipuAI/chatglm-6b");
        assert_eq!(of("Qwen/x"), "Qwen/x");
    }

    #[test]
    fn a_snapshot_has_the_name_of_its_files() {
        let file = |path: &str, digit: &str| RemoteFile {
            path: path.into(),
            size: 1,
            hash: Hash::sha256(&digit.repeat(64)).unwrap(),
            url: String::new(),
        };
        let name = snapshot(&[file("a", "1"), file("b", "2")]);
        assert_eq!(name.len(), 40);
        assert_eq!(name, snapshot(&[file("b", "2"), file("a", "1")]));
        assert_ne!(name, snapshot(&[file("b", "2"), file("a", "3")]));
    }

    #[test]
    fn answers_are_those_of_the_site() {
        let json = r#"{"Code":200,"Data":{"Files":[{"Type":"blob","Path":"a","Size":3,
            "Sha256":"00","Revision":"x"}],"IsVisual":0},"Message":"success","Success":true}"#;
        let answer: Answer = serde_json::from_str(json).unwrap();
        assert_eq!(answer.data.unwrap().files[0].size, 3);
        let none: Answer =
            serde_json::from_str(r#"{"Code":404,"Data":null,"Message":"no"}"#).unwrap();
        assert!(none.data.is_none());
    }
}
