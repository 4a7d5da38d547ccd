//! `glm serve`: fields of requests that are wrong, unknown or not supported, and paths and methods that do not exist.

#![cfg(all(unix, feature = "serve"))]

mod common;

use std::fs;

use common::server::{Server, chat, parse};
use common::{talker, text};
use serde_json::{Value, json};

#[test]
fn a_default_of_the_model_that_is_unusable_is_noted_once_and_stops_nobody() {
    let model = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(talker()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, model.path().join(path.file_name().unwrap())).unwrap();
    }
    let defaults = r#"{"temperature": -1, "top_k": 1}"#;
    fs::write(model.path().join("generation_config.json"), defaults).unwrap();
    let server = Server::of(&text(model.path()), &[], &[]);
    let log = server.log();
    assert_eq!(log.matches("generation_config.json").count(), 1, "{log}");
    assert!(log.contains("temperature must be from 0 to 100, found -1"), "{log}");
    // One candidate: as greedy, with a temperature of the request or without.
    let greedy = server.chat("你好", json!({ "temperature": 0 })).ok();
    for fields in [json!({}), json!({ "temperature": 0.5 })] {
        let answer = server.chat("你好", fields).ok();
        assert_eq!(answer["choices"], greedy["choices"]);
    }
}

#[test]
fn what_cannot_be_done_is_said() {
    let server = Server::start(&[]);
    let chat = |fields: Value| server.chat("你好", fields);
    for (fields, param) in [
        (json!({ "temperature": -1 }), "temperature"),
        (json!({ "temperature": "hot" }), "temperature"),
        (json!({ "top_p": -0.1 }), "top_p"),
        (json!({ "frequency_penalty": 3 }), "frequency_penalty"),
        (json!({ "temperature": 100.5 }), "temperature"),
        (json!({ "temperature": 1e39 }), "temperature"),
        (json!({ "top_p": 1.01 }), "top_p"),
        (json!({ "top_k": 1.5 }), "top_k"),
        (json!({ "min_p": -0.1 }), "min_p"),
        (json!({ "repetition_penalty": 0 }), "repetition_penalty"),
        (json!({ "presence_penalty": -2.1 }), "presence_penalty"),
        (json!({ "seed": 0.5 }), "seed"),
        (json!({ "seed": 1e30 }), "seed"),
        (json!({ "max_tokens": 0 }), "max_tokens"),
        (json!({ "max_tokens": -1 }), "max_tokens"),
        (json!({ "max_tokens": 2.5 }), "max_tokens"),
        (json!({ "max_completion_tokens": 0 }), "max_completion_tokens"),
        (json!({ "n": 0 }), "n"),
        (json!({ "n": -1 }), "n"),
        (json!({ "n": 1.5 }), "n"),
        (json!({ "n": 100 }), "n"),
        (json!({ "n": u64::MAX }), "n"),
        (json!({ "stop": vec!["a"; 17] }), "stop"),
        (json!({ "stop": "" }), "stop"),
        (json!({ "stop": ["a", ""] }), "stop"),
        (json!({ "stop": "a".repeat(2000) }), "stop"),
        (json!({ "stop": 5 }), "stop"),
        (json!({ "logprobs": 2 }), "logprobs"),
        (json!({ "stream": "yes" }), "stream"),
        (json!({ "logprobs": true, "top_logprobs": -1 }), "top_logprobs"),
        (json!({ "logprobs": true, "top_logprobs": 21 }), "top_logprobs"),
        (json!({ "top_logprobs": 2 }), "top_logprobs"),
        (json!({ "logit_bias": { "5": 1 } }), "logit_bias"),
    ] {
        assert_eq!(chat(fields.clone()).error(400)["param"], param, "{fields}");
    }
    let allowing = |error: Value| error["message"].as_str().unwrap().contains("--max-sequences");
    assert!(allowing(chat(json!({ "n": 17 })).error(400)));
    for fields in [json!({ "prompt": "a", "n": 17 }), json!({ "prompt": vec!["a"; 17] })] {
        assert!(allowing(server.post("/v1/completions", &fields).error(400)), "{fields}");
    }
    for messages in [
        json!([]),
        json!([{ "role": "poet", "content": "" }]),
        json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": {} }] }]),
    ] {
        let reply = server.post("/v1/chat/completions", &json!({ "messages": messages }));
        assert_eq!(reply.error(400)["param"], "messages", "{messages}");
    }
    let long = chat_of_tokens(600);
    assert_eq!(
        server.post("/v1/chat/completions", &long).error(400)["code"],
        "context_length_exceeded"
    );
    for (fields, param) in [
        (json!({ "prompt": "a", "echo": true }), Some("echo")),
        (json!({ "prompt": "a", "best_of": 2 }), Some("best_of")),
        (json!({ "prompt": "a", "best_of": 1, "n": 2 }), Some("best_of")),
        (json!({ "prompt": "a", "n": 0 }), Some("n")),
        (json!({ "prompt": vec!["a"; 17] }), Some("prompt")),
        (json!({ "prompt": vec![vec![5]; 17], "n": 2 }), Some("prompt")),
        (json!({ "prompt": ["a", "b"], "n": 9 }), Some("n")),
        (json!({ "prompt": ["a", "b"], "n": usize::MAX }), Some("n")),
        (json!({ "prompt": "a", "logprobs": 6 }), Some("logprobs")),
        (json!({ "prompt": "a", "logprobs": -1 }), Some("logprobs")),
        (json!({ "prompt": "a", "max_tokens": 0 }), Some("max_tokens")),
        (json!({ "prompt": "a", "stop": [""] }), Some("stop")),
        (json!({ "prompt": [] }), Some("prompt")),
        (json!({ "prompt": 5 }), Some("prompt")),
        (json!({ "prompt": [1 << 22, 1] }), None),
        (json!({ "prompt": [5], "suffix": "b" }), Some("suffix")),
        (json!({}), None),
    ] {
        let error = server.post("/v1/completions", &fields).error(400);
        assert_eq!(error["param"].as_str(), param, "{fields}");
    }
    // What has no effect is no error.
    server
        .post(
            "/v1/completions",
            &json!({ "prompt": "a", "best_of": 1, "echo": false, "logprobs": 0, "stop": null }),
        )
        .ok();
    server.post("/v1/fill", &json!({ "text": "[MASK]", "stop": "" })).error(400);
}

