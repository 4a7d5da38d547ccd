//! Checkpoints with the experts of a layer in one tensor.

use super::PLAIN;
use super::map::prefix;
use super::names::{ExpertNames, names};
use crate::error::Result;
use crate::files::checkpoint::Checkpoint;
use crate::files::config::{Config, Experts};

/// The checkpoint with a tensor for each matrix of an expert, if it has those of all experts of a layer in two tensors, as transformers 5
/// writes them: gate and up projection, `[experts, 2 · intermediate size, hidden]`, and down projection, `[experts, hidden, intermediate
/// size]`. `None` if it has none of these.
///
/// # Errors
/// If such a tensor is of another type or shape.
pub(super) fn split_joined(config: &Config, checkpoint: &Checkpoint) -> Result<Option<Checkpoint>> {
    let Some(experts) = &config.experts else { return Ok(None) };
    let Experts { count, intermediate_size: inner, first_layer, .. } = *experts;
    let (names, hidden) = (names(config.dialect), config.hidden);
    let prefix = prefix(names, checkpoint);
    let ExpertNames { list, gate, up, down, joined_up, joined_down, .. } = names.experts;
    let (mut wholes, mut parts) = (Vec::new(), Vec::new());
    for index in first_layer..config.layers {
        let layer = format!("{prefix}{}.{index}.", names.layers);
        for (joined, shape, each) in [
            (joined_up, [count, 2 * inner, hidden], &[gate, up][..]),
            (joined_down, [count, hidden, inner], &[down]),
        ] {
            let Some(tensor) = checkpoint.get(&format!("{layer}{joined}")) else { continue };
            tensor.expect(&PLAIN, &shape)?;
            let size = [shape[1] / each.len(), shape[2]];
            for part in 0..count * each.len() {
                let (expert, name) = (part / each.len(), each[part % each.len()]);
                let name = format!("{layer}{list}.{expert}.{name}.weight");
                if let Some(other) = checkpoint.get(&name) {
                    return Err(other.error(format!("is also a part of {}", tensor.name())));
                }
                parts.extend(tensor.part(&name, part, count * each.len(), size));
            }
            wholes.push(tensor.name().to_owned());
        }
    }
    Ok((!wholes.is_empty()).then(|| checkpoint.split(&wholes, parts)))
}
