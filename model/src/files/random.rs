//! Models with random quantized weights: the size and speed of published models without a download. Their output has no meaning.

use bytemuck::cast_slice_mut;
use glm_kernels::{Bits, LANES, Shape};
use half::f16;
use memmap2::MmapMut;

use crate::error::{Error, Result};
use crate::files::checkpoint::{Bytes, Checkpoint, Dtype, Format, SafetensorsLayout, TensorSpec};
use crate::files::config::Config;
use crate::files::quantize::{QuantizeOptions, bits};
use crate::files::weights::{
    Groups, Map, Source, layout_metadata, panel_shape, scale_name, scale_shape,
};
use crate::network::activations::Activations;
use crate::network::layer::LinearRole;
use crate::network::model::Options;
use crate::network::workspace::Workspace;

/// Published models: name, and the relevant part of `config.json`.
const SHAPES: [(&str, &str); 6] = [
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
    (
        "glm-4.7-flash",
        r#"{"model_type": "glm4_moe_lite", "num_hidden_layers": 47, "hidden_size": 2048, "num_attention_heads": 20,
            "q_lora_rank": 768, "kv_lora_rank": 512, "qk_nope_head_dim": 192, "qk_rope_head_dim": 64, "v_head_dim": 256,
            "intermediate_size": 10240, "moe_intermediate_size": 1536, "n_routed_experts": 64, "num_experts_per_tok": 4,
            "n_shared_experts": 1, "routed_scaling_factor": 1.8, "first_k_dense_replace": 1, "vocab_size": 154880,
            "max_position_embeddings": 202752, "rms_norm_eps": 1e-5, "rope_theta": 1000000, "eos_token_id": 154820}"#,
    ),
    (
        "glm-4.5-air",
        r#"{"model_type": "glm4_moe", "num_hidden_layers": 46, "hidden_size": 4096, "num_attention_heads": 96,
            "num_key_value_heads": 8, "head_dim": 128, "attention_bias": true, "partial_rotary_factor": 0.5,
            "intermediate_size": 10944, "moe_intermediate_size": 1408, "n_routed_experts": 128, "num_experts_per_tok": 8,
            "n_shared_experts": 1, "routed_scaling_factor": 1.0, "first_k_dense_replace": 1, "vocab_size": 151552,
            "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 1000000, "eos_token_id": 151329}"#,
    ),
];

/// The names that [`Model::random`](crate::Model::random) accepts.
pub const RANDOM_SHAPES: [&str; 6] =
    [SHAPES[0].0, SHAPES[1].0, SHAPES[2].0, SHAPES[3].0, SHAPES[4].0, SHAPES[5].0];

