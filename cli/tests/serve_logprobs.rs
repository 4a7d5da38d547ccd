//! `glm serve`: probabilities of tokens.

#![cfg(all(unix, feature = "serve"))]

mod common;

use common::server::Server;
use serde_json::{Value, json};

/// The text of the first choice of a chat.
fn content(reply: &Value) -> String {
    reply["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

/// The text of the bytes of tokens. None is empty.
fn spelled(tokens: &[Value]) -> String {
    let mut text = Vec::new();
    for token in tokens {
        let bytes: Vec<u8> = serde_json::from_value(token["bytes"].clone()).unwrap();
        assert!(!bytes.is_empty(), "{token}");
        assert_eq!(token["token"].as_str().unwrap(), String::from_utf8_lossy(&bytes));
        text.extend(bytes);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn probabilities_of_tokens() {
    let server = Server::start(&[]);
    let fields = json!({ "temperature": 0, "logprobs": true, "top_logprobs": 3 });
    let reply = server.chat("你好", fields.clone()).ok();
    let tokens = reply["choices"][0]["logprobs"]["content"].as_array().unwrap().clone();
    // The template writes Chinese punctuation after Chinese characters.
    let text = content(&reply).replace('！', "!").replace('？', "?");
    assert_eq!(spelled(&tokens), text);
    for token in &tokens {
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 3, "{token}");
        // A greedy token is the likeliest.
        assert_eq!((&top[0]["token"], &top[0]["logprob"]), (&token["token"], &token["logprob"]));
        let of = |token: &Value| token["logprob"].as_f64().unwrap();
        assert!(top.windows(2).all(|pair| of(&pair[0]) >= of(&pair[1])) && of(&top[0]) <= 0.0);
        let sum: f64 = top.iter().map(|token| of(token).exp()).sum();
        assert!(sum <= 1.0 + 1e-4, "{token}");
    }
    let mut with_stream = fields;
    with_stream["stream"] = json!(true);
    let events = server.chat("你好", with_stream).events();
    let of_event = |event: &Value| event["choices"][0]["logprobs"]["content"].as_array().cloned();
    assert_eq!(events.iter().filter_map(of_event).flatten().collect::<Vec<_>>(), tokens);
    let fields = json!({ "prompt": "床前", "temperature": 0, "logprobs": 2 });
    let reply = server.post("/v1/completions", &fields).ok();
    let logprobs = &reply["choices"][0]["logprobs"];
    let names = logprobs["tokens"].as_array().unwrap();
    assert!(names.iter().all(|name| name != ""), "{names:?}");
    let text = reply["choices"][0]["text"].as_str().unwrap();
    assert_eq!(names.iter().map(|name| name.as_str().unwrap()).collect::<String>(), text);
    let mut offset = 0;
    for (name, at) in names.iter().zip(logprobs["text_offset"].as_array().unwrap()) {
        assert_eq!(*at, offset, "{logprobs}");
        offset += name.as_str().unwrap().chars().count();
    }
    for list in ["token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(logprobs[list].as_array().unwrap().len(), names.len(), "{list}");
    }
    assert_eq!(logprobs["top_logprobs"][0].as_object().unwrap().len(), 2);
    assert!(server.chat("你好", json!({})).ok()["choices"][0]["logprobs"].is_null());
}

/// Bytes that are a part of a character are tokens of their own, whose texts say less than their bytes.
#[test]
fn the_bytes_of_all_tokens_are_the_text() {
    let server = Server::start(&[]);
    for seed in 0..6 {
        // Varied enough for bytes and blanks.
        let fields = json!({
            "prompt": "hello world", "seed": seed, "temperature": 3, "top_p": 1, "top_k": 0, "max_tokens": 100, "ignore_eos": true,
            "logprobs": 0,
        });
        let reply = server.post("/v1/completions", &fields).ok();
        let logprobs = &reply["choices"][0]["logprobs"];
        let offsets: Vec<u64> = serde_json::from_value(logprobs["text_offset"].clone()).unwrap();
        assert!(
            offsets.len() > 50 && offsets.windows(2).all(|pair| pair[0] <= pair[1]),
            "{offsets:?}"
        );
        for logprob in logprobs["token_logprobs"].as_array().unwrap() {
            assert!(logprob.as_f64().unwrap() <= 0.0, "{logprobs}");
        }
    }
}
