//! Calibration of a feed-forward block with experts.
//!
//! The states before the block are kept. The router chooses the experts of each token, as in a pass, and each expert is quantized for the
//! tokens that it has, one expert after the other. An expert with few tokens is quantized for all of them.

use glm_kernels::{Activation, Gate, Input, Isa, Output, Q8Rows, for_each_row, parallel_region};

use super::inputs::Inputs;
use super::layers::Layers;
use super::{ACTIVATIONS, Calibration, Work, quantized};
use crate::error::Result;
use crate::files::config::{Config, Experts};
use crate::files::weights::StoredLinear;
use crate::memory::{room, zeros};
use crate::network::experts::choose;
use crate::network::layer::{Context, Expert, Linear, LinearRole, Weight};

/// The fewest tokens that an expert is quantized for alone.
const FEWEST: usize = 64;

/// What errors call inputs of experts.
const ROWS: &str = "the inputs of the experts";

/// The block of a stored layer.
pub(super) struct Sparse<'a> {
    pub(super) router: &'a StoredLinear,
    pub(super) experts: &'a [Expert<StoredLinear>],
    pub(super) shared: Option<&'a Expert<StoredLinear>>,
}

impl Sparse<'_> {
    fn all(&self) -> impl Iterator<Item = (Option<usize>, &Expert<StoredLinear>)> {
        let experts = self.experts.iter().enumerate().map(|(index, expert)| (Some(index), expert));
        experts.chain(self.shared.map(|shared| (None, shared)))
    }
}

/// Rows that an expert is computed for at a time.
const STEP: usize = 1024;

/// Bytes for the inputs of all experts, and for a step of one.
pub(super) fn bytes(config: &Config, calibration: &Calibration) -> u64 {
    let Some(experts) = &config.experts else { return 0 };
    let inner = experts.intermediate_size.max(experts.shared_size);
    let (tokens, step) = (calibration.tokens(), STEP.min(calibration.tokens()));
    let kept = tokens * (config.hidden + experts.used + 1);
    let floats = kept + step * (config.hidden + 3 * inner);
    (4 * floats + Q8Rows::bytes(step, config.hidden)) as u64
}

/// Quantizes the experts of the current layer, or takes those that are written. `false` if the weights of one are not ready.
///
/// # Errors
/// As [`calibrate`](super::calibrate).
pub(super) fn calibrate(
    config: &Experts,
    block: &Sparse<'_>,
    layers: &mut Layers<'_>,
    calibration: &Calibration,
    isa: Isa,
    work: &mut Work<'_>,
) -> Result<bool> {
    let matrices = || block.all().flat_map(|(_, it)| [&it.gate, &it.up, &it.down]);
    let is_ready = |linear: &StoredLinear| work.store.is_ready(&linear.weight.name);
    if !matrices().chain([block.router]).all(is_ready) {
        return Ok(false);
    }
    layers.replace(LinearRole::Router, work.store.matrix(&block.router.weight)?);
    let first = &block.router.weight;
    let x = layers.feed_forward_inputs(&mut |part| work.gathered(first, part))?;
    let is_written = |linear: &StoredLinear| work.store.is_written(&linear.weight.name);
    let chosen = match matrices().all(is_written) {
        true => Vec::new(),
        false => chosen(config, layers, isa, &x)?,
    };
    for (index, expert) in block.all() {
        one(
            config,
            layers,
            calibration,
            isa,
            work,
            &Tokens { index, x: &x, chosen: &chosen },
            expert,
        )?;
    }
    Ok(true)
}

/// The inputs of an expert; the shared one has no index.
struct Tokens<'a> {
    index: Option<usize>,
    /// Of all tokens, `[tokens, hidden]`
    x: &'a [f32],
    /// The experts of each token, `[tokens, used]`
    chosen: &'a [u32],
}

impl Tokens<'_> {
    /// Calls `work` with the inputs of the tokens that have the expert, some at a time; of all, if they are few.
    fn each(
        &self,
        used: usize,
        hidden: usize,
        mut work: impl FnMut(&[f32]) -> Result<()>,
    ) -> Result<()> {
        let is_own = |chosen: &[u32]| self.index.is_some_and(|it| chosen.contains(&(it as u32)));
        let chosen = || self.chosen.chunks_exact(used).map(is_own);
        let count = chosen().filter(|&is_own| is_own).count();
        if count < FEWEST {
            return self.x.chunks(STEP * hidden).try_for_each(work);
        }
        let most = count.min(STEP) * hidden;
        let mut rows = room(most, ROWS)?;
        for (x, _) in self.x.chunks_exact(hidden).zip(chosen()).filter(|(_, is_own)| *is_own) {
            rows.extend_from_slice(x);
            if rows.len() == most {
                work(&rows)?;
                rows.clear();
            }
        }
        if rows.is_empty() { Ok(()) } else { work(&rows) }
    }
}

