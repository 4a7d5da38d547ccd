//! `glm serve`: OpenAI's `/v1/responses`.

#![cfg(all(unix, feature = "serve"))]

mod common;

use common::server::Server;
use serde_json::{Value, json};

/// The values of the events of a stream, each with the name of its event.
fn events(body: &str) -> Vec<Value> {
    let mut name = "";
    let mut events = Vec::new();
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("event: ") {
            name = rest;
        } else if let Some(data) = line.strip_prefix("data: ") {
            let event: Value = serde_json::from_str(data).unwrap();
            assert_eq!(event["type"], name);
            events.push(event);
        }
    }
    events
}

#[test]
fn a_response_has_the_text_of_a_chat() {
    let server = Server::start(&[]);
    let fields = json!({ "input": "你好", "temperature": 0, "store": true });
    let reply = server.post("/v1/responses", &fields).ok();
    let chat = server.chat("你好", json!({ "temperature": 0 })).ok();
    assert_eq!((&reply["object"], &reply["status"]), (&json!("response"), &json!("completed")));
    assert_eq!(reply["store"], false);
    let text = &reply["output"][0]["content"][0];
    assert_eq!(text["type"], "output_text");
    assert_eq!(text["text"], chat["choices"][0]["message"]["content"]);
    assert_eq!(reply["usage"]["input_tokens"], chat["usage"]["prompt_tokens"]);
    assert_eq!(reply["usage"]["output_tokens"], chat["usage"]["completion_tokens"]);
    assert!(reply["usage"]["input_tokens_details"]["cached_tokens"].is_u64());
    let cut = json!({ "input": [{ "role": "user", "content": "你好" }], "max_output_tokens": 2 });
    let cut = server.post("/v1/responses", &cut).ok();
    assert_eq!(cut["status"], "incomplete");
    assert_eq!(cut["incomplete_details"]["reason"], "max_output_tokens");
    assert_eq!(cut["output"][0]["status"], "incomplete");
}

#[test]
fn a_stream_has_the_events_in_order() {
    let server = Server::start(&[]);
    let mut fields = json!({ "input": "你好", "temperature": 0 });
    let whole = server.post("/v1/responses", &fields).ok();
    fields["stream"] = json!(true);
    let events = events(&server.post("/v1/responses", &fields).body);
    let mut kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    kinds.dedup();
    assert_eq!(
        kinds,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    let text: String = events.iter().filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!(text, whole["output"][0]["content"][0]["text"].as_str().unwrap());
    let last = &events.last().unwrap()["response"];
    assert_eq!(last["output"][0]["content"], whole["output"][0]["content"]);
    assert_eq!(last["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
}

#[test]
fn what_cannot_be_done_is_said() {
    let server = Server::start(&[]);
    for (fields, param) in [
        (json!({ "input": "a", "previous_response_id": "resp-1" }), "previous_response_id"),
        (json!({ "input": [] }), "input"),
        (json!({ "input": "a", "max_output_tokens": 0 }), "max_output_tokens"),
        (json!({ "input": [{ "type": "computer_call" }] }), "input[0]"),
        (json!({ "input": "a", "model": "other" }), "model"),
    ] {
        let reply = server.post("/v1/responses", &fields);
        let status = if param == "model" { 404 } else { 400 };
        assert_eq!(reply.error(status)["param"], param, "{fields}");
    }
}
