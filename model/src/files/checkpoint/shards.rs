//! Checkpoints in several files, with an index of the tensors in each.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use serde::Deserialize;

use super::{Bytes, Format, Tensor, is_buffer};
use crate::error::{Error, Result};
use crate::files::json::check_json_values;
use crate::files::model_dir::{IS_LFS_POINTER, is_lfs_pointer};
use crate::files::utf8::utf8;
use crate::limits::checkpoint::{MAX_INDEX, MOST_IN_INDEX};
use crate::memory::{copy, reserve};

/// `*.index.json` as transformers writes it.
#[derive(Deserialize)]
struct Index {
    /// Tensor → file name. The other fields of the index are redundant.
    weight_map: BTreeMap<String, String>,
}

/// Reads every file of the index and checks that each has exactly the tensors that the index lists, buffers aside.
pub(super) fn read(index_path: &Path, format: Format) -> Result<Vec<Tensor>> {
    let file = Bytes::map(index_path)?;
    if file.len() > MAX_INDEX {
        return Err(Error::file(index_path, format!("is larger than {MAX_INDEX} bytes")));
    }
    // Copied, so that no other process can change it between check and use.
    let json = copy(&file, index_path.display())?;
    file.check()?;
    if is_lfs_pointer(&json) {
        return Err(Error::file(index_path, IS_LFS_POINTER));
    }
    let text = utf8(&json).map_err(|problem| Error::file(index_path, problem.to_string()))?;
    check_json_values(&json, MOST_IN_INDEX).map_err(|problem| Error::file(index_path, problem))?;
    let index: Index =
        serde_json::from_str(text).map_err(|error| Error::file(index_path, error.to_string()))?;
    let folder = index_path.parent().unwrap_or(Path::new(""));
    let shards: BTreeSet<_> = index.weight_map.values().collect();
    let mut tensors = Vec::new();
    for shard in shards {
        check_name(index_path, shard)?;
        let mut contents = format.read(&folder.join(shard))?;
        // No model reads them, so it does not matter what the index says of them.
        contents.tensors.retain(|tensor| !is_buffer(tensor.name()));
        for tensor in &contents.tensors {
            check_home(index_path, shard, index.weight_map.get(tensor.name()), tensor)?;
        }
        reserve(&mut tensors, contents.tensors.len(), index_path.display())?;
        tensors.extend(contents.tensors);
    }
    check_complete(folder, &index, &tensors)?;
    Ok(tensors)
}

/// Checks that a file is in the folder of the index.
fn check_name(index_path: &Path, shard: &str) -> Result<()> {
    if is_plain_name(shard) {
        return Ok(());
    }
    Err(Error::file(index_path, format!("{shard:?} is not the name of a file in its folder")))
}

/// Whether a name is a plain file name, which on no system leads out of the folder.
pub(super) fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!(components.next(), Some(Component::Normal(_)))
        && components.next().is_none()
        && !name.contains(['/', '\\', ':', '\0'])
}

fn check_home(index_path: &Path, shard: &str, home: Option<&String>, found: &Tensor) -> Result<()> {
    match home {
        Some(home) if home == shard => Ok(()),
        Some(home) => Err(found
            .error(format!("is here, though {} says that it is in {home}", index_path.display()))),
        None => Err(found.error(format!("is not listed in {}", index_path.display()))),
    }
}

fn check_complete(folder: &Path, index: &Index, tensors: &[Tensor]) -> Result<()> {
    let found: BTreeSet<_> = tensors.iter().map(Tensor::name).collect();
    let missing = index
        .weight_map
        .iter()
        .find(|(name, _)| !is_buffer(name) && !found.contains(name.as_str()));
    match missing {
        None => Ok(()),
        Some((name, shard)) => Err(Error::tensor(
            &folder.join(shard),
            name,
            "is missing, though the index says that it is here",
        )),
    }
}
