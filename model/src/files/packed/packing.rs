//! `quantization_config` of `config.json` → how packed weights are to be read.
//!
//! Bits, groups and the layers that are packed follow from the tensors. What only the configuration says is the layout, whether one is
//! missing from the zero points, and whether weights are symmetric.

mod auto_round;

use super::Layout;
use crate::error::Result;
use crate::files::fields::Fields;
use crate::files::model_dir::ModelDir;

/// The field of `config.json`.
const FIELD: &str = "quantization_config";

/// Files that have it in older folders: of AutoGPTQ and of AutoAWQ.
pub(crate) const METADATA: [&str; 2] = ["quantize_config.json", "quant_config.json"];

/// Fields of GPTQModel, AutoRound and compressed-tensors with which the inputs of layers are rotated, too.
const ROTATIONS: [&str; 4] =
    ["rotation", "rotation_config", "spinquant_config", "transform_config"];

/// How the packed weights of a model are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packing {
    pub(crate) layout: Layout,
    /// What made the files, for people.
    pub(crate) name: &'static str,
    /// Whether the stored zero points are less by one.
    pub(crate) less_one: bool,
    /// Whether all zero points are the middle of the range.
    pub(crate) symmetric: bool,
    /// Whether the columns of a group need not be adjacent.
    pub(crate) reordered: bool,
    /// Columns of a group, if the configuration says so for all layers.
    pub(crate) group: Option<usize>,
}

/// The size of groups, where it is a number of columns.
fn group(fields: &Fields<'_>) -> Option<usize> {
    let size = ["group_size", "q_group_size"].iter().find_map(|name| fields.get(name));
    size.and_then(|size| size.as_u64()).and_then(|size| usize::try_from(size).ok())
}

impl Packing {
    /// Reads the field, or one of the files; `None` if there is neither.
    ///
    /// # Errors
    /// If the method or the format is not supported.
    pub(crate) fn read(config: &Fields<'_>, folder: &ModelDir<'_>) -> Result<Option<Self>> {
        if config.has(FIELD) {
            return Self::of(&config.nested(FIELD)).map(Some);
        }
        match METADATA.into_iter().find(|name| folder.has(name)) {
            Some(name) => Self::of(&Fields::open(folder, name)?).map(Some),
            None => Ok(None),
        }
    }

    fn of(fields: &Fields<'_>) -> Result<Self> {
        // The files of their own name no method: only AutoAWQ's have a version.
        let default = if fields.has("version") { "awq" } else { "gptq" };
        // Newer files of GPTQModel may have only the second.
        let named = ["quant_method", "method"].into_iter().find(|name| fields.has(name));
        let method = match named {
            None if fields.has("config_groups") => "compressed-tensors",
            None => default,
            Some(name) => fields.text(name).unwrap_or_default(),
        };
        if let Some(name) = ROTATIONS.into_iter().find(|name| fields.is_set(name)) {
            return Err(refusal(fields, &format!("{name}, a rotation of weights,")));
        }
        match method {
            "gptq" => gptq(fields),
            "awq" => awq(fields),
            "auto-round" | "intel/auto-round" | "auto_round" => auto_round::read(fields),
            "compressed-tensors" => compressed_tensors(fields),
            _ => {
                let name = named.unwrap_or("quant_method");
                Err(refusal(fields, &format!("{name} {}", fields.shown(name))))
            }
        }
    }
}

/// What is not supported, and what is.
fn refusal(fields: &Fields<'_>, what: &str) -> crate::Error {
    fields.error(format!(
        "{FIELD}: {what} is not supported: take the original model, a GGUF file of it, or INT4 of GPTQ, AWQ, AutoRound or compressed-tensors"
    ))
}

/// Checks that a field, if there is one, has one of these values; case does not matter.
fn only(fields: &Fields<'_>, name: &str, values: &[&str]) -> Result<()> {
    let Some(value) = fields.get(name) else { return Ok(()) };
    let shown = value.as_str().map_or_else(|| value.to_string(), str::to_lowercase);
    match values.contains(&&*shown) {
        true => Ok(()),
        false => Err(refusal(fields, &format!("{name} {value}"))),
    }
}

