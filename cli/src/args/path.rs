//! Values that are paths.

use std::path::PathBuf;

use clap::builder::{PathBufValueParser, TypedValueParser};

use crate::folders::expanded;

/// A parser of paths of files and folders, in which `~` at the beginning is the user's home. Names of models are expanded where they
/// are looked for.
pub fn path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().map(|path| expanded(&path).into_owned())
}
