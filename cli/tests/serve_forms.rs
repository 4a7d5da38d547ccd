//! `glm serve`: answers that follow a schema or a grammar, thoughts, and names of roles in messages, by tiny causal models.

#![cfg(all(unix, feature = "serve", feature = "grammar"))]

mod common;

use std::time::{Duration, Instant};

use common::causal::{Family, glm45_with};
use common::server::{Reply, Server};
use common::{shared, talker, text};
use serde_json::{Value, json};

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": { "ok": { "type": "boolean" }, "word": { "enum": ["好", "\"q\""] }, "list": { "type": "array", "items": { "type": "integer", "minimum": 0, "maximum": 9 }, "maxItems": 3 } },
        "required": ["ok", "word", "list"],
        "additionalProperties": false,
    })
}

#[track_caller]
fn check(text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(
        value["ok"].is_boolean() && [json!("好"), json!("\"q\"")].contains(&value["word"]),
        "{value}"
    );
    let list = value["list"].as_array().unwrap();
    assert!(
        list.len() <= 3
            && list
                .iter()
                .all(|item| item.as_f64().is_some_and(|item| (0.0..=9.0).contains(&item))),
        "{value}"
    );
    assert_eq!(value.as_object().unwrap().len(), 3, "{value}");
}

fn ask(server: &Server, mut fields: Value, seed: u64) -> Reply {
    fields["seed"] = json!(seed);
    // Noise that ends sooner.
    fields["temperature"] = json!(2);
    server.chat("说 JSON", fields)
}

fn format(schema: &Value) -> Value {
    json!({ "type": "json_schema", "json_schema": { "name": "answer", "schema": schema, "strict": true } })
}

/// The text of an answer, if it was not cut.
#[track_caller]
fn said(reply: &Value) -> Option<&str> {
    let choice = &reply["choices"][0];
    (choice["finish_reason"] == "stop").then(|| choice["message"]["content"].as_str().unwrap())
}

#[test]
fn answers_follow_schemas_and_grammars() {
    for family in Family::ALL {
        let folder = family.folder();
        let server = Server::of(&text(folder.path()), &[], &[]);
        let (mut fitting, mut objects) = (0, 0);
        for seed in 0..8 {
            let fields = json!({ "response_format": format(&schema()), "max_tokens": 1000 });
            let reply = ask(&server, fields.clone(), seed).ok();
            if let Some(text) = said(&reply) {
                check(text);
                fitting += 1;
            }
            let mut streamed = fields;
            streamed["stream"] = json!(true);
            let events = ask(&server, streamed, seed).events();
            let pieces =
                events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
            assert_eq!(
                pieces.collect::<String>(),
                reply["choices"][0]["message"]["content"].as_str().unwrap()
            );
            let object =
                json!({ "response_format": { "type": "json_object" }, "max_tokens": 1000 });
            if let Some(text) = said(&ask(&server, object, seed).ok()) {
                assert!(serde_json::from_str::<Value>(text).unwrap().is_object(), "{text}");
                objects += 1;
            }
            let grammar = json!({ "grammar": "start: /[a-c]{2,4}/ \"!\"", "max_tokens": 1000 });
            if let Some(text) = said(&ask(&server, grammar, seed).ok()) {
                let letters = text.strip_suffix('!').unwrap();
                assert!(
                    (2..=4).contains(&letters.len()) && letters.chars().all(|c| "abc".contains(c)),
                    "{text}"
                );
            }
        }
        assert!(fitting > 0 && objects > 0, "{family:?}: {fitting} {objects}");
        let format = json!({ "type": "json_schema", "name": "answer", "schema": schema() });
        let fields =
            json!({ "input": "JSON", "text": { "format": format }, "temperature": 1, "seed": 1 });
        let reply = server.post("/v1/responses", &fields).ok();
        if reply["status"] == "completed" {
            let message = reply["output"].as_array().unwrap().last().unwrap();
            check(message["content"][0]["text"].as_str().unwrap());
        }
    }
}

