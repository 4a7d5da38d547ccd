//! The value of `--adapter`.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::folders::expanded;

/// A folder with an adapter, and the name under which requests choose it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterFolder {
    pub name: Option<String>,
    pub folder: PathBuf,
}

impl FromStr for AdapterFolder {
    type Err = Infallible;

    /// Reads `FOLDER` or `NAME=FOLDER`. A folder whose own name has `=` is written as a path, such as `./a=b`.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        let named = text.split_once('=');
        let named = named.filter(|(name, _)| !name.is_empty() && !name.contains(['/', '\\']));
        Ok(match named {
            Some((name, folder)) => Self { name: Some(name.to_owned()), folder: folder_at(folder) },
            None => Self { name: None, folder: folder_at(text) },
        })
    }
}

fn folder_at(text: &str) -> PathBuf {
    expanded(Path::new(text)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_before_the_folder() {
        let parse = |text: &str| {
            let AdapterFolder { name, folder } = text.parse().unwrap();
            (name, folder.display().to_string())
        };
        assert_eq!(parse("out/a"), (None, "out/a".to_owned()));
        assert_eq!(parse("law=out/a=b"), (Some("law".to_owned()), "out/a=b".to_owned()));
        assert_eq!(parse("./a=b"), (None, "./a=b".to_owned()));
        assert_eq!(parse("=a"), (None, "=a".to_owned()));
        let home = std::env::home_dir().unwrap().join("x").display().to_string();
        assert_eq!(parse("~/x"), (None, home.clone()));
        assert_eq!(parse("law=~/x"), (Some("law".to_owned()), home));
    }
}
