use super::*;
use crate::text::chat::{Message, PromptOptions, Role};
use crate::text::stream::TextStream;
use crate::text::tokenizer::testing::{tokenizers, vocab};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde_json::json;
use std::sync::LazyLock;
use std::time::Duration;

/// Ids that no answer needs more of.
const MOST: usize = 4000;

/// Answers at random: each id is one of those that may come next, and the end is taken where it may be. Returns the text, and
/// whether it is complete.
fn answer(
    tokenizer: &Tokenizer,
    mut state: GrammarConstraint,
    ends: &[u32],
    seed: u64,
) -> (String, bool) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut stream = TextStream::new(tokenizer).without_special();
    let mut text = String::new();
    for _ in 0..MOST {
        let mut allowed = IdSet::new(tokenizer.vocab_size());
        assert!(state.allowed(&mut allowed).expect("within the limits"));
        let ids: Vec<_> =
            (0..tokenizer.vocab_size() as u32).filter(|&id| allowed.contains(id)).collect();
        assert!(!ids.is_empty(), "nothing may follow {text:?}");
        if ids.iter().any(|id| ends.contains(id)) {
            return (text + &stream.finish(), true);
        }
        let id = ids[rng.next_u32() as usize % ids.len()];
        state.accept(id).expect("an id of the mask");
        text += &stream.push(id).expect("a known id");
    }
    (text, false)
}

/// Tags of GLM-4.5 as tokens, roles and an end.
static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let names = [
        "<|user|>",
        "<|observation|>",
        "<|assistant|>",
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<arg_key>",
        "</arg_key>",
        "<arg_value>",
        "</arg_value>",
    ];
    let token = |(id, name): (u32, &&str)| json!({ "id": id, "content": name, "special": name.contains('|') });
    let vocab: Value = serde_json::from_str(&vocab(&["ab", "{\""])).expect("JSON");
    let file = json!({
        "model": { "type": "BPE", "vocab": vocab, "merges": ["a b", "{ \""] },
        "decoder": { "type": "ByteLevel" }, "added_tokens": (300..).zip(&names).map(token).collect::<Value>(),
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "use_regex": false },
    });
    let settings = br#"{"eos_token": "<|user|>"}"#;
    Tokenizer::from_files(&[
        ("tokenizer.json", file.to_string().as_bytes()),
        ("tokenizer_config.json", settings),
    ])
    .expect("a sound file")
});

/// A template that thinks and calls tools as GLM-4.5 does; and one that calls them as GLM-4 does.
const THINKING: &str = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ m.tool_calls }}{% endfor %}\
    {# <arg_key>k</arg_key>\n<arg_value>v</arg_value> </think> #}<|assistant|>{{ '<think>' if enable_thinking }}";
const METADATA: &str = "{% for m in messages %}<|{{ m.role }}|>{{ m.metadata }}\n{{ m.content }}{% endfor %}<|assistant|>";

fn jinja(source: &str) -> Template {
    Template::from_files(&[("chat_template.jinja", source.as_bytes())], &TOKENIZER)
        .expect("a template")
}

fn causal() -> &'static Tokenizer {
    tokenizers()
        .iter()
        .find(|t| t.id("<|observation|>").is_some())
        .expect("the tokenizer of ChatGLM3")
}

/// A tokenizer, the template of its model, and a prompt.
struct Model {
    tokenizer: &'static Tokenizer,
    template: Template,
    prompt: Vec<u32>,
    ends: Vec<u32>,
    compiler: GrammarCompiler,
}

/// ChatGLM-6B, ChatGLM3, GLM-4, and GLM-4.5 without thoughts and with.
static MODELS: LazyLock<[Model; 5]> = LazyLock::new(|| {
    let named = |name| Template::named(name).expect("a template");
    let prompt = |thinking| {
        let options = PromptOptions { thinking: Some(thinking), ..PromptOptions::default() };
        let question = [Message::new(Role::User, "a")];
        jinja(THINKING).prompt_ids_with(&TOKENIZER, &question, options).expect("a prompt")
    };
    let model = |tokenizer, template: Template, prompt| {
        let ends = template.stop_ids(tokenizer);
        let compiler = GrammarCompiler::new(tokenizer, &template, &ends).expect("a compiler");
        Model { tokenizer, template, prompt, ends, compiler }
    };
    [
        model(crate::text::tokenizer::testing::tokenizer(), named("chatglm"), vec![]),
        model(causal(), named("chatglm3"), vec![]),
        model(&TOKENIZER, jinja(METADATA), vec![]),
        model(&TOKENIZER, jinja(THINKING), prompt(false)),
        model(&TOKENIZER, jinja(THINKING), prompt(true)),
    ]
});

