//! Tiny causal models with tokenizers. Their weights are random and always the same, so what they say is noise; but they have the
//! roles, the calls and the thoughts of their families, and a grammar makes calls of the noise.

use std::fs;
use std::io;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The families that call tools, each in its own form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// A name, and a call in Python.
    ChatGlm3,
    /// A name, and JSON.
    Glm4,
    /// Tags; and thoughts.
    Glm45,
}

impl Family {
    pub const ALL: [Self; 3] = [Self::ChatGlm3, Self::Glm4, Self::Glm45];

    pub fn name(self) -> &'static str {
        match self {
            Self::ChatGlm3 => "chatglm3-tiny",
            Self::Glm4 => "glm-4-chat-tiny",
            Self::Glm45 => "glm-4.5-tiny",
        }
    }

    /// Names of special ids, which follow the tokens of the text.
    fn special(self) -> &'static [&'static str] {
        match self {
            Self::ChatGlm3 => &CHATGLM3,
            Self::Glm4 => &GLM4,
            Self::Glm45 => &GLM45,
        }
    }

    /// The id of a special name.
    pub fn id(self, name: &str) -> u32 {
        let at = self.special().iter().position(|special| *special == name).expect(name);
        (self.words() + at) as u32
    }

    /// Tokens of the text: all bytes and a few words, and for ChatGLM3 three that are special.
    fn words(self) -> usize {
        match self {
            Self::ChatGlm3 => 3 + 256 + WORDS.len(),
            Self::Glm4 => 256 + WORDS.len(),
            Self::Glm45 => 256,
        }
    }

    /// A folder with the model. It lives as long as the value.
    pub fn folder(self) -> TempDir {
        let folder = TempDir::with_prefix(self.name()).expect("a folder");
        self.write(folder.path()).expect("a disk with room");
        folder
    }

    /// Writes the files of the model to a folder.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(self, folder: &Path) -> io::Result<()> {
        let ends: Vec<u32> = match self {
            Self::ChatGlm3 => vec![2],
            _ => ENDS.map(|name| self.id(name)).into(),
        };
        write_model(folder, self.name(), self.words() + self.special().len(), &ends)?;
        let settings = match self {
            Self::ChatGlm3 => json!({ "name_or_path": self.name() }),
            Self::Glm4 => {
                let token = |name: &&str| {
                    (self.id(name).to_string(), json!({ "content": name, "special": true }))
                };
                let added: serde_json::Map<_, _> = GLM4.iter().map(token).collect();
                json!({ "added_tokens_decoder": added, "eos_token": "<|endoftext|>" })
            }
            Self::Glm45 => json!({ "chat_template": TEMPLATE, "eos_token": "<|endoftext|>" }),
        };
        fs::write(folder.join("tokenizer_config.json"), settings.to_string())?;
        let (name, tokenizer) = match self {
            Self::ChatGlm3 => ("tokenizer.model", pieces()),
            Self::Glm4 => ("tokenizer.model", ranks()),
            Self::Glm45 => ("tokenizer.json", self.byte_level().to_string().into_bytes()),
        };
        fs::write(folder.join(name), tokenizer)
    }

    /// A `tokenizer.json` of bytes.
    fn byte_level(self) -> Value {
        // A byte that is no visible character is one of those from U+0100 on.
        let is_visible = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let hidden = (0..=255).filter(|&byte| !is_visible(byte));
        let hidden: Vec<u8> = hidden.collect();
        let character = |byte: u8| match hidden.iter().position(|&other| other == byte) {
            None => char::from(byte),
            Some(place) => char::from_u32(0x100 + place as u32).expect("a character"),
        };
        let vocab: serde_json::Map<_, _> =
            (0..=255).map(|byte| (character(byte).to_string(), json!(byte))).collect();
        let token = |name: &&str| {
            // Tags are part of the text.
            let is_tag = TAGS.contains(name);
            json!({ "id": self.id(name), "content": name, "special": !is_tag })
        };
        json!({
            "model": { "type": "BPE", "vocab": vocab, "merges": [] },
            "decoder": { "type": "ByteLevel" },
            "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "use_regex": false },
            "added_tokens": self.special().iter().map(token).collect::<Value>(),
        })
    }
}

