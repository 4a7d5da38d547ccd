//! What a hub says about a repository.

mod hugging_face;
mod model_scope;

use std::{env, fmt};

use anyhow::{Context, Error, Result, ensure};
use base64::prelude::{BASE64_STANDARD, Engine};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use ureq::http::Uri;

use super::http::{Http, Refused, Request};
use super::redirect;
use super::retry::Retries;
use crate::args::Hub;
use crate::limits::hub::{MAX_ANSWER, MAX_FILES, MAX_REVISION};
use crate::repository::Repository;
use crate::{failure, messages};

/// The files of a revision of a repository.
#[derive(Debug)]
pub struct Listing {
    pub repository: Repository,
    /// The name of the snapshot.
    pub commit: String,
    pub revision: String,
    pub files: Vec<RemoteFile>,
}

/// A file on a hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFile {
    /// Its path in the repository: relative, without `..`.
    pub path: String,
    pub size: u64,
    pub hash: Hash,
    pub url: String,
}

/// What the contents of a file are checked with, in lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hash {
    Sha256(String),
    /// SHA-1 of `blob SIZE\0` and the contents, as git has it.
    GitSha1(String),
}

impl Hash {
    /// The name of the blob in the hub's cache.
    pub fn name(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::GitSha1(hex) => hex,
        }
    }

    fn sha256(text: &str) -> Result<Self> {
        Ok(Self::Sha256(hex(text, 64)?))
    }

    fn git_sha1(text: &str) -> Result<Self> {
        Ok(Self::GitSha1(hex(text, 40)?))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(hex) => write!(f, "SHA-256 {hex}"),
            Self::GitSha1(hex) => write!(f, "git SHA-1 {hex}"),
        }
    }
}

/// A hub and the account there.
#[derive(Debug)]
pub struct Endpoint {
    hub: Hub,
    /// The start of all URLs, without a slash at its end. Messages show it, so it has no password.
    base: String,
    /// The value of `Authorization`.
    pub authorization: Option<String>,
}

impl Endpoint {
    /// The hub as the environment describes it.
    ///
    /// # Errors
    /// If the environment forbids downloads. Wrong usage, if the value of a variable is wrong.
    pub fn of_environment(hub: Hub) -> Result<Self> {
        let (variable, base, token) = match hub {
            Hub::HuggingFace => {
                hugging_face::check_online()?;
                ("HF_ENDPOINT", hugging_face::ENDPOINT, hugging_face::token()?)
            }
            Hub::ModelScope => {
                ("MODELSCOPE_ENDPOINT", model_scope::ENDPOINT, text(hub.token_variable())?)
            }
        };
        // It becomes a line of the head of each request.
        if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(failure::usage(messages::not_a_token(hub.token_variable())));
        }
        let base = text(variable)?.unwrap_or_else(|| base.to_owned());
        let (base, password) = without_password(base.trim_end_matches('/'));
        let is_url = base.parse().is_ok_and(|base: Uri| redirect::is_http(&base));
        if !is_url {
            // Of what is no address, anything before an @ may be a password.
            let shown =
                base.rsplit_once('@').map_or(base.clone(), |(_, host)| format!("***@{host}"));
            return Err(failure::usage(messages::not_an_endpoint(variable, shown)));
        }
        // As in Python, a password in the address goes before the token.
        let authorization = password.or(token.map(|token| format!("Bearer {token}")));
        Ok(Self { hub, base, authorization })
    }

    /// The files of a repository. `note` gets lines for people while requests are repeated.
    ///
    /// # Errors
    /// If the hub cannot be reached, does not know the repository or the revision, or answers nonsense.
    pub fn list(
        &self,
        http: &Http,
        repository: &Repository,
        revision: Option<&str>,
        note: &dyn Fn(&str),
    ) -> Result<Listing> {
        let revision = revision.unwrap_or(match self.hub {
            Hub::HuggingFace => hugging_face::REVISION,
            Hub::ModelScope => model_scope::REVISION,
        });
        if !is_relative(revision) || revision.len() > MAX_REVISION {
            return Err(failure::usage(messages::not_a_revision(revision)));
        }
        let hub = Client { endpoint: self, http, note };
        let listing = match self.hub {
            Hub::HuggingFace => hugging_face::list(&hub, repository, revision),
            Hub::ModelScope => model_scope::list(&hub, repository, revision),
        };
        let listing = listing.map_err(|error| self.explain(error, repository, revision))?;
        for file in &listing.files {
            ensure!(
                is_relative(&file.path),
                messages::unsafe_path(repository, file.path.escape_debug())
            );
        }
        Ok(listing)
    }

    /// Says what a refusal means for the user.
    pub fn explain(&self, error: Error, repository: &Repository, revision: &str) -> Error {
        let Some(refused) = error.downcast_ref::<Refused>() else {
            return error;
        };
        let page = match self.hub {
            Hub::HuggingFace => format!("{}/{repository}", self.base),
            Hub::ModelScope => format!("{}/models/{}", self.base, model_scope::name(repository)),
        };
        let variable = self.hub.token_variable();
        let message = match (refused.status, &*refused.code) {
            (401 | 403, "GatedRepo") | (403, _) => {
                messages::repository_is_gated(repository, page, variable)
            }
            // The Hugging Face hub does not tell a private repository from none.
            (401, _) => messages::repository_needs_token(repository, page, variable),
            (404, "RevisionNotFound") => messages::no_such_revision(repository, revision),
            (404, "RepoNotFound") => messages::no_such_repository(repository, &self.base),
            (404, _) => messages::no_such_repository_or_revision(repository, revision, &self.base),
            (429, _) => messages::too_many_requests(&self.base, variable),
            _ => return error,
        };
        error.context(message)
    }
}

