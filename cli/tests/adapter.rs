//! `--adapter`: the trained prefix of P-Tuning v2 in commands and in the server.

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

#[test]
fn an_adapter_changes_the_answer() {
    let adapter = adapter();
    let (folder, model) = (text(adapter.path()), talker());
    let plain = [&["generate", "-m", &model][..], &ANSWER, &["你好"]].concat();
    let tuned = [&plain[..], &["--adapter", &folder]].concat();
    let answer = json(&tuned);
    assert_ne!(answer["ids"], json(&plain)["ids"]);
    assert_eq!(answer["ids"], json(&tuned)["ids"]);
    let said = stderr(&glm(&tuned).output().unwrap());
    assert!(said.contains("4 positions before every prompt"), "{said}");
}

#[test]
fn what_is_wrong_with_the_flag_is_said() {
    let adapter = adapter();
    let (folder, model) = (text(adapter.path()), talker());
    let plain = [&["generate", "-m", &model][..], &ANSWER, &["你好"]].concat();
    let named = format!("law={folder}");
    let said = refusal(&[&plain[..], &["--adapter", &named]].concat(), 2);
    assert!(said.contains("--adapter law=FOLDER: only `glm serve`"), "{said}");
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
    assert_eq!(error["message"], "the models here are int4, law");
    let fields = json!({ "model": "law", "prompt": "你", "max_tokens": 1 });
    assert_eq!(server.post("/v1/completions", &fields).ok()["model"], "law");
    let fields = json!({ "model": "law", "input": "你好", "max_output_tokens": 1 });
    assert_eq!(server.post("/v1/responses", &fields).ok()["model"], "law");
    let messages = json!([{ "role": "user", "content": "你好" }]);
    let fields = json!({ "model": "law", "messages": messages, "max_tokens": 1 });
    assert_eq!(server.post("/v1/messages", &fields).ok()["model"], "law");
}
