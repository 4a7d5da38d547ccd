//! All tokenizers and chat templates of the family, compared with recorded results of the official code, and on random text
//! with the crate `tokenizers`.

#![allow(missing_docs)]

mod common;

use glm_model::{
    Fill, Message, PromptOptions, Role, SpecialNames, Template, TextStream, Tokenizer, blank,
    fill_prompt, messages_from_json, offer_tools,
};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;

use std::path::Path;
use std::time::Instant;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

/// A tokenizer directory and the number of texts recorded for it.
const TOKENIZERS: [(&str, usize); 7] = [
    ("chatglm-6b", 170),
    ("chatglm2-6b", 170),
    ("chatglm3-6b", 170),
    ("glm-4-9b-chat", 170),
    ("glm-10b", 170),
    ("glm-10b-chinese", 170),
    ("glm-130b", 68),
];

/// Tokenizers that are defined completely by a `tokenizer.json`.
const TOKENIZER_JSON: [(&str, usize); 2] = [("glm-4.5", 178), ("glm-4.7-flash", 178)];

/// Small models with a reduced tokenizer and recorded conversations.
const MODELS: [(&str, usize); 4] = [
    ("e2e-chatglm-6b", 8),
    ("e2e-chatglm2-6b", 8),
    ("e2e-chatglm3-6b", 11),
    ("e2e-glm-4-9b-chat", 10),
];

/// A tokenizer, its template and its recorded results.
struct Case {
    name: &'static str,
    tokenizer: Tokenizer,
    template: Template,
    golden: Value,
}

impl Case {
    fn open(name: &'static str, dir: &Path, golden: &Path) -> Self {
        let tokenizer = Tokenizer::open(dir).unwrap_or_else(|e| panic!("{e}"));
        let template = Template::open(dir, &tokenizer).unwrap_or_else(|e| panic!("{e}"));
        let file = std::fs::read(golden).unwrap_or_else(|e| panic!("{}: {e}", golden.display()));
        let golden = serde_json::from_slice(&file).expect("valid JSON");
        Case { name, tokenizer, template, golden }
    }
}

/// Runs `test` with every tokenizer whose directory has more than a `tokenizer.json`.
fn each(test: impl Fn(&Case)) {
    TOKENIZERS.iter().for_each(|(name, _)| with(name, &test));
}

/// Runs `test` with all tokenizers.
fn each_of_all(test: impl Fn(&Case)) {
    TOKENIZERS.iter().chain(&TOKENIZER_JSON).for_each(|(name, _)| with(name, &test));
}

/// Runs `test` with one of them.
fn with(name: &'static str, test: impl Fn(&Case)) {
    let fixtures = common::shared().join("fixtures");
    let golden = fixtures.join("tokenizer_goldens").join(format!("{name}.json"));
    test(&Case::open(name, &fixtures.join("tokenizers").join(name), &golden));
}

/// Runs `test` with every small model.
fn each_model(test: impl Fn(&Case)) {
    for (name, count) in MODELS {
        let dir = common::shared().join("fixtures/models").join(name);
        let case = Case::open(name, &dir, &dir.join("golden_e2e.json"));
        assert_eq!(list(&case.golden, "cases").len(), count, "{name}");
        test(&case);
    }
}

/// The recorded list under `key`; empty if there is none.
fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("a list of ids")
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_else(|| panic!("no text {key} in {value}"))
}

/// Whether `key` has this value in the entry, or in the result of another version of transformers.
fn agrees(entry: &Value, key: &str, found: Value) -> bool {
    let entries = entry.as_object().into_iter().flatten();
    let mut others = entries.filter(|(name, _)| name.starts_with("transformers_"));
    entry[key] == found || others.any(|(_, other)| other[key] == found)
}

/// Streams ids and joins the pieces.
fn streamed(mut stream: TextStream, ids: &[u32]) -> String {
    let mut joined: String = ids.iter().map(|&id| stream.push(id).expect("a known id")).collect();
    joined.push_str(&stream.finish());
    joined
}

