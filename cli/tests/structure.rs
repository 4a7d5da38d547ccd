//! Answers that follow a JSON schema or a grammar.

#![cfg(feature = "grammar")]
#![allow(missing_docs)]

mod common;

use std::fs;
use std::path::Path;

use common::{glm, json, refusal, stderr, stdout};
use serde_json::Value;

const SCHEMA: &str = r#"{"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "n": {"enum": [1, "二"]}},
    "required": ["name", "n"], "additionalProperties": false}"#;

/// A folder for the files of a test.
fn folder(name: &str) -> std::path::PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("structure").join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn file(folder: &Path, name: &str, text: &str) -> String {
    fs::write(folder.join(name), text).unwrap();
    folder.join(name).to_str().unwrap().to_owned()
}

fn check(text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let fields = value.as_object().unwrap();
    assert_eq!(fields.len(), 2, "{value}");
    assert!(fields["name"].as_str().unwrap().chars().count() <= 8, "{value}");
    assert!(fields["n"] == 1 || fields["n"] == "二", "{value}");
}

#[test]
fn an_answer_follows_a_schema_and_a_seed() {
    let folder = folder("schema");
    let path = file(&folder, "schema.json", SCHEMA);
    for schema in [SCHEMA, &path] {
        let answer = |seed| {
            let words = [
                "generate",
                "你好",
                "--json-schema",
                schema,
                "--temperature",
                "2",
                "--json",
                "--seed",
                seed,
            ];
            json(&[&words[..], &["--max-new-tokens", "300"]].concat())
        };
        for seed in ["1", "2", "3"] {
            let first = answer(seed);
            assert_eq!(first["finish"], "stop");
            check(first["text"].as_str().unwrap());
            assert_eq!(first["ids"], answer(seed)["ids"]);
        }
    }
    let output = glm(&["generate", "你好", "--json-schema", &path, "--greedy"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    check(&stdout(&output));
}

#[test]
fn an_answer_follows_a_grammar() {
    let folder = folder("grammar");
    let path = file(&folder, "date.lark", "start: /[12][0-9]{3}/ \"-\" /[01][0-9]/\n");
    let answer = json(&["generate", "你好", "--grammar", &path, "--json", "--seed", "5"]);
    let text = answer["text"].as_str().unwrap().trim().to_owned();
    assert_eq!((text.len(), text.as_bytes()[4]), (7, b'-'), "{text}");
}

#[test]
fn what_cannot_be_followed_is_told() {
    let folder = folder("bad");
    let broken = file(&folder, "broken.json", "{\"type\": ");
    let unknown = file(&folder, "unknown.json", "{\"type\": \"strin\"}");
    let lark = file(&folder, "bad.lark", "start: nothing\n");
    let inline = file(&folder, "inline.lark", "start: %json {}\n");
    let missing = folder.join("missing.json").to_str().unwrap().to_owned();
    for (flag, value, code, problem) in [
        ("--json-schema", "{\"type\": ", 2, "expected a JSON schema"),
        ("--json-schema", "{\"type\": \"strin\"}", 1, "--json-schema"),
        ("--json-schema", &*broken, 1, "broken.json"),
        ("--json-schema", &unknown, 1, "unknown.json"),
        ("--json-schema", &missing, 1, "missing.json"),
        ("--grammar", &lark, 1, "bad.lark"),
        ("--grammar", &inline, 1, "cannot contain %json"),
        ("--grammar", &missing, 1, "missing.json"),
    ] {
        let said = refusal(&["generate", "你好", flag, value], code);
        assert!(said.contains(problem), "{value}: {said}");
    }
    let twice = ["generate", "你好", "--json-schema", "{}", "--grammar", &lark];
    assert!(refusal(&twice, 2).contains("cannot be used with"));
    let ids = ["generate", "--ids", "[5]", "--json-schema", "{}"];
    assert!(refusal(&ids, 2).contains("cannot be used with"));
}
