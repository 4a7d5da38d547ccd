//! Models that this program quantized: `models--THUDM--chatglm-6b/int4` and the like, each a plain model folder.

use std::path::{Path, PathBuf};

use anyhow::Result;
use glm_model::{QuantizeOptions, Quantizer};

use super::{Stored, changed, entries, locks, repositories};
use crate::folders;
use crate::repository::Repository;

/// The end of the name of a folder that is not finished.
pub const UNFINISHED: &str = ".part";

/// The end of the name of the folder of a model while another takes its place.
pub const REPLACED: &str = ".old.part";

/// The lock file of a quantized model, or of one that is made, in its format: processes that write or remove it lock it.
pub fn lock_file(repository: &Repository, format: &str) -> Result<PathBuf> {
    Ok(locks(&folders::quantized()?, repository).join(format!("{format}.lock")))
}

/// All models in a folder of quantized models.
pub fn stored(root: &Path) -> Result<Vec<Stored>> {
    let mut all = Vec::new();
    for (repository, folder) in repositories(root)? {
        for entry in entries(&folder)? {
            if let (Ok(format), true) = (entry.file_name().into_string(), entry.path().is_dir()) {
                let (repository, suffix) = (repository.clone(), format!(":{format}"));
                let (folder, changed) = (entry.path(), changed(&entry.path()));
                all.push(Stored { repository, suffix, folder, changed });
            }
        }
    }
    Ok(all)
}

/// The format that a process makes in a folder of this name: `int4` in `int4.part`, `int4.old.part` and `int4.quantize.part`, too.
pub fn format(name: &str) -> &str {
    [REPLACED, Quantizer::UNFINISHED, UNFINISHED]
        .iter()
        .find_map(|end| name.strip_suffix(end))
        .unwrap_or(name)
}

/// The end of the name of a format of four bits whose groups have no minimum.
pub const SYMMETRIC: &str = "-sym";

/// The start of the name of a format of mixed bits.
pub const MIXED: &str = "mixed-";

/// The folder of a repository, quantized: its name says how it differs from the default: `int4`, `int8-g64`, `int4-g64-sym` or
/// `mixed-4.5`.
pub fn folder(repository: &Repository, options: &QuantizeOptions) -> Result<PathBuf> {
    let QuantizeOptions { bits, group, minimum, .. } = *options;
    let is_default = group == QuantizeOptions::default_group(minimum);
    let group = if is_default { String::new() } else { format!("-g{group}") };
    let symmetric = if bits == 4 && !minimum { SYMMETRIC } else { "" };
    let format = match options.target_bits {
        Some(bits) => format!("{MIXED}{bits}"),
        None => format!("int{bits}{group}{symmetric}"),
    };
    Ok(folders::quantized()?.join(repository.folder()).join(format))
}