/// The conversation of a recorded case, which has one of three formats.
fn conversation(case: &Value) -> Vec<Message> {
    let message = |value: &Value| serde_json::from_value(value.clone()).expect("a message");
    if case.get("messages").is_some() {
        return list(case, "messages").iter().map(message).collect();
    }
    let mut messages: Vec<_> = list(case, "history").iter().map(message).collect();
    for turn in list(case, "turns") {
        let [question, answer] = [&turn[0], &turn[1]].map(|v| v.as_str().expect("text"));
        messages
            .extend([Message::new(Role::User, question), Message::new(Role::Assistant, answer)]);
    }
    let role = case.get("role").cloned().unwrap_or("user".into());
    let role = serde_json::from_value(role).expect("a role");
    messages.push(Message::new(role, text(case, "query")));
    messages
}

#[test]
#[ignore = "needs the shared tokenizer files; see .ci/run"]
fn encoding_matches_the_official_ids() {
    each_of_all(|Case { name, tokenizer, golden, .. }| {
        let texts = list(golden, "texts");
        let mut recorded = TOKENIZERS.iter().chain(&TOKENIZER_JSON);
        assert!(recorded.any(|t| *t == (*name, texts.len())), "{name}: {} texts", texts.len());
        for entry in texts {
            let found = tokenizer.encode(text(entry, "text")).expect("a short text");
            assert!(agrees(entry, "ids", found.clone().into()), "{name}: {entry}: {found:?}");
        }
    });
}

#[test]
#[ignore = "needs the shared tokenizer files; see .ci/run"]
fn decoding_matches_the_official_text() {
    each_of_all(|Case { name, tokenizer, golden, .. }| {
        for entry in list(golden, "texts").iter().chain(list(golden, "decode_only")) {
            let ids = ids(&entry["ids"]);
            let found = tokenizer.decode(&ids).expect("known ids");
            assert!(agrees(entry, "decoded", found.clone().into()), "{name}: {entry}: {found:?}");
            assert_eq!(streamed(TextStream::new(tokenizer), &ids), found);
        }
    });
}

#[test]
#[ignore = "needs the shared tokenizer files; see .ci/run"]
fn special_ids_are_the_official_ones() {
    each(|Case { name, tokenizer, golden, .. }| {
        let special = tokenizer.special();
        for (names, id) in golden["special_ids"].as_object().expect("special ids") {
            let id = id.as_u64().map(|id| id as u32);
            for piece in names.split('/').filter(|_| !names.starts_with("</")) {
                let found = match piece {
                    "eos" => special.ids.ends.last().copied(),
                    "<pad>" => special.pad,
                    _ => tokenizer.id(piece),
                };
                assert_eq!(found, id, "{name}: {piece}");
            }
        }
        let named = |names: [&str; 3]| names.iter().find_map(|name| tokenizer.id(name));
        assert_eq!(special.ids.mask, tokenizer.id("[MASK]"), "{name}");
        assert_eq!(special.ids.gmask, tokenizer.id("[gMASK]"), "{name}");
        assert_eq!(special.ids.sop, named(["sop", "<sop>", "<|startofpiece|>"]), "{name}");
        if golden.get("end_ids").is_some() {
            assert_eq!(special.ids.ends, ids(&golden["end_ids"]));
        }
    });
}

#[test]
#[ignore = "needs the shared tokenizer files; see .ci/run"]
fn special_ids_around_a_text_are_the_official_ones() {
    each(|Case { name, tokenizer, golden, .. }| {
        let (special, around) = (tokenizer.special(), &golden["add_special_tokens"]);
        let or_none = |key: &str| around.get(key).map_or(Vec::new(), ids);
        match around.get("empty") {
            Some(both) => {
                assert_eq!([&special.before[..], &special.after].concat(), ids(both), "{name}");
            }
            None => {
                assert_eq!(special.before, or_none("prefix"), "{name}");
                assert_eq!(special.after, or_none("suffix"), "{name}");
            }
        }
    });
}

#[test]
#[ignore = "needs the shared tokenizer files; see .ci/run"]
fn role_tokens_in_text_are_parsed_only_on_request() {
    with("chatglm3-6b", |Case { tokenizer, golden, .. }| {
        let texts = list(golden, "encode_special_tokens_option");
        assert_eq!(texts.len(), 3);
        for entry in texts {
            let text = text(entry, "text");
            assert_eq!(tokenizer.encode_with_roles(text).expect("short"), ids(&entry["ids"]));
            assert_ne!(tokenizer.encode(text).expect("short"), ids(&entry["ids"]));
        }
    });
}