impl Hub {
    /// The environment variable with the access token.
    fn token_variable(self) -> &'static str {
        match self {
            Self::HuggingFace => "HF_TOKEN",
            Self::ModelScope => "MODELSCOPE_API_TOKEN",
        }
    }
}

/// A hub that is asked.
struct Client<'a> {
    endpoint: &'a Endpoint,
    http: &'a Http,
    note: &'a dyn Fn(&str),
}

impl Client<'_> {
    /// An answer in JSON, and the URL of the next page of it.
    fn json<T: DeserializeOwned>(&self, url: &str) -> Result<(T, Option<String>)> {
        let authorization = self.endpoint.authorization.as_deref();
        let request = Request { url, authorization, range: None };
        let (bytes, next) = Retries::default().run(&self.http.stop, self.note, |_| {
            let mut answer = self.http.get(request)?;
            let next = answer.header("Link").and_then(next_page).map(str::to_owned);
            Ok((answer.bytes(MAX_ANSWER)?, next))
        })?;
        let value = serde_json::from_slice(&bytes).with_context(|| messages::nonsense(url))?;
        Ok((value, next))
    }
}

/// A URL without the name and the password in it, and the `Authorization` that they make.
fn without_password(url: &str) -> (String, Option<String>) {
    let start = url.find("://").map_or(0, |at| at + "://".len());
    let authority = url[start..].split(['/', '?', '#']).next().unwrap_or_default();
    let Some((account, _)) = authority.rsplit_once('@') else { return (url.to_owned(), None) };
    let rest = &url[start + account.len() + "@".len()..];
    let mut account: Vec<u8> = percent_decode_str(account).collect();
    if !account.contains(&b':') {
        account.push(b':');
    }
    let authorization = format!("Basic {}", BASE64_STANDARD.encode(account));
    (format!("{}{rest}", &url[..start]), Some(authorization))
}

/// The URL of the next page in a header `Link`.
fn next_page(link: &str) -> Option<&str> {
    let next = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    Some(next.split_once('<')?.1.split_once('>')?.0)
}

/// Whether a path stays below the folder that it is relative to, on every system.
fn is_relative(path: &str) -> bool {
    let is_name = |part: &str| !matches!(part, "" | "." | "..");
    let is_odd = |c: char| c.is_control() || c == '\\';
    path.split('/').all(is_name) && !path.contains(is_odd)
}

/// Hexadecimal digits in lower case.
fn hex(text: &str, digits: usize) -> Result<String> {
    let is_hex = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    ensure!(is_hex, messages::not_a_hash(text.escape_debug()));
    Ok(text.to_ascii_lowercase())
}

/// A part of a URL, with everything escaped that has a meaning there. `kept` is left as it is.
fn escaped(text: &str, kept: &[u8]) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            escaped.push(byte.into());
        } else {
            escaped += &format!("%{byte:02X}");
        }
    }
    escaped
}

/// The text in an environment variable that is set and not empty.
fn text(name: &str) -> Result<Option<String>> {
    match env::var(name) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => {
            Err(failure::usage(messages::variable_is_no_text(name)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_folder() {
        for path in ["config.json", "a/b.bin", "refs/pr/1", "模型.bin", "...", "a b"] {
            assert!(is_relative(path), "{path}");
        }
        for path in ["", "/a", "a/", "../a", "a/../b", "a//b", ".", "a\\b", "a\nb"] {
            assert!(!is_relative(path), "{path}");
        }
    }

    #[test]
    fn hashes_are_hex() {
        assert_eq!(Hash::git_sha1(&"Ab".repeat(20)).unwrap().name(), "ab".repeat(20));
        for wrong in ["", "ab", "../../../../etc/passwd", &"g".repeat(40), &"a".repeat(64)] {
            assert!(Hash::git_sha1(wrong).is_err(), "{wrong}");
        }
        assert!(Hash::sha256(&"a".repeat(64)).is_ok() && Hash::sha256(&"a".repeat(40)).is_err());
    }

    #[test]
    fn pages_are_linked() {
        let link = "<https://x/y?cursor=1>; rel=\"prev\", <https://x/y?cursor=3>; rel=\"next\"";
        assert_eq!(next_page(link), Some("https://x/y?cursor=3"));
        assert_eq!(next_page("<https://x>; rel=\"prev\""), None);
        assert_eq!(next_page("rel=\"next\""), None);
    }

    #[test]
    fn passwords_are_no_part_of_the_url() {
        let of = |url| {
            let (url, authorization) = without_password(url);
            let account = authorization.map(|text| {
                let encoded = text.strip_prefix("Basic ").unwrap();
                String::from_utf8(BASE64_STANDARD.decode(encoded).unwrap()).unwrap()
            });
            (url, account)
        };
        let some = |url: &str, account: &str| (url.to_owned(), Some(account.to_owned()));
        assert_eq!(of("https://me:secret@hub/x"), some("https://hub/x", "me:secret"));
        assert_eq!(of("http://me:a%40b%3Ac@hub:80"), some("http://hub:80", "me:a@b:c"));
        assert_eq!(of("https://me:a@b@hub"), some("https://hub", "me:a@b"));
        assert_eq!(of("https://me@hub"), some("https://hub", "me:"));
        for url in ["https://hub", "https://hub/a@b", "https://hub?a@b"] {
            assert_eq!(of(url), (url.to_owned(), None));
        }
    }

    #[test]
    fn urls_are_escaped() {
        assert_eq!(escaped("refs/pr/1", b""), "refs%2Fpr%2F1");
        assert_eq!(escaped("a/b c?模.bin", b"/"), "a/b%20c%3F%E6%A8%A1.bin");
    }
}