fn gptq(fields: &Fields<'_>) -> Result<Packing> {
    only(fields, "bits", &["4", "8"])?;
    only(fields, "checkpoint_format", &["gptq", "gptq_v2"])?;
    // The same in newer files.
    only(fields, "format", &["gptq", "gptq_v2"])?;
    only(fields, "is_marlin_format", &["false"])?;
    let is_second =
        |name: &str| fields.text(name).map(|format| format.eq_ignore_ascii_case("gptq_v2"));
    let (old, new) = (is_second("checkpoint_format"), is_second("format"));
    if old.zip(new).is_some_and(|(old, new)| old != new) {
        let [old, new] = ["checkpoint_format", "format"].map(|name| fields.shown(name));
        return Err(refusal(fields, &format!("checkpoint_format {old} with format {new}")));
    }
    let is_second = new.or(old).unwrap_or(false);
    Ok(Packing {
        layout: Layout::Gptq,
        name: "GPTQ",
        less_one: !is_second,
        symmetric: fields.flag("sym", false)?,
        reordered: fields.flag("desc_act", false)?,
        group: group(fields),
    })
}

fn awq(fields: &Fields<'_>) -> Result<Packing> {
    only(fields, "bits", &["4"])?;
    only(fields, "w_bit", &["4"])?;
    for name in ["version", "format", "checkpoint_format"] {
        only(fields, name, &["gemm"])?;
    }
    // Its files have another order of values. Other names are those of what reads a file.
    if fields.text("backend").is_some_and(|name| name.eq_ignore_ascii_case("llm-awq")) {
        return Err(refusal(fields, "backend \"llm-awq\""));
    }
    // Programs disagree on what is stored without zero points, so they are read and not assumed.
    Ok(Packing {
        layout: Layout::Awq,
        name: "AWQ",
        less_one: false,
        symmetric: false,
        reordered: false,
        group: group(fields),
    })
}