/// Configuration and random weights of a published shape, see [`Model::random`](crate::Model::random).
pub(crate) fn checkpoint(
    name: &str,
    format: &QuantizeOptions,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<(Config, Checkpoint)> {
    let config = published(name)?;
    let checkpoint = random(&tensors(&config, format)?, format.group, progress)?;
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
    let kv = options.kv(options.activations.unwrap_or(Activations::Int8), &config);
    let tensors = tensors(&config, format)?;
    let weights = tensors.iter().map(|(tensor, _)| tensor.bytes() as u64).sum::<u64>();
    let cache = kv.bytes(&config, capacity);
    Ok(weights + cache + Workspace::bytes(&config, capacity, 0))
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

/// The tensors of a model, each with what fills it.
fn tensors(config: &Config, format: &QuantizeOptions) -> Result<Vec<(TensorSpec, Fill)>> {
    if let Some(found) = format.target_bits {
        let range = "absent: random weights have one format".to_owned();
        return Err(Error::Setting { setting: "target-bits", range, found: found.to_string() });
    }
    let (bits, form) = (bits(format)?, format.form());
    let shape = |source: &Source| {
        Shape::grouped(source.rows, source.cols, bits, format.group).with_form(form).rotated()
    };
    let nothing = SafetensorsLayout::new(&[], &[]).header().to_vec();
    let map = Map::new(config, &Checkpoint::from_bytes(Format::Safetensors, nothing)?);
    let tables = map.network.tables().flat_map(|source| matrix(source, shape(source)));
    let linears = map.network.linears().flat_map(|(role, linear)| match role {
        LinearRole::Router => vec![router(&linear.weight)],
        _ => matrix(&linear.weight, shape(&linear.weight)).to_vec(),
    });
    Ok(tables.chain(linears).chain(map.vectors().map(vector)).collect())
}

#[derive(Clone, Copy)]
enum Fill {
    /// Random bytes.
    Integers,
    /// `f16`: the scale, and an offset of half of it, which centres the integers.
    Scales(f32, Shape),
    /// `f32`
    Numbers(f32),
    /// `f32`, random, up to this magnitude
    Random(f32),
}

fn vector(source: &Source) -> (TensorSpec, Fill) {
    let value = if source.name.ends_with("bias") { 0.0 } else { 1.0 };
    (TensorSpec::new(&source.name, Dtype::F32, [source.rows]), Fill::Numbers(value))
}

/// Not quantized, as `glm quantize` leaves it.
fn router(source: &Source) -> (TensorSpec, Fill) {
    let tensor = TensorSpec::new(&source.name, Dtype::F32, [source.rows, source.cols]);
    (tensor, Fill::Random(3.0 / (source.cols as f32).sqrt()))
}

fn matrix(source: &Source, shape: Shape) -> [(TensorSpec, Fill); 2] {
    // The standard deviation of these uniform integers; outputs are to be about as large as inputs.
    let deviation = if shape.bits == Bits::Four { 4.6 } else { 74.0 };
    let scale = 1.0 / (deviation * (source.cols as f32).sqrt());
    let scales = TensorSpec::new(scale_name(&source.name), Dtype::F16, scale_shape(&shape));
    let panels = TensorSpec::new(&source.name, Dtype::U8, panel_shape(&shape));
    [(scales, Fill::Scales(scale, shape)), (panels, Fill::Integers)]
}

/// Calls `progress` with the bytes made so far and the total.
fn random(
    tensors: &[(TensorSpec, Fill)],
    group: usize,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Checkpoint> {
    let specs: Vec<_> = tensors.iter().map(|(tensor, _)| tensor.clone()).collect();
    let shapes = tensors.iter().filter_map(|(_, fill)| match fill {
        Fill::Scales(_, shape) => Some(shape),
        _ => None,
    });
    let layout =
        SafetensorsLayout::new(&specs, &layout_metadata(Groups::Columns(group), shapes, false));
    let mut bytes = MmapMut::map_anon(layout.file_len())
        .map_err(|source| Error::Io { path: "memory".into(), source })?;
    // Generation was some per cent faster with huge pages.
    #[cfg(target_os = "linux")]
    let _ = bytes.advise(memmap2::Advice::HugePage);
    bytes[..layout.header().len()].copy_from_slice(layout.header());
    let noise = noise();
    let total = tensors.iter().map(|(tensor, _)| tensor.bytes() as u64).sum();
    let mut done = 0;
    for (index, (_, fill)) in tensors.iter().enumerate() {
        let bytes = &mut bytes[layout.range(index)];
        match *fill {
            Fill::Integers => bytes.chunks_mut(noise.len()).for_each(|part| {
                part.copy_from_slice(&noise[..part.len()]);
                done += part.len() as u64;
                progress(done, total);
            }),
            Fill::Scales(scale, shape) => {
                let group = [scale, 0.5 * scale].map(|number| [f16::from_f32(number); LANES]);
                let group = group[..shape.form.numbers()].as_flattened();
                let scales: &mut [f16] = cast_slice_mut(bytes);
                scales.chunks_exact_mut(group.len()).for_each(|to| to.copy_from_slice(group));
                done += bytes.len() as u64;
            }
            Fill::Random(most) => {
                let numbers: &mut [f32] = cast_slice_mut(bytes);
                for (number, &random) in numbers.iter_mut().zip(noise[index..].iter().cycle()) {
                    *number = most * (f32::from(random) / 127.5 - 1.0);
                }
                done += bytes.len() as u64;
            }
            Fill::Numbers(value) => {
                cast_slice_mut(bytes).fill(value);
                done += bytes.len() as u64;
            }
        }
    }
    progress(done, total);
    Checkpoint::from_bytes(Format::Safetensors, Bytes::from(bytes))
}

/// Random bytes, which are repeated for all weights. Speed does not depend on them, and generating gigabytes takes long.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    // No row has this length, so rows differ.
    (0..(1 << 20) + 37).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::model_files::ModelFiles;
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
                ("\"hidden_size\": 2048", "\"hidden_size\": 64"),
                ("\"num_hidden_layers\": 47", "\"num_hidden_layers\": 2"),
                ("\"num_hidden_layers\": 46", "\"num_hidden_layers\": 2"),
                ("\"num_attention_heads\": 20", "\"num_attention_heads\": 4"),
                ("\"num_attention_heads\": 96", "\"num_attention_heads\": 16"),
                ("\"moe_intermediate_size\": 1536", "\"moe_intermediate_size\": 32"),
                ("\"moe_intermediate_size\": 1408", "\"moe_intermediate_size\": 32"),
                ("10240", "96"),
                ("10944", "96"),
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
            assert_eq!((config.layers, config.hidden), (2, 64), "{name}");
            for (bits, group, minimum) in [(4, 32, false), (4, 64, true), (8, 64, false)] {
                let format = QuantizeOptions { minimum, ..QuantizeOptions::new(bits, group) };
                let tensors = tensors(&config, &format).unwrap();
                let mut last = (0, 0);
                let mut progress = |done, total| {
                    assert!(last.0 <= done && done <= total);
                    last = (done, total);
                };
                let checkpoint = random(&tensors, group, &mut progress).unwrap();
                assert!(last.0 > 0 && last.0 == last.1, "{name}: {last:?}");
                let options = Options::default();
                let files = ModelFiles::new(config.clone(), &checkpoint).unwrap();
                let model = Model::load(&files, &options, &mut |_, _| {}).unwrap();
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
