//! `glm serve`: calls of tools in all three APIs, by tiny causal models whose noise a grammar makes calls of.

#![cfg(all(unix, feature = "serve", feature = "grammar"))]

mod common;

use common::causal::Family;
use common::server::{Reply, Server};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Seeds of a test. At random, an answer may be cut or have one call where several are wanted; of these, some do not.
const SEEDS: std::ops::Range<u64> = 1..13;

/// A server of a model, and its folder.
struct Tiny {
    server: Server,
    family: Family,
    _folder: TempDir,
}

impl Tiny {
    fn start(family: Family, words: &[&str]) -> Self {
        let folder = family.folder();
        let server = Server::of(folder.path().to_str().unwrap(), words, &[]);
        Self { server, family, _folder: folder }
    }

    fn chat(&self, messages: Value, fields: Value) -> Reply {
        self.server.post("/v1/chat/completions", &with(fields, "messages", messages))
    }

    /// The ids of a text in which the names of roles are ids.
    fn ids(&self, parts: &[&str]) -> Vec<u32> {
        let mut ids = Vec::new();
        for part in parts {
            if self.family == Family::ChatGlm3 && (part.starts_with("<|") || part.ends_with("op"))
                || *part == "[gMASK]"
            {
                ids.push(self.family.id(part));
            } else {
                let reply = self.server.post("/tokenize", &json!({ "text": part })).ok();
                let tokens = reply["tokens"].as_array().unwrap().iter();
                ids.extend(tokens.map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()));
            }
        }
        ids
    }
}

fn with(mut fields: Value, name: &str, value: Value) -> Value {
    fields[name] = value;
    fields
}

fn question() -> Value {
    json!([{ "role": "user", "content": "北京?" }])
}

/// The arguments of the tool: a choice and a number, so that noise ends soon.
fn parameters() -> Value {
    json!({
        "type": "object",
        "properties": { "city": { "enum": ["北京", "O'Hare \"2\""] }, "days": { "type": "integer", "minimum": 1, "maximum": 9 } },
        "required": ["city", "days"],
        "additionalProperties": false,
    })
}

fn tools() -> Value {
    json!([
        { "type": "function", "function": { "name": "get_weather", "description": "Weather", "parameters": parameters() } },
        { "type": "function", "function": { "name": "now" } },
    ])
}

/// Fields of a chat that force a call.
fn forced(choice: Value, seed: u64) -> Value {
    json!({ "tools": tools(), "tool_choice": choice, "seed": seed, "temperature": 1, "max_tokens": 400,
        "chat_template_kwargs": { "enable_thinking": false } })
}

/// Checks the arguments of a call by its name.
#[track_caller]
fn check(name: &str, arguments: &Value) {
    match name {
        "now" => assert_eq!(arguments, &json!({})),
        "get_weather" => {
            let cities = [json!("北京"), json!("O'Hare \"2\"")];
            assert!(cities.contains(&arguments["city"]), "{arguments}");
            assert!(arguments["days"].as_i64().is_some(), "{arguments}");
            assert_eq!(arguments.as_object().unwrap().len(), 2, "{arguments}");
        }
        other => panic!("{other} is no tool"),
    }
}

