//! `glm serve`: every path, as programs use it.

#![cfg(all(unix, feature = "serve"))]

mod common;

use common::server::{Server, weather_format};
use common::{glm, json, stdout, talker};
use serde_json::{Value, json};

/// The text of the first choice of a chat.
fn content(reply: &Value) -> String {
    reply["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

/// The texts of a stream of a chat by choice, and why each ended.
fn streamed(events: &[Value]) -> Vec<(String, Value)> {
    let mut texts: Vec<(String, Value)> = Vec::new();
    for event in events {
        for choice in event["choices"].as_array().unwrap() {
            let index = usize::try_from(choice["index"].as_u64().unwrap()).unwrap();
            texts.resize(texts.len().max(index + 1), (String::new(), Value::Null));
            let delta = choice["delta"]["content"].as_str().or(choice["text"].as_str());
            texts[index].0 += delta.unwrap_or_default();
            if !choice["finish_reason"].is_null() {
                assert!(texts[index].1.is_null(), "it ends once");
                texts[index].1 = choice["finish_reason"].clone();
            }
        }
    }
    texts
}

#[test]
fn an_answer_is_that_of_glm_chat_and_glm_generate() {
    let server = Server::start(&[]);
    let question = "写一首诗";
    for seed in ["1", "2"] {
        let own =
            glm(&["chat", "-m", &talker(), "--seed", seed]).write_stdin(question).output().unwrap();
        let reply = server.chat(question, json!({ "seed": seed.parse::<u64>().unwrap() })).ok();
        assert_eq!(content(&reply), stdout(&own).trim_end_matches('\n'), "{seed}");
    }
    let own = json(&["generate", "-m", &talker(), "-p", question, "--seed", "3", "--json"]);
    // ChatGLM-6B's first round is the question alone.
    let fields = json!({ "prompt": question, "seed": 3, "max_tokens": 400 });
    let reply = server.post("/v1/completions", &fields).ok();
    assert_eq!(reply["choices"][0]["text"], own["text"]);
    assert_eq!(reply["usage"]["completion_tokens"], own["ids"].as_array().unwrap().len());
    assert_eq!(reply["usage"]["prompt_tokens"], own["prompt_tokens"]);
}

#[test]
fn a_chat_has_the_form_of_openai() {
    let server = Server::start(&[]);
    let reply = server.chat("你好", json!({ "temperature": 0, "model": "int4" })).ok();
    assert_eq!(reply["object"], "chat.completion");
    assert!(reply["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert!(reply["created"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!(reply["model"], "int4");
    let choice = &reply["choices"][0];
    assert_eq!((&choice["index"], &choice["finish_reason"]), (&json!(0), &json!("stop")));
    assert_eq!(choice["message"]["role"], "assistant");
    assert!(content(&reply).contains("你好"), "{reply}");
    let usage = &reply["usage"];
    let count = |name: &str| usage[name].as_u64().unwrap();
    assert_eq!(count("total_tokens"), count("prompt_tokens") + count("completion_tokens"));
    assert!(usage["prompt_tokens_details"]["cached_tokens"].is_u64());
    // Contents in parts, and a conversation of several rounds.
    let parts = json!({ "temperature": 0, "messages": [
        { "role": "user", "content": [{ "type": "text", "text": "你" }, { "type": "text", "text": "好" }] },
    ] });
    assert_eq!(content(&server.post("/v1/chat/completions", &parts).ok()), content(&reply));
    let rounds = json!({ "temperature": 0, "max_completion_tokens": 3, "messages": [
        { "role": "user", "content": "你好" },
        { "role": "assistant", "content": "你好！" },
        { "role": "user", "content": "写一首诗" },
    ] });
    let rounds = server.post("/v1/chat/completions", &rounds).ok();
    assert_eq!(rounds["choices"][0]["finish_reason"], "length");
    assert_eq!(rounds["usage"]["completion_tokens"], 3);
    assert!(rounds["usage"]["prompt_tokens"].as_u64() > usage["prompt_tokens"].as_u64());
}

#[test]
fn a_stream_has_the_same_text() {
    let server = Server::start(&[]);
    for fields in [
        json!({ "temperature": 0 }),
        json!({ "seed": 5, "n": 3 }),
        json!({ "temperature": 0, "stop": ["可以"] }),
        json!({ "temperature": 0, "max_tokens": 2 }),
    ] {
        let whole = server.chat("你好", fields.clone()).ok();
        let mut with_stream = fields.clone();
        with_stream["stream"] = json!(true);
        with_stream["stream_options"] = json!({ "include_usage": true });
        let events = server.chat("你好", with_stream).events();
        let first = &events[0]["choices"][0]["delta"];
        assert_eq!(first, &json!({ "role": "assistant", "content": "" }));
        assert!(events.iter().all(|event| event["object"] == "chat.completion.chunk"));
        assert!(events.iter().all(|event| event["id"] == events[0]["id"]));
        let (usage, events) = events.split_last().unwrap();
        assert_eq!(usage["choices"], json!([]));
        for name in ["prompt_tokens", "completion_tokens", "total_tokens"] {
            assert_eq!(usage["usage"][name], whole["usage"][name], "{fields}");
        }
        assert!(events.iter().all(|event| event["usage"].is_null()));
        let expected = whole["choices"].as_array().unwrap().iter().map(|choice| {
            (
                choice["message"]["content"].as_str().unwrap().to_owned(),
                choice["finish_reason"].clone(),
            )
        });
        assert_eq!(streamed(events), expected.collect::<Vec<_>>(), "{fields}");
    }
    // Without being asked for, there are no numbers.
    let events = server.chat("你好", json!({ "stream": true, "max_tokens": 2 })).events();
    assert!(events.iter().all(|event| event.get("usage").is_none()));
}

#[test]
fn a_stop_string_ends_the_text() {
    let server = Server::start(&[]);
    let whole = content(&server.chat("你好", json!({ "temperature": 0 })).ok());
    let (before, _) = whole.split_once("可以").unwrap();
    for stop in [json!("可以"), json!(["nowhere", "可以"])] {
        let reply = server.chat("你好", json!({ "temperature": 0, "stop": stop })).ok();
        assert_eq!(content(&reply), before);
        assert_eq!(reply["choices"][0]["finish_reason"], "stop");
    }
}

#[test]
fn completions_continue_texts_and_ids() {
    let server = Server::start(&[]);
    let complete = |fields: Value| server.post("/v1/completions", &fields);
    let text = complete(json!({ "prompt": "床前明月", "temperature": 0 })).ok();
    assert_eq!(text["object"], "text_completion");
    assert!(text["usage"]["completion_tokens"].as_u64().unwrap() <= 16, "as OpenAI: {text}");
    let prompt = glm_ids("床前明月");
    let ids = complete(json!({ "prompt": prompt, "temperature": 0 })).ok();
    assert_eq!(ids["choices"][0]["text"], text["choices"][0]["text"]);
    let many = complete(json!({ "prompt": ["床前明月", "你好"], "temperature": 0, "n": 2 })).ok();
    let choices = many["choices"].as_array().unwrap();
    let texts: Vec<_> = choices.iter().map(|choice| &choice["text"]).collect();
    assert_eq!(texts.len(), 4);
    assert_eq!((texts[0], texts[1]), (&text["choices"][0]["text"], texts[0]));
    assert_eq!(texts[2], texts[3]);
    let indices: Vec<_> = choices.iter().map(|choice| choice["index"].as_u64().unwrap()).collect();
    assert_eq!(indices, [0, 1, 2, 3]);
    let fields = json!({ "prompt": [prompt, prompt], "temperature": 0, "stream": true });
    let events = complete(fields).events();
    let texts: Vec<_> = streamed(&events).into_iter().map(|(text, _)| json!(text)).collect();
    assert_eq!(texts, [text["choices"][0]["text"].clone(), text["choices"][0]["text"].clone()]);
}

/// The ids of a text that the demonstration model continues.
fn glm_ids(text: &str) -> Vec<u64> {
    let ids = json(&["tokenize", "-m", &talker(), "--json", text]);
    let ids = ids["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap());
    // [gMASK] and <sop>.
    ids.chain([5, 7]).collect()
}

#[test]
fn a_suffix_makes_a_blank() {
    let server = Server::start(&[]);
    let own = json(&["fill", "-m", &talker(), "--greedy", "--json", "床前[gMASK]，疑是地上霜。"]);
    let fields =
        json!({ "prompt": "床前", "suffix": "，疑是地上霜。", "temperature": 0, "max_tokens": 99 });
    let reply = server.post("/v1/completions", &fields).ok();
    assert_eq!(reply["choices"][0]["text"], own["spans"][0]);
}

#[test]
fn blanks_are_filled_as_by_glm_fill() {
    let server = Server::start(&[]);
    let text = "床前[MASK]光，疑是地上[MASK]。";
    let own = json(&["fill", "-m", &talker(), "--seed", "4", "--json", text]);
    let reply = server.post("/v1/fill", &json!({ "text": text, "seed": 4 })).ok();
    assert_eq!((&reply["text"], &reply["spans"]), (&own["text"], &own["spans"]));
    for name in ["text", "ids", "finish", "prompt_tokens", "seed"] {
        for index in 0..2 {
            assert_eq!(reply["answers"][index][name], own["answers"][index][name], "{name}");
        }
    }
    let error = server.post("/v1/fill", &json!({ "text": "no blank" })).error(400);
    assert!(error["message"].as_str().unwrap().contains("[MASK]"), "{error}");
    assert_eq!(error["param"], "text");
}

#[test]
fn tokens_are_those_of_glm_tokenize() {
    let server = Server::start(&[]);
    let own = json(&["tokenize", "-m", &talker(), "--json", "你好 world"]);
    let reply = server.post("/tokenize", &json!({ "text": "你好 world" })).ok();
    assert_eq!(reply["tokens"], own["ids"]);
    assert_eq!(reply["count"], own["ids"].as_array().unwrap().len());
    let back = server.post("/detokenize", &json!({ "tokens": reply["tokens"] })).ok();
    assert_eq!(back["text"], "你好 world");
    assert_eq!(
        server.post("/detokenize", &json!({ "tokens": [1 << 23] })).error(400)["param"],
        "tokens"
    );
}

#[test]
fn the_model_has_names() {
    let server = Server::start(&["--alias", "gpt-4o-mini", "--alias", "owner/name"]);
    let list = server.get("/v1/models").ok();
    let names: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert_eq!(names, ["int4", "gpt-4o-mini", "owner/name"]);
    let model = server.get("/v1/models/owner/name").ok();
    assert_eq!((&model["id"], &model["context_length"]), (&json!("owner/name"), &json!(512)));
    assert_eq!(model["blanks"], json!(["[MASK]", "[gMASK]"]));
    assert_eq!(server.get("/v1/models/other").error(404)["code"], "model_not_found");
    assert_eq!(server.chat("你好", json!({ "model": "gpt-4o-mini" })).ok()["model"], "int4");
    let error = server.chat("你好", json!({ "model": "other" })).error(404);
    assert_eq!((&error["code"], &error["param"]), (&json!("model_not_found"), &json!("model")));
    let expected =
        "the names here are int4, gpt-4o-mini, owner/name; --alias and --adapter give more";
    assert_eq!(error["message"], expected);
}

#[cfg(feature = "grammar")]
#[test]
fn an_answer_has_the_form_that_is_asked_for() {
    let server = Server::start(&[]);
    let ask = |fields: Value| server.chat("你好", fields);
    let format = weather_format();
    for seed in 0..4 {
        let reply = ask(json!({ "seed": seed, "response_format": format, "max_tokens": 300 })).ok();
        let value: Value = serde_json::from_str(&content(&reply)).unwrap();
        assert!(["北京", "上海"].contains(&value["city"].as_str().unwrap()), "{value}");
        assert!(value["hot"].is_boolean() && value.as_object().unwrap().len() == 2, "{value}");
        assert_eq!(reply["choices"][0]["finish_reason"], "stop");
    }
    let grammar = ask(json!({ "grammar": "start: \"是\" | \"否\"", "n": 3 })).ok();
    for choice in grammar["choices"].as_array().unwrap() {
        assert!(["是", "否"].contains(&choice["message"]["content"].as_str().unwrap()), "{choice}");
    }
    let tools = json!([{ "type": "function", "function": { "name": "f", "parameters": {} } }]);
    for (fields, param) in [
        (json!({ "grammar": "start: (" }), "grammar"),
        (json!({ "response_format": { "type": "xml" } }), "response_format"),
        // The conversations of ChatGLM-6B have no tools.
        (json!({ "tools": tools, "tool_choice": "required" }), "messages"),
        (json!({ "tool_choice": "required" }), "tool_choice"),
    ] {
        let reply = ask(fields.clone());
        assert_eq!(reply.error(400)["param"], param, "{fields}");
    }
}

#[test]
fn eight_clients_at_once_get_the_texts_that_one_gets() {
    let server = Server::start(&["--max-sequences", "4"]);
    let ask = |seed: u64| {
        let penalty = seed as f64 / 4.0;
        let fields = json!({
            "seed": seed, "temperature": 1.2, "top_p": 0.9, "top_k": 40, "frequency_penalty": penalty - 0.5,
            "presence_penalty": 1.0 - penalty, "repetition_penalty": 1.0 + penalty / 8.0, "ignore_eos": true,
            "max_tokens": 60, "logprobs": true, "top_logprobs": 3,
        });
        // The probabilities are written so that they can be read without loss.
        server.chat("写一首诗", fields).ok()["choices"].clone()
    };
    let text = |choices: &Value| choices[0]["message"]["content"].to_string();
    let alone: Vec<_> = (0..8).map(ask).collect();
    let different: std::collections::BTreeSet<_> = alone.iter().map(text).collect();
    assert!(different.len() > 4, "seeds give different texts: {different:?}");
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|seed| scope.spawn(move || ask(seed))).collect();
        let together: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(together, alone);
    });
}

#[test]
fn penalties_change_the_text() {
    let server = Server::start(&[]);
    let ask = |fields: Value| content(&server.chat("写一首诗", fields).ok());
    let with = |name: &str, penalty: f64| {
        let mut fields = json!({ "temperature": 1, "top_p": 1, "top_k": 0, "seed": 1, "max_tokens": 60, "ignore_eos": true });
        fields[name] = json!(penalty);
        ask(fields)
    };
    for name in ["frequency_penalty", "presence_penalty"] {
        assert_eq!(with(name, 0.0), with("user_penalty", 1.0), "{name}: 0 is none");
        let [less, none, more] = [-2.0, 0.0, 2.0].map(|penalty| with(name, penalty));
        assert!(less != none && none != more && less != more, "{name}: {less} {none} {more}");
    }
}

#[test]
fn the_server_describes_itself() {
    let server = Server::start(&[]);
    let description = server.get("/openapi.json").ok();
    assert_eq!(description["openapi"].as_str().unwrap().split('.').next(), Some("3"));
    for path in ["/v1/chat/completions", "/v1/completions", "/v1/fill", "/tokenize", "/detokenize"]
    {
        let body =
            &description["paths"][path]["post"]["requestBody"]["content"]["application/json"];
        let name = body["schema"]["$ref"].as_str().unwrap().rsplit_once('/').unwrap().1;
        assert!(description["components"]["schemas"][name].is_object(), "{path}");
    }
    for path in ["/v1/models", "/health", "/metrics"] {
        assert!(description["paths"][path]["get"].is_object(), "{path}");
    }
    assert_eq!(server.get("/health").ok()["status"], "ready");
}

#[test]
fn the_log_has_a_line_for_a_request_and_nothing_of_the_prompt() {
    let server = Server::start(&[]);
    for _ in 0..2 {
        server.chat("secret-question", json!({ "store": true, "temperature": 0 })).ok();
    }
    server.wait_for("two lines", || {
        server.log().matches("POST /v1/chat/completions 200: prompt").count() == 2
    });
    let log = server.log();
    assert!(!log.contains("secret-question"), "{log}");
    assert_eq!(log.matches("the field store is ignored").count(), 1, "{log}");
    assert!(log.contains("curl http://127.0.0.1:"), "{log}");
    let server = Server::start(&["--log-prompts"]);
    server.chat("secret-question", json!({})).ok();
    server.wait_for("the prompt", || server.log().contains("secret-question"));
}
