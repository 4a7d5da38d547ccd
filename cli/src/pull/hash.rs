//! Checks the contents of files.

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::hub::{Hash, RemoteFile};

/// Hashes the contents of a file as they arrive.
#[derive(Clone)]
pub enum Hasher {
    Sha256(Sha256),
    GitSha1(Sha1),
}

impl Hasher {
    pub fn new(file: &RemoteFile) -> Self {
        match file.hash {
            Hash::Sha256(_) => Self::Sha256(Sha256::new()),
            Hash::GitSha1(_) => {
                Self::GitSha1(Sha1::new_with_prefix(format!("blob {}\0", file.size)))
            }
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::GitSha1(hasher) => hasher.update(bytes),
        }
    }

    pub fn finish(self) -> String {
        match self {
            Self::Sha256(hasher) => hex(&hasher.finalize()),
            Self::GitSha1(hasher) => hex(&hasher.finalize()),
        }
    }
}

/// Hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_git_and_sha256sum() {
        let of = |hash| {
            let file = RemoteFile { path: "a".into(), size: 6, hash, url: String::new() };
            let mut hasher = Hasher::new(&file);
            hasher.update(b"hel");
            hasher.update(b"lo\n");
            hasher.finish()
        };
        // `git hash-object` and `sha256sum` of a file with the line `hello`.
        assert_eq!(of(Hash::GitSha1(String::new())), "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(
            of(Hash::Sha256(String::new())),
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
        );
    }
}
