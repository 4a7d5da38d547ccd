//! A model folder whose files are missing, cut, changed or do not fit together opens and runs, or is refused.

#![no_main]

use std::fs;

use glm_fuzz::{Number, Stored, Tiny, TinyExperts, logits, one_thread, safetensors};
use glm_model::{Config, Dtype, Model, ModelFiles, Template, Tokenizer};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

#[derive(Debug, Arbitrary)]
struct Folder<'a> {
    output_norms: bool,
    tied_head: bool,
    /// A model with experts in place of that: whether it has latent attention, and its experts in joined tensors.
    experts: Option<(bool, bool)>,
    /// Fields of `config.json`.
    fields: Vec<(u8, Field<'a>)>,
    tensors: Vec<(u8, Change)>,
    /// The file of each tensor, of three; all in one without.
    shards: Option<[u8; 8]>,
    /// Entries of the index that name another file.
    index: Vec<(u8, u8)>,
    /// Bytes of a file: which, where, and what is flipped.
    flips: Vec<(u8, u16, u8)>,
    cut: Option<(u8, u16)>,
    removed: Option<u8>,
    more: Vec<(u8, &'a [u8])>,
}

#[derive(Debug, Arbitrary)]
enum Field<'a> {
    Missing,
    Integer(i16),
    Large(i64),
    Number(f64),
    Flag(bool),
    Text(&'a str),
    Null,
    List(Vec<i16>),
    Packing(u8),
}

#[derive(Debug, Arbitrary)]
enum Change {
    Remove,
    /// In a second file, too.
    Twice,
    Dtype(u8),
    Axis(bool, i8),
    Flat,
    Rename(u8),
}

const FIELDS: [&str; 36] = [
    "model_type",
    "architectures",
    "attention_bias",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "partial_rotary_factor",
    "rms_norm_eps",
    "rope_theta",
    "tie_word_embeddings",
    "vocab_size",
    "eos_token_id",
    "quantization_config",
    "rope_scaling",
    "pre_seq_len",
    "q_lora_rank",
    "kv_lora_rank",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "v_head_dim",
    "moe_intermediate_size",
    "n_routed_experts",
    "num_experts_per_tok",
    "n_shared_experts",
    "n_group",
    "topk_group",
    "first_k_dense_replace",
    "mlp_layer_types",
    "norm_topk_prob",
    "routed_scaling_factor",
    "use_qk_norm",
];

const FILES: [&str; 4] = ["a.safetensors", "b.safetensors", "c.safetensors", "../d.safetensors"];

/// Files that a folder may have beside, and that change what it is.
const MORE: [&str; 14] = [
    "latest",
    "adapter_config.json",
    "adapter_model.safetensors",
    "quantize_config.json",
    "quant_config.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.gguf",
    "generation_config.json",
    "tokenizer_config.json",
    "added_tokens.json",
    "tokenizer.json",
    "chat_template.jinja",
    "model.safetensors",
];

fn packing(kind: u8) -> Value {
    let (bits, flag) = (if kind & 8 > 0 { 8 } else { 4 }, kind & 16 > 0);
    match kind % 3 {
        0 => {
            json!({"quant_method": "gptq", "bits": bits, "group_size": 32, "sym": flag, "desc_act": kind & 32 > 0})
        }
        1 => {
            json!({"quant_method": "awq", "bits": bits, "group_size": 32, "zero_point": flag, "version": "gemm"})
        }
        _ => {
            json!({"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0":
            {"targets": ["Linear"], "weights": {"num_bits": bits, "type": "int", "symmetric": flag,
            "strategy": "group", "group_size": 32}}}})
        }
    }
}

impl Field<'_> {
    fn value(&self) -> Option<Value> {
        Some(match self {
            Field::Missing => return None,
            Field::Integer(x) => json!(x),
            Field::Large(x) => json!(x),
            Field::Number(x) => json!(x),
            Field::Flag(x) => json!(x),
            Field::Text(x) => json!(x),
            Field::Null => Value::Null,
            Field::List(x) => json!(x),
            Field::Packing(kind) => packing(*kind),
        })
    }
}

fn change(tensors: &mut Vec<Stored>, twice: &mut Vec<Stored>, at: u8, change: &Change) {
    let at = usize::from(at) % tensors.len().max(1);
    let Some((spec, bytes)) = tensors.get_mut(at) else { return };
    match *change {
        Change::Remove => drop(tensors.remove(at)),
        Change::Twice => twice.push(tensors[at].clone()),
        Change::Dtype(dtype) => {
            let all = [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::I32, Dtype::U8, Dtype::I64];
            spec.dtype = all[usize::from(dtype) % all.len()];
            bytes.resize(spec.bytes(), 0x3c);
        }
        Change::Axis(last, by) => {
            let axis = if last { spec.shape.len() - 1 } else { 0 };
            spec.shape[axis] = spec.shape[axis].saturating_add_signed(by.into());
            bytes.resize(spec.bytes(), 0x3c);
        }
        Change::Flat => spec.shape = vec![spec.shape.iter().product()],
        Change::Rename(end) => {
            let ends = [
                "qweight",
                "scales",
                "qzeros",
                "weight_packed",
                "weight_scale",
                "x",
                "weight.weight",
                "inv_freq",
            ];
            let path = spec.name.rsplit_once('.').map_or("", |(path, _)| path);
            let name = format!("{path}.{}", ends[usize::from(end) % ends.len()]);
            if tensors.iter().all(|(other, _)| other.name != name) {
                tensors[at].0.name = name;
            }
        }
    }
}

