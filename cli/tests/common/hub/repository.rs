//! Repositories of a hub, and what the hub says of them.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::Shared;
use super::answer::Answer;

/// A commit of a repository.
#[derive(Debug, Clone)]
pub struct Repository {
    pub commit: String,
    pub files: BTreeMap<String, File>,
    /// Revisions that are this commit.
    pub revisions: Vec<String>,
    /// Files in one page of a list.
    pub page: usize,
    /// Sizes in the list that are not true.
    pub sizes: BTreeMap<String, usize>,
}

#[derive(Debug, Clone)]
pub struct File {
    pub bytes: Arc<Vec<u8>>,
    /// The hash of its contents if it is large, of git's object otherwise.
    pub hash: String,
    pub is_large: bool,
}

impl File {
    pub fn new(name: &str, bytes: Vec<u8>) -> Self {
        let is_large =
            [".bin", ".safetensors", ".model", ".gguf"].iter().any(|end| name.ends_with(end));
        let hash = match is_large {
            true => sha256(&bytes),
            false => git_sha1(&bytes),
        };
        Self { bytes: Arc::new(bytes), hash, is_large }
    }
}

impl Repository {
    /// The files of a folder as a commit, which is `main` and `v1`.
    pub fn of_folder(folder: &Path) -> Self {
        let mut repository = Self {
            commit: "0123456789abcdef0123456789abcdef01234567".to_owned(),
            files: BTreeMap::new(),
            revisions: ["main", "master", "v1"].map(str::to_owned).to_vec(),
            page: 1000,
            sizes: BTreeMap::new(),
        };
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                let name = entry.file_name().into_string().unwrap();
                repository = repository.with(&name, fs::read(entry.path()).unwrap());
            }
        }
        repository
    }

    pub fn with(mut self, name: &str, bytes: Vec<u8>) -> Self {
        self.files.insert(name.to_owned(), File::new(name, bytes));
        self
    }

    /// The contents of large files by their hash.
    pub fn large(&self) -> HashMap<String, Arc<Vec<u8>>> {
        let large = self.files.values().filter(|file| file.is_large);
        large.map(|file| (file.hash.clone(), Arc::clone(&file.bytes))).collect()
    }

    fn has(&self, revision: &str) -> bool {
        revision == self.commit || self.revisions.iter().any(|name| name == revision)
    }

    /// The list of files as huggingface.co gives it, from the file of this index on.
    fn tree(&self, from: usize) -> Value {
        let entry = |(path, file): (&String, &File)| {
            let size = self.sizes.get(path).copied().unwrap_or(file.bytes.len());
            let mut entry = json!({ "type": "file", "path": path, "size": size, "oid": file.hash });
            if file.is_large {
                entry["oid"] = git_sha1(file.hash.as_bytes()).into();
                entry["lfs"] = json!({ "oid": file.hash, "size": size, "pointerSize": 134 });
            }
            entry
        };
        let mut entries: Vec<_> = self.files.iter().skip(from).take(self.page).map(entry).collect();
        if from == 0 {
            entries
                .insert(0, json!({ "type": "directory", "path": "images", "size": 0, "oid": "0" }));
        }
        entries.into()
    }

    /// The list of files as modelscope.cn gives it.
    fn modelscope(&self) -> Value {
        let entry = |(path, file): (&String, &File)| {
            json!({
                "Path": path, "Name": path, "Size": file.bytes.len(), "Sha256": sha256(&file.bytes),
                "Type": "blob", "Revision": self.commit, "CommitId": self.commit, "IsLFS": file.is_large,
            })
        };
        let mut files: Vec<_> = self.files.iter().map(entry).collect();
        files.push(
            json!({ "Path": "images", "Name": "images", "Size": 0, "Sha256": "", "Type": "tree" }),
        );
        json!({ "Code": 200, "Success": true, "Data": { "Files": files } })
    }
}