/// Quantizes the matrices of an expert.
fn one(
    config: &Experts,
    layers: &mut Layers<'_>,
    calibration: &Calibration,
    isa: Isa,
    work: &mut Work<'_>,
    tokens: &Tokens<'_>,
    expert: &Expert<StoredLinear>,
) -> Result<()> {
    let hidden = expert.gate.weight.size()[1];
    let is_written =
        |work: &Work<'_>, linear: &StoredLinear| work.store.is_written(&linear.weight.name);
    let all = [&expert.gate, &expert.up, &expert.down];
    let mut weights = Vec::new();
    for linear in all {
        let matrix = &linear.weight;
        let weight = if is_written(work, linear) {
            work.store.matrix(matrix)?
        } else {
            let mut inputs = Inputs::new(calibration.method(), &matrix.name, matrix.size()[1])?;
            tokens.each(config.used, hidden, |x| {
                match &weights[..] {
                    [gate, up] => inputs.add(&activated(isa, gate, up, x)?),
                    _ => inputs.add(x),
                }
                Ok(())
            })?;
            quantized(isa, matrix, inputs, work)?
        };
        work.done(matrix);
        weights.push(weight);
    }
    if let Ok([gate, up, down]) = <[Weight; 3]>::try_from(weights) {
        layers.replace_expert(tokens.index, Expert { gate, up, down });
    }
    Ok(())
}

/// The experts of each row of `x`, `[rows, used]`.
fn chosen(config: &Experts, layers: &Layers<'_>, isa: Isa, x: &[f32]) -> Result<Vec<u32>> {
    let Some(router) = layers.router() else { return Ok(Vec::new()) };
    let Experts { count, used, .. } = *config;
    let (weight, hidden) = (router.weight.matrix(), router.weight.cols());
    let bias = router.bias.as_deref().unwrap_or_default();
    let mut chosen = zeros(x.len() / hidden * used, ROWS)?;
    let (mut logits, mut weights) = (zeros(STEP * count, ROWS)?, zeros(used, ROWS)?);
    for (x, chosen) in x.chunks(STEP * hidden).zip(chosen.chunks_mut(STEP * used)) {
        let logits = &mut logits[..x.len() / hidden * count];
        let activation = Activation::None;
        let router = glm_kernels::Linear { weight, bias: None, activation };
        parallel_region(|| router.forward(isa, Input::F32(x), logits));
        for (logits, chosen) in logits.chunks_exact(count).zip(chosen.chunks_exact_mut(used)) {
            choose(config, logits, bias, chosen, &mut weights);
        }
    }
    Ok(chosen)
}

/// The inputs of the second matrix of an expert, `[rows, intermediate size]`.
fn activated(isa: Isa, gate: &Weight, up: &Weight, x: &[f32]) -> Result<Vec<f32>> {
    let (rows, inner) = (x.len() / gate.cols(), gate.rows());
    let buffer = || zeros(rows * inner, ROWS);
    let (mut gates, mut ups, mut y) = (buffer()?, buffer()?, buffer()?);
    parallel_region(|| {
        let quantized = &mut Q8Rows::default();
        for (weight, out) in [(gate, &mut gates), (up, &mut ups)] {
            // A matrix of an expert has its columns in order.
            let (activations, ordered, updates) = (ACTIVATIONS, &mut [][..], None);
            let mut context = Context { isa, activations, quantized, ordered, updates };
            Linear::from(weight.clone()).forward(&mut context, x, Output::Store, out);
        }
        for_each_row(&mut y, inner, |row, y| {
            let [gate, up] = [&gates, &ups].map(|all| &all[row * inner..][..inner]);
            isa.run(Gate { activation: Activation::Silu, gate, up, y });
        });
    });
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expert_has_the_inputs_of_its_tokens_and_one_with_few_those_of_all() {
        const HIDDEN: usize = 2;
        // Of three tokens, the first has the experts 0 and 1, the others 0 and 2; the last token alone has 3.
        let tokens = 3 * STEP;
        let chosen: Vec<_> = (0..tokens as u32)
            .flat_map(|token| match token {
                _ if token as usize == tokens - 1 => [0, 3],
                _ if token % 3 == 0 => [0, 1],
                _ => [0, 2],
            })
            .collect();
        let x: Vec<_> = (0..HIDDEN * tokens).map(|place| place as f32).collect();
        let inputs = |index| {
            let (mut rows, mut sizes) = (Vec::new(), Vec::new());
            let add = |x: &[f32]| {
                rows.extend(x.chunks_exact(HIDDEN).map(|row| row[1] as usize / HIDDEN));
                sizes.push(x.len() / HIDDEN);
                Ok(())
            };
            Tokens { index, x: &x, chosen: &chosen }.each(2, HIDDEN, add).unwrap();
            assert!(sizes.iter().all(|&rows| rows <= STEP), "{sizes:?}");
            rows
        };
        let all: Vec<_> = (0..tokens).collect();
        let (first, others): (Vec<_>, _) = (0..tokens - 1).partition(|token| token % 3 == 0);
        // The shared expert, one that all tokens have, and those that few or none have.
        for index in [None, Some(0), Some(3), Some(4)] {
            assert_eq!(inputs(index), all, "{index:?}");
        }
        assert_eq!(inputs(Some(1)), first);
        assert_eq!(inputs(Some(2)), others);
    }
}
