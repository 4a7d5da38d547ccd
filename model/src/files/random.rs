//! Models of random weights, quantised: as large as the published ones and as fast, and nothing to download. What they say means nothing.

use std::collections::BTreeMap;

use bytemuck::cast_slice_mut;
use glm_kernels::{Bits, Shape};
use half::f16;
use memmap2::MmapMut;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::files::checkpoint::{Bytes, Checkpoint, Format};
use crate::files::config::Config;
use crate::files::quantize::{QuantizeOptions, bits};
use crate::files::weights::{
    GROUP_KEY, LAYOUT_KEY, LAYOUT_NAME, Map, Source, group_value, panel_shape, scale_name,
    scale_shape,
};
use crate::network::activations::Activations;
use crate::network::model::Options;
use crate::network::workspace::Workspace;

/// A shape that was published: a name, and its `config.json` as far as it matters.
const SHAPES: [(&str, &str); 4] = [
    (
        "chatglm-6b",
        r#"{"model_type": "chatglm", "num_layers": 28, "hidden_size": 4096, "num_attention_heads": 32,
            "inner_hidden_size": 16384, "vocab_size": 130528, "max_sequence_length": 2048, "layernorm_epsilon": 1e-5,
            "bos_token_id": 130004, "eos_token_id": 130005, "mask_token_id": 130000, "gmask_token_id": 130001}"#,
    ),
    (
        "chatglm2-6b",
        r#"{"model_type": "chatglm", "_name_or_path": "chatglm2-6b", "num_layers": 28, "hidden_size": 4096,
            "num_attention_heads": 32, "kv_channels": 128, "multi_query_attention": true, "multi_query_group_num": 2,
            "ffn_hidden_size": 13696, "padded_vocab_size": 65024, "seq_length": 32768, "layernorm_epsilon": 1e-5,
            "add_qkv_bias": true, "eos_token_id": 2}"#,
    ),
    (
        "chatglm3-6b",
        r#"{"model_type": "chatglm", "_name_or_path": "chatglm3-6b", "num_layers": 28, "hidden_size": 4096,
            "num_attention_heads": 32, "kv_channels": 128, "multi_query_attention": true, "multi_query_group_num": 2,
            "ffn_hidden_size": 13696, "padded_vocab_size": 65024, "seq_length": 8192, "layernorm_epsilon": 1e-5,
            "add_qkv_bias": true, "eos_token_id": 2}"#,
    ),
    (
        "glm-4-9b",
        r#"{"model_type": "chatglm", "_name_or_path": "glm-4-9b-chat", "num_layers": 40, "hidden_size": 4096,
            "num_attention_heads": 32, "kv_channels": 128, "multi_query_attention": true, "multi_query_group_num": 2,
            "ffn_hidden_size": 13696, "padded_vocab_size": 151552, "seq_length": 131072, "layernorm_epsilon": 1.5625e-7,
            "add_qkv_bias": true, "rope_ratio": 500, "eos_token_id": 151329}"#,
    ),
];

/// The names that [`Model::random`] knows.
pub const RANDOM_SHAPES: [&str; 4] = [SHAPES[0].0, SHAPES[1].0, SHAPES[2].0, SHAPES[3].0];

/// The tensors begin on a multiple of this.
const ALIGNMENT: usize = 64;

/// Configuration and random weights of a published shape, see [`Model::random`](crate::Model::random).
pub(crate) fn checkpoint(name: &str, format: &QuantizeOptions) -> Result<(Config, Checkpoint)> {
    let config = published(name)?;
    let checkpoint = random(&tensors(&config, format)?, format.group)?;
    Ok((config, checkpoint))
}

/// See [`Model::random_bytes`](crate::Model::random_bytes).
pub(crate) fn bytes(
    name: &str,
    format: &QuantizeOptions,
    options: &Options,
    capacity: usize,
) -> Result<u64> {
    let config = published(name)?;
    config.check_capacity(capacity)?;
    // Random weights are quantized.
    let kv = options.kv(options.activations.unwrap_or(Activations::Int8));
    let tensors = tensors(&config, format)?;
    let weights = tensors.iter().map(|tensor| tensor.bytes() as u64).sum::<u64>();
    let cache = kv.bytes(&config, capacity);
    Ok(weights + cache + Workspace::bytes(&config, capacity))
}

/// The configuration of a published shape.
fn published(name: &str) -> Result<Config> {
    let shape = SHAPES.iter().find(|(known, _)| *known == name);
    let (_, config) = shape.ok_or_else(|| Error::Setting {
        setting: "shape",
        range: format!("one of {}", RANDOM_SHAPES.join(", ")),
        found: name.to_owned(),
    })?;
    Config::from_files(&[("config.json", config.as_bytes())])
}

/// The tensors of a model.
fn tensors(config: &Config, format: &QuantizeOptions) -> Result<Vec<Entry>> {
    let bits = bits(format)?;
    let nothing = Checkpoint::from_bytes(Format::Safetensors, b"\x02\0\0\0\0\0\0\0{}".as_slice())?;
    let map = Map::expected(config, &nothing);
    Ok(map.sources().flat_map(|source| entries(source, bits, format.group)).collect())
}

/// A tensor that is to be made, and what its elements are.
struct Entry {
    name: String,
    shape: Vec<usize>,
    fill: Fill,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.fill.dtype().1
    }
}

#[derive(Clone, Copy)]
enum Fill {
    /// Random bytes.
    Integers,
    /// `f16`
    Scales(f32),
    /// `f32`
    Numbers(f32),
}

impl Fill {
    fn dtype(self) -> (&'static str, usize) {
        match self {
            Fill::Integers => ("U8", 1),
            Fill::Scales(_) => ("F16", 2),
            Fill::Numbers(_) => ("F32", 4),
        }
    }
}