/// Names of special ids of all models. In a message none of them becomes an id, except those of blanks and of thoughts.
const NAMES: &str = "<|user|><|system|><|assistant|><|observation|><sop>sop<eop>eop<|endoftext|><|startofpiece|>\
    <|endofpiece|>[CLS]<pad><unk><s></s><tool_call></tool_call><tool_response></tool_response><arg_key></arg_key>\
    <arg_value></arg_value><|begin_of_image|><|end_of_image|><|code_prefix|><|begin_of_box|>";

#[test]
#[ignore = "needs the shared tokenizer files; see .ci/run"]
fn names_in_messages_stay_text() {
    let mut options = PromptOptions::default();
    options.special_names = SpecialNames::Text;
    each_of_all(|Case { name, tokenizer, template, golden }| {
        let says = |role, text: &str| Message::new(role, text);
        let talk = |text: &str| match template.name() {
            "plain" => vec![says(Role::User, text)],
            "chatglm" | "chatglm2" => {
                [Role::User, Role::Assistant, Role::User].map(|role| says(role, text)).to_vec()
            }
            _ => [Role::System, Role::User, Role::Assistant, Role::Tool]
                .map(|role| says(role, text))
                .to_vec(),
        };
        let prompt = |messages: &[Message], options| {
            template.prompt_ids_with(tokenizer, messages, options).expect("a sound conversation")
        };
        let special =
            |ids: &[u32]| ids.iter().filter(|&&id| tokenizer.special_name(id).is_some()).count();
        let found = prompt(&talk(NAMES), options);
        assert_eq!(special(&found), special(&prompt(&talk("a"), options)), "{name}");
        let text = tokenizer.encode_as_text(NAMES).expect("a short text");
        assert_eq!(special(&text), 0, "{name}");
        if !["chatglm-6b", "glm-130b"].contains(name) {
            assert_eq!(tokenizer.decode(&text).expect("known ids"), NAMES, "{name}");
        }
        for entry in list(golden, "texts") {
            let said = self::text(entry, "text");
            let is_plain = !["<", "[Round", "问：", "答："].iter().any(|name| said.contains(name));
            if is_plain {
                let messages = talk(said);
                assert_eq!(
                    prompt(&messages, options),
                    prompt(&messages, PromptOptions::default()),
                    "{name}: {said}"
                );
            }
        }
    });
}

/// Conversations with thoughts, tools, calls and results, as transformers renders the templates of GLM-4.5 and later.
#[test]
#[ignore = "needs the shared tokenizer files; see .ci/run"]
fn chat_templates_give_the_prompts_of_transformers() {
    let fixtures = common::shared().join("fixtures");
    let file =
        std::fs::read(fixtures.join("templates/golden.json")).expect("recorded conversations");
    let golden: Value = serde_json::from_slice(&file).expect("valid JSON");
    let mut checked = 0;
    for (name, info) in golden["templates"].as_object().expect("templates") {
        let source =
            std::fs::read(fixtures.join("templates").join(text(info, "file"))).expect("a template");
        let tokenizer = Tokenizer::open(fixtures.join("tokenizers").join(text(info, "tokenizer")))
            .expect("a tokenizer");
        let template = Template::from_files(&[("chat_template.jinja", &source)], &tokenizer)
            .expect("a template");
        for case in list(&golden, "cases").iter().chain(list(&golden, "quirks")) {
            let options = case["kwargs"].as_object().expect("variables");
            // Here the role `developer` is read as `system`, and a result that is null as an empty one.
            let is_other = case["template"] != name.as_str()
                || case.get("error").is_some()
                || ["unknown_role", "result_null"].contains(&text(case, "name"));
            if is_other || options["add_generation_prompt"] != true {
                continue;
            }
            // Contents that are no text, and calls without `function`, are not those of OpenAI's API.
            let Ok(mut messages) = messages_from_json(&case["messages"].to_string()) else {
                continue;
            };
            if let Some(tools) = case.get("tools").filter(|tools| tools.is_array()) {
                offer_tools(&mut messages, tools.clone());
            }
            let mut prompt = PromptOptions::default();
            prompt.thinking = options.get("enable_thinking").and_then(Value::as_bool);
            prompt.clear_thinking = options.get("clear_thinking").and_then(Value::as_bool);
            let found = template.prompt_ids_with(&tokenizer, &messages, prompt);
            if name == "glm-4.5" && prompt.clear_thinking == Some(false) {
                // Its template always leaves old thoughts out. Transformers does not say so.
                assert!(found.expect_err("an error").to_string().contains("clear_thinking"));
                continue;
            }
            let found = found.expect("a sound conversation");
            assert_eq!(tokenizer.decode(&found).unwrap(), text(case, "rendered"), "{case}");
            assert_eq!(found, ids(&case["input_ids"]), "{case}");
            if case["name"] != "special_tokens_in_text" {
                prompt.special_names = SpecialNames::Text;
                let safe = template.prompt_ids_with(&tokenizer, &messages, prompt);
                assert_eq!(safe.expect("a sound conversation"), found, "{case}");
            }
            checked += 1;
        }
    }
    assert_eq!(checked, 57);
}