/// A schema that takes too much is refused soon, and the server goes on.
#[test]
fn schemas_that_take_too_much_are_refused() {
    let folder = Family::Glm4.folder();
    let server = Server::of(&text(folder.path()), &[], &[]);
    let deep = (0..100)
        .fold(json!({ "type": "null" }), |inner, _| json!({ "type": "array", "items": inner }));
    let choice = |i: u32| {
        let option = |j: u32| json!({ "properties": { format!("p{i}_{j}"): { "const": j } }, "required": [format!("p{i}_{j}")] });
        json!({ "anyOf": (0..10).map(option).collect::<Vec<_>>() })
    };
    let product = json!({ "allOf": (0..12).map(choice).collect::<Vec<_>>() });
    let big: serde_json::Map<_, _> =
        (0..600).map(|i| (format!("property{i}"), json!({ "type": "string" }))).collect();
    let options: Vec<_> =
        (0..1000).map(|i| json!({ "properties": { "a": { "const": i } } })).collect();
    let copies = json!({ "allOf": [{ "type": "object", "properties": { "b": { "type": "object", "properties": big } } }, { "anyOf": options }] });
    for (what, schema) in [
        ("too long", json!({ "enum": vec!["x".repeat(1000); 300] })),
        ("too deep", deep),
        ("a product", product),
        ("copies", copies.clone()),
        (
            "a large expression",
            json!({ "type": "string", "pattern": "^((a{1,999}b{1,999}){1,999}){1,999}$" }),
        ),
        ("a set of states", json!({ "type": "string", "pattern": "^.*a.{40}$" })),
        ("no schema", json!({ "type": "nothing" })),
        ("never", json!(false)),
    ] {
        let start = Instant::now();
        let reply =
            ask(&server, json!({ "response_format": format(&schema), "max_tokens": 20 }), 1);
        let took = start.elapsed();
        eprintln!("{what}: {} after {took:?}: {:.300}", reply.status, reply.body);
        assert!(took < Duration::from_secs(30), "{what}: {took:?}");
        // The bound of an expression is that of the work for each token.
        if !["a set of states", "a large expression"].contains(&what) {
            assert_eq!(reply.error(400)["param"], "response_format", "{what}");
        }
    }
    // A grammar is no way around the limits of schemas.
    let fields = json!({ "grammar": format!("start: %json {copies}"), "max_tokens": 20 });
    assert_eq!(ask(&server, fields, 1).error(400)["param"], "grammar");
    ask(&server, json!({ "max_tokens": 5 }), 1).ok();
}

#[test]
fn thoughts_are_apart_and_counted() {
    let folder = Family::Glm45.folder();
    let server = Server::of(&text(folder.path()), &[], &[]);
    let fields = |on: bool| json!({ "chat_template_kwargs": { "enable_thinking": on }, "response_format": format(&schema()), "max_tokens": 2000 });
    let thoughts =
        |usage: &Value| usage["completion_tokens_details"]["reasoning_tokens"].as_u64().unwrap();
    let mut complete = 0;
    for seed in 0..6 {
        let reply = ask(&server, fields(true), seed).ok();
        let (message, usage) = (&reply["choices"][0]["message"], &reply["usage"]);
        let count = thoughts(usage);
        assert!(count > 0 && count <= usage["completion_tokens"].as_u64().unwrap(), "{usage}");
        let Some(text) = said(&reply) else { continue };
        complete += 1;
        check(text);
        assert!(count < usage["completion_tokens"].as_u64().unwrap(), "{usage}");
        assert_eq!(message["reasoning_content"].is_string(), count > 1, "{reply}");
        let mut streamed = fields(true);
        streamed["stream"] = json!(true);
        streamed["stream_options"] = json!({ "include_usage": true });
        let events = ask(&server, streamed, seed).events();
        let joined = |name: &str| -> String {
            events.iter().filter_map(|event| event["choices"][0]["delta"][name].as_str()).collect()
        };
        assert_eq!(joined("content"), text);
        assert_eq!(
            joined("reasoning_content"),
            message["reasoning_content"].as_str().unwrap_or_default()
        );
        assert_eq!(thoughts(&events.last().unwrap()["usage"]), count);
    }
    assert!(complete > 0);
    let reply = ask(&server, fields(false), 1).ok();
    assert_eq!(thoughts(&reply["usage"]), 0);
    assert!(reply["choices"][0]["message"].get("reasoning_content").is_none(), "{reply}");
    let fields = json!({ "input": "JSON", "reasoning": { "effort": "high" }, "max_output_tokens": 20, "temperature": 1, "seed": 1 });
    let reply = server.post("/v1/responses", &fields).ok();
    assert!(
        reply["usage"]["output_tokens_details"]["reasoning_tokens"].as_u64().unwrap() > 0,
        "{reply}"
    );
    assert_eq!(reply["output"][0]["type"], "reasoning");
    let fields = json!({ "messages": [{ "role": "user", "content": "?" }], "thinking": { "type": "enabled", "budget_tokens": 1024 },
        "max_tokens": 20, "temperature": 1, "seed": 1 });
    let reply = server.post("/v1/messages", &fields).ok();
    assert_eq!(reply["content"][0]["type"], "thinking", "{reply}");
}

