//! Writes GGUF files, valid and malformed.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::path::PathBuf;

use glm_model::{Checkpoint, Dtype};
use tempfile::TempDir;

/// A value of the metadata.
#[derive(Clone)]
pub enum Value {
    U32(u32),
    U16(u16),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Integers(Vec<i32>),
    Floats(Vec<f32>),
    /// The type and the bytes.
    Raw(u32, Vec<u8>),
}

/// A tensor; its shape has the slowest axis first.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub code: u32,
    pub shape: Vec<u64>,
    pub data: Vec<u8>,
    /// Where it is said to begin, if not where it does.
    pub offset: Option<u64>,
}

impl Tensor {
    pub fn new(name: &str, code: u32, shape: &[usize], data: &[u8]) -> Self {
        let shape = shape.iter().map(|&n| n as u64).collect();
        Self { name: name.to_owned(), code, shape, data: data.to_vec(), offset: None }
    }
}

/// A file.
#[derive(Clone)]
pub struct Gguf {
    pub magic: [u8; 4],
    pub version: u32,
    pub metadata: Vec<(String, Value)>,
    pub tensors: Vec<Tensor>,
    /// The numbers of tensors and keys, if not the true ones.
    pub counts: [Option<u64>; 2],
    pub alignment: usize,
}

pub fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

impl Gguf {
    pub fn new() -> Self {
        let (metadata, tensors) = (Vec::new(), Vec::new());
        Self { magic: *b"GGUF", version: 3, metadata, tensors, counts: [None; 2], alignment: 32 }
    }

    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.metadata.retain(|(other, _)| other != key);
        self.metadata.push((key.to_owned(), value));
        self
    }

    pub fn tensor(mut self, tensor: Tensor) -> Self {
        self.tensors.push(tensor);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.counts[0].unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.counts[1].unwrap_or(self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            put_text(&mut out, key);
            put_value(&mut out, value);
        }
        let mut data = Vec::new();
        for tensor in &self.tensors {
            data.resize(data.len().next_multiple_of(self.alignment), 0);
            put_text(&mut out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|axis| out.extend(axis.to_le_bytes()));
            out.extend(tensor.code.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&tensor.data);
        }
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out.extend(data);
        out
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    let mut put = |code: u32, bytes: &[u8]| {
        out.extend(code.to_le_bytes());
        out.extend(bytes);
    };
    let array =
        |code: u32, len: usize| [&code.to_le_bytes()[..], &(len as u64).to_le_bytes()].concat();
    match value {
        Value::U16(value) => put(2, &value.to_le_bytes()),
        Value::U32(value) => put(4, &value.to_le_bytes()),
        Value::F32(value) => put(6, &value.to_le_bytes()),
        Value::Bool(value) => put(7, &[u8::from(*value)]),
        Value::Raw(code, bytes) => put(*code, bytes),
        Value::Text(text) => {
            put(8, &[]);
            put_text(out, text);
        }
        Value::Texts(texts) => {
            put(9, &array(8, texts.len()));
            texts.iter().for_each(|text| put_text(out, text));
        }
        Value::Integers(numbers) => {
            put(9, &array(5, numbers.len()));
            numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
        }
        Value::Floats(numbers) => {
            put(9, &array(6, numbers.len()));
            numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
        }
    }
}

/// A type and bytes for a tensor, from its name, its shape and its numbers.
pub type Convert<'a> = dyn Fn(&str, &[usize], &[f32]) -> Option<(u32, Vec<u8>)> + 'a;

/// A file with the tensors of a model of the transformers library, named as the converter of llama.cpp names them. `convert` may change
/// a matrix: it gets the name, the shape and the numbers, and returns a type and bytes.
pub fn of_transformers(file: Gguf, checkpoint: &Checkpoint, convert: &Convert) -> Gguf {
    let mut file = file;
    for name in checkpoint.names() {
        let tensor = checkpoint.tensor(name).unwrap();
        let values = floats(tensor.dtype(), tensor.bytes());
        let name = gguf_name(name);
        let all = || values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let (code, data) = convert(&name, tensor.shape(), &values).unwrap_or_else(|| (0, all()));
        file = file.tensor(Tensor::new(&name, code, tensor.shape(), &data));
    }
    file
}