/// The calls of a message: identifier, name and arguments.
#[track_caller]
fn calls(message: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let calls = message["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
    let read = |call: &Value| {
        assert_eq!(call["type"], "function");
        let function = &call["function"];
        (text(&call["id"]), text(&function["name"]), text(&function["arguments"]))
    };
    calls.iter().map(read).collect()
}

#[test]
fn a_chat_has_calls_with_arguments_of_the_schema() {
    for family in Family::ALL {
        let tiny = Tiny::start(family, &[]);
        let mut complete = 0;
        for seed in SEEDS {
            let named = json!({ "type": "function", "function": { "name": "get_weather" } });
            let choice = if seed % 2 == 0 { named } else { json!("required") };
            let reply = tiny.chat(question(), forced(choice, seed)).ok();
            let choice = &reply["choices"][0];
            if choice["finish_reason"] == "length" {
                continue;
            }
            complete += 1;
            assert_eq!(choice["finish_reason"], "tool_calls", "{reply}");
            assert_eq!(choice["message"]["content"], Value::Null, "{reply}");
            let calls = calls(&choice["message"]);
            assert!(!calls.is_empty());
            for (at, (id, name, arguments)) in calls.iter().enumerate() {
                assert!(calls[..at].iter().all(|(other, ..)| other != id), "{reply}");
                assert!(seed % 2 == 1 || name == "get_weather");
                check(name, &serde_json::from_str(arguments).unwrap());
            }
        }
        assert!(complete > 3, "{family:?}");
    }
}

#[test]
fn a_stream_has_the_calls_in_pieces() {
    for family in Family::ALL {
        let tiny = Tiny::start(family, &[]);
        let fields = forced(json!("required"), 1);
        let whole = tiny.chat(question(), fields.clone()).ok();
        let events = tiny.chat(question(), with(fields, "stream", json!(true))).events();
        let mut found: Vec<(String, String)> = Vec::new();
        let (mut pieces, mut finish) = (0, Value::Null);
        for event in &events {
            let choice = &event["choices"][0];
            for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
                let index = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
                if call["id"].is_string() {
                    assert_eq!(index, found.len());
                    assert_eq!(call["type"], "function");
                    found.push((
                        call["function"]["name"].as_str().unwrap().to_owned(),
                        String::new(),
                    ));
                }
                assert_eq!(index + 1, found.len(), "a piece is of the last call");
                found[index].1 += call["function"]["arguments"].as_str().unwrap();
                pieces += 1;
            }
            if !choice["finish_reason"].is_null() {
                finish = choice["finish_reason"].clone();
            }
        }
        let expected = calls(&whole["choices"][0]["message"]).into_iter();
        assert!(
            found.iter().cloned().eq(expected.map(|(_, name, arguments)| (name, arguments))),
            "{found:?}"
        );
        assert_eq!(finish, whole["choices"][0]["finish_reason"]);
        assert!(pieces > found.len(), "{events:?}");
    }
}

#[test]
fn one_call_is_all_where_several_are_not_wanted() {
    let tiny = Tiny::start(Family::Glm45, &[]);
    let mut most = 0;
    for seed in SEEDS {
        let fields = forced(json!("required"), seed);
        let several = calls(&tiny.chat(question(), fields.clone()).ok()["choices"][0]["message"]);
        most = most.max(several.len());
        let fields = with(fields, "parallel_tool_calls", json!(false));
        let reply = tiny.chat(question(), fields).ok();
        let one = calls(&reply["choices"][0]["message"]);
        assert_eq!(one.len(), 1, "{reply}");
        assert_eq!((&one[0].1, &one[0].2), (&several[0].1, &several[0].2));
        assert_eq!(reply["choices"][0]["message"]["content"], Value::Null);
    }
    assert!(most > 1);
    let tools: Vec<_> =
        tools().as_array().unwrap().iter().map(|tool| tool["function"].clone()).collect();
    let flat = |tool: &Value| json!({ "type": "function", "name": tool["name"], "parameters": tool["parameters"] });
    let fields = json!({ "input": "?", "tools": tools.iter().map(flat).collect::<Vec<_>>(), "tool_choice": "required",
        "parallel_tool_calls": false, "temperature": 1, "reasoning": { "effort": "none" } });
    let bare = |tool: &Value| json!({ "name": tool["name"], "input_schema": tool["parameters"] });
    let choice = json!({ "type": "any", "disable_parallel_tool_use": true });
    let messages = json!({ "messages": question(), "max_tokens": 400, "tools": tools.iter().map(bare).collect::<Vec<_>>(),
        "tool_choice": choice, "temperature": 1, "thinking": { "type": "disabled" } });
    for seed in SEEDS {
        let reply =
            tiny.server.post("/v1/responses", &with(fields.clone(), "seed", json!(seed))).ok();
        assert_eq!(reply["output"].as_array().unwrap().len(), 1, "{reply}");
        assert_eq!(reply["parallel_tool_calls"], false);
        let reply =
            tiny.server.post("/v1/messages", &with(messages.clone(), "seed", json!(seed))).ok();
        assert_eq!(reply["content"].as_array().unwrap().len(), 1, "{reply}");
    }
}