fn compressed_tensors(fields: &Fields<'_>) -> Result<Packing> {
    only(fields, "format", &["pack-quantized"])?;
    let groups = fields.nested("config_groups");
    let (mut reordered, mut sizes) = (false, Vec::new());
    for name in groups.names() {
        let group = groups.nested(name);
        only(&group, "format", &["pack-quantized"])?;
        let weights = group.nested("weights");
        only(&weights, "num_bits", &["4", "8"])?;
        only(&weights, "type", &["int"])?;
        only(&weights, "strategy", &["group", "channel"])?;
        sizes.push(self::group(&weights));
        reordered |=
            weights.text("actorder").is_some_and(|order| order != "weight" && order != "static");
    }
    Ok(Packing {
        layout: Layout::CompressedTensors,
        name: "compressed-tensors",
        less_one: false,
        symmetric: false,
        reordered,
        // Of several sizes, the tensors say which.
        group: if let [size] = sizes[..] { size } else { None },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::files::config::Config;
    use crate::files::config::tests::TINY;

    fn parse(quantization: &serde_json::Value) -> Result<Option<Packing>> {
        let mut config: serde_json::Value = serde_json::from_str(TINY).unwrap();
        config[FIELD] = quantization.clone();
        let config = config.to_string();
        Ok(Config::from_files(&[("config.json", config.as_bytes())])?.packing)
    }

    #[test]
    fn methods_are_told_apart() {
        let read = |json| {
            let Packing { layout, less_one, symmetric, reordered, .. } =
                parse(&json).unwrap().unwrap();
            (layout, [less_one, symmetric, reordered])
        };
        let gptq = json!({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": true, "desc_act": true});
        assert_eq!(read(gptq), (Layout::Gptq, [true, true, true]));
        let second = json!({"quant_method": "gptq", "bits": 8, "checkpoint_format": "gptq_v2", "dynamic": null});
        assert_eq!(read(second), (Layout::Gptq, [false, false, false]));
        let newer = json!({"method": "gptq", "bits": 4, "format": "gptq_v2", "checkpoint_format": "gptq_v2", "rotation": null});
        assert_eq!(read(newer), (Layout::Gptq, [false, false, false]));
        let awq = json!({"quant_method": "awq", "bits": 4, "version": "GEMM", "zero_point": true});
        assert_eq!(read(awq), (Layout::Awq, [false, false, false]));
        for method in ["auto-round", "intel/auto-round"] {
            let json = json!({"quant_method": method, "bits": 4, "sym": true});
            assert_eq!(read(json), (Layout::Gptq, [true, true, false]));
        }
        let compressed = json!({"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {
            "group_0": {"weights": {"num_bits": 4, "type": "int", "strategy": "group", "actorder": "group"}}}});
        assert_eq!(read(compressed), (Layout::CompressedTensors, [false, false, true]));
        assert_eq!(parse(&json!(null)).unwrap(), None);
    }

    #[test]
    fn older_folders_have_a_file() {
        let read = |name, text: &str| {
            let files = [("config.json", TINY.as_bytes()), (name, text.as_bytes())];
            Config::from_files(&files).unwrap().packing.unwrap().layout
        };
        assert_eq!(read("quantize_config.json", r#"{"bits": 4, "sym": true}"#), Layout::Gptq);
        let awq = r#"{"w_bit": 4, "q_group_size": 128, "version": "GEMM"}"#;
        assert_eq!(read("quant_config.json", awq), Layout::Awq);
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (json, expected) in [
            (json!({"quant_method": "fp8"}), "quant_method \"fp8\""),
            (json!({"quant_method": "fbgemm_fp8"}), "quant_method \"fbgemm_fp8\""),
            (json!({"quant_method": "bitsandbytes"}), "quant_method \"bitsandbytes\""),
            (json!({"quant_method": 7}), "quant_method 7"),
            (json!({"quant_method": "gptq", "bits": 3}), "bits 3"),
            (json!({"quant_method": "gptq", "checkpoint_format": "marlin"}), "\"marlin\""),
            (json!({"quant_method": "gptq", "checkpoint_format": "gptq_p"}), "\"gptq_p\""),
            (
                json!({"quant_method": "gptq", "checkpoint_format": "gptq", "format": "gptq_v2"}),
                "checkpoint_format \"gptq\" with format \"gptq_v2\"",
            ),
            (json!({"method": "qqq", "format": "qqq"}), "method \"qqq\""),
            (json!({"quant_method": "gptq", "rotation": "hadamard"}), "rotation, a rotation"),
            (
                json!({"quant_method": "auto-round", "spinquant_config": {"r1": true}}),
                "spinquant_config, a rotation",
            ),
            (json!({"quant_method": "gptq", "is_marlin_format": true}), "is_marlin_format true"),
            (json!({"quant_method": "awq", "backend": "llm-awq"}), "backend \"llm-awq\""),
            (json!({"quant_method": "awq", "version": "gemv"}), "version \"gemv\""),
            (json!({"quant_method": "auto-round", "data_type": "mx_fp"}), "data_type \"mx_fp\""),
            (json!({"quant_method": "auto-round", "packing_format": "x"}), "packing_format \"x\""),
            (json!({"quant_method": "auto-round", "packing_format": 4}), "packing_format 4"),
            (json!({"quant_method": "auto-round", "backend": "ipex"}), "backend \"ipex\""),
            (json!({"quant_method": "auto-round", "act_bits": 8}), "act_bits 8"),
            (
                json!({"quant_method": "auto-round", "extra_config": {"x": {"bits": 8, "data_type": "fp"}}}),
                "data_type \"fp\"",
            ),
            (
                json!({"quant_method": "auto-round", "packing_format": "auto_round:gptqmodel", "autoround_version": "0.5.1"}),
                "packing_format \"auto_round:gptqmodel\" of autoround_version \"0.5.1\"",
            ),
            (
                json!({"quant_method": "compressed-tensors", "format": "float-quantized"}),
                "float-quantized",
            ),
            (
                json!({"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": {"num_bits": 3}}}}),
                "num_bits 3",
            ),
        ] {
            let error = parse(&json).unwrap_err().to_string();
            let names = error.starts_with("config.json: quantization_config: ");
            assert!(names && error.contains(expected) && error.contains("GGUF"), "{error}");
        }
    }
}