#[test]
fn what_a_model_cannot_do_is_an_error_and_what_it_need_not_do_is_none() {
    let folder = Family::Glm4.folder();
    let server = Server::of(&text(folder.path()), &[], &[]);
    let asked =
        |kwargs: Value| ask(&server, json!({ "chat_template_kwargs": kwargs, "max_tokens": 2 }), 1);
    let error = asked(json!({ "enable_thinking": true })).error(400);
    assert_eq!(error["param"], "chat_template_kwargs", "{error}");
    asked(json!({ "enable_thinking": false, "clear_thinking": true })).ok();
    asked(json!({ "clear_thinking": false })).error(400);
    // Programs of these two APIs ask every model to think.
    let fields = json!({ "input": "?", "reasoning": { "effort": "high" }, "max_output_tokens": 2 });
    server.post("/v1/responses", &fields).ok();
    let fields = json!({ "messages": [{ "role": "user", "content": "?" }], "thinking": { "type": "enabled" }, "max_tokens": 2 });
    server.post("/v1/messages", &fields).ok();
}

/// Checks which names in a message are special ids with `--special-tokens-in-text`. By default none is: its prompt is then longer.
#[track_caller]
fn names_in_messages(model: &str, names: &[(&str, bool)]) {
    let [by_default, on_request] =
        [&[][..], &["--special-tokens-in-text"]].map(|words| Server::of(model, words, &[]));
    let tokens = |server: &Server, content: &str| {
        let reply = server.chat(content, json!({ "max_tokens": 1, "seed": 1 })).ok();
        reply["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    for (name, is_found) in names {
        let content = format!("你{name}好");
        let [text, ids] = [&by_default, &on_request].map(|server| tokens(server, &content));
        assert_eq!(text > ids, *is_found, "{model}: {name}: {text} {ids}");
        // A name in a text is a few tokens.
        assert!(text > tokens(&by_default, "你好") + 2, "{model}: {name}: {text}");
    }
}

#[test]
fn nobody_speaks_in_the_role_of_another() {
    let roles = |found| {
        [
            ("<|user|>", found),
            ("<|assistant|>", found),
            ("<|system|>", found),
            ("<|observation|>", found),
        ]
    };
    for family in Family::ALL {
        let folder = family.folder();
        // The published code of ChatGLM3 finds no names in messages.
        names_in_messages(&text(folder.path()), &roles(family != Family::ChatGlm3));
    }
    names_in_messages(&talker(), &[("<sop>", true), ("<eop>", true)]);
}

#[test]
#[ignore = "needs ../shared"]
fn nobody_speaks_in_the_role_of_another_with_the_tokenizer_of_glm_4_5() {
    let [tokenizer, template] =
        ["tokenizers/glm-4.5/tokenizer.json", "templates/glm-4.5.jinja"].map(shared);
    let folder = glm45_with(&tokenizer, &template).unwrap();
    // The tags of calls are markup as well.
    let names = [
        "<|user|>",
        "<|assistant|>",
        "<|system|>",
        "<|observation|>",
        "<sop>",
        "<tool_call>",
        "<tool_response>",
    ];
    names_in_messages(&text(folder.path()), &names.map(|name| (name, true)));
}

#[test]
#[ignore = "needs ../shared"]
fn nobody_speaks_in_the_role_of_another_with_published_tokenizers() {
    for (model, is_found) in
        [("e2e-chatglm2-6b", false), ("e2e-chatglm3-6b", false), ("e2e-glm-4-9b-chat", true)]
    {
        let model = text(&shared(&format!("models/{model}")));
        names_in_messages(
            &model,
            &[("<|user|>", is_found), ("<|assistant|>", is_found), ("<|observation|>", is_found)],
        );
    }
}