#[test]
fn responses_have_calls_as_items() {
    for family in Family::ALL {
        let tiny = Tiny::start(family, &[]);
        let tool = json!({ "type": "function", "name": "get_weather", "parameters": parameters() });
        let choice = json!({ "type": "function", "name": "get_weather" });
        let fields = json!({ "input": "北京?", "tools": [tool], "tool_choice": choice, "seed": 1, "temperature": 1,
            "reasoning": { "effort": "none" } });
        let whole = tiny.server.post("/v1/responses", &fields).ok();
        assert_eq!(whole["status"], "completed");
        let item = &whole["output"][0];
        assert_eq!(
            (&item["type"], &item["status"]),
            (&json!("function_call"), &json!("completed"))
        );
        check(
            item["name"].as_str().unwrap(),
            &serde_json::from_str(item["arguments"].as_str().unwrap()).unwrap(),
        );
        assert_ne!(item["call_id"], item["id"]);
        let body = tiny.server.post("/v1/responses", &with(fields, "stream", json!(true))).body;
        let events = named(&body);
        let mut kinds: Vec<_> =
            events.iter().map(|event| event["type"].as_str().unwrap()).collect();
        kinds.dedup();
        let call = [
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
        ];
        assert_eq!(kinds[..6], [&["response.created", "response.in_progress"], &call[..]].concat());
        assert_eq!(kinds.last(), Some(&"response.completed"));
        let first: String = events
            .iter()
            .filter(|event| event["output_index"] == 0)
            .filter_map(|event| event["delta"].as_str())
            .collect();
        assert_eq!(first, item["arguments"].as_str().unwrap());
    }
}

/// The values of the events of a stream, which have names.
fn named(body: &str) -> Vec<Value> {
    let data = body.lines().filter_map(|line| line.strip_prefix("data: "));
    let events: Vec<Value> = data.map(|data| serde_json::from_str(data).unwrap()).collect();
    let names = body.lines().filter_map(|line| line.strip_prefix("event: "));
    assert!(names.eq(events.iter().map(|event| event["type"].as_str().unwrap())), "{body}");
    events
}

#[test]
fn messages_have_calls_as_blocks() {
    for family in Family::ALL {
        let tiny = Tiny::start(family, &[]);
        let tool = json!({ "name": "get_weather", "input_schema": parameters() });
        for choice in [json!({ "type": "any" }), json!({ "type": "tool", "name": "get_weather" })] {
            let fields = json!({ "messages": question(), "max_tokens": 400, "tools": [tool], "tool_choice": choice, "seed": 1, "temperature": 1,
                "thinking": { "type": "disabled" } });
            let whole = tiny.server.post("/v1/messages", &fields).ok();
            assert_eq!(whole["stop_reason"], "tool_use", "{whole}");
            let block = &whole["content"][0];
            assert_eq!(block["type"], "tool_use");
            assert!(!block["id"].as_str().unwrap().is_empty());
            check(block["name"].as_str().unwrap(), &block["input"]);
            let events =
                named(&tiny.server.post("/v1/messages", &with(fields, "stream", json!(true))).body);
            let mut kinds: Vec<_> =
                events.iter().map(|event| event["type"].as_str().unwrap()).collect();
            kinds.dedup();
            let block_kinds = ["content_block_start", "content_block_delta", "content_block_stop"];
            assert_eq!(kinds[..5], [&["message_start", "ping"], &block_kinds[..]].concat());
            assert_eq!(kinds[kinds.len() - 2..], ["message_delta", "message_stop"]);
            let start = events.iter().find(|event| event["type"] == "content_block_start").unwrap();
            assert_eq!(start["content_block"]["input"], json!({}));
            let first = events.iter().filter(|event| event["index"] == 0);
            let input: String =
                first.filter_map(|event| event["delta"]["partial_json"].as_str()).collect();
            assert_eq!(serde_json::from_str::<Value>(&input).unwrap(), block["input"]);
            assert_eq!(events[events.len() - 2]["delta"]["stop_reason"], "tool_use");
        }
    }
}

/// A conversation with a call and its result, and the parts of its prompt.
fn rounds(family: Family) -> (Value, Vec<&'static str>) {
    let call = json!({ "id": "c1", "type": "function", "function": { "name": "now", "arguments": "{\"zone\": \"东\", \"n\": 2}" } });
    let messages = json!([
        { "role": "user", "content": "hi" },
        { "role": "assistant", "content": null, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "c1", "content": "12:00" },
    ]);
    let parts = match family {
        Family::ChatGlm3 => vec![
            "[gMASK]",
            "sop",
            "<|user|>",
            "\n",
            "hi",
            "<|assistant|>",
            "now\n",
            " ```python\ntool_call(zone='东', n=2)\n```",
            "<|observation|>",
            "\n",
            "12:00",
            "<|assistant|>",
        ],
        Family::Glm4 => vec![
            "[gMASK]<sop><|user|>\nhi<|assistant|>now\n{\"zone\": \"东\", \"n\": 2}<|observation|>\n12:00<|assistant|>",
        ],
        Family::Glm45 => vec![
            "[gMASK]<sop><|user|>\nhi<|assistant|>\n<tool_call>now\n<arg_key>zone</arg_key>\n<arg_value>东</arg_value>\n\
             <arg_key>n</arg_key>\n<arg_value>2</arg_value>\n</tool_call><|observation|>\n<tool_response>\n12:00\n</tool_response><|assistant|>",
        ],
    };
    (messages, parts)
}

