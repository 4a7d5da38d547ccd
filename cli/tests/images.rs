//! Images are refused with a sentence wherever messages are read, and of a model that reads them the part that reads text is used.

#![cfg(all(unix, feature = "serve"))]

mod common;
#[path = "../../model/tests/common/stored.rs"]
mod stored;

use std::fs;
use std::path::Path;

use common::hub::Repository;
use common::pulling::Pulling;
use common::server::Server;
use common::{glm, json, refusal, stderr, talker, text};
use glm_model::{Checkpoint, Dtype, TensorSpec};
use serde_json::{Value, json};
use stored::{Stored, safetensors};
use tempfile::TempDir;

const REFUSED: &str = "images are not supported, text is";

/// What a user says, with an image.
fn messages(image: Value) -> Value {
    json!([{ "role": "user", "content": [{ "type": "text", "text": "你好" }, image] }])
}

fn with_url() -> Value {
    let image =
        json!({ "type": "image_url", "image_url": { "url": "data:image/png;base64,AA==" } });
    messages(image)
}

#[test]
fn requests_with_images_are_refused() {
    let server = Server::start(&[]);
    let source = json!({ "type": "base64", "media_type": "image/png", "data": "AA==" });
    let block = messages(json!({ "type": "image", "source": source }));
    let mut input =
        messages(json!({ "type": "input_image", "image_url": "data:image/png;base64,AA==" }));
    input[0]["content"][0]["type"] = json!("input_text");
    let result = json!([{ "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "1",
        "content": [{ "type": "image", "source": source }] }] }]);
    for (path, body, kind) in [
        ("/v1/chat/completions", json!({ "messages": with_url() }), "image_url"),
        ("/v1/chat/completions", json!({ "messages": with_url(), "stream": true }), "image_url"),
        ("/v1/responses", json!({ "input": input }), "input_image"),
        ("/v1/messages", json!({ "messages": block, "max_tokens": 4 }), "image"),
        ("/v1/messages", json!({ "messages": result, "max_tokens": 4 }), "image"),
    ] {
        let reply = server.post(path, &body);
        assert_eq!(reply.status, 400, "{path}: {}", reply.body);
        let said = reply.json()["error"]["message"].as_str().unwrap().to_owned();
        for part in [REFUSED, &format!("the part of type \"{kind}\"")] {
            assert!(said.contains(part), "{path}: {said}");
        }
    }
    // The server goes on, and the same without the image is answered.
    server.chat("你好", json!({ "max_tokens": 2 })).ok();
}

#[test]
fn files_of_messages_and_batches_with_images_are_refused() {
    let dir = TempDir::new().unwrap();
    let file = |name: &str, content: String| {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        text(&path)
    };
    let path = file("messages.json", with_url().to_string());
    let said = refusal(&["chat", "-m", &talker(), "--messages", &path], 1);
    assert!(said.contains(REFUSED) && said.contains("messages.json"), "{said}");
    let request = json!({ "custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
        "body": { "messages": with_url() } });
    let (input, output) =
        (file("in.jsonl", format!("{request}\n")), text(&dir.path().join("out.jsonl")));
    let run = glm(&["batch", "-m", &talker(), &input, &output]).output().unwrap();
    assert!(run.status.success(), "{}", stderr(&run));
    let answer: Value = serde_json::from_slice(&fs::read(&output).unwrap()).unwrap();
    assert_eq!(answer["response"]["status_code"], 400);
    let said = answer["response"]["body"]["error"]["message"].as_str().unwrap();
    assert!(said.contains(REFUSED), "{said}");
}

/// A model that reads images: a layer of a `glm4` under other names, and a tensor of the vision part.
fn vision() -> TempDir {
    let source =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/models/glm-4-0414-layer");
    let (checkpoint, dir) = (Checkpoint::open(&source).unwrap(), TempDir::new().unwrap());
    let mut all: Vec<Stored> = checkpoint
        .names()
        .map(|name| {
            let tensor = checkpoint.tensor(name).unwrap();
            let name = name.replace("model.", "model.language_model.");
            (TensorSpec::new(name, tensor.dtype(), tensor.shape()), tensor.bytes().to_vec())
        })
        .collect();
    let visual = TensorSpec::new("model.visual.blocks.0.attn.proj.weight", Dtype::BF16, [500, 500]);
    all.push((visual, vec![0; 500_000]));
    fs::write(dir.path().join("model.safetensors"), safetensors(&all)).unwrap();
    let config = fs::read(source.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config["model_type"] = json!("glm4v_text");
    let config = json!({ "model_type": "glm4v", "architectures": ["Glm4vForConditionalGeneration"],
        "text_config": config, "vision_config": {}, "tie_word_embeddings": false });
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    dir
}

#[test]
fn it_is_said_that_the_vision_part_is_left_out() {
    const NOTE: &str = "this model also reads images: that part of it is left out";
    let (dir, other) = (vision(), TempDir::new().unwrap());
    let (model, target) = (text(dir.path()), text(&other.path().join("int4")));
    let info = json(&["info", "-m", &model, "--json"]);
    assert_eq!(
        (&info["text_part_only"], &info["architecture"]),
        (&json!(true), &json!("GLM-4.1V"))
    );
    // The weights are 0.37 MB, the vision part 0.5 MB.
    assert!(info["weights"]["bytes"].as_u64().unwrap() < 400_000, "{info}");
    let run = glm(&["quantize", &model, &target]).output().unwrap();
    assert!(run.status.success(), "{}", stderr(&run));
    for folder in [&model, &target] {
        let said = stderr(&glm(&["info", "-m", folder]).output().unwrap());
        assert!(said.contains(NOTE), "{said}");
    }
    let said = stderr(&glm(&["info", "-m", &model]).env("LC_ALL", "zh_CN.UTF-8").output().unwrap());
    assert!(said.contains("此模型还能读取图片"), "{said}");
    assert_eq!(json(&["info", "-m", &talker(), "--json"])["text_part_only"], false);
}

#[test]
fn models_that_read_images_are_pulled_and_quantized() {
    const NAME: &str = "zai-org/GLM-4.1V-9B-Thinking";
    let (dir, pulling) = (vision(), Pulling::new());
    pulling.hub.add(NAME, Repository::of_folder(dir.path()));
    let run = pulling.run(&["pull", NAME, "--quantize"]);
    assert!(run.status.success(), "{}", stderr(&run));
    let run = pulling.run(&["info", "-m", NAME, "--json"]);
    let info: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((&info["text_part_only"], &info["quantized"]), (&json!(true), &json!(true)));
}

#[test]
fn models_that_cannot_run_are_refused_before_they_are_downloaded() {
    const NAME: &str = "zai-org/GLM-5";
    let (dir, pulling) = (vision(), Pulling::new());
    let config = json!({ "model_type": "glm_moe_dsa", "architectures": ["GlmMoeDsaForCausalLM"] });
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    pulling.hub.add(NAME, Repository::of_folder(dir.path()));
    let run = pulling.run(&["pull", NAME]);
    let said = stderr(&run);
    assert!(!run.status.success() && said.contains("sparse attention (DSA)"), "{said}");
    assert!(pulling.hub.downloads("/large/").is_empty());
}