fn entries(source: &Source, bits: Bits, group: usize) -> Vec<Entry> {
    let name = source.name.clone();
    if source.is_vector {
        let value = if name.ends_with(".bias") { 0.0 } else { 1.0 };
        return vec![Entry { name, shape: vec![source.rows], fill: Fill::Numbers(value) }];
    }
    let shape = Shape::grouped(source.rows, source.cols, bits, group);
    // Uniform integers have a deviation of a quarter of their range; outputs are to be about as large as inputs.
    let deviation = if bits == Bits::Four { 4.6 } else { 74.0 };
    let scale = 1.0 / (deviation * (source.cols as f32).sqrt());
    let panels = panel_shape(&shape).to_vec();
    let scales = scale_shape(&shape).to_vec();
    vec![
        Entry { name: scale_name(&name), shape: scales, fill: Fill::Scales(scale) },
        Entry { name, shape: panels, fill: Fill::Integers },
    ]
}

fn random(entries: &[Entry], group: usize) -> Result<Checkpoint> {
    let (mut start, mut places) = (0, Vec::new());
    let metadata =
        json!({ "format": "glm", GROUP_KEY: group_value(Some(group)), LAYOUT_KEY: LAYOUT_NAME });
    let mut header = BTreeMap::from([("__metadata__".to_owned(), metadata)]);
    for entry in entries {
        let (dtype, _) = entry.fill.dtype();
        let end = start + entry.bytes();
        let value = json!({ "dtype": dtype, "shape": entry.shape, "data_offsets": [start, end] });
        header.insert(entry.name.clone(), value);
        places.push(start..end);
        start = end;
    }
    let header = Value::Object(header.into_iter().collect()).to_string();
    let header = format!("{header:<0$}", (header.len() + 8).next_multiple_of(ALIGNMENT) - 8);
    let data = 8 + header.len();
    let mut bytes = MmapMut::map_anon(data + start)
        .map_err(|source| Error::Io { path: "memory".into(), source })?;
    // Answers came some per cent faster from large pages.
    #[cfg(target_os = "linux")]
    let _ = bytes.advise(memmap2::Advice::HugePage);
    bytes[..8].copy_from_slice(&(header.len() as u64).to_le_bytes());
    bytes[8..data].copy_from_slice(header.as_bytes());
    let noise = noise();
    for (entry, place) in entries.iter().zip(places) {
        let bytes = &mut bytes[data + place.start..data + place.end];
        match entry.fill {
            Fill::Integers => bytes.chunks_mut(noise.len()).for_each(|part| {
                part.copy_from_slice(&noise[..part.len()]);
            }),
            Fill::Scales(scale) => cast_slice_mut(bytes).fill(f16::from_f32(scale)),
            Fill::Numbers(value) => cast_slice_mut(bytes).fill(value),
        }
    }
    Checkpoint::from_bytes(Format::Safetensors, Bytes::from(bytes))
}

/// Random bytes, repeated for all weights: speed does not depend on them, and to make gigabytes would take long.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    // Of a length that no row has, so that rows differ.
    (0..(1 << 20) + 37).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::chunk::Chunk;
    use crate::network::hook::RunOptions;
    use crate::network::model::Model;

    #[test]
    fn every_shape_is_a_model() {
        for (name, config) in SHAPES {
            // As published but for the sizes.
            let small = |config: &str, (from, to): (&str, &str)| config.replace(from, to);
            let small = [
                ("4096", "64"),
                ("\"num_layers\": 28", "\"num_layers\": 2"),
                ("\"num_layers\": 40", "\"num_layers\": 2"),
                ("\"kv_channels\": 128", "\"kv_channels\": 16"),
                ("\"num_attention_heads\": 32", "\"num_attention_heads\": 4"),
                ("13696", "96"),
                ("16384", "96"),
            ]
            .into_iter()
            .fold(config.to_owned(), |config, change| small(&config, change));
            let config = Config::from_files(&[("config.json", small.as_bytes())]).unwrap();
            for (bits, group) in [(4, 32), (8, 64)] {
                let format = QuantizeOptions { bits, group, ..Default::default() };
                let tensors = tensors(&config, &format).unwrap();
                let checkpoint = random(&tensors, group).unwrap();
                let options = Options::default();
                let model =
                    Model::load(config.clone(), &checkpoint, &options, &mut |_, _| {}).unwrap();
                assert_eq!(model.inventory().copied_bytes, 0, "{name}");
                let mut sequence = model.sequence(Some(16)).unwrap();
                let mut workspace = model.workspace().unwrap();
                let mut chunks = [Chunk::last(&mut sequence, &[1, 2, 3])];
                let logits = model.run(&mut workspace, &mut chunks, RunOptions::default());
                let logits = logits.unwrap().last(0);
                let mean = logits.iter().map(|x| x * x).sum::<f32>() / logits.len() as f32;
                assert!((0.1..10.0).contains(&mean), "{name}: {mean}");
            }
        }
        let format = QuantizeOptions::default();
        let bytes =
            |capacity| Model::random_bytes("chatglm-6b", &format, &Options::default(), capacity);
        // Keys and values take memory for whole blocks of tokens.
        let least = bytes(128).unwrap();
        assert!((3_530_000_000..3_580_000_000).contains(&least), "{least}");
        let more = bytes(2048).unwrap() - least;
        assert!((850_000_000..1_050_000_000).contains(&more), "{more}");
        assert!(bytes(1 << 20).is_err());
        assert!(Model::random("gpt-2", &format, &Options::default()).is_err());
    }
}