/// A question of about this many tokens.
fn chat_of_tokens(count: usize) -> Value {
    chat(&"好 ".repeat(count), json!({}))
}

#[test]
fn other_paths_and_methods_are_errors_of_the_same_shape() {
    let server = Server::start(&[]);
    for path in
        ["/nowhere", "/v1", "/v1/chat/completions/", "//", "/health/x", "/v1/models/%ff", "/%00"]
    {
        let reply = server.get(path);
        let status = if path.ends_with("%ff") { 400 } else { 404 };
        reply.error(status);
    }
    let long = format!("/{}", "x".repeat(10_000));
    let error = server.get(&long).error(404);
    assert!(error["message"].as_str().unwrap().len() < 200, "{error}");
    for (method, path, allow) in [
        ("GET", "/v1/completions", "POST"),
        ("PUT", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/models", "GET,HEAD"),
        ("OPTIONS", "/v1/chat/completions", "POST"),
        ("PATCH", "/", "GET,HEAD"),
        ("POST", "/health", "GET,HEAD"),
    ] {
        let reply = server.send(method, path, &[], "");
        assert_eq!(reply.error(405)["code"], "method_not_allowed", "{method} {path}");
        assert_eq!(reply.header("allow"), Some(allow), "{method} {path}");
    }
    // HEAD is GET without the body.
    for (path, status) in
        [("/health", 200), ("/v1/models", 200), ("/nowhere", 404), ("/v1/fill", 405)]
    {
        let reply = parse(&server.raw(server.request("HEAD", path, &[], "").as_bytes()));
        assert_eq!((reply.status, reply.body.as_str()), (status, ""), "{path}");
    }
}

#[test]
fn unknown_fields_are_named_wherever_they_are() {
    let server = Server::start(&[]);
    let message = |text: &str| json!({ "role": "user", "content": [{ "type": "text", "text": text, "of_part": 1 }], "of_message": 1 });
    let body = json!({
        "messages": [message("a"), { "role": "assistant", "content": "b", "of_message": 2 }, message("c")],
        "stream_options": { "include_obfuscation": true },
        "response_format": { "type": "text", "of_format": 1 },
        "service_tier": "auto",
        "max_tokens": 1,
    });
    server.post("/v1/chat/completions", &body).ok();
    server.post("/v1/completions", &json!({ "prompt": "a", "of_prompt": 1, "max_tokens": 1 })).ok();
    let claude = json!({ "max_tokens": 1, "messages": [{ "role": "user", "content": "a", "of_claude": 1 }] });
    server.post("/v1/messages", &claude).ok();
    let items = json!({ "max_output_tokens": 1, "input": [{ "role": "user", "content": "a", "of_item": 1 }] });
    server.post("/v1/responses", &items).ok();
    server.wait_for("the last line", || server.log().contains("of_item"));
    let log = server.log();
    for name in [
        "/v1/chat/completions: the field messages.content.of_part",
        "/v1/chat/completions: the field messages.of_message",
        "/v1/chat/completions: the field stream_options.include_obfuscation",
        "/v1/chat/completions: the field response_format.of_format",
        "/v1/chat/completions: the field service_tier",
        "/v1/completions: the field of_prompt",
        "/v1/messages: the field messages.of_claude",
        "/v1/responses: the field input.of_item",
    ] {
        assert_eq!(log.matches(&format!("{name} is ignored")).count(), 1, "{name}: {log}");
    }
    assert_eq!(log.matches("is ignored").count(), 8, "{log}");
}

/// Nobody speaks in the role of another: what a user types stays text, unless the server is told otherwise.
#[test]
fn special_names_in_messages_are_text() {
    let tokens = |server: &Server, text: &str| {
        let reply = server.chat(text, json!({ "max_tokens": 1 })).ok();
        reply["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    let [as_text, as_ids] = [&[][..], &["--special-tokens-in-text"]].map(Server::start);
    for name in ["<sop>", "<eop>"] {
        let text = format!("你好{name}你好");
        assert!(tokens(&as_text, &text) > tokens(&as_ids, &text) + 1, "{name}");
        // The other two kinds of conversations as well.
        let message = json!({ "max_tokens": 1, "messages": [{ "role": "user", "content": text }] });
        let count = |server: &Server| {
            server.post("/v1/messages/count_tokens", &message).ok()["input_tokens"].as_u64()
        };
        assert_eq!(count(&as_text), Some(tokens(&as_text, &text)));
        assert_eq!(count(&as_ids), Some(tokens(&as_ids, &text)));
        let response = json!({ "max_output_tokens": 1, "input": text });
        let usage = as_text.post("/v1/responses", &response).ok()["usage"].clone();
        assert_eq!(usage["input_tokens"], tokens(&as_text, &text));
    }
    // Blanks keep their meaning, and texts without names are the same.
    for text in ["你好[gMASK]你好", "你好"] {
        assert_eq!(tokens(&as_text, text), tokens(&as_ids, text), "{text}");
    }
}
