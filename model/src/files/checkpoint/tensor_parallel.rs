//! A folder of SwissArmyTransformer: the files of the ranks of a model that was trained with tensor parallelism.
//!
//! ```text
//! latest                                  "49300"
//! 49300/mp_rank_00_model_states.pt        {"module": {"transformer.layers.0.attention.dense.weight": …, …}, …}
//! 49300/mp_rank_01_model_states.pt
//! ```

use std::fs;
use std::io::Read;
use std::path::Path;

use super::shards::is_plain_name;
use super::{Format, SHARDS, Tensor};
use crate::error::{Error, Result};
use crate::files::model_dir::{IS_LFS_POINTER, is_lfs_pointer};
use crate::files::regular::open_regular;
use crate::limits::checkpoint::{MAX_LATEST, MAX_RANKS};

/// Prefix of the model's tensors; the other values belong to the trainer.
const MODULE: &str = "module.";

/// The prefix of the tensor names of each rank, and the tensors of all ranks.
pub(super) fn read(dir: &Path) -> Result<(Vec<String>, Vec<Tensor>)> {
    let folder = dir.join(iteration(&dir.join(SHARDS))?);
    let (mut prefixes, mut all) = (Vec::new(), Vec::new());
    for index in 0..count(&folder)? {
        let rank = rank(index);
        let contents = Format::Torch.read(&folder.join(format!("{rank}{END}")))?;
        let prefix = format!("{rank}/");
        let tensors = contents.tensors.into_iter();
        all.extend(tensors.filter_map(|tensor| {
            let name = format!("{prefix}{}", tensor.name().strip_prefix(MODULE)?);
            Some(tensor.renamed(&name))
        }));
        prefixes.push(prefix);
    }
    Ok((prefixes, all))
}

const END: &str = "_model_states.pt";

fn rank(index: usize) -> String {
    format!("mp_rank_{index:02}")
}

/// Reads the name of a folder from a file.
fn iteration(path: &Path) -> Result<String> {
    let mut text = String::new();
    let file = open_regular(path).map_err(Error::io(path))?;
    file.take(MAX_LATEST + 1).read_to_string(&mut text).map_err(Error::io(path))?;
    if is_lfs_pointer(text.as_bytes()) {
        return Err(Error::file(path, IS_LFS_POINTER));
    }
    let name = text.trim_start_matches('\u{feff}').trim();
    if is_plain_name(name) && text.len() as u64 <= MAX_LATEST {
        return Ok(name.to_owned());
    }
    Err(Error::file(path, format!("{name:?} is not the name of a folder beside it")))
}

/// The number of ranks.
fn count(folder: &Path) -> Result<usize> {
    let mut found = 0;
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let name = entry.map_err(Error::io(folder))?.file_name();
        found += usize::from(name.to_string_lossy().ends_with(END));
    }
    if found > MAX_RANKS {
        return Err(Error::file(folder, format!("has {found} shards, more than {MAX_RANKS}")));
    }
    let missing = (0..found.max(1)).find(|&index| !folder.join(rank(index) + END).exists());
    match missing {
        None => Ok(found),
        Some(index) => Err(Error::file(
            folder,
            format!("shard {}{END} is missing; there are {found} shards", rank(index)),
        )),
    }
}
