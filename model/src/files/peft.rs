//! `adapter_config.json`: what the peft library writes beside the tensors of an adapter.
//!
//! Source: `LoraConfig` in `tuners/lora/config.py` and `get_pattern_key` in `utils/other.py` of peft.

use std::path::{Path, PathBuf};

use regex_automata::meta::Regex;
use serde_json::{Map, Value};

mod pattern;

use super::checkpoint;
use super::fields::Fields;
use super::gguf;
use super::model_dir::ModelDir;
use crate::error::{Error, Result};
use crate::limits::adapter::MAX_RANK;
use pattern::Compiler;

/// The name of the file.
pub(crate) const PEFT_CONFIG: &str = "adapter_config.json";

/// The field of it with the name or path of the model that was trained.
const BASE: &str = "base_model_name_or_path";

/// The kind of an adapter that is low-rank updates of linear layers.
const LORA: &str = "LORA";

/// Fields that change what the tensors mean, unless they are false, empty or missing.
const UNSUPPORTED: [&str; 9] = [
    "use_dora",
    "lora_bias",
    "fan_in_fan_out",
    "use_qalora",
    "use_bdlora",
    "layer_replication",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
];

/// The field of an adapter for the tokens behind certain ones only, which cannot be merged.
const ACTIVATED: &str = "alora_invocation_tokens";

/// Ways to begin a training that also change the weights of the model.
const CHANGES_WEIGHTS: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

/// What helps with every adapter of LoRA.
pub(crate) const MERGE: &str =
    "merge it into its model with merge_and_unload() of peft, save that, and open the result";

/// The words `, NAME` for the field of a configuration that names a model; nothing without it.
pub(crate) fn named_base(config: &Map<String, Value>, field: &str) -> String {
    let name = config.get(field).and_then(Value::as_str).unwrap_or_default();
    let is_shown = !name.is_empty() && !name.chars().any(char::is_control);
    if is_shown { format!(", {name}") } else { String::new() }
}

/// The error for a folder of the peft library, which has no model; `None` if it is something else.
pub(crate) fn no_model_error(folder: &ModelDir) -> Option<Error> {
    if !folder.has(PEFT_CONFIG) {
        return None;
    }
    let config = folder.json(PEFT_CONFIG).unwrap_or_default();
    let problem = match kind(&config) {
        LORA => format!(
            "is an adapter (LoRA) and has no model: open the model that it was trained for{}, and pass this folder to \
             --adapter",
            named_base(&config, BASE)
        ),
        kind => unsupported(kind),
    };
    Some(folder.error(PEFT_CONFIG, problem))
}

/// The adapter that lies beside a model: in the folder `model`, or in that of the GGUF file `model`. It is the folder of both.
///
/// # Errors
/// If there is an adapter and no model.
pub(crate) fn beside(model: &Path) -> Result<Option<PathBuf>> {
    let parent = model.parent().unwrap_or(model);
    let folder = match model.is_dir() {
        true => model,
        // The file of a name alone.
        false if parent.as_os_str().is_empty() => Path::new("."),
        false => parent,
    };
    let files = ModelDir::on_disk(folder)?;
    if !files.has(PEFT_CONFIG) {
        return Ok(None);
    }
    if checkpoint::has_weights(folder) || gguf::find(model)?.is_some() {
        return Ok(Some(folder.to_owned()));
    }
    no_model_error(&files).map_or(Ok(None), Err)
}

fn kind(config: &Map<String, Value>) -> &str {
    config.get("peft_type").and_then(Value::as_str).unwrap_or("unknown")
}

fn unsupported(kind: &str) -> String {
    format!("is an adapter of peft of type {kind:?}, which is not supported: only LoRA is")
}

/// The configuration of an adapter of LoRA.
pub(crate) struct LoraConfig {
    /// `, NAME` of the model that it was trained for, or nothing.
    pub(crate) base: String,
    rank: usize,
    alpha: f64,
    /// Ranks and alphas of the modules whose path ends as a pattern says.
    ranks: Vec<(Regex, usize)>,
    alphas: Vec<(Regex, f64)>,
    /// Whether the scale has the square root of the rank.
    is_rank_stabilized: bool,
}

