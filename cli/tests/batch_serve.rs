//! `glm batch` answers a request as `glm serve` does.
#![cfg(all(unix, feature = "serve", feature = "demo", feature = "grammar"))]

mod common;

use std::fs;

use common::server::{Server, weather_format};
use common::{glm, stderr, talker, text};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Requests of every kind, right and wrong.
fn requests() -> Vec<(&'static str, Value)> {
    let chat = |mut fields: Value| {
        fields["messages"] = json!([{ "role": "user", "content": "你好" }]);
        fields["max_tokens"] = json!(60);
        ("/v1/chat/completions", fields)
    };
    let format = weather_format();
    let function = json!({ "name": "f", "parameters": { "type": "object", "properties": {} } });
    let tools = json!([{ "type": "function", "function": function }]);
    let text = |fields: Value| ("/v1/completions", fields);
    let response = |fields: Value| ("/v1/responses", fields);
    vec![
        chat(json!({ "seed": 1 })),
        chat(json!({ "seed": 2, "temperature": 1.5, "top_p": 0.95, "top_k": 0, "n": 3 })),
        chat(
            json!({ "seed": 3, "ignore_eos": true, "frequency_penalty": 1.5, "presence_penalty": -0.5 }),
        ),
        chat(json!({ "seed": 4, "repetition_penalty": 1.3, "min_p": 0.1, "stop": ["，", "。"] })),
        chat(json!({ "seed": 5, "logprobs": true, "top_logprobs": 3 })),
        chat(json!({ "seed": 6, "response_format": format, "temperature": 2 })),
        chat(json!({ "seed": 7, "response_format": { "type": "json_object" } })),
        chat(json!({ "seed": 8, "grammar": "start: (\"是\" | \"否\")~3", "n": 2 })),
        chat(json!({ "grammar": "start: (" })),
        chat(json!({ "tools": tools, "tool_choice": "required" })),
        chat(json!({ "tools": tools, "tool_choice": "none", "temperature": 0 })),
        chat(json!({ "model": "other" })),
        chat(json!({ "logit_bias": { "5": 1 } })),
        text(
            json!({ "prompt": ["你好", "谢谢"], "n": 2, "seed": 9, "logprobs": 2, "max_tokens": 20 }),
        ),
        text(json!({ "prompt": "床前明月", "suffix": "，疑是地上霜。", "seed": 10 })),
        text(json!({ "prompt": [5, 100_000_000] })),
        response(
            json!({ "input": "你好", "instructions": "s", "seed": 11, "max_output_tokens": 9 }),
        ),
        response(
            json!({ "input": "你好", "text": { "format": { "type": "json_object" } }, "seed": 12 }),
        ),
        response(json!({ "input": [{ "type": "item_reference", "id": "1" }] })),
    ]
}

/// A body without what differs each time: names, times, and what the cache had.
fn lasting(mut body: Value) -> Value {
    let fields = body.as_object_mut().unwrap();
    for field in ["id", "created", "created_at"] {
        fields.remove(field);
    }
    for item in fields.get_mut("output").and_then(Value::as_array_mut).into_iter().flatten() {
        item["id"].take();
    }
    if let Some(usage) = fields.get_mut("usage").and_then(Value::as_object_mut) {
        usage.retain(|name, _| !name.ends_with("_details"));
    }
    body
}

#[test]
fn a_batch_has_the_answers_of_the_server() {
    let server = Server::start(&[]);
    let dir = TempDir::new().unwrap();
    let [input, output] = ["in", "out"].map(|name| dir.path().join(name));
    let line = |(number, (url, body)): (usize, &(&str, Value))| {
        let request =
            json!({ "custom_id": number.to_string(), "method": "POST", "url": url, "body": body });
        format!("{request}\n")
    };
    let requests = requests();
    fs::write(&input, requests.iter().enumerate().map(line).collect::<String>()).unwrap();
    let words = [
        "batch",
        "-m",
        &talker(),
        "--order",
        "--max-sequences",
        "16",
        &text(&input),
        &text(&output),
    ];
    let done = glm(&words).output().unwrap();
    assert!(done.status.success(), "{}", stderr(&done));
    let answers = fs::read_to_string(&output).unwrap();
    let answers: Vec<Value> =
        answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), requests.len());
    let mut right = 0;
    for ((url, body), answer) in requests.iter().zip(answers) {
        let reply = server.post(url, body);
        let response = &answer["response"];
        assert_eq!(response["status_code"], reply.status, "{body}: {answer}");
        let [ours, theirs] = [response["body"].clone(), reply.json()].map(lasting);
        assert_eq!(ours, theirs, "{body}");
        right += u32::from(reply.status == 200);
    }
    assert!(right >= 10, "{right}");
}