/// The prompt that a chat makes is that of the ids of its family: both have the same answer and as many tokens.
#[test]
fn results_go_back_in_the_form_of_the_family() {
    for family in Family::ALL {
        let tiny = Tiny::start(family, &[]);
        let (messages, parts) = rounds(family);
        let sampling = json!({ "seed": 3, "temperature": 1, "max_tokens": 24 });
        let chat = tiny.chat(messages.clone(), sampling.clone()).ok();
        let text = with(sampling.clone(), "prompt", json!(tiny.ids(&parts)));
        let text = tiny.server.post("/v1/completions", &text).ok();
        assert_eq!(chat["usage"]["prompt_tokens"], text["usage"]["prompt_tokens"], "{family:?}");
        let said = chat["choices"][0]["message"]["content"].as_str().unwrap();
        assert_eq!(said.trim(), text["choices"][0]["text"].as_str().unwrap().trim(), "{family:?}");
        assert!(!said.trim().is_empty());

        // The same conversation in the other APIs.
        let input = json!([
            { "role": "user", "content": "hi" },
            { "type": "function_call", "call_id": "c1", "name": "now", "arguments": "{\"zone\": \"东\", \"n\": 2}" },
            { "type": "function_call_output", "call_id": "c1", "output": "12:00" },
        ]);
        let fields =
            json!({ "input": input, "seed": 3, "temperature": 1, "max_output_tokens": 24 });
        let response = tiny.server.post("/v1/responses", &fields).ok();
        assert_eq!(response["output"][0]["content"][0]["text"], said, "{family:?}");
        let blocks = json!([
            { "role": "user", "content": "hi" },
            { "role": "assistant", "content": [{ "type": "tool_use", "id": "c1", "name": "now", "input": { "zone": "东", "n": 2 } }] },
            { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "c1", "content": [{ "type": "text", "text": "12:00" }] }] },
        ]);
        let message = tiny.server.post("/v1/messages", &with(sampling, "messages", blocks)).ok();
        assert_eq!(message["content"][0]["text"], said, "{family:?}");
    }
}

/// With a form and tools, an answer is in the form or calls tools, and never both.
#[test]
fn an_answer_has_its_form_or_is_a_call() {
    let schema = json!({ "type": "object", "properties": { "ok": { "type": "boolean" } }, "required": ["ok"], "additionalProperties": false });
    let format = json!({ "type": "json_schema", "json_schema": { "name": "n", "schema": schema } });
    for family in Family::ALL {
        let tiny = Tiny::start(family, &[]);
        let [mut texts, mut called] = [0; 2];
        for seed in 1..25 {
            // So high that both are likely.
            let fields = with(forced(json!("auto"), seed), "temperature", json!(20));
            let fields = with(fields, "response_format", format.clone());
            let reply = tiny.chat(question(), fields.clone()).ok();
            let choice = &reply["choices"][0];
            let calls = calls(&choice["message"]);
            let content = choice["message"]["content"].as_str();
            match choice["finish_reason"].as_str().unwrap() {
                "stop" => {
                    let value: Value = serde_json::from_str(content.unwrap()).unwrap();
                    assert!(value["ok"].is_boolean() && value.as_object().unwrap().len() == 1);
                    assert_eq!(calls, []);
                    texts += 1;
                }
                "tool_calls" => {
                    assert_eq!(content, None, "{reply}");
                    for (_, name, arguments) in &calls {
                        check(name, &serde_json::from_str(arguments).unwrap());
                    }
                    called += 1;
                }
                _ => continue,
            }
            let events = tiny.chat(question(), with(fields, "stream", json!(true))).events();
            let deltas = || events.iter().map(|event| &event["choices"][0]["delta"]);
            let said: String = deltas().filter_map(|delta| delta["content"].as_str()).collect();
            assert_eq!(said, content.unwrap_or_default(), "{events:?}");
            let begun = deltas().filter(|delta| delta["tool_calls"][0]["id"].is_string()).count();
            assert_eq!(begun, calls.len(), "{events:?}");
        }
        assert!(texts > 0 && called > 0, "{family:?}: {texts} {called}");
        let wrong = json!({ "type": "strin" });
        // GLM-4 follows the schemas of arguments, and the others cannot write the name.
        let tool = json!({ "type": "function", "function": { "name": "f", "parameters": { "properties": { "a=b": wrong } } } });
        let wrong =
            json!({ "type": "json_schema", "json_schema": { "name": "n", "schema": wrong } });
        let fields = json!({ "tools": tools(), "response_format": wrong });
        assert_eq!(tiny.chat(question(), fields).error(400)["param"], "response_format");
        let fields = json!({ "tools": [tool], "response_format": { "type": "json_object" } });
        assert_eq!(tiny.chat(question(), fields).error(400)["param"], "tools");
    }
}