fn floats(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    let halves = || bytes.as_chunks().0.iter();
    match dtype {
        Dtype::BF16 => halves().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::F16 => halves().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
        _ => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
    }
}

fn gguf_name(name: &str) -> String {
    let table = [
        ("model.embed_tokens", "token_embd"),
        ("model.layers", "blk"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("post_self_attn_layernorm", "post_attention_norm"),
        ("mlp.gate_up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("post_mlp_layernorm", "post_ffw_norm"),
    ];
    table.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}

/// Metadata of the models that are the first layers of published ones.
pub fn layer(architecture: &str) -> Gguf {
    let (context, eps, base) = match architecture {
        "glm4" => (32768, 1e-5, 10_000.0),
        _ => (131_072, 1.5625e-7, 5_000_000.0),
    };
    let key = |name: &str| format!("{architecture}.{name}");
    Gguf::new()
        .with("general.architecture", text(architecture))
        .with("general.name", text("Tiny 4"))
        .with(&key("context_length"), Value::U32(context))
        .with(&key("embedding_length"), Value::U32(128))
        .with(&key("feed_forward_length"), Value::U32(344))
        .with(&key("block_count"), Value::U32(1))
        .with(&key("attention.head_count"), Value::U32(4))
        .with(&key("attention.head_count_kv"), Value::U32(2))
        .with(&key("attention.layer_norm_rms_epsilon"), Value::F32(eps))
        .with(&key("rope.dimension_count"), Value::U32(16))
        .with(&key("rope.freq_base"), Value::F32(base))
        .with(&key("vocab_size"), Value::U32(9))
        .with("tokenizer.ggml.eos_token_id", Value::U32(0))
}

/// The characters that stand for the bytes from 0 to 255 in GPT-2's notation.
pub fn byte_tokens() -> Vec<String> {
    let is_printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut others = (0x100..).filter_map(char::from_u32);
    (0..=255)
        .map(|byte| if is_printable(byte) { char::from(byte) } else { others.next().unwrap() })
        .map(String::from)
        .collect()
}

const TEMPLATE: &str =
    "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}<|assistant|>";

/// A model of which only the tokenizer matters: bytes, `ab`, `abc`, `bc`, a gap, special tokens.
pub fn bytes_and_words() -> Gguf {
    let (normal, control, user, unused) = (1, 3, 4, 5);
    let mut tokens = byte_tokens();
    let mut types = vec![normal; 256];
    for (token, kind) in [
        ("ab", normal),
        ("abc", normal),
        ("bc", normal),
        ("[PAD259]", unused),
        ("[gMASK]", control),
        ("<sop>", control),
        ("<|user|>", control),
        ("<|assistant|>", control),
        ("<think>", user),
    ] {
        tokens.push(token.to_owned());
        types.push(kind);
    }
    let merges = ["a b", "ab c"].map(str::to_owned).to_vec();
    layer("glm4")
        .with("glm4.vocab_size", Value::U32(270))
        .with("tokenizer.ggml.model", text("gpt2"))
        .with("tokenizer.ggml.pre", text("glm4"))
        .with("tokenizer.ggml.tokens", Value::Texts(tokens))
        .with("tokenizer.ggml.token_type", Value::Integers(types))
        .with("tokenizer.ggml.merges", Value::Texts(merges))
        .with("tokenizer.ggml.eos_token_id", Value::U32(262))
        .with("tokenizer.ggml.eot_token_id", Value::U32(262))
        .with("tokenizer.ggml.eom_token_id", Value::U32(260))
        .with("tokenizer.chat_template", text(TEMPLATE))
}

/// Architectures, and the fixtures of their models.
pub const LAYERS: [(&str, &str); 2] =
    [("chatglm", "glm-4-9b-chat-hf-layer"), ("glm4", "glm-4-0414-layer")];

/// Writes a file to a new folder.
pub fn written(file: &Gguf) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    fs::write(&path, file.bytes()).unwrap();
    (dir, path)
}