/// A folder with a model of GLM-4.5's kind that has a published tokenizer, `tokenizer.json`, and a published template.
///
/// # Errors
/// If a file cannot be read or written.
pub fn glm45_with(tokenizer: &Path, template: &Path) -> io::Result<TempDir> {
    let folder = TempDir::with_prefix(Family::Glm45.name())?;
    let json = fs::read(tokenizer)?;
    fs::write(folder.path().join("tokenizer.json"), &json)?;
    fs::copy(template, folder.path().join("chat_template.jinja"))?;
    let settings = json!({ "eos_token": ENDS[0] });
    fs::write(folder.path().join("tokenizer_config.json"), settings.to_string())?;
    let json: Value = serde_json::from_slice(&json)?;
    let added: Vec<_> = json["added_tokens"].as_array().into_iter().flatten().collect();
    let ids = added.iter().filter_map(|token| token["id"].as_u64());
    let words = ids.max().map_or(0, |last| last as usize + 1);
    let is_end = |token: &&&Value| ENDS.iter().any(|end| token["content"] == *end);
    let ends = added.iter().filter(is_end).filter_map(|token| token["id"].as_u64());
    let ends: Vec<_> = ends.map(|id| id as u32).collect();
    write_model(folder.path(), Family::Glm45.name(), words, &ends)?;
    Ok(folder)
}

/// Writes the configuration and the weights of a model for so many tokens.
fn write_model(folder: &Path, name: &str, tokens: usize, ends: &[u32]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let vocab = tokens.next_multiple_of(8);
    let config = json!({
        "_name_or_path": name, "model_type": "chatglm", "architectures": ["ChatGLMModel"],
        "num_layers": LAYERS, "hidden_size": HIDDEN, "ffn_hidden_size": INNER, "num_attention_heads": 2,
        "kv_channels": HEAD, "multi_query_attention": true, "multi_query_group_num": 1,
        "padded_vocab_size": vocab, "seq_length": 8192, "layernorm_epsilon": 1e-5, "rmsnorm": true,
        "post_layer_norm": true, "add_qkv_bias": true, "add_bias_linear": false, "original_rope": true,
        "apply_residual_connection_post_layernorm": false, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "eos_token_id": ends, "pad_token_id": ends[0],
    });
    fs::write(folder.join("config.json"), config.to_string())?;
    fs::write(folder.join("model.safetensors"), weights(vocab))
}

/// Names of the ids that end an answer, other than ChatGLM3's.
const ENDS: [&str; 3] = ["<|endoftext|>", "<|user|>", "<|observation|>"];

const CHATGLM3: [&str; 9] = [
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "sop",
    "eop",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
];

const GLM4: [&str; 9] = [
    "<|endoftext|>",
    "[MASK]",
    "[gMASK]",
    "<sop>",
    "<eop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
];

const TAGS: [&str; 8] = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<arg_key>",
    "</arg_key>",
    "<arg_value>",
    "</arg_value>",
];

const GLM45: [&str; 17] = {
    let mut names = [""; 17];
    let mut at = 0;
    while at < names.len() {
        names[at] = if at < GLM4.len() { GLM4[at] } else { TAGS[at - GLM4.len()] };
        at += 1;
    }
    names
};

/// A template with the parts of GLM-4.5's that matter here.
const TEMPLATE: &str = "[gMASK]<sop>{% if tools %}<|system|>\n# Tools\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}{% endif %}\
    {% for m in messages %}{% if m.role == 'tool' %}<|observation|>\n<tool_response>\n{{ m.content }}\n</tool_response>\
    {% else %}<|{{ m.role }}|>\n{{ m.content }}\
    {% for call in m.tool_calls or [] %}<tool_call>{{ call.function.name }}\n\
    {% for name, value in call.function.arguments.items() %}<arg_key>{{ name }}</arg_key>\n\
    <arg_value>{{ value if value is string else value | tojson }}</arg_value>\n{% endfor %}</tool_call>{% endfor %}\
    {% endif %}{% endfor %}<|assistant|>{% if enable_thinking is defined %}{{ '\n<think>' if enable_thinking else '\n<think></think>' }}{% endif %}";