impl Folder<'_> {
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let model = Tiny {
            output_norms: self.output_norms,
            tied_head: self.tied_head,
            number: Number::Bf16,
        };
        let experts = self.experts.map(|(is_latent, is_joined)| TinyExperts {
            is_latent,
            is_joined,
            number: Number::Bf16,
        });
        let mut config = experts.map_or_else(|| model.config(), TinyExperts::config);
        for (at, field) in self.fields.iter().take(6) {
            let object = config.as_object_mut().expect("an object");
            let name = FIELDS[usize::from(*at) % FIELDS.len()];
            match field.value() {
                Some(value) => object.insert(name.to_owned(), value),
                None => object.remove(name),
            };
        }
        let of_experts = experts.map(|experts| experts.tensors(Tiny::usual));
        let mut tensors = of_experts.unwrap_or_else(|| model.tensors(Tiny::usual));
        let mut twice = Vec::new();
        self.tensors
            .iter()
            .take(6)
            .for_each(|(at, made)| change(&mut tensors, &mut twice, *at, made));
        let mut files = vec![("config.json".to_owned(), config.to_string().into_bytes())];
        let Some(shards) = self.shards else {
            files.push(("model.safetensors".to_owned(), safetensors(&tensors)));
            return files;
        };
        let mut parts: [Vec<Stored>; 3] = Default::default();
        let mut index = serde_json::Map::new();
        for (at, tensor) in tensors.into_iter().enumerate() {
            let shard = usize::from(shards[at % 8]) % 3;
            index.insert(tensor.0.name.clone(), json!(FILES[shard]));
            parts[shard].push(tensor);
        }
        for tensor in twice {
            if let Some(part) = parts
                .iter_mut()
                .find(|part| part.iter().all(|(spec, _)| spec.name != tensor.0.name))
            {
                part.push(tensor);
            }
        }
        let names: Vec<_> = index.keys().cloned().collect();
        for &(at, file) in self.index.iter().take(4).filter(|_| !names.is_empty()) {
            let name = names[usize::from(at) % names.len()].clone();
            index.insert(name, json!(FILES[usize::from(file) % FILES.len()]));
        }
        let index = json!({ "weight_map": index }).to_string().into_bytes();
        files.push(("model.safetensors.index.json".to_owned(), index));
        files.extend(
            FILES.iter().zip(&parts).map(|(name, part)| ((*name).to_owned(), safetensors(part))),
        );
        files
    }

    fn is_changed(&self) -> bool {
        let some = [
            self.fields.len(),
            self.tensors.len(),
            self.index.len(),
            self.flips.len(),
            self.more.len(),
        ];
        some.iter().any(|&len| len > 0) || self.cut.is_some() || self.removed.is_some()
    }
}

fuzz_target!(|case: Folder| {
    let mut files = case.files();
    let count = files.len();
    for &(file, at, bits) in case.flips.iter().take(8) {
        let bytes = &mut files[usize::from(file) % count].1;
        let at = usize::from(at) % bytes.len();
        bytes[at] ^= bits;
    }
    if let Some((file, at)) = case.cut {
        files[usize::from(file) % count].1.truncate(at.into());
    }
    if let Some(file) = case.removed {
        files.remove(usize::from(file) % count);
    }
    let more = case
        .more
        .iter()
        .take(3)
        .map(|(at, bytes)| (MORE[usize::from(*at) % MORE.len()].to_owned(), bytes.to_vec()));
    files.extend(more);
    let folder = tempfile::tempdir().expect("a folder");
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).expect("a file");
    }
    let _ = Config::open(folder.path());
    if let Ok(files) = ModelFiles::open(folder.path()) {
        let inventory = files.inventory();
        let _ = (inventory.parameters(), inventory.bits_per_weight(), inventory.activations());
        let _ = (inventory.prefill_products(7), inventory.context_bytes(7));
    }
    if let Ok(tokenizer) = Tokenizer::open(folder.path()) {
        let _ = Template::open(folder.path(), &tokenizer);
    }
    match Model::open(folder.path(), &one_thread()) {
        Ok(model) => {
            let logits = logits(&model, &[1, 2, 3]);
            assert!(logits.is_ok() || case.is_changed(), "{logits:?}");
        }
        Err(error) => assert!(case.is_changed(), "{error}"),
    }
});