#[test]
#[ignore = "needs the shared tokenizer files; see .ci/run"]
fn batches_are_padded_on_the_left() {
    with("chatglm-6b", |Case { tokenizer, template, golden, .. }| {
        let batch = &golden["padded_batch"];
        assert_eq!(list(batch, "texts").len(), 2);
        for (text, padded) in list(batch, "texts").iter().zip(list(batch, "input_ids")) {
            let message = Message::new(Role::User, text.as_str().expect("text"));
            let found = template.prompt_ids(tokenizer, &[message]).expect("a question");
            let padded = ids(padded);
            let (padding, prompt) = padded.split_at(padded.len() - found.len());
            assert_eq!(found, prompt);
            assert!(padding.iter().all(|&id| Some(id) == tokenizer.special().pad));
        }
    });
}

/// Separates a prompt into its text and the JSON objects at the beginning of lines, which an older version of transformers wrote
/// with sorted keys and in ASCII.
fn tools_read(text: &str) -> (String, Vec<Value>) {
    let mut tools = Vec::new();
    let mut rest = String::new();
    for (i, part) in text.split("\n{\n").enumerate() {
        match part.split_once("\n}\n") {
            Some((json, after)) if i > 0 => {
                tools.push(serde_json::from_str(&format!("{{{json}}}")).expect("JSON"));
                rest.push_str(after);
            }
            _ => rest.push_str(part),
        }
    }
    (rest, tools)
}

/// Checks the prompt of a recorded conversation.
fn check_prompt(Case { name, tokenizer, template, .. }: &Case, case: &Value) {
    let messages = conversation(case);
    let prompt = template.text(&messages).expect("a sound conversation");
    let found = template.prompt_ids(tokenizer, &messages).expect("a sound conversation");
    let rendered = ["prompt", "rendered", "rendered_jinja"].map(|key| case.get(key));
    if let Some(expected) = rendered.into_iter().flatten().next() {
        let (prompt, expected) = (prompt.expect("a text"), expected.as_str().expect("a text"));
        assert_eq!(tools_read(&prompt), tools_read(expected), "{name}: {}", case["name"]);
        if prompt != expected {
            assert_eq!(case["name"], "tools_and_observation", "{name}");
            return assert_eq!(found, tokenizer.encode(&prompt).expect("short"));
        }
    }
    let expected = case.get("input_ids").unwrap_or(&case["input_ids_jinja"]);
    assert_eq!(found, ids(expected), "{name}: {}", case["name"]);
}

#[test]
#[ignore = "needs the shared tokenizer files; see .ci/run"]
fn conversations_give_the_official_prompts() {
    each(|case| {
        let chats = list(&case.golden, "chat");
        let count = match case.name {
            "chatglm-6b" | "chatglm2-6b" => 8,
            "chatglm3-6b" | "glm-4-9b-chat" => 11,
            _ => 0,
        };
        assert_eq!(chats.len(), count, "{}", case.name);
        chats.iter().for_each(|chat| check_prompt(case, chat));
    });
}

#[test]
#[ignore = "needs the shared tokenizer files; see .ci/run"]
fn glm4_needs_no_template_file() {
    with("glm-4-9b-chat", |case| {
        assert_eq!(case.template.name(), "chat_template");
        let named = Template::named("glm4").expect("a template");
        for chat in list(&case.golden, "chat") {
            let messages = conversation(chat);
            assert_eq!(named.text(&messages).unwrap(), case.template.text(&messages).unwrap());
        }
    });
}

#[test]
#[ignore = "needs the shared tokenizer files; see .ci/run"]
fn tools_have_the_official_format() {
    with("glm-4-9b-chat", |Case { tokenizer, template, golden, .. }| {
        let case = list(golden, "chat").last().expect("cases");
        let prompt = template.text(&conversation(case)).unwrap().expect("a text");
        // The original code has another name for the model and an additional empty line.
        let official = tokenizer.decode(&ids(&case["input_ids_python_method"])).expect("known ids");
        let json = |text: &str| {
            let start = text.find("{\n").expect("an object");
            text[start..start + text[start..].find("\n}\n").expect("its end")].to_owned()
        };
        assert_eq!(json(&prompt), json(&official));
    });
}

