//! Names of repositories on a hub of models.

use std::fmt;
use std::str::FromStr;

use crate::limits::model::MAX_NAME;
use crate::messages;

/// A repository, as in `THUDM/chatglm-6b`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository(String);

/// Start of the folder of a repository in the hub's cache.
const FOLDER: &str = "models--";

impl Repository {
    /// The name of its folder in the hub's cache: `models--THUDM--chatglm-6b`.
    pub fn folder(&self) -> String {
        format!("{FOLDER}{}", self.0.replace('/', "--"))
    }

    /// Its name without the owner: `chatglm-6b`.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The repository with a folder of this name.
    pub fn of_folder(name: &str) -> Option<Self> {
        name.strip_prefix(FOLDER)?.replace("--", "/").parse().ok()
    }
}

impl FromStr for Repository {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_part = |part: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            let (first, last) = (part.chars().next(), part.chars().next_back());
            part.len() <= MAX_NAME
                && part.chars().all(allowed)
                && ![first, last].iter().any(|c| matches!(c, None | Some('-' | '.')))
                && !part.contains("--")
                && !part.contains("..")
        };
        if text.split('/').count() <= 2 && text.split('/').all(is_part) {
            Ok(Self(text.to_owned()))
        } else {
            Err(messages::not_a_repository(text))
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_has_a_folder_of_its_own() {
        for name in ["THUDM/chatglm-6b", "zai-org/glm-4-9b-chat-hf", "gpt2", "a/b.c_d"] {
            let repository: Repository = name.parse().unwrap();
            assert_eq!(Repository::of_folder(&repository.folder()), Some(repository.clone()));
            assert_eq!(repository.to_string(), name);
            assert!(name.ends_with(repository.name()) && !repository.name().contains('/'));
        }
        assert_eq!(Repository::of_folder("datasets--a--b"), None);
    }

    #[test]
    fn nothing_else_is_a_name() {
        let long = "a".repeat(MAX_NAME + 1);
        for name in
            ["", "/", "a/", "/b", "a/b/c", "../b", "a/..", "a--b/c", "a b", "a/-b", "a\\b", &long]
        {
            assert!(name.parse::<Repository>().is_err(), "{name}");
        }
    }
}
