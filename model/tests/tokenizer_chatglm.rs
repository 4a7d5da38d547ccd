//! ChatGLM-6B's tokenizer against the official one's recorded results.

#![allow(missing_docs)]

mod common;

use glm_model::{Message, Role, TextStream, Tokenizer, fill_prompt, prompt, prompt_ids, response};
use proptest::prelude::*;
use serde_json::Value;
use std::path::Path;

/// Runs `test` with the real tokenizer and its goldens, if they are here.
fn with_goldens(test: impl Fn(&Tokenizer, &Value)) {
    if let Some(shared) = common::shared() {
        let tokenizer = Tokenizer::open(&shared.join("fixtures/tokenizers/chatglm-6b"))
            .expect("the real tokenizer");
        test(&tokenizer, &json(&shared.join("fixtures/tokenizer_goldens/chatglm-6b.json")));
    }
}

/// The same with the reduced tokenizer of the tiny chat model.
fn with_e2e(test: impl Fn(&Tokenizer, &Value)) {
    if let Some(shared) = common::shared() {
        let dir = shared.join("fixtures/models/e2e-chatglm-6b");
        test(
            &Tokenizer::open(&dir).expect("the reduced tokenizer"),
            &json(&dir.join("golden_e2e.json")),
        );
    }
}

fn json(path: &Path) -> Value {
    let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_reader(std::io::BufReader::new(file)).expect("valid JSON")
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    let list = value[key].as_array().unwrap_or_else(|| panic!("no list {key}"));
    assert!(!list.is_empty(), "{key} is empty");
    list
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("a list of ids")
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_else(|| panic!("no text {key}"))
}

/// Whether `key` has this value in the entry, or in what another version of transformers made of
/// it.
fn agrees(entry: &Value, key: &str, found: &Value) -> bool {
    let others = entry
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.starts_with("transformers_"));
    entry[key] == *found || others.into_iter().any(|(_, other)| other[key] == *found)
}

fn conversation(case: &Value) -> Vec<Message> {
    let mut messages = Vec::new();
    for turn in case["turns"].as_array().expect("turns") {
        let [question, answer] = [&turn[0], &turn[1]].map(|v| v.as_str().expect("text"));
        messages
            .extend([Message::new(Role::User, question), Message::new(Role::Assistant, answer)]);
    }
    messages.push(Message::new(Role::User, text(case, "query")));
    messages
}

/// Streams ids and joins the pieces.
fn streamed(mut stream: TextStream, ids: &[u32]) -> String {
    let mut joined: String = ids.iter().map(|&id| stream.push(id).expect("a known id")).collect();
    joined.push_str(&stream.finish());
    joined
}

fn check_chat(tokenizer: &Tokenizer, case: &Value) {
    let messages = conversation(case);
    assert_eq!(prompt(&messages).expect("a sound conversation"), text(case, "prompt"));
    let found = prompt_ids(tokenizer, &messages).expect("a sound conversation");
    assert_eq!(found, ids(&case["input_ids"]), "{}", case["name"]);
}

#[test]
fn texts_have_the_official_ids() {
    with_goldens(|tokenizer, goldens| {
        let texts = list(goldens, "texts");
        assert_eq!(texts.len(), 170);
        for entry in texts {
            let found = tokenizer.encode(text(entry, "text")).expect("a short text");
            assert!(agrees(entry, "ids", &found.clone().into()), "{}: {found:?}", entry["text"]);
        }
    });
}

#[test]
fn ids_have_the_official_text() {
    with_goldens(|tokenizer, goldens| {
        for entry in list(goldens, "texts").iter().chain(list(goldens, "decode_only")) {
            let ids = ids(&entry["ids"]);
            let found = tokenizer.decode(&ids).expect("known ids");
            assert!(agrees(entry, "decoded", &found.clone().into()), "{entry}: {found:?}");
            assert_eq!(streamed(TextStream::new(tokenizer), &ids), found);
        }
    });
}