#[test]
#[ignore = "needs the shared tokenizer files; see .ci/run"]
fn small_models_have_the_official_prompts_and_answers() {
    each_model(|case| {
        let Case { name, tokenizer, template, golden } = case;
        assert_eq!(
            template.stop_ids(tokenizer),
            golden.get("stop_ids").map_or(tokenizer.special().ids.ends.clone(), ids),
            "{name}"
        );
        for entry in list(golden, "cases") {
            check_prompt(case, entry);
            let output = ids(&entry["output_ids"]);
            let decoded = tokenizer.decode(&output).expect("known ids");
            assert_eq!(decoded, text(entry, "decoded"), "{name}");
            assert_eq!(streamed(TextStream::new(tokenizer), &output), decoded, "{name}");
            if let Some(expected) = entry.get("response") {
                assert_eq!(template.response(&decoded), expected.as_str().expect("a text"));
            }
            // Results recorded without postprocessing are postprocessed here.
            let said = ["response", "decoded_skip_special"].map(|key| entry.get(key));
            if let Some(expected) = said.into_iter().flatten().next() {
                let expected = template.response(expected.as_str().expect("a text"));
                assert_eq!(streamed(template.stream(tokenizer), &output), expected, "{name}");
            }
        }
    });
}

#[test]
#[ignore = "needs the shared tokenizer files; see .ci/run"]
fn blanks_keep_the_surrounding_text() {
    with("chatglm-6b", |Case { tokenizer, golden, .. }| {
        // The official prompt of this text ends with [gMASK] and <sop>; to fill the gap, <sop>
        // alone follows.
        let mut chats = list(golden, "chat").iter();
        let case = chats.find(|case| case["name"] == "special_in_query").expect("the case");
        let mut expected = ids(&case["input_ids"]);
        expected.remove(expected.len() - 2);
        assert_eq!(fill_prompt(tokenizer, text(case, "query")).expect("a gap"), expected);
    });
}

#[test]
#[ignore = "needs the shared tokenizer files; see .ci/run"]
fn original_glms_have_the_official_prompts() {
    for name in ["glm-10b", "glm-10b-chinese"] {
        with(name, |Case { tokenizer, template, golden, .. }| {
            assert_eq!(list(golden, "infilling").len(), 5);
            for entry in list(golden, "infilling") {
                let text = text(entry, "text");
                let found = fill_prompt(tokenizer, text).expect("a gap");
                assert_eq!(found, ids(&entry["input_ids"]), "{name}: {text}");
                let message = [Message::new(Role::User, text)];
                assert_eq!(template.prompt_ids(tokenizer, &message).expect("a gap"), found);
                // The leftmost mask of any kind is filled.
                let first = text.find("MASK]").expect("a mask");
                let kind = blank(tokenizer, text).expect("a gap").name();
                assert!(text[..first + 5].ends_with(kind), "{text}: {kind}");
            }
            assert!(fill_prompt(tokenizer, "no gap").is_err());
            let continued = template.prompt_ids(tokenizer, &[Message::new(Role::User, "x")]);
            let special = tokenizer.special();
            let tail = [special.ids.gmask, special.after.first().copied(), special.ids.sop];
            assert!(continued.expect("a text").ends_with(&tail.map(Option::unwrap)));
        });
    }
}

#[test]
#[ignore = "needs the shared tokenizer files; see .ci/run"]
fn glm130b_blanks_match_the_official_code() {
    with("glm-130b", |Case { tokenizer, golden, .. }| {
        let prompts = list(golden, "prompts");
        assert_eq!(prompts.len(), 12);
        for entry in prompts {
            let text = text(entry, "text");
            let mut fill = Fill::new(tokenizer, text).expect("a prompt");
            let steps = list(entry, "steps");
            assert!(!steps.is_empty());
            for step in steps {
                assert_eq!(fill.prompt(), Some(ids(&step["input_ids"])), "{text}");
                fill.fill(tokenizer, &ids(&entry["filled_with_ids"])).expect("an answer");
            }
            assert_eq!(fill.prompt(), None, "{text}");
            assert_eq!(fill.text(tokenizer).expect("known ids"), entry["answer"]);
        }
    });
}

