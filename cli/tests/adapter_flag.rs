//! `--adapter`: the trained prefix of P-Tuning v2, and updates of LoRA, in commands and in the server.

mod common;

use std::fs;

use common::{glm, json, refusal, stderr, talker, text};
use serde_json::json;
use tempfile::TempDir;

/// An adapter of the demonstration model: 6 layers of 8 heads, of 32 elements each, and 4 positions.
fn adapter() -> TempDir {
    let (tokens, width) = (4, 6 * 2 * 8 * 32);
    let mut state = 1u32;
    let mut value = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 8) as f32 / (1 << 24) as f32 - 0.5) * 400.0
    };
    let data: Vec<u8> = (0..tokens * width).flat_map(|_| value().to_le_bytes()).collect();
    let header = json!({
        "transformer.prefix_encoder.embedding.weight":
            { "dtype": "F32", "shape": [tokens, width], "data_offsets": [0, data.len()] }
    });
    let header = header.to_string();
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.safetensors"), file).unwrap();
    let config = fs::read_to_string(format!("{}/config.json", talker())).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["pre_seq_len"] = json!(tokens);
    config["_name_or_path"] = json!("THUDM/chatglm-6b");
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

const ANSWER: [&str; 7] = ["--greedy", "--max-new-tokens", "8", "--json", "-t", "2", "-p"];

/// Checks that an adapter changes the answer, always in the same way, and is described on stderr.
#[track_caller]
fn changes_the_answer(folder: &str, description: &str) {
    let model = talker();
    let plain = [&["generate", "-m", &model][..], &ANSWER, &["你好"]].concat();
    let tuned = [&plain[..], &["--adapter", folder]].concat();
    let answer = json(&tuned);
    assert_ne!(answer["ids"], json(&plain)["ids"]);
    assert_eq!(answer["ids"], json(&tuned)["ids"]);
    let said = stderr(&glm(&tuned).output().unwrap());
    assert!(said.contains(description), "{said}");
}

#[test]
fn an_adapter_changes_the_answer() {
    let adapter = adapter();
    changes_the_answer(&text(adapter.path()), "4 positions before every prompt");
}

#[test]
fn what_is_wrong_with_the_flag_is_said() {
    let adapter = adapter();
    let (folder, model) = (text(adapter.path()), talker());
    let plain = [&["generate", "-m", &model][..], &ANSWER, &["你好"]].concat();
    let named = format!("law={folder}");
    let said = refusal(&[&plain[..], &["--adapter", &named]].concat(), 2);
    assert!(said.contains("--adapter law=FOLDER: only `glm chat`"), "{said}");
    // Nobody could choose it.
    let said = refusal(&["chat", "-m", &model, "--adapter", &named], 2);
    assert!(said.contains("--adapter law=FOLDER: only `glm chat`"), "{said}");
    let twice = ["--adapter", &folder, "--adapter", &folder];
    let said = refusal(&[&plain[..], &twice].concat(), 2);
    assert!(said.contains("several adapters need names"), "{said}");
    let said = refusal(&["generate", "-m", &folder, "--ids", "[1, 2]"], 1);
    let parts = ["is an adapter (P-Tuning v2)", "THUDM/chatglm-6b", "--adapter"];
    assert!(parts.iter().all(|part| said.contains(part)), "{said}");
}

#[cfg(all(unix, feature = "serve"))]
#[test]
fn a_request_names_its_adapter() {
    use common::server::Server;

    let adapter = adapter();
    let server = Server::start(&["--adapter", &format!("law={}", text(adapter.path()))]);
    let ask = |model: Option<&str>| {
        let mut fields = json!({ "temperature": 0, "max_tokens": 8 });
        if let Some(model) = model {
            fields["model"] = json!(model);
        }
        let reply = server.chat("你好", fields).ok();
        assert_eq!(reply["model"], model.unwrap_or("int4"));
        reply["choices"][0]["message"]["content"].clone()
    };
    let (plain, tuned) = (ask(None), ask(Some("law")));
    assert_ne!(plain, tuned);
    // A prompt that was kept is not taken for one with another adapter.
    assert_eq!((ask(None), ask(Some("law"))), (plain, tuned));
    let models = server.get("/v1/models").ok();
    let names: Vec<_> = models["data"].as_array().unwrap().iter().map(|m| &m["id"]).collect();
    assert!(names.contains(&&json!("law")), "{models}");
    let error = server.chat("你好", json!({ "model": "other" })).error(404);
    assert_eq!(error["param"], "model");
    assert_eq!(error["message"], "the names here are int4, law; --alias and --adapter give more");
    let fields = json!({ "model": "law", "prompt": "你", "max_tokens": 1 });
    assert_eq!(server.post("/v1/completions", &fields).ok()["model"], "law");
    let fields = json!({ "model": "law", "input": "你好", "max_output_tokens": 1 });
    assert_eq!(server.post("/v1/responses", &fields).ok()["model"], "law");
    let messages = json!([{ "role": "user", "content": "你好" }]);
    let fields = json!({ "model": "law", "messages": messages, "max_tokens": 1 });
    assert_eq!(server.post("/v1/messages", &fields).ok()["model"], "law");
}