impl LoraConfig {
    /// Reads the configuration in a folder.
    ///
    /// # Errors
    /// If it is none of LoRA, has a field that is not supported, or one outside its range.
    pub(crate) fn open(folder: &ModelDir) -> Result<Self> {
        let fields = Fields::open(folder, PEFT_CONFIG)?;
        let json = folder.json(PEFT_CONFIG)?;
        if kind(&json) != LORA {
            return Err(fields.error(unsupported(kind(&json))));
        }
        if let Some(name) = UNSUPPORTED.iter().find(|name| fields.is_set(name)) {
            return Err(fields.error(format!("has {name}, which is not supported: {MERGE}")));
        }
        if fields.is_set(ACTIVATED) {
            return Err(fields.error(format!("has {ACTIVATED} (aLoRA), which is not supported")));
        }
        let start = fields.text("init_lora_weights").unwrap_or_default();
        if CHANGES_WEIGHTS.iter().any(|way| start.starts_with(way)) {
            return Err(fields.error(format!(
                "init_lora_weights {start:?} changes the weights of the model, too, so the adapter does not fit the \
                 published ones: {MERGE}"
            )));
        }
        let rank = |name: &str, value: &Value| {
            let rank = value.as_u64().and_then(|rank| usize::try_from(rank).ok());
            rank.filter(|rank| (1..=MAX_RANK).contains(rank)).ok_or_else(|| {
                fields.error(format!("{name} must be from 1 to {MAX_RANK}, found {value}"))
            })
        };
        let alpha = |name: &str, value: &Value| {
            let number = value.as_f64().filter(|number| number.is_finite());
            number.ok_or_else(|| fields.error(format!("{name} must be a number, found {value}")))
        };
        let mut compiler = Compiler::default();
        Ok(Self {
            base: named_base(&json, BASE),
            rank: rank("r", fields.get("r").unwrap_or(&Value::Null))?,
            alpha: alpha("lora_alpha", fields.get("lora_alpha").unwrap_or(&Value::Null))?,
            ranks: patterns(&fields, "rank_pattern", &mut compiler, rank)?,
            alphas: patterns(&fields, "alpha_pattern", &mut compiler, alpha)?,
            is_rank_stabilized: fields.flag("use_rslora", false)?,
        })
    }

    /// The rank of the update of `module`, its path in the model that was trained.
    pub(crate) fn rank(&self, module: &str) -> usize {
        find(&self.ranks, module).unwrap_or(self.rank)
    }

    /// What the update of `module` is multiplied with, which has this rank.
    pub(crate) fn scale(&self, module: &str, rank: usize) -> f32 {
        let (rank, alpha) = (rank as f64, find(&self.alphas, module).unwrap_or(self.alpha));
        let divisor = if self.is_rank_stabilized { rank.sqrt() } else { rank };
        (alpha / divisor) as f32
    }
}

/// The value of the first pattern for a module.
fn find<T: Copy>(patterns: &[(Regex, T)], module: &str) -> Option<T> {
    patterns.iter().find(|(regex, _)| regex.is_match(module)).map(|(_, value)| *value)
}