#[test]
#[ignore = "needs the shared tokenizer files; see .ci/run"]
fn causal_models_refuse_blanks() {
    for name in ["chatglm2-6b", "chatglm3-6b", "glm-4-9b-chat"] {
        with(name, |Case { tokenizer, .. }| {
            let error = fill_prompt(tokenizer, "a [MASK] b").expect_err("no such thing");
            assert!(error.to_string().contains("fills no blanks"), "{error}");
        });
    }
}

#[test]
#[ignore = "needs the shared tokenizer files; see .ci/run"]
fn decomposed_characters_are_composed() {
    with("chatglm-6b", |Case { tokenizer, .. }| {
        // NFKC maps whole sequences of characters: the longest must win over its own beginning.
        for (decomposed, composed) in
            [("a\u{323}\u{302}", "ậ"), ("\u{1112}\u{1161}\u{11ab}", "한"), ("ｶﾞ", "ガ")]
        {
            let found = tokenizer.encode(decomposed).expect("a short text");
            assert_eq!(found, tokenizer.encode(composed).expect("a short text"), "{composed}");
        }
    });
}

/// Random ids, with more weight on the first and last ids, which include bytes, markers and special ids.
fn random_ids(size: u32) -> impl Strategy<Value = Vec<u32>> {
    let id = prop_oneof![3 => 0..size, 2 => 0..size.min(300), 2 => size - size.min(360)..size];
    proptest::collection::vec(id, 0..80)
}

fn check_streams(Case { name, tokenizer, template, .. }: &Case) {
    let mut runner = TestRunner::deterministic();
    let outcome = runner.run(&random_ids(tokenizer.vocab_size() as u32), |ids| {
        let whole = tokenizer.decode(&ids).expect("known ids");
        prop_assert_eq!(streamed(TextStream::new(tokenizer), &ids), whole.as_str());
        if *name == "chatglm-6b" {
            prop_assert_eq!(streamed(template.stream(tokenizer), &ids), template.response(&whole));
        }
        Ok(())
    });
    outcome.unwrap_or_else(|e| panic!("{name}: {e}"));
}

#[test]
#[ignore = "needs the shared tokenizer files; see .ci/run"]
fn streamed_pieces_join_to_the_whole_text() {
    each(check_streams);
    each_model(check_streams);
}

#[test]
#[ignore = "needs the shared tokenizer files; see .ci/run"]
fn long_words_take_linear_time() {
    each(|Case { name, tokenizer, .. }| {
        for unit in ["a", " ", "的", "=", "𠀀"] {
            let long = unit.repeat((1 << 18) / unit.len());
            let started = Instant::now();
            let ids = tokenizer.encode(&long).expect("not too long");
            // Takes about a second; quadratic time would be many minutes.
            assert!(started.elapsed().as_secs() < 60, "{name}: {unit:?}");
            assert!(ids.len() <= long.len() + 1, "{name}: {unit:?}");
        }
    });
}