/// An adapter of LoRA of the demonstration model: updates of what gives the second layer its queries, keys and values.
fn lora() -> TempDir {
    let mut state = 5u32;
    let mut value = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 8) as f32 / (1 << 24) as f32 - 0.5) * 4.0
    };
    let (mut header, mut data) = (serde_json::Map::new(), Vec::<u8>::new());
    for (half, shape) in [("A", [4, 256]), ("B", [768, 4])] {
        let start = data.len();
        data.extend((0..shape[0] * shape[1]).flat_map(|_| value().to_le_bytes()));
        let name = format!(
            "base_model.model.transformer.layers.1.attention.query_key_value.lora_{half}.weight"
        );
        let entry = json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] });
        header.insert(name, entry);
    }
    let header = serde_json::Value::Object(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("adapter_model.safetensors"), file).unwrap();
    let config = json!({
        "peft_type": "LORA", "base_model_name_or_path": "THUDM/chatglm-6b", "r": 4, "lora_alpha": 4
    });
    fs::write(folder.path().join("adapter_config.json"), config.to_string()).unwrap();
    folder
}

#[test]
fn low_rank_updates_change_the_answer() {
    let lora = lora();
    let (folder, model) = (text(lora.path()), talker());
    changes_the_answer(&folder, "updates of 1 linear layers (LoRA)");
    let said = refusal(&["generate", "-m", &folder, "--ids", "[1, 2]"], 1);
    let parts = ["is an adapter (LoRA)", "THUDM/chatglm-6b", "--adapter"];
    assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    // Merged, the updates change the answer, too.
    let target = tempfile::tempdir().unwrap();
    let target = text(&target.path().join("merged"));
    let source = text(&std::path::Path::new(&model).join("../f16"));
    let merge = ["quantize", &source, &target, "--bits", "8", "--adapter", &folder];
    let output = glm(&merge).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let merged = json(&[&["generate", "-m", &target][..], &ANSWER, &["你好"]].concat());
    assert_ne!(
        merged["ids"],
        json(&[&["generate", "-m", &model][..], &ANSWER, &["你好"]].concat())["ids"]
    );
    refusal(&["quantize", &source, "--adapter", &folder], 2);
}

#[cfg(all(unix, feature = "serve"))]
#[test]
fn a_request_names_one_of_several_adapters() {
    use common::server::Server;

    let (prefix, lora) = (adapter(), lora());
    let [prefix, lora] =
        [("law", &prefix), ("poem", &lora)].map(|(name, of)| format!("{name}={}", text(of.path())));
    let server = Server::start(&["--adapter", &prefix, "--adapter", &lora]);
    let ask = |model: Option<&str>| {
        let mut fields = json!({ "temperature": 0, "max_tokens": 8 });
        if let Some(model) = model {
            fields["model"] = json!(model);
        }
        server.chat("你好", fields).ok()["choices"][0]["message"]["content"].clone()
    };
    let names = [None, Some("law"), Some("poem")];
    let answers = names.map(ask);
    assert!(answers[0] != answers[1] && answers[1] != answers[2] && answers[0] != answers[2]);
    // Prompts that were kept are not taken for those with another adapter.
    assert_eq!(names.map(ask), answers);
}

#[cfg(all(unix, feature = "demo"))]
#[test]
fn a_chat_switches_its_adapter() {
    use common::terminal::Start;

    let lora = lora();
    let named = format!("poem={}", text(lora.path()));
    let chat = Start::new(&["chat", "-m", &talker(), "--greedy", "--adapter", &named]);
    let chat = chat.size(40, 100).open();
    chat.wait_for("\n> ");
    let enter = |line: &str, expected: &str| {
        chat.send(format!("{line}\r"));
        chat.wait_until(expected, |screen| {
            let after =
                screen.rfind(&format!("> {line}\n")).map(|at| &screen[at + line.len() + 2..]);
            after.is_some_and(|after| after.contains(expected) && after.trim_end().ends_with("\n>"))
        })
    };
    enter("/adapter", "* none\n  poem");
    enter("/adapter law", "there is no adapter law; there are: poem, none");
    enter("/adapter poem", "adapter poem; the next answer reads the conversation");
    enter("/adapter", "  none\n* poem");
    enter("/adapter none", "adapter none");
}