/// An answer at random, as the parser of answers gives it: thoughts, text, and calls.
fn parsed(
    Model { tokenizer, template, prompt, ends, compiler }: &Model,
    grammar: &Grammar,
    tools: Option<&Value>,
    seed: u64,
) -> (String, Vec<(String, Value)>, bool) {
    use crate::text::chat::AnswerEvent::{CallArguments, CallEnd, CallStart, Reasoning, Text};
    let state = compiler.compile(grammar, tokenizer, prompt).expect("a sound grammar");
    let (answer, is_complete) = answer(tokenizer, state, ends, seed);
    let parser = template.answer_parser(tokenizer, prompt, tools, "");
    let mut parser = parser.without_calls_after_text();
    let mut events = parser.push(&answer);
    events.extend(parser.finish());
    let (mut text, mut calls, mut ended) = (String::new(), Vec::new(), 0);
    for event in events {
        match event {
            Reasoning(_) => {}
            Text(piece) => text += &piece,
            CallStart { name, .. } => calls.push((name, String::new())),
            CallArguments { index, piece } => calls[index].1 += &piece,
            CallEnd { .. } => ended += 1,
        }
    }
    assert!(!is_complete || ended == calls.len(), "{answer}");
    let read = |(name, arguments): (String, String)| {
        (name, serde_json::from_str(&arguments).unwrap_or(Value::Null))
    };
    (text, calls.into_iter().map(read).collect(), is_complete)
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 6 },
            "age": { "type": "integer", "minimum": 0, "maximum": 150 },
            "kind": { "enum": ["猫", "dog", null] },
            "tags": { "type": "array", "items": { "$ref": "#/$defs/tag" }, "maxItems": 3 },
        },
        "required": ["name", "kind"],
        "additionalProperties": false,
        "$defs": { "tag": { "type": "object", "properties": { "x": { "type": "boolean" } }, "required": ["x"], "additionalProperties": false } },
    })
}

/// Whether JSON is what [`schema`] describes.
fn fits(value: &Value) -> bool {
    let fields = value.as_object().expect("an object");
    fields.keys().all(|name| ["name", "age", "kind", "tags"].contains(&name.as_str()))
        && fields["name"].as_str().is_some_and(|name| name.chars().count() <= 6)
        && fields.get("age").is_none_or(|age| age.as_u64().is_some_and(|age| age <= 150))
        && ["猫", "dog"]
            .map(Value::from)
            .iter()
            .chain([&Value::Null])
            .any(|kind| *kind == fields["kind"])
        && fields.get("tags").is_none_or(|tags| {
            let tags = tags.as_array().expect("a list");
            tags.len() <= 3
                && tags.iter().all(|tag| {
                    tag.as_object().is_some_and(|tag| tag.len() == 1 && tag["x"].is_boolean())
                })
        })
}

#[test]
fn every_answer_is_json_that_the_schema_describes() {
    let grammar = Grammar::json_schema(&schema()).unwrap();
    let mut complete = 0;
    for (i, model) in MODELS.iter().enumerate() {
        for seed in 0..12 {
            let (text, _, is_complete) = parsed(model, &grammar, None, seed);
            // Only thoughts have no end.
            assert!(is_complete || i >= 3, "{i}: {text:?}");
            if is_complete {
                let value =
                    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{i}: {e}: {text:?}"));
                assert!(fits(&value), "{value}");
                complete += 1;
            }
        }
    }
    assert!(complete >= 3 * 12, "{complete}");
}

fn tools() -> Value {
    json!([
        { "type": "function", "function": { "name": "get_weather", "parameters": { "type": "object", "properties": {
            "city": { "type": "string", "enum": ["北京", "O'Hare"] }, "days": { "type": "integer" }, "fine": { "type": "boolean" },
            "unit": { "enum": ["c", 5, null] },
            "where": { "type": "array", "items": { "type": "integer" }, "maxItems": 3 } }, "required": ["city", "fine"] } } },
        { "name": "now" },
    ])
}