/// Text of many scripts, with characters that tokenizers often split differently: combining marks, emoji sequences, control characters,
/// white space, digits, contractions, and names of special tokens, complete and truncated.
fn random_text() -> impl Strategy<Value = String> {
    let script = select(vec![
        ('!', '~'),
        ('\u{0}', '\u{1f}'),
        ('\u{7f}', '\u{a0}'),
        ('¡', 'ɏ'),
        ('\u{300}', '\u{36f}'),
        ('Ͱ', 'Ͽ'),
        ('Ѐ', 'ӿ'),
        ('\u{590}', '\u{6ff}'),
        ('\u{900}', '\u{97f}'),
        ('\u{e00}', '\u{e7f}'),
        ('\u{1100}', '\u{11ff}'),
        ('\u{2000}', '\u{206f}'),
        ('\u{3000}', '\u{30ff}'),
        ('一', '鿿'),
        ('가', '힣'),
        ('\u{fe00}', '\u{ffff}'),
        ('\u{1d7ce}', '\u{1d7ff}'),
        ('\u{1f1e6}', '\u{1faff}'),
        ('\u{20000}', '\u{2a6df}'),
    ]);
    let run = script.prop_flat_map(|(first, last)| {
        proptest::collection::vec(proptest::char::range(first, last), 1..6)
    });
    let whole = select(vec![
        "<|user|>",
        "<|assistant|>",
        "[gMASK]",
        "[MASK]",
        "<sop>",
        "<|endoftext|>",
        "<think>",
        "</think>",
        "/nothink",
        "<tool_call>",
        "<|begin_of_image|>",
        "<|USER|>",
        "< |user|>",
        "[gmask]",
    ]);
    let cut = (whole.clone(), any::<prop::sample::Index>());
    let sequence = select(vec![
        "'s",
        "'LL",
        "'ſ",
        "it's",
        "e\u{301}",
        "👨‍👩‍👧",
        "👍🏽",
        "🇨🇳",
        "1234567",
        "１２",
        "٣",
        "½",
        "\r\n",
        "\n\n",
        "\t",
        "  ",
        "   ",
        "\u{85}",
        "\u{2028}",
        "\u{3000}",
        "\u{feff}",
        "ǅ",
        "ﬁ",
        "=====",
        "    return",
        "你好，世界！",
    ]);
    let part = prop_oneof![
        3 => run.prop_map(String::from_iter),
        1 => any::<char>().prop_map(String::from),
        1 => whole.prop_map(String::from),
        1 => cut.prop_map(|(name, at)| name[..at.index(name.len())].to_owned()),
        2 => sequence.prop_map(String::from),
        1 => "[a-zA-Z]{1,12}",
        1 => " {1,3}",
    ];
    proptest::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

/// Compares our ids with those of the crate `tokenizers`, on texts without the added tokens `unknown`, which only one of the two
/// has.
fn check_against(
    oracle: &tokenizers::Tokenizer,
    name: &str,
    tokenizer: &Tokenizer,
    unknown: &[String],
) {
    let mut runner =
        TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(3000) });
    let outcome = runner.run(&random_text(), |text| {
        let cut = |text: String, name: &String| text.replace(name, &name[..name.len() - 1]);
        let text = unknown.iter().fold(text, cut);
        prop_assume!(!unknown.iter().any(|name| text.contains(name)));
        let expected = oracle.encode_fast(text.as_str(), false).expect("a short text");
        let found = tokenizer.encode(&text).expect("a short text");
        prop_assert_eq!(&found[..], expected.get_ids(), "{:?}", text);
        Ok(())
    });
    outcome.unwrap_or_else(|e| panic!("{name}: {e}"));
}

/// The crate reads the whole file: its own splitting, with another regex engine, and its own search for added tokens.
fn oracle(name: &str) -> tokenizers::Tokenizer {
    let file = common::shared().join("fixtures/tokenizers").join(name).join("tokenizer.json");
    tokenizers::Tokenizer::from_file(file).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
#[ignore = "needs the shared tokenizer files; see .ci/run"]
fn random_text_has_the_ids_of_the_crate_tokenizers() {
    for (name, _) in TOKENIZER_JSON {
        with(name, |case| check_against(&oracle(name), name, &case.tokenizer, &[]));
    }
}

/// GLM-4.5 has the vocabulary of GLM-4, with merges instead of ranks, and more added tokens.
#[test]
#[ignore = "needs the shared tokenizer files; see .ci/run"]
fn ranks_give_the_same_ids_as_merges() {
    let oracle = oracle("glm-4.5");
    let added = oracle.get_added_tokens_decoder();
    let later: Vec<_> = added
        .iter()
        .filter(|(id, _)| **id > 151_342)
        .map(|(_, token)| token.content.clone())
        .collect();
    assert!(later.contains(&"<think>".to_owned()));
    with("glm-4-9b-chat", |case| {
        check_against(&oracle, case.name, &case.tokenizer, &later);
    });
}

#[test]
#[ignore = "needs the shared tokenizer files; see .ci/run"]
fn gpt2_files_give_the_ids_of_the_crate_tokenizers() {
    let dir = common::shared().join("fixtures/tokenizers/glm-10b");
    let [vocab, merges] =
        ["vocab.json", "merges.txt"].map(|file| dir.join(file).display().to_string());
    let model = BPE::from_file(&vocab, &merges).build().expect("sound files");
    let mut oracle = tokenizers::Tokenizer::new(model);
    oracle.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    with("glm-10b", |case| {
        let names = ["[MASK]", "[gMASK]", "[sMASK]", "[CLS]", "<|endoftext|>"];
        let added = names.map(String::from);
        check_against(&oracle, case.name, &case.tokenizer, &added);
    });
}