#[test]
fn tools_are_not_called_where_they_may_not_be() {
    let tiny = Tiny::start(Family::Glm4, &[]);
    let prompt = |fields: Value| {
        let reply = tiny
            .chat(question(), with(with(fields, "max_tokens", json!(4)), "seed", json!(1)))
            .ok();
        assert_eq!(calls(&reply["choices"][0]["message"]), []);
        reply["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    let bare = prompt(json!({}));
    // Without calls, the model does not see the tools.
    assert_eq!(prompt(json!({ "tools": tools(), "tool_choice": "none" })), bare);
    assert!(prompt(json!({ "tools": tools(), "tool_choice": "auto" })) > bare);
    assert_eq!(prompt(json!({ "tools": [] })), bare);
}

#[test]
fn choices_that_cannot_be_are_refused() {
    let tiny = Tiny::start(Family::Glm4, &[]);
    let nothing = json!({ "type": "function", "function": { "name": "nothing" } });
    for (fields, param) in [
        (json!({ "tools": tools(), "tool_choice": nothing }), "tool_choice"),
        (json!({ "tools": tools(), "tool_choice": "sometimes" }), "tool_choice"),
        (json!({ "tool_choice": "required" }), "tool_choice"),
        (json!({ "tools": [{ "type": "function", "function": { "name": "a\nb" } }] }), "tools[0]"),
        (
            json!({ "tools": [{ "type": "function", "function": { "name": "x".repeat(129) } }] }),
            "tools[0]",
        ),
        (json!({ "tools": [{ "type": "web_search" }] }), "tools[0]"),
        (
            json!({ "tools": tools(), "tool_choice": "required", "response_format": { "type": "json_object" } }),
            "",
        ),
    ] {
        let error = tiny.chat(question(), fields.clone()).error(400);
        assert_eq!(error["param"].as_str().unwrap_or_default(), param, "{fields}: {error}");
    }
    let tool = json!({ "name": "now", "input_schema": {} });
    for choice in [
        json!({ "type": "tool", "name": "nothing" }),
        json!({ "type": "tool" }),
        json!({ "type": "all" }),
        json!("any"),
    ] {
        let fields = json!({ "messages": question(), "max_tokens": 5, "tools": [tool], "tool_choice": choice });
        let reply = tiny.server.post("/v1/messages", &fields);
        assert_eq!(
            (reply.status, &reply.json()["error"]["type"]),
            (400, &json!("invalid_request_error")),
            "{choice}"
        );
    }
    // A model without tools says so.
    let server = Server::start(&[]);
    let error = server.chat("你好", json!({ "tools": tools() })).error(400);
    assert!(error["message"].as_str().unwrap().contains("does not support tools"), "{error}");
}

/// Messages may have fields of any JSON, and the template of GLM-4 takes this one for a list.
#[test]
fn a_message_on_which_the_template_fails_is_an_error_of_its_request() {
    let tiny = Tiny::start(Family::Glm4, &[]);
    let messages = json!([{ "role": "user", "content": "北京?", "tools": -1 }]);
    let error = tiny.chat(messages, json!({})).error(400);
    assert!(error["message"].as_str().unwrap().contains("chat_template"), "{error}");
    assert_eq!(error["param"], "messages");
}
