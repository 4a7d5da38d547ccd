//! `glm serve`: Anthropic's `/v1/messages`.

#![cfg(all(unix, feature = "serve"))]

mod common;

use common::server::{Reply, Server};
use serde_json::{Value, json};

fn ask(server: &Server, fields: Value) -> Reply {
    let mut fields = fields;
    fields["messages"] = json!([{ "role": "user", "content": "你好" }]);
    fields["temperature"] = json!(0);
    server.post("/v1/messages", &fields)
}

/// The error of a response, in Anthropic's shape.
fn kind(reply: &Reply, status: u16) -> String {
    assert_eq!(reply.status, status, "{reply:?}");
    let body = reply.json();
    assert_eq!(body["type"], "error", "{body}");
    assert!(body["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{body}");
    body["error"]["type"].as_str().unwrap().to_owned()
}

#[test]
fn a_message_has_the_text_of_a_chat() {
    let server = Server::start(&[]);
    let reply = ask(&server, json!({ "max_tokens": 300 })).ok();
    let chat = server.chat("你好", json!({ "temperature": 0 })).ok();
    let text = chat["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(reply["content"], json!([{ "type": "text", "text": text }]));
    assert_eq!((&reply["type"], &reply["role"]), (&json!("message"), &json!("assistant")));
    assert_eq!(
        (&reply["stop_reason"], &reply["stop_sequence"]),
        (&json!("end_turn"), &Value::Null)
    );
    assert_eq!(reply["usage"]["output_tokens"], chat["usage"]["completion_tokens"]);
    assert_eq!(ask(&server, json!({ "max_tokens": 2 })).ok()["stop_reason"], "max_tokens");
    let stop = json!({ "max_tokens": 300, "stop_sequences": ["nowhere", "可以"] });
    let stopped = ask(&server, stop).ok();
    assert_eq!(stopped["stop_reason"], "stop_sequence");
    assert_eq!(stopped["stop_sequence"], "可以");
    assert_eq!(stopped["content"][0]["text"], text.split_once("可以").unwrap().0);
    let count = json!({ "messages": [{ "role": "user", "content": "你好" }] });
    let count = server.post("/v1/messages/count_tokens", &count).ok();
    assert_eq!(count["input_tokens"], chat["usage"]["prompt_tokens"]);
}

#[test]
fn a_stream_has_the_events_in_order() {
    let server = Server::start(&[]);
    let whole = ask(&server, json!({ "max_tokens": 300 })).ok();
    let body = ask(&server, json!({ "max_tokens": 300, "stream": true })).body;
    let data = body.lines().filter_map(|line| line.strip_prefix("data: "));
    let events: Vec<Value> = data.map(|data| serde_json::from_str(data).unwrap()).collect();
    let names = body.lines().filter_map(|line| line.strip_prefix("event: "));
    assert!(names.eq(events.iter().map(|event| event["type"].as_str().unwrap())));
    let mut kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    kinds.dedup();
    assert_eq!(
        kinds,
        [
            "message_start",
            "ping",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
    );
    let text: String = events.iter().filter_map(|event| event["delta"]["text"].as_str()).collect();
    assert_eq!(text, whole["content"][0]["text"].as_str().unwrap());
    let delta = &events[events.len() - 2];
    assert_eq!(delta["delta"]["stop_reason"], "end_turn");
    assert_eq!(delta["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
}

#[test]
fn a_stream_begins_with_the_tokens_of_the_prompt() {
    let server = Server::start(&[]);
    let whole = ask(&server, json!({ "max_tokens": 1 })).ok();
    let cached = whole["usage"]["input_tokens"].as_u64().unwrap() - 1;
    let begins = || {
        let body = ask(&server, json!({ "max_tokens": 1, "stream": true })).body;
        let start = body.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
        serde_json::from_str::<Value>(start).unwrap()["message"]["usage"].clone()
    };
    // All but the last token of the same prompt. On a busy machine, the message may begin before this is known.
    server.wait_for("the number", || begins()["cache_read_input_tokens"] == cached);
    assert_eq!(begins()["output_tokens"], 0);
}

#[test]
fn errors_have_the_shape_of_anthropic() {
    let server = Server::start(&[]);
    assert_eq!(kind(&ask(&server, json!({})), 400), "invalid_request_error");
    let other = json!({ "max_tokens": 5, "model": "other" });
    assert_eq!(kind(&ask(&server, other), 404), "not_found_error");
    let wrong = server.send("POST", "/v1/messages", &[], "{");
    assert_eq!(kind(&wrong, 400), "invalid_request_error");
    let server = Server::start_with(&[], &[("GLM_API_KEY", "a-key-of-this-test")]);
    assert_eq!(kind(&ask(&server, json!({ "max_tokens": 5 })), 401), "authentication_error");
    let body = json!({ "max_tokens": 2, "messages": [{ "role": "user", "content": "你好" }] });
    let key = [("x-api-key", "a-key-of-this-test")];
    server.send("POST", "/v1/messages", &key, &body.to_string()).ok();
}
