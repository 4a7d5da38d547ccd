//! Models in several files, made from models in one.

use std::fs;
use std::path::Path;

use glm_model::{Checkpoint, Dtype, Format, TensorSpec};
use serde_json::{Map, json};

use super::forge;
use super::stored::{Stored, safetensors, stored};

/// Copies the model in folder `source` to `target`, its weights in `count` files with an index. The embedding is first, the final norm
/// and the head are last, as in published checkpoints. If `head` is given, the model gets a head: the embedding, each byte changed by `head`.
pub fn split(source: &Path, target: &Path, format: Format, count: usize, head: Option<u8>) {
    fs::create_dir_all(target).unwrap();
    for entry in fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.starts_with("model.safetensors") && !name.starts_with("pytorch_model") {
            fs::copy(&path, target.join(name)).unwrap();
        }
    }
    let checkpoint = Checkpoint::open(source).unwrap();
    let mut tensors = stored(&checkpoint);
    tensors.sort_by_key(|(spec, _)| {
        let is = |part| spec.name.contains(part);
        (!is("word_embeddings"), is("final_layernorm"))
    });
    if let Some(change) = head {
        let (spec, bytes) =
            tensors.iter().find(|(spec, _)| spec.name.contains("word_embeddings")).unwrap();
        let spec = TensorSpec::new("lm_head.weight", spec.dtype, spec.shape.clone());
        tensors.push((spec, bytes.iter().map(|byte| byte ^ change).collect()));
    }
    let (start, end) = match format {
        Format::Safetensors => ("model", "safetensors"),
        Format::Torch => ("pytorch_model", "bin"),
        Format::Gguf => panic!("GGUF files have no index"),
    };
    let mut map = Map::new();
    let size = tensors.len().div_ceil(count);
    for (index, shard) in tensors.chunks(size).enumerate() {
        let name = format!("{start}-{:05}-of-{count:05}.{end}", index + 1);
        let bytes = match format {
            Format::Safetensors => safetensors(shard),
            Format::Torch => torch(shard),
            Format::Gguf => unreachable!("refused above"),
        };
        fs::write(target.join(&name), bytes).unwrap();
        map.extend(shard.iter().map(|(spec, _)| (spec.name.clone(), json!(name))));
    }
    let index = json!({ "metadata": { "total_size": 0 }, "weight_map": map });
    fs::write(target.join(format!("{start}.{end}.index.json")), index.to_string()).unwrap();
}

fn torch(tensors: &[Stored]) -> Vec<u8> {
    let keys: Vec<_> = (0..tensors.len()).map(|key| key.to_string()).collect();
    let shapes: Vec<Vec<i64>> = tensors
        .iter()
        .map(|(spec, _)| spec.shape.iter().map(|&size| size as i64).collect())
        .collect();
    let strides: Vec<Vec<i64>> = shapes
        .iter()
        .map(|shape| (1..=shape.len()).map(|axis| shape[axis..].iter().product()).collect())
        .collect();
    let described: Vec<_> = tensors
        .iter()
        .enumerate()
        .map(|(i, (spec, _))| {
            let storage = match spec.dtype {
                Dtype::F16 => "HalfStorage",
                Dtype::BF16 => "BFloat16Storage",
                Dtype::I8 => "CharStorage",
                _ => "FloatStorage",
            };
            let (key, numel) = (keys[i].as_str(), shapes[i].iter().product());
            let (shape, strides) = (&shapes[i], &strides[i]);
            let tensor = forge::Tensor { storage, key, numel, offset: 0, shape, strides };
            (spec.name.as_str(), tensor)
        })
        .collect();
    let pickle = forge::pickle(&[&forge::dict(&described)]);
    let storages: Vec<_> =
        keys.iter().zip(tensors).map(|(key, (_, bytes))| (key.as_str(), &bytes[..])).collect();
    forge::torch(&pickle, &storages)
}
