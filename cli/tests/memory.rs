//! The memory that a model takes is what `glm info` says, and where there is less, the program says so.
#![cfg(target_os = "linux")]

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::{causal::Family, isolated, json, stderr, text, tiny};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// How the weights of a generated model are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The kernels' layout, which is mapped.
    Panels,
    /// The official INT4, which is converted.
    Official,
    /// F16 with query, key and value apart, which are joined.
    Apart,
    /// F16 with latent attention and four experts, all of which every token needs.
    Experts,
}

const LAYERS: usize = 16;
const HIDDEN: usize = 1024;
const INNER: usize = 4096;
const VOCAB: usize = 20_000;

/// A model of some 140 MB, or 500 MB as F16. Its weights are zeros, for which a file needs no room on the disk; in memory they are as any others.
fn generated(form: Form) -> TempDir {
    let mut tensors = Tensors::default();
    let config = match form {
        Form::Panels | Form::Official => chatglm(form, &mut tensors),
        Form::Apart => glm(&mut tensors),
        Form::Experts => glm4_moe_lite(&mut tensors),
    };
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    tensors.write(&folder.path().join("model.safetensors"), form == Form::Panels);
    folder
}

fn chatglm(form: Form, tensors: &mut Tensors) -> Value {
    let matrices = [
        ("attention.query_key_value", 3 * HIDDEN, HIDDEN),
        ("attention.dense", HIDDEN, HIDDEN),
        ("mlp.dense_h_to_4h", INNER, HIDDEN),
        ("mlp.dense_4h_to_h", HIDDEN, INNER),
    ];
    let tables = ["transformer.word_embeddings.weight", "lm_head.weight"];
    match form {
        Form::Panels => tables.iter().for_each(|name| tensors.add_panels(name, VOCAB, HIDDEN)),
        _ => tables.iter().for_each(|name| tensors.add(name, "F16", &[VOCAB, HIDDEN])),
    }
    for layer in 0..LAYERS {
        let name = |name: &str| format!("transformer.layers.{layer}.{name}");
        for (matrix, rows, cols) in matrices {
            let weight = name(&format!("{matrix}.weight"));
            if form == Form::Panels {
                tensors.add_panels(&weight, rows, cols);
            } else {
                tensors.add(&weight, "I8", &[rows, cols / 2]);
                tensors.add(&format!("{weight}_scale"), "F16", &[rows]);
            }
            tensors.add(&name(&format!("{matrix}.bias")), "F16", &[rows]);
        }
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            for end in ["weight", "bias"] {
                tensors.add(&name(&format!("{norm}.{end}")), "F16", &[HIDDEN]);
            }
        }
    }
    for end in ["weight", "bias"] {
        tensors.add(&format!("transformer.final_layernorm.{end}"), "F16", &[HIDDEN]);
    }
    let mut config = json!({
        "architectures": ["ChatGLMModel"], "model_type": "chatglm", "hidden_size": HIDDEN,
        "inner_hidden_size": INNER, "layernorm_epsilon": 1e-5, "max_sequence_length": 512,
        "num_attention_heads": 8, "num_layers": LAYERS, "position_encoding_2d": true,
        "vocab_size": VOCAB, "bos_token_id": 304, "eos_token_id": 305, "mask_token_id": 300,
        "gmask_token_id": 301, "pad_token_id": 3,
    });
    if form == Form::Official {
        config["quantization_bit"] = 4.into();
        config["quantization_embeddings"] = false.into();
    }
    config
}

fn glm(tensors: &mut Tensors) -> Value {
    tensors.add("model.embed_tokens.weight", "F16", &[VOCAB, HIDDEN]);
    tensors.add("model.norm.weight", "F16", &[HIDDEN]);
    for layer in 0..LAYERS {
        let mut add = |name: &str, shape: &[usize]| {
            tensors.add(&format!("model.layers.{layer}.{name}.weight"), "F16", shape);
        };
        for name in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            add(&format!("self_attn.{name}"), &[HIDDEN, HIDDEN]);
        }
        add("mlp.gate_up_proj", &[2 * INNER, HIDDEN]);
        add("mlp.down_proj", &[HIDDEN, INNER]);
        add("input_layernorm", &[HIDDEN]);
        add("post_attention_layernorm", &[HIDDEN]);
    }
    json!({
        "architectures": ["GlmForCausalLM"], "model_type": "glm", "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS, "intermediate_size": INNER, "num_attention_heads": 8,
        "num_key_value_heads": 8, "head_dim": HIDDEN / 8, "partial_rotary_factor": 0.5,
        "rms_norm_eps": 1e-5, "attention_bias": false, "hidden_act": "silu",
        "max_position_embeddings": 512, "vocab_size": VOCAB, "tie_word_embeddings": true,
        "eos_token_id": [2], "pad_token_id": 2,
    })
}