impl Shared {
    pub fn answer(&self, target: &str, has_token: bool, host: Option<&String>) -> Answer {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(key, _)| *key == name).map(|(_, value)| decode(value)).next()
        };
        if let Some(hash) = path.strip_prefix("/large/") {
            let large = self.large.lock().unwrap();
            let file = large.get(hash);
            return file.map_or_else(
                || Answer::refuse(404, ""),
                |bytes| Answer::new(200, vec!["Accept-Ranges: bytes".into()], Arc::clone(bytes)),
            );
        }
        for (old, new) in &*self.renamed.lock().unwrap() {
            if path.contains(&format!("/{old}/")) {
                return Answer::refuse(307, &format!("Location: {}", target.replace(old, new)));
            }
        }
        let repositories = self.repositories.lock().unwrap();
        let found = repositories.iter().find_map(|(name, repository)| {
            let starts = [
                format!("/api/models/{name}/"),
                format!("/{name}/"),
                format!("/api/v1/models/{name}/"),
            ];
            let rest = starts.iter().find_map(|start| path.strip_prefix(start.as_str()))?;
            Some((name, repository, rest))
        });
        let Some((name, repository, rest)) = found else {
            // As the hub does: whoever is unknown is not told whether a repository exists.
            let status = if has_token { 404 } else { 401 };
            return Answer::refuse(status, "X-Error-Code: RepoNotFound");
        };
        if let Some(rest) = rest.strip_prefix("repo") {
            let revision = query("Revision").unwrap_or_default();
            return match (query("FilePath"), repository.has(&revision)) {
                (_, false) => Answer::refuse(404, ""),
                (None, _) if rest == "/files" => Answer::json(&repository.modelscope()),
                (Some(file), _) => match repository.files.get(&file) {
                    Some(file) => Answer::new(200, Vec::new(), Arc::clone(&file.bytes)),
                    None => Answer::refuse(404, ""),
                },
                _ => Answer::refuse(404, ""),
            };
        }
        let (kind, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let revision_end =
            if kind == "resolve" { rest.find('/').unwrap_or(rest.len()) } else { rest.len() };
        let (revision, file) = rest.split_at(revision_end);
        if !repository.has(&decode(revision)) {
            return Answer::refuse(404, "X-Error-Code: RevisionNotFound");
        }
        match kind {
            "revision" => {
                let files = repository.files.keys().map(|path| json!({ "rfilename": path }));
                let siblings: Vec<_> = files.collect();
                Answer::json(&json!({
                    "id": name, "sha": repository.commit, "gated": false, "siblings": siblings,
                }))
            }
            "tree" => {
                let from = query("cursor").map_or(0, |cursor| cursor.parse().unwrap());
                let (page, next) = (Answer::json(&repository.tree(from)), from + repository.page);
                if next >= repository.files.len() {
                    return page;
                }
                let next = format!("{path}?recursive=true&cursor={next}");
                page.with(format!("Link: <http://{}{next}>; rel=\"next\"", host.unwrap()))
            }
            "resolve" => self.resolve(repository, &decode(&file[1..])),
            _ => Answer::refuse(404, ""),
        }
    }

    fn resolve(&self, repository: &Repository, path: &str) -> Answer {
        let Some(file) = repository.files.get(path) else {
            return Answer::refuse(404, "X-Error-Code: EntryNotFound");
        };
        let commit = format!("X-Repo-Commit: {}", repository.commit);
        if !file.is_large {
            let head = vec![commit, format!("ETag: \"{}\"", file.hash)];
            return Answer::new(200, head, Arc::clone(&file.bytes));
        }
        let host = self.content_host.lock().unwrap();
        Answer::redirect(&format!("{host}/large/{}", file.hash))
            .with(commit)
            .with(format!("X-Linked-Size: {}", file.bytes.len()))
            .with(format!("X-Linked-Etag: \"{}\"", file.hash))
    }
}

/// Text in which `%XX` is a byte.
fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        let code = (*first == b'%').then(|| others.get(..2)).flatten();
        let byte =
            code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &others[2..] } else { others };
    }
    String::from_utf8(bytes).unwrap()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn git_sha1(bytes: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(format!("blob {}\0", bytes.len()));
    hash.update(bytes);
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