#[test]
fn special_ids_are_the_official_ones() {
    with_goldens(|tokenizer, goldens| {
        let official = goldens["special_ids"].as_object().expect("special ids");
        for (name, id) in official {
            assert_eq!(tokenizer.id(name).map(u64::from), id.as_u64(), "{name}");
        }
        let special = tokenizer.special();
        let named = [("[MASK]", special.mask), ("[gMASK]", special.gmask), ("<sop>", special.bos)];
        for (name, id) in named.into_iter().chain([
            ("<eop>", special.eos),
            ("<pad>", special.pad),
            ("<unk>", special.unk),
        ]) {
            assert_eq!(official[name], id, "{name}");
        }
    });
}

#[test]
fn conversations_have_the_official_prompts() {
    with_goldens(|tokenizer, goldens| {
        list(goldens, "chat").iter().for_each(|case| check_chat(tokenizer, case))
    });
}

#[test]
fn a_batch_is_its_prompts_padded_on_the_left() {
    with_goldens(|tokenizer, goldens| {
        let batch = &goldens["padded_batch"];
        for (text, padded) in list(batch, "texts").iter().zip(list(batch, "input_ids")) {
            let message = Message::new(Role::User, text.as_str().expect("text"));
            let found = prompt_ids(tokenizer, &[message]).expect("a sound conversation");
            let padded = ids(padded);
            let (padding, prompt) = padded.split_at(padded.len() - found.len());
            assert_eq!(found, prompt);
            assert!(padding.iter().all(|&id| id == tokenizer.special().pad));
        }
    });
}

#[test]
fn tiny_model_conversations_have_the_official_ids_and_texts() {
    with_e2e(|tokenizer, goldens| {
        for case in list(goldens, "cases") {
            check_chat(tokenizer, case);
            let output = ids(&case["output_ids"]);
            let decoded = tokenizer.decode(&output).expect("known ids");
            assert_eq!(decoded, text(case, "decoded"));
            assert_eq!(response(&decoded), text(case, "response"));
            assert_eq!(
                streamed(TextStream::new(tokenizer).polished(), &output),
                text(case, "response")
            );
        }
    });
}

#[test]
fn a_gap_in_a_text_keeps_its_neighbours() {
    with_goldens(|tokenizer, goldens| {
        // The official prompt of this text ends with [gMASK] and <sop>; to fill the gap, <sop>
        // alone follows.
        let case = list(goldens, "chat")
            .iter()
            .find(|case| case["name"] == "special_in_query")
            .expect("the case");
        let mut expected = ids(&case["input_ids"]);
        expected.remove(expected.len() - 2);
        assert_eq!(fill_prompt(tokenizer, text(case, "query")).expect("a gap"), expected);
    });
}

#[test]
fn decomposed_characters_are_composed() {
    with_goldens(|tokenizer, _| {
        // NFKC maps whole sequences of characters: the longest must win over its own beginning.
        for (decomposed, composed) in
            [("a\u{323}\u{302}", "ậ"), ("\u{1112}\u{1161}\u{11ab}", "한"), ("ｶﾞ", "ガ")]
        {
            let found = tokenizer.encode(decomposed).expect("a short text");
            assert_eq!(found, tokenizer.encode(composed).expect("a short text"), "{composed}");
        }
    });
}

/// Ids of every kind: mostly any, and many bytes, markers and blanks, which depend on their
/// neighbours.
fn random_ids(size: u32, bytes: u32) -> impl Strategy<Value = Vec<u32>> {
    let id =
        prop_oneof![3 => 0..size, 2 => bytes..bytes + 256, 1 => 0_u32..40, 1 => bytes - 90..bytes];
    proptest::collection::vec(id, 0..80)
}

fn check_streams(tokenizer: &Tokenizer) {
    let bytes = tokenizer.id("<0x00>").expect("a piece for each byte");
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let outcome = runner.run(&random_ids(tokenizer.vocab_size() as u32, bytes), |ids| {
        let whole = tokenizer.decode(&ids).expect("known ids");
        prop_assert_eq!(streamed(TextStream::new(tokenizer), &ids), whole.as_str());
        prop_assert_eq!(streamed(TextStream::new(tokenizer).polished(), &ids), response(&whole));
        Ok(())
    });
    outcome.expect("streams join to the whole");
}

#[test]
fn streams_join_to_the_whole_text() {
    with_goldens(|tokenizer, _| check_streams(tokenizer));
    with_e2e(|tokenizer, _| check_streams(tokenizer));
}