fn glm4_moe_lite(tensors: &mut Tensors) -> Value {
    const RANK: usize = 256;
    const HEADS: usize = 8;
    const EXPERT: usize = 768;
    const EXPERTS: usize = 4;
    for name in ["model.embed_tokens", "lm_head"] {
        tensors.add(&format!("{name}.weight"), "F16", &[VOCAB, HIDDEN]);
    }
    tensors.add("model.norm.weight", "F16", &[HIDDEN]);
    for layer in 0..LAYERS {
        let mut add = |name: &str, shape: &[usize]| {
            tensors.add(&format!("model.layers.{layer}.{name}"), "F16", shape);
        };
        add("input_layernorm.weight", &[HIDDEN]);
        add("post_attention_layernorm.weight", &[HIDDEN]);
        add("self_attn.q_a_proj.weight", &[RANK, HIDDEN]);
        add("self_attn.q_a_layernorm.weight", &[RANK]);
        add("self_attn.q_b_proj.weight", &[HEADS * 128, RANK]);
        add("self_attn.kv_a_proj_with_mqa.weight", &[RANK + 32, HIDDEN]);
        add("self_attn.kv_a_layernorm.weight", &[RANK]);
        add("self_attn.kv_b_proj.weight", &[HEADS * (96 + 128), RANK]);
        add("self_attn.o_proj.weight", &[HIDDEN, HEADS * 128]);
        let mut gated = |of: &str, inner: usize| {
            add(&format!("mlp.{of}gate_proj.weight"), &[inner, HIDDEN]);
            add(&format!("mlp.{of}up_proj.weight"), &[inner, HIDDEN]);
            add(&format!("mlp.{of}down_proj.weight"), &[HIDDEN, inner]);
        };
        if layer == 0 {
            gated("", INNER);
            continue;
        }
        (0..EXPERTS).for_each(|expert| gated(&format!("experts.{expert}."), EXPERT));
        gated("shared_experts.", EXPERT);
        add("mlp.gate.weight", &[EXPERTS, HIDDEN]);
        add("mlp.gate.e_score_correction_bias", &[EXPERTS]);
    }
    json!({
        "architectures": ["Glm4MoeLiteForCausalLM"], "model_type": "glm4_moe_lite",
        "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "intermediate_size": INNER,
        "moe_intermediate_size": EXPERT, "n_routed_experts": EXPERTS,
        "num_experts_per_tok": EXPERTS, "n_shared_experts": 1, "first_k_dense_replace": 1,
        "n_group": 1, "topk_group": 1, "norm_topk_prob": true, "routed_scaling_factor": 1.8,
        "q_lora_rank": RANK, "kv_lora_rank": RANK, "qk_nope_head_dim": 96, "qk_rope_head_dim": 32,
        "v_head_dim": 128, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
        "rms_norm_eps": 1e-5, "rope_theta": 1e6, "attention_bias": false, "hidden_act": "silu",
        "max_position_embeddings": 512, "vocab_size": VOCAB, "tie_word_embeddings": false,
        "eos_token_id": [2], "pad_token_id": 2,
    })
}

/// The tensors of a file.
#[derive(Default)]
struct Tensors {
    header: Map<String, Value>,
    len: usize,
}

impl Tensors {
    fn add(&mut self, name: &str, dtype: &str, shape: &[usize]) {
        let size = if dtype == "F16" { 2 } else { 1 };
        let end = self.len + size * shape.iter().product::<usize>();
        let tensor = json!({ "dtype": dtype, "shape": shape, "data_offsets": [self.len, end] });
        self.header.insert(name.to_owned(), tensor);
        self.len = end;
    }

    /// A matrix in the kernels' layout.
    fn add_panels(&mut self, name: &str, rows: usize, cols: usize) {
        self.add(name, "U8", &[rows / 8, cols / 32, 128]);
        self.add(&format!("{name}_scale"), "F16", &[rows / 8, cols / 32, 8]);
    }

    /// Writes a file of zeros.
    fn write(mut self, path: &Path, in_panels: bool) {
        if in_panels {
            let layout = json!({ "format": "glm", "glm.layout": "panels-1", "glm.group": "32" });
            self.header.insert("__metadata__".into(), layout);
        }
        let mut header = Value::Object(self.header).to_string();
        header += &" ".repeat(header.len().next_multiple_of(64) + 56 - header.len());
        let len = (header.len() as u64).to_le_bytes();
        fs::write(path, [&len[..], header.as_bytes()].concat()).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.set_len(8 + header.len() as u64 + self.len as u64).unwrap();
    }
}

/// `glm generate` with a prompt of `tokens` ids, all different, and an answer of two.
fn generate(model: &str, prompt: impl Iterator<Item = usize>) -> Vec<String> {
    let ids: Vec<_> = prompt.chain([301, 304]).collect();
    let ids = serde_json::to_string(&ids).unwrap();
    let words = ["generate", "-m", model, "--greedy", "--ignore-eos", "--ids", &ids];
    let more = ["--max-new-tokens", "2", "--threads", "2", "--draft", "off"];
    words.iter().chain(&more).map(|word| (*word).to_owned()).collect()
}