#[test]
fn a_call_that_is_forced_is_a_call() {
    let tools = tools();
    for model in &MODELS[1..] {
        for name in [None, Some("get_weather"), Some("now")] {
            let grammar = Grammar::call(&tools, name).unwrap();
            let mut complete = 0;
            for seed in 0..10 {
                let (text, calls, is_complete) = parsed(model, &grammar, Some(&tools), seed);
                if !is_complete {
                    continue;
                }
                complete += 1;
                assert!(text.trim().is_empty() && !calls.is_empty(), "{text:?} {calls:?}");
                for (called, arguments) in calls {
                    assert!(name.is_none_or(|name| name == called), "{called}");
                    if called == "now" {
                        assert!(arguments.is_object());
                        continue;
                    }
                    let city = arguments["city"].as_str().expect("a city");
                    assert!(
                        ["北京", "O'Hare"].contains(&city) && arguments["fine"].is_boolean(),
                        "{arguments}"
                    );
                    let is_whole =
                        |days: &Value| days.as_f64().is_some_and(|days| days.fract() == 0.0);
                    assert!(arguments.get("days").is_none_or(is_whole), "{arguments}");
                    assert!(arguments.get("where").is_none_or(Value::is_array), "{arguments}");
                    assert!(arguments.get("unit").is_none_or(|unit| {
                        json!(["c", 5, null]).as_array().unwrap().contains(unit)
                    }));
                }
            }
            assert!(complete > 0, "{name:?}");
        }
    }
    let Model { tokenizer, prompt, compiler, .. } = &MODELS[0];
    let call = Grammar::call(&tools, None).unwrap();
    let error = compiler.compile(&call, tokenizer, prompt).unwrap_err();
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        ("grammar", "this model has no form for calls of tools")
    );
}

#[test]
fn an_answer_is_a_call_or_follows_the_grammar() {
    let tools = tools();
    let lark = "start: \"<tool_call>\" /[a-c]{1,3}/ \"\\n{}\"";
    let is_lark = |text: &str| {
        text.strip_prefix("<tool_call>").and_then(|rest| rest.strip_suffix("\n{}")).is_some()
    };
    for (i, model) in MODELS.iter().enumerate() {
        for is_json in [true, false] {
            let grammar =
                if is_json { Grammar::json_schema(&schema()) } else { Grammar::lark(lark) };
            let grammar = grammar.unwrap().or_call(&tools).unwrap();
            let [mut texts, mut called] = [0; 2];
            for seed in 0..20 {
                let (text, calls, is_complete) = parsed(model, &grammar, Some(&tools), seed);
                if !is_complete {
                    continue;
                }
                let text = text.trim();
                match calls.is_empty() {
                    true if is_json => {
                        let value = serde_json::from_str(text);
                        assert!(fits(&value.unwrap_or_else(|e| panic!("{i}: {e}: {text:?}"))));
                        texts += 1;
                    }
                    true => {
                        assert!(is_lark(text), "{i}: {text:?}");
                        texts += 1;
                    }
                    false => {
                        assert_eq!(text, "", "{i}: {calls:?}");
                        called += 1;
                    }
                }
            }
            assert!(texts > 0, "{i}");
            // ChatGLM-6B has no form for calls.
            assert_eq!(called > 0, i > 0, "{i}");
        }
    }
    // The schemas are counted together.
    let fields: serde_json::Map<_, _> =
        (0..600).map(|i| (format!("p{i}"), json!({ "type": "string" }))).collect();
    let options: Vec<_> = (0..700).map(|i| json!({ "const": i })).collect();
    let half = json!({ "allOf": [{ "properties": fields }, { "anyOf": options }] });
    let tools = json!([{ "name": "f", "parameters": half }]);
    assert!(Grammar::json_object().or_call(&tools).is_ok());
    assert!(Grammar::json_schema(&half).unwrap().or_call(&tools).is_err());
    assert!(Grammar::json_object().or_call(&json!([])).is_err());
}