/// The patterns of a field, in their order, and the value of each.
fn patterns<T>(
    fields: &Fields,
    field: &str,
    compiler: &mut Compiler,
    value: impl Fn(&str, &Value) -> Result<T>,
) -> Result<Vec<(Regex, T)>> {
    let Some(patterns) = fields.get(field) else { return Ok(Vec::new()) };
    let patterns = patterns.as_object().ok_or_else(|| {
        fields.error(format!("{field} must be an object of patterns and numbers, found {patterns}"))
    })?;
    let pattern = |(pattern, found): (&String, &Value)| {
        let regex = compiler.compile(pattern);
        let regex = regex.map_err(|problem| fields.error(format!("{field} {problem}")))?;
        Ok((regex, value(&format!("{pattern:?} in {field}"), found)?))
    };
    patterns.iter().map(pattern).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(fields: &Value) -> Result<LoraConfig> {
        let mut all = json!({"peft_type": "LORA", "r": 8, "lora_alpha": 16});
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let text = all.to_string();
        LoraConfig::open(&ModelDir::of(&[(PEFT_CONFIG, text.as_bytes())]))
    }

    #[test]
    fn patterns_are_for_the_end_of_a_path() {
        let config = config(&json!({
            "rank_pattern": {"q_proj": 4, "layers.1.mlp.down_proj": 2, r"layers\.\d\.self_attn\.o_proj": 32},
            "alpha_pattern": {"^model.layers.0.self_attn.q_proj": 3, "mlp.*": 1}
        }))
        .unwrap();
        for (module, rank, scale) in [
            ("model.layers.0.self_attn.q_proj", 4, 0.75),
            ("model.layers.1.self_attn.q_proj", 4, 4.0),
            ("model.layers.1.self_attn.xq_proj", 8, 2.0),
            ("model.layers.1.mlp.down_proj", 2, 0.5),
            ("model.layers.0.mlp.down_proj", 8, 0.125),
            ("model.layers.7.self_attn.o_proj", 32, 0.5),
            ("model.layers.10.self_attn.o_proj", 8, 2.0),
        ] {
            assert_eq!(config.rank(module), rank, "{module}");
            assert_eq!(config.scale(module, rank), scale, "{module}");
        }
        let stabilized = self::config(&json!({"use_rslora": true, "r": 16})).unwrap();
        assert_eq!(stabilized.scale("x", 16), 4.0);
    }

    fn many(count: usize) -> Value {
        (0..count).map(|index| (index.to_string(), json!(1))).collect()
    }

    #[test]
    fn what_changes_the_meaning_of_tensors_is_refused() {
        for (fields, expected) in [
            (json!({"use_dora": true}), "has use_dora"),
            (json!({"lora_bias": true}), "has lora_bias"),
            (json!({"fan_in_fan_out": true}), "has fan_in_fan_out"),
            (json!({"kasa_config": {"beta": 0.1}}), "has kasa_config"),
            (json!({"layer_replication": [[0, 2]]}), "has layer_replication"),
            (json!({"init_lora_weights": "pissa_niter_16"}), "changes the weights of the model"),
        ] {
            let error = config(&fields).err().unwrap().to_string();
            assert!(error.contains(expected) && error.contains("merge_and_unload()"), "{error}");
        }
        for (fields, expected) in [
            (json!({"peft_type": "IA3"}), r#"of type "IA3", which is not supported"#),
            (json!({"alora_invocation_tokens": [1]}), "has alora_invocation_tokens (aLoRA)"),
            (json!({"r": 0}), "r must be from 1 to 65536, found 0"),
            (json!({"lora_alpha": "a"}), r#"lora_alpha must be a number, found "a""#),
            (json!({"rank_pattern": {"(": 1}}), r#"rank_pattern has the pattern "(""#),
            (json!({"rank_pattern": {"a": 0}}), r#""a" in rank_pattern must be from 1 to 65536"#),
            (
                json!({"rank_pattern": {"a{1000}{1000}": 1}}),
                r#"rank_pattern has the pattern "a{1000}{1000}", which takes more than 65536 bytes"#,
            ),
            (
                json!({"rank_pattern": many(1500), "alpha_pattern": many(549)}),
                "alpha_pattern makes the patterns of the file too many: at most 2048",
            ),
            (json!({"alpha_pattern": [1]}), "alpha_pattern must be an object"),
        ] {
            let error = config(&fields).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let harmless = json!({
            "use_dora": false, "layer_replication": null, "arrow_config": null, "bias": "all", "lora_dropout": 0.5,
            "init_lora_weights": "gaussian", "alora_invocation_tokens": []
        });
        assert!(config(&harmless).is_ok());
    }
}
