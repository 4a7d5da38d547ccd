//! `glm serve`: the cache of beginnings of a causal model, and its file.

#![cfg(all(unix, feature = "serve"))]

mod common;

use std::fs;

use common::causal::Family;
use common::server::Server;
use common::{refusal, text};
use serde_json::{Value, json};
use tempfile::TempDir;

fn ask(server: &Server, question: &str) -> Value {
    let system = "一二三四五六七八九十".repeat(20);
    let messages =
        json!([{ "role": "system", "content": system }, { "role": "user", "content": question }]);
    let fields = json!({ "messages": messages, "seed": 5, "temperature": 1, "max_tokens": 30 });
    server.post("/v1/chat/completions", &fields).ok()
}

fn cached(reply: &Value) -> u64 {
    reply["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
}

fn said(reply: &Value) -> &str {
    reply["choices"][0]["message"]["content"].as_str().unwrap()
}

#[test]
fn what_is_kept_outlives_the_server() {
    for family in [Family::ChatGlm3, Family::Glm4] {
        let folder = family.folder();
        let model = text(folder.path());
        let files = TempDir::new().unwrap();
        let file = text(&files.path().join("cache"));
        let start = || Server::of(&model, &["--cache-file", &file], &[]);
        let end = |server: Server| {
            server.signal("TERM");
            let (code, log) = server.ended();
            assert_eq!(code, Some(0), "{log}");
        };
        let server = start();
        let first = ask(&server, "甲");
        assert_eq!(cached(&first), 0);
        let (other, same) = (ask(&server, "乙"), ask(&server, "甲"));
        assert!(cached(&other) > 500 && cached(&same) >= cached(&other), "{other} {same}");
        assert_eq!(said(&same), said(&first));
        end(server);

        let server = start();
        let again = ask(&server, "甲");
        assert!(cached(&again) > 500, "{again}");
        assert!(cached(&again) < again["usage"]["prompt_tokens"].as_u64().unwrap());
        assert_eq!(said(&again), said(&first));
        assert_eq!(said(&ask(&server, "乙")), said(&other));
        end(server);

        // A file that is no cache is not used, and not overwritten.
        fs::write(&file, "no cache").unwrap();
        let said = refusal(&["serve", "-m", &model, "--port", "0", "--cache-file", &file], 1);
        assert!(said.contains(&file), "{said}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "no cache");
    }
}