#[test]
fn expressions_and_grammars_of_lark_are_followed() {
    let model = &MODELS[2];
    for seed in 0..5 {
        let regex = Grammar::regex("[a-c]{2,4}(!|\\?)").unwrap();
        let (text, ..) = parsed(model, &regex, None, seed);
        let text = text.trim();
        assert!((3..=5).contains(&text.len()) && text.ends_with(['!', '?']), "{text}");
        let lark =
            Grammar::lark("start: sum\nsum: NUMBER (\"+\" NUMBER){1,3}\nNUMBER: /[0-9]{1,3}/")
                .unwrap();
        let (text, ..) = parsed(model, &lark, None, seed);
        let numbers: Vec<_> = text.trim().split('+').map(str::parse::<u32>).collect();
        assert!((2..=4).contains(&numbers.len()) && numbers.iter().all(Result::is_ok), "{text}");
        // The way to write what a grammar cannot contain.
        let lark = Grammar::lark(r#"start: "\u0025json" /\u0025json/"#).unwrap();
        assert_eq!(parsed(model, &lark, None, seed).0.trim(), "%json%json");
    }
}

/// Every text is a sentence in a number of ways that grows without bounds.
const AMBIGUOUS: &str = "start: s\ns: s s | s s s | \"a\" | \"b\"\n";

/// A compiler for [`AMBIGUOUS`] with these limits, and the state of an answer.
fn ambiguous(limits: TimeLimits) -> (GrammarCompiler, GrammarConstraint) {
    let Model { tokenizer, template, prompt, ends, .. } = &MODELS[2];
    let compiler = GrammarCompiler::with_limits(tokenizer, template, ends, limits).unwrap();
    let grammar = Grammar::lark(AMBIGUOUS).unwrap();
    let state = compiler.compile(&grammar, tokenizer, prompt).unwrap();
    (compiler, state)
}

/// Takes one more token.
fn follow(state: &mut GrammarConstraint) -> Result<()> {
    let Model { tokenizer, .. } = &MODELS[2];
    let a = tokenizer.encode("a").unwrap().last().copied().unwrap();
    let mut allowed = IdSet::new(tokenizer.vocab_size());
    state.allowed(&mut allowed)?;
    let first = (0..tokenizer.vocab_size() as u32).find(|&id| allowed.contains(id));
    state.accept(if allowed.contains(a) { a } else { first.unwrap() })
}

#[test]
fn a_grammar_that_takes_too_long_fails() {
    let [token, answers] = [Duration::from_millis(20), Duration::from_secs(3600)];
    let (_, mut state) = ambiguous(TimeLimits { token, answers, more: Duration::ZERO });
    let other = state.clone();
    let error = (0..2000).find_map(|_| follow(&mut state).err()).expect("too much work");
    assert_eq!(error.code(), "grammar");
    assert!(error.to_string().ends_with("one token took longer than 0.02 s"), "{error}");
    // It stays so, and what others follow goes on, unless the system lets the thread wait each time.
    assert_eq!(follow(&mut state).unwrap_err().to_string(), error.to_string());
    assert!((0..100).any(|_| follow(&mut other.clone()).is_ok()));
}

#[test]
fn the_answers_of_a_request_have_a_time_together() {
    let [token, answers, more] =
        [Duration::from_secs(3600), Duration::from_millis(200), Duration::from_micros(1)];
    let (compiler, mut state) = ambiguous(TimeLimits { token, answers, more });
    let mut choice = state.clone();
    let error = (0..2000).find_map(|_| follow(&mut state).err()).expect("too much work");
    assert_eq!(error.code(), "grammar");
    let problem = "the answers took longer than 0.2 s and 0.000001 s for each token";
    assert!(error.to_string().ends_with(problem), "{error}");
    assert_eq!(follow(&mut choice).unwrap_err().to_string(), error.to_string());
    // Another request has its own.
    let Model { tokenizer, prompt, .. } = &MODELS[2];
    let mut other =
        compiler.compile(&Grammar::lark(AMBIGUOUS).unwrap(), tokenizer, prompt).unwrap();
    other.allowed(&mut IdSet::new(tokenizer.vocab_size())).unwrap();
}

#[test]
fn a_grammar_that_takes_too_many_steps_fails() {
    let Model { tokenizer, prompt, compiler, .. } = &MODELS[0];
    // The state of the lexer tells which of the last characters were `a`.
    let grammar = Grammar::lark("start: /(.|\\n)*a(.|\\n){40}x/").unwrap();
    let mut state = compiler.compile(&grammar, tokenizer, prompt).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let ids = ["a", "b"].map(|text| tokenizer.encode(text).unwrap().last().copied().unwrap());
    let error = (0..20_000).find_map(|_| {
        let mut allowed = IdSet::new(tokenizer.vocab_size());
        let next = state.allowed(&mut allowed);
        next.and_then(|_| state.accept(ids[rng.next_u32() as usize % 2])).err()
    });
    let error = error.expect("too many states").to_string();
    assert!(error.contains("too much work to follow: lexer error: too many states"), "{error}");
    assert_eq!(error.lines().count(), 1);
}

#[test]
fn the_same_choices_give_the_same_text() {
    let model = &MODELS[1];
    let grammar = Grammar::json_object();
    let text = |seed| parsed(model, &grammar, None, seed).0;
    assert_eq!(text(3), text(3));
    assert_ne!(text(3), text(4));
}

#[test]
fn what_cannot_be_followed_is_an_error() {
    let Model { tokenizer, template, prompt, compiler, .. } = &MODELS[0];
    let compile = |grammar: Result<Grammar>| {
        let shown = format!("{grammar:.200?}");
        let compiled = grammar.and_then(|grammar| compiler.compile(&grammar, tokenizer, prompt));
        let error = compiled.expect_err(&shown);
        assert_eq!(error.code(), "grammar");
        error.to_string()
    };
    let deep =
        |open: &str, close: &str| open.repeat(MAX_DEPTH + 2) + "1" + &close.repeat(MAX_DEPTH + 2);
    for (schema, problem) in [
        (json!({ "type": "strin" }), "strin"),
        (json!(false), "nsatisfiable"),
        (json!({ "type": "string", "pattern": "(" }), "regex"),
        (json!({ "$ref": "#/nowhere" }), "nowhere"),
        (json!({ "$ref": "http://localhost/" }), "localhost"),
        (json!({ "not": {} }), "not"),
        (json!(5), "schema"),
        (json!({ "description": "x".repeat(MAX_SOURCE) }), "bytes"),
        (serde_json::from_str(&deep("[", "]")).unwrap(), "deeper"),
    ] {
        let error = compile(Grammar::json_schema(&schema));
        assert!(error.contains(problem), "{problem}: {error}");
    }
    for (lark, problem) in [
        ("", "grammar"),
        ("a: b", "start"),
        ("start: nothing", "nothing"),
        ("start: \"a", ""),
        (&*format!("start: {}", deep("(", ")")), "deeper"),
        (&*"a".repeat(MAX_SOURCE + 1), "bytes"),
        ("start: \"a\" %json {\"allOf\": []}", "JSON schema in place"),
        ("start: %lark {\nstart: x\nx: %json{}\n}", "JSON schema in place"),
    ] {
        let error = compile(Grammar::lark(lark));
        assert!(error.contains(problem), "{lark:.40}: {error}");
    }
    // A long chain of rules, which the compiler follows one by one.
    let chain: String = (0..10_000).map(|i| format!("a{i}: a{}\n", i + 1)).collect();
    let chain = Grammar::lark(&format!("start: a0\n{chain}a10000: \"x\"\n")).unwrap();
    let _ = compiler.compile(&chain, tokenizer, prompt);
    assert!(compile(Grammar::regex("(")).contains("regex"));
    assert!(Grammar::call(&json!([]), None).is_err());
    let nothing = |name: &str| Grammar::call(&tools(), Some(name)).unwrap_err().to_string();
    assert!(nothing("nothing").contains("\"nothing\""));
    assert!(nothing(&"无".repeat(5000)).chars().count() < 100);
    let named = json!([{ "name": "g".repeat(5000), "parameters": { "properties": { "<".repeat(5000): {} } } }]);
    let model = &MODELS[1];
    let error = model.compiler.compile(
        &Grammar::call(&named, None).unwrap(),
        model.tokenizer,
        &model.prompt,
    );
    assert!(error.unwrap_err().to_string().len() < 200);
    assert!(GrammarCompiler::new(tokenizer, template, &[]).is_err());
    assert!(GrammarCompiler::new(tokenizer, template, &[1 << 20]).is_err());
}