/// Tokens that are more than a byte.
const WORDS: [&str; 8] = ["tool", "_call", "city", "days", "你", "好", "你好", "北京"];

const LAYERS: usize = 2;
const HIDDEN: usize = 64;
const HEAD: usize = 32;
const INNER: usize = 96;

/// The weights as safetensors.
fn weights(vocab: usize) -> Vec<u8> {
    let mut shapes = vec![("embedding.word_embeddings.weight".to_owned(), vec![vocab, HIDDEN])];
    for layer in 0..LAYERS {
        for (name, shape) in [
            ("input_layernorm.weight", vec![HIDDEN]),
            ("self_attention.query_key_value.weight", vec![HIDDEN + 2 * HEAD, HIDDEN]),
            ("self_attention.query_key_value.bias", vec![HIDDEN + 2 * HEAD]),
            ("self_attention.dense.weight", vec![HIDDEN, HIDDEN]),
            ("post_attention_layernorm.weight", vec![HIDDEN]),
            ("mlp.dense_h_to_4h.weight", vec![2 * INNER, HIDDEN]),
            ("mlp.dense_4h_to_h.weight", vec![HIDDEN, INNER]),
        ] {
            shapes.push((format!("encoder.layers.{layer}.{name}"), shape));
        }
    }
    shapes.push(("encoder.final_layernorm.weight".to_owned(), vec![HIDDEN]));
    shapes.push(("output_layer.weight".to_owned(), vec![vocab, HIDDEN]));
    let mut state = 1_u64;
    let filled: Vec<_> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let (middle, width) = match shape[..] {
                [_, columns] if !name.starts_with("embedding") => {
                    (0.0, (3.0 / columns as f32).sqrt())
                }
                [_] if name.ends_with("norm.weight") => (1.0, 0.2),
                _ => (0.0, 1.0),
            };
            let count = shape.iter().product();
            let values = (0..count).map(|_| middle + width * random(&mut state));
            // bfloat16 is the first half of a float.
            let bytes: Vec<u8> =
                values.flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes()).collect();
            (format!("transformer.{name}"), shape, bytes)
        })
        .collect();
    let views = filled.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::BF16, shape.clone(), bytes);
        (name.clone(), view.expect("as many bytes as the shape needs"))
    });
    safetensors::serialize(views, None).expect("sound tensors")
}

/// A number from -1 to 1, by splitmix64.
fn random(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    (bits >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// All bytes and the words as tiktoken ranks.
fn ranks() -> Vec<u8> {
    let bytes = (0..=255).map(|byte| vec![byte]);
    let words = WORDS.map(|word| word.as_bytes().to_vec());
    let lines = bytes.chain(words).enumerate();
    lines
        .flat_map(|(id, token)| format!("{} {id}\n", STANDARD.encode(token)).into_bytes())
        .collect()
}

/// The same as a BPE model of SentencePiece, whose blank is a piece.
fn pieces() -> Vec<u8> {
    // A message of protobuf as a field; all are short.
    let field = |tag: u8, body: &[u8]| [&[tag << 3 | 2, body.len() as u8], body].concat();
    let piece = |text: &str, score: f32, kind: u8| {
        let body =
            [&field(1, text.as_bytes())[..], &[2 << 3 | 5], &score.to_le_bytes(), &[3 << 3, kind]];
        field(1, &body.concat())
    };
    let [normal, unknown, control, byte] = [1, 2, 3, 6];
    let mut model = piece("<unk>", 0.0, unknown);
    model.extend(["<s>", "</s>"].map(|text| piece(text, 0.0, control)).concat());
    for value in 0..=255 {
        model.extend(piece(&format!("<0x{value:02X}>"), 0.0, byte));
    }
    // The last of the words gives way to the blank, so that both kinds of tokenizer have as many tokens.
    let words = WORDS[..WORDS.len() - 1].iter().chain(&["\u{2581}"]);
    for (rank, word) in words.enumerate() {
        model.extend(piece(word, -(rank as f32), normal));
    }
    // BPE with bytes for unknown characters; runs of blanks are kept.
    model.extend(field(2, &[3 << 3, 2, 0x98, 0x02, 1]));
    model.extend(field(3, &[4 << 3, 0]));
    model
}
