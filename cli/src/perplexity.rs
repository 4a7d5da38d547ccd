//! `glm perplexity`: how well a model predicts a text, also compared with another model.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use glm_model::{
    Divergence, LogitsWriter, Mean, Model, Reference, SavedLogits, Tokenizer, WindowOptions,
    predict, windows,
};
use same_file::is_same_file;
use serde_json::{Value, json};

use crate::args::{self, ActivationType, KvType, Source};
use crate::failure::usage;
use crate::interrupt::{self, Again};
use crate::{file, input, messages, open, output, progress};

pub fn run(args: &args::Perplexity) -> Result<()> {
    let text = input::file(&args.text)?;
    if let Some(path) = &args.save_logits {
        file::check(path)?;
        let mut inputs = [Some(&args.text), args.base.as_ref()].into_iter().flatten();
        if let Some(input) = inputs.find(|input| is_same_file(input, path).unwrap_or(false)) {
            return Err(usage(messages::same_file(input.display())));
        }
    }
    let tokenizer = open::tokenizer(&args.model.source)?;
    let model = open::model(&args.model, Some(&tokenizer))?;
    let other = args.against.as_ref().map(|path| reference(args, path)).transpose()?;
    let mut options = WindowOptions::new(args.window);
    options.stride = args.stride.unwrap_or(options.stride);
    options.blank = args.blank;
    options.most = args.windows.unwrap_or(options.most);
    let name = || args.text.display().to_string();
    let cut = |model: &Model, tokenizer: &Tokenizer| {
        windows(model, tokenizer, &text, &options).with_context(name)
    };
    let windows = cut(&model, &tokenizer)?;
    if let (Some((other, tokenizer)), Some(path)) = (&other, &args.against) {
        ensure!(cut(other, tokenizer)? == windows, messages::other_tokenizer(path.display()));
    }
    let mut saved = match &args.base {
        Some(path) => Some(SavedLogits::open(path, &windows)?),
        None => None,
    };
    let reference = match (&other, &mut saved) {
        (Some((other, _)), _) => Some(Reference::Model(other)),
        (None, saved) => saved.as_mut().map(Reference::Saved),
    };
    // An unfinished file must not stay.
    let cancel = match args.save_logits {
        Some(_) => interrupt::token_of_all(Again::Waits)?,
        None => interrupt::token(Again::Exits)?,
    };
    let mut save = match &args.save_logits {
        Some(path) => Some(LogitsWriter::create(path, &model, &windows)?),
        None => None,
    };
    let bar = progress::requests(windows.len() as u64);
    bar.set_message(messages::windows());
    let mut show = |done| bar.set_position(done as u64);
    let predictions = predict(&model, &windows, reference, save.as_mut(), &cancel, &mut show);
    bar.finish_and_clear();
    let Some(found) = glm_model::Perplexity::of(&predictions?) else { return Ok(()) };
    save.map_or(Ok(()), LogitsWriter::finish)?;
    if args.json {
        return output::json(&in_json(&found));
    }
    lines(&found).iter().try_for_each(|line| output::line(line))
}

/// The model to compare with, as exactly as it can be computed, and its tokenizer.
fn reference(args: &args::Perplexity, path: &Path) -> Result<(Model, Tokenizer)> {
    let args = args::Model {
        source: Source::named(path),
        threads: args.model.threads,
        activations: Some(ActivationType::F32),
        kv: Some(KvType::F32),
        preload: args.model.preload,
        no_mmap: args.model.no_mmap,
        adapter: Vec::new(),
    };
    let tokenizer = open::tokenizer(&args.source)?;
    Ok((open::model(&args, Some(&tokenizer))?, tokenizer))
}

fn lines(found: &glm_model::Perplexity) -> Vec<String> {
    let with_error = |mean: &Mean| format!("{:.4} ± {:.4}", mean.mean, mean.error);
    // The error of the exponential, to the first order.
    let perplexity = |loss: &Mean| {
        let mean = loss.mean.exp();
        format!("{mean:.4} ± {:.4}", mean * loss.error)
    };
    let mut lines = vec![
        messages::perplexity(perplexity(&found.loss)),
        messages::loss(with_error(&found.loss), found.tokens),
    ];
    if let Some(compared) = &found.compared {
        let Divergence { loss, loss_added, mean, same_top, .. } = compared;
        lines.push(messages::perplexity_of_reference(perplexity(loss), with_error(loss_added)));
        let [median, percentile_99, largest] =
            [compared.median, compared.percentile_99, compared.largest]
                .map(|kl| format!("{kl:.4}"));
        lines.push(messages::divergence(with_error(mean), median, percentile_99, largest));
        let [mean, error] = [same_top.mean, same_top.error].map(|part| part * 100.0);
        lines.push(messages::same_top(format!("{mean:.2} % ± {error:.2} %")));
    }
    lines
}

fn in_json(found: &glm_model::Perplexity) -> Value {
    let mean = |mean: &Mean| json!({ "mean": mean.mean, "error": mean.error });
    let compared = found.compared.as_ref().map(|compared| {
        json!({
            "loss": mean(&compared.loss),
            "perplexity": compared.loss.mean.exp(),
            "loss_added": mean(&compared.loss_added),
            "kl": mean(&compared.mean),
            "kl_median": compared.median,
            "kl_99": compared.percentile_99,
            "kl_largest": compared.largest,
            "same_top": mean(&compared.same_top),
        })
    });
    json!({
        "tokens": found.tokens,
        "loss": mean(&found.loss),
        "perplexity": found.perplexity(),
        "reference": compared,
    })
}
