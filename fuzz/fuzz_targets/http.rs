//! Any request to the server is answered as the manual says, in JSON or a stream of events, and leaves nothing behind.

#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use glm_cli::Service;
use glm_fuzz::{Family, Json, Word, fixture};
use http::{Request, Response};
use libfuzzer_sys::arbitrary::{self, Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};

/// Paths of requests with a body. A seed names one by its index.
const PATHS: [&str; 8] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/fill",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/tokenize",
    "/detokenize",
];

const FIELDS: [&str; 36] = [
    "messages",
    "input",
    "prompt",
    "text",
    "tokens",
    "system",
    "instructions",
    "suffix",
    "model",
    "stream",
    "stream_options",
    "n",
    "seed",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "stop",
    "stop_sequences",
    "logprobs",
    "top_logprobs",
    "ignore_eos",
    "user",
    "metadata",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "grammar",
    "chat_template_kwargs",
    "reasoning",
    "thinking",
    "echo",
];

/// A request of fields with values of any type.
#[derive(Debug, Arbitrary)]
struct Fields<'a> {
    messages: Vec<(u8, Json<'a>)>,
    tools: Vec<(Word<'a>, Json<'a>)>,
    fields: Vec<(u8, Json<'a>)>,
    is_streamed: bool,
}

impl Fields<'_> {
    fn body(self) -> Value {
        let mut body = Map::new();
        let message = |(role, content): &(u8, Json)| {
            let roles = ["user", "assistant", "system", "tool", "developer"];
            json!({ "role": roles[usize::from(*role) % roles.len()], "content": content.value() })
        };
        let messages: Value = self.messages.iter().take(6).map(message).collect();
        // The names of the same in the other APIs.
        for name in ["messages", "input"] {
            body.insert(name.into(), messages.clone());
        }
        for name in ["prompt", "text"] {
            body.insert(name.into(), messages[0]["content"].clone());
        }
        let tool = |(name, schema): &(Word, Json)| {
            let (name, schema) = (name.text(), schema.value());
            json!({ "type": "function", "name": name, "input_schema": schema, "function": { "name": name, "parameters": schema } })
        };
        if !self.tools.is_empty() {
            body.insert("tools".into(), self.tools.iter().take(3).map(tool).collect());
        }
        body.insert("stream".into(), self.is_streamed.into());
        for name in ["max_tokens", "max_output_tokens"] {
            body.insert(name.into(), 5.into());
        }
        for (name, value) in self.fields.into_iter().take(8) {
            body.insert(FIELDS[usize::from(name) % FIELDS.len()].into(), value.value());
        }
        body.into()
    }
}

/// A model of each mask: one that calls tools, and one that fills blanks.
static SERVICES: LazyLock<[Service; 2]> = LazyLock::new(|| {
    let causal = Family::Glm4.folder().keep();
    let bidirectional = fixture("../../demo/int4");
    [causal, bidirectional].map(|model| {
        let model = model.to_str().expect("a path in UTF-8");
        let small = ["--max-sequences", "3", "--queue", "2", "--cache-memory", "1MB"];
        let flags = ["-m", model, "--threads", "1", "--request-timeout", "2"];
        Service::open(&[&flags[..], &small].concat()).expect("a server")
    })
});

/// Checks a response whose body is complete.
fn check(response: &Response<Vec<u8>>) {
    let body = std::str::from_utf8(response.body()).expect("UTF-8");
    let kind = response.headers().get("content-type").map(|kind| kind.as_bytes());
    match kind {
        Some(b"application/json") => {
            let body: Value = serde_json::from_str(body).expect("JSON");
            if !response.status().is_success() {
                let message = body["error"]["message"].as_str().expect("a message");
                assert!(!message.is_empty());
            }
        }
        Some(b"text/event-stream") => {
            let lines: Vec<_> =
                body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
            let (last, before) = lines.split_last().expect("an event");
            for event in before {
                serde_json::from_str::<Value>(event).expect("JSON");
            }
            assert!(*last == "[DONE]" || serde_json::from_str::<Value>(last).is_ok(), "{last}");
            // The server has failed.
            assert!(!body.contains("its log says more"), "{body}");
        }
        kind => panic!("{kind:?}: {body}"),
    }
}

fuzz_target!(|data: &[u8]| {
    let Some(([kind, pieces], rest)) = data.split_first_chunk() else { return };
    // A body as it is, or made of fields.
    let body = match kind & 0x80 {
        0 => rest.to_vec(),
        _ => match Fields::arbitrary(&mut Unstructured::new(rest)) {
            Ok(fields) => fields.body().to_string().into_bytes(),
            Err(_) => return,
        },
    };
    let path = PATHS[usize::from(*kind) % PATHS.len()];
    // The one that fills blanks is slow.
    let service = &SERVICES[usize::from(path == "/v1/fill")];
    // Some clients go away.
    let most = if *pieces < 0xf0 { usize::MAX } else { usize::from(*pieces & 0xf) };
    let request = Request::post(path).header("host", "localhost");
    let response = service.respond(request.body(body).expect("a request"), most);
    let status = response.status().as_u16();
    // 504: an answer may be as long as the context.
    assert!(matches!(status, 200 | 400..=499 | 503 | 504), "{status}: {response:?}");
    if most == usize::MAX {
        check(&response);
    }
    let end = Instant::now() + Duration::from_secs(10);
    while !service.is_idle() {
        assert!(Instant::now() < end, "{path} leaves an answer that goes on");
        std::thread::yield_now();
    }
});