/// The most memory that a run has, which must succeed.
fn peak(words: &[String]) -> u64 {
    let mut command = isolated(Path::new(env!("CARGO_TARGET_TMPDIR")));
    command.args(words).env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(&status).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        peak = peak.max(kilobytes.unwrap_or(0) << 10);
        std::thread::sleep(Duration::from_micros(500));
    }
    assert!(child.wait().unwrap().success(), "{words:?}");
    peak
}

#[test]
fn a_model_takes_what_info_says() {
    for form in [Form::Panels, Form::Official, Form::Apart, Form::Experts] {
        let folder = generated(form);
        let model = text(folder.path());
        takes_what_info_says(&model, &format!("{form:?}"));
        if form == Form::Experts {
            let quantized = text(&folder.path().join("int4"));
            peak(&["quantize", &model, &quantized].map(str::to_owned));
            takes_what_info_says(&quantized, "Experts in INT4");
        }
    }
}

fn takes_what_info_says(model: &str, what: &str) {
    let info = json(&["info", "-m", model, "--json"]);
    let memory = info["memory"].as_array().unwrap().last().unwrap();
    assert_eq!(memory["context"], 512);
    let promised = memory["total"].as_u64().unwrap();
    let taken = peak(&generate(model, (0..508).map(|token| 400 + token * 37)));
    let error = promised as f64 / taken as f64 - 1.0;
    println!("{what}: {promised} promised, {taken} taken: {:.1} %", 100.0 * error);
    assert!(error.abs() < 0.05, "{what}: {promised} promised, {taken} taken: {info}");
}

/// A run with at most this much address space.
fn limited(megabytes: usize, words: &[String]) -> Output {
    let mut shell = Command::new("sh");
    let script = format!("ulimit -v {}; exec \"$0\" \"$@\"", megabytes * 1000);
    let glm = isolated(Path::new(env!("CARGO_TARGET_TMPDIR")));
    shell.args(["-c", &script]).arg(glm.get_program()).args(words);
    for (name, value) in glm.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.env("LC_ALL", "C").stdin(Stdio::null()).output().unwrap()
}

/// What the C library and Rust's own say when a thread that starts has no memory for a few pages. No program can turn that into an error.
const OF_THE_RUNTIME: [&str; 2] = ["Fatal glibc error", "failed to allocate an alternative stack"];

/// Runs with more and more memory, from the least with which the program starts to enough.
fn sweep(words: &[String], step: usize) {
    let starts = |megabytes: &usize| limited(*megabytes, &["--version".into()]).status.success();
    let first = (5..2000).step_by(5).find(starts).unwrap();
    let (mut refusals, mut aborts) = (0, 0);
    for megabytes in (first..4000).step_by(step) {
        // Two threads may abort at once, and mix their messages: such a run is repeated.
        let output = (0..50)
            .map(|_| limited(megabytes, words))
            .find(|output| stderr(output).matches("memory allocation of").count() < 2)
            .expect("one thread that aborts");
        let said = stderr(&output);
        match output.status.code() {
            Some(0) => {
                println!(
                    "{refusals} refusals, {aborts} aborts from {first} to {megabytes} MB, step {step}"
                );
                assert!(refusals > aborts, "{refusals} refusals, {aborts} aborts");
                return;
            }
            Some(1) => {
                assert!(!said.trim().is_empty() && !said.contains("panicked"), "{said}");
                refusals += 1;
            }
            None => {
                // Where a small allocation fails, no error can be given. Those whose size a file decides are larger.
                let bytes = said.split_once("memory allocation of ").and_then(|(_, rest)| {
                    rest.split_once(" bytes failed")?.0.parse::<usize>().ok()
                });
                let is_small = match bytes {
                    Some(bytes) => bytes < 1 << 20,
                    None => OF_THE_RUNTIME.iter().any(|message| said.contains(message)),
                };
                assert!(is_small, "{megabytes} MB: {}: {said}", output.status);
                aborts += 1;
            }
            Some(_) => panic!("{megabytes} MB: {}: {said}", output.status),
        }
    }
    panic!("4 GB are not enough");
}

#[test]
fn too_little_memory_is_an_error() {
    let tiny = tiny("int4");
    sweep(&generate(&tiny, 5..9), 2);
    let joined = Family::Glm45.folder();
    let words = ["generate", "-m", &text(joined.path()), "--greedy", "--max-new-tokens", "2", "x"];
    sweep(&words.map(str::to_owned), 4);
    for form in [Form::Official, Form::Apart] {
        let folder = generated(form);
        sweep(&generate(&text(folder.path()), 400..404), 24);
    }
}
