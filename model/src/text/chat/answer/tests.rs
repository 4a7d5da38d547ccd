use super::*;
use crate::limits::answer::MAX_DEPTH;
use proptest::prelude::*;
use serde_json::{Value, json};

const TAGS: CallForm = CallForm::Tags { compact: false };

fn tools() -> Value {
    json!([
        { "type": "function", "function": { "name": "get_weather", "parameters": { "type": "object", "properties": {
            "city": { "type": "string" }, "days": { "type": "integer" }, "any": {},
            "maybe": { "anyOf": [{ "type": "string" }, { "type": "null" }] } } } } },
        { "name": "now" },
    ])
}

fn parser(form: CallForm, thoughts: Thoughts) -> AnswerParser {
    let calls = Some((form, Offered::new(&tools())));
    AnswerParser::new(Expects { calls, thoughts }, "call_".to_owned())
}

/// What is left of an answer if its pieces are joined.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
struct Answer {
    reasoning: String,
    text: String,
    /// Name, arguments, and whether the call is complete.
    calls: Vec<(String, String, bool)>,
}

impl Answer {
    fn add(&mut self, event: AnswerEvent) {
        match event {
            AnswerEvent::Reasoning(piece) => self.reasoning += &piece,
            AnswerEvent::Text(piece) => self.text += &piece,
            AnswerEvent::CallStart { index, id, name } => {
                assert_eq!((index, id), (self.calls.len(), format!("call_{index}")));
                self.calls.push((name, String::new(), false));
            }
            AnswerEvent::CallArguments { index, piece } => {
                let call = &mut self.calls[index];
                assert!(!call.2);
                call.1 += &piece;
            }
            AnswerEvent::CallEnd { index } => self.calls[index].2 = true,
        }
    }
}

fn read<'p>(mut parser: AnswerParser, pieces: impl IntoIterator<Item = &'p str>) -> Answer {
    let mut answer = Answer::default();
    for piece in pieces {
        parser.push(piece).into_iter().for_each(|event| answer.add(event));
    }
    parser.finish().into_iter().for_each(|event| answer.add(event));
    assert!(parser.finish().is_empty());
    answer
}

fn said(text: &str) -> Answer {
    Answer { text: text.to_owned(), ..Answer::default() }
}

/// Complete calls.
fn called(text: &str, calls: &[(&str, Value)]) -> Answer {
    let calls = calls.iter().map(|(name, value)| ((*name).to_owned(), value.to_string(), true));
    Answer { calls: calls.collect(), ..said(text) }
}

#[test]
fn every_form_of_call_is_read() {
    let weather = json!({ "city": "北京", "days": 3 });
    for (form, text, expected) in [
        (
            CallForm::Python,
            "get_weather\n ```python\ntool_call(city='北京', days=3)\n```",
            called("", &[("get_weather", weather.clone())]),
        ),
        (
            CallForm::Python,
            "好的\nget_weather \n```python\nget_weather( city = \"北京\" ,days=3, )\n```\nnow\n```python\ntool_call()",
            called("好的", &[("get_weather", weather.clone()), ("now", json!({}))]),
        ),
        (
            CallForm::Json,
            "get_weather\n{\"city\": \"北京\", \"days\": 3}",
            called("", &[("get_weather", weather.clone())]),
        ),
        (
            CallForm::Json,
            "Let me look.\n\nget_weather\n{\"city\": \"北京\", \"days\": 3}\nnow\n{ }\n",
            called("Let me look.", &[("get_weather", weather.clone()), ("now", json!({}))]),
        ),
        (
            TAGS,
            "\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>北京</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>",
            called("", &[("get_weather", weather.clone())]),
        ),
        (
            TAGS,
            "Let me look.<tool_call>get_weather<arg_key>city</arg_key><arg_value>北京</arg_value><arg_key>days</arg_key><arg_value>3</arg_value></tool_call><tool_call>now</tool_call>\nDone",
            called("Let me look.Done", &[("get_weather", weather), ("now", json!({}))]),
        ),
    ] {
        assert_eq!(read(parser(form, Thoughts::None), [text]), expected, "{text}");
    }
}

#[test]
fn values_between_tags_are_texts_or_json_as_the_schema_says() {
    for (name, text, value) in [
        ("city", "123", json!("123")),
        ("city", "a \"b\"\n<c>", json!("a \"b\"\n<c>")),
        ("city", "", json!("")),
        ("days", "5", json!(5)),
        ("days", "five", json!("five")),
        ("any", "{\"a\": [1.5, null]}", json!({ "a": [1.5, null] })),
        ("any", "[1", json!("[1")),
        ("maybe", "null", json!(null)),
        ("maybe", "7", json!("7")),
        ("other", "true", json!(true)),
    ] {
        let call = format!(
            "<tool_call>get_weather\n<arg_key>{name}</arg_key>\n<arg_value>{text}</arg_value>\n</tool_call>"
        );
        let expected = called("", &[("get_weather", json!({ name: value }))]);
        assert_eq!(read(parser(TAGS, Thoughts::None), [&call[..]]), expected, "{call}");
    }
    let long = "1".repeat(70 << 10);
    let call =
        format!("<tool_call>now<arg_key>any</arg_key><arg_value>{long}</arg_value></tool_call>");
    let expected = called("", &[("now", json!({ "any": long }))]);
    assert_eq!(read(parser(TAGS, Thoughts::None), [&call[..]]), expected);
}

#[test]
fn a_value_between_tags_that_is_too_deep_is_a_text() {
    for (depth, is_list) in [(MAX_DEPTH, true), (MAX_DEPTH + 1, false), (127, false)] {
        let text = "[".repeat(depth) + &"]".repeat(depth);
        let call = format!(
            "<tool_call>now<arg_key>any</arg_key><arg_value>{text}</arg_value></tool_call>"
        );
        let found = read(parser(TAGS, Thoughts::None), [&call[..]]);
        let arguments: Value = serde_json::from_str(&found.calls[0].1).unwrap();
        assert_eq!(
            (arguments["any"].is_array(), arguments["any"] == json!(text)),
            (is_list, !is_list)
        );
    }
}

#[test]
fn numbers_keep_their_digits() {
    let call = "<tool_call>get_weather<arg_key>days</arg_key><arg_value> 123456789012345678901234567890\n</arg_value></tool_call>";
    let found = read(parser(TAGS, Thoughts::None), [call]);
    assert_eq!(found.calls[0].1, "{\"days\":123456789012345678901234567890}");
}

#[test]
fn a_tag_that_is_forgotten_is_found_again() {
    const CITY: &str = "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>";
    let weather = |arguments: Value| ("get_weather", arguments);
    for (rest, text, calls) in [
        ("北京\n</tool_call>", "", vec![weather(json!({ "city": "北京" }))]),
        ("北京</tool_call>\nDone", "Done", vec![weather(json!({ "city": "北京" }))]),
        (
            "北京\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>",
            "",
            vec![weather(json!({ "city": "北京", "days": 3 }))],
        ),
        (
            "北京</arg_value><arg_key>days</arg_key><arg_value>3</tool_call>",
            "",
            vec![weather(json!({ "city": "北京", "days": 3 }))],
        ),
        (
            "a</arg_value>\n<tool_call>now</tool_call>",
            "",
            vec![weather(json!({ "city": "a" })), ("now", json!({}))],
        ),
        (
            "a</tool_call><tool_call>get_weather<arg_key>days</arg_key><arg_value>1</arg_value></tool_call>",
            "",
            vec![weather(json!({ "city": "a" })), weather(json!({ "days": 1 }))],
        ),
        (
            "use <arg_key> here\n</tool_call>",
            "",
            vec![weather(json!({ "city": "use <arg_key> here" }))],
        ),
        (
            "use <arg_key>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>",
            "",
            vec![weather(json!({ "city": "use <arg_key>", "days": 3 }))],
        ),
        // These are no tags, but the value.
        (
            "use <arg_key> and <arg_value>.</arg_value></tool_call>",
            "",
            vec![weather(json!({ "city": "use <arg_key> and <arg_value>." }))],
        ),
        (
            "a \n</tool_call> <b> </arg_value></tool_call>",
            "",
            vec![weather(json!({ "city": "a \n</tool_call> <b> " }))],
        ),
        (
            "<arg_key>k</arg_key></arg_value></tool_call>",
            "",
            vec![weather(json!({ "city": "<arg_key>k</arg_key>" }))],
        ),
    ] {
        let answer = format!("{CITY}{rest}");
        assert_eq!(
            read(parser(TAGS, Thoughts::None), [&answer[..]]),
            called(text, &calls),
            "{answer}"
        );
    }
    // More is not held back.
    let long = format!("a</tool_call>{}", "x".repeat(70 << 10));
    let answer = format!("{CITY}{long}</arg_value></tool_call>");
    let expected = called("", &[weather(json!({ "city": long }))]);
    assert_eq!(read(parser(TAGS, Thoughts::None), [&answer[..]]), expected);
}

#[test]
fn calls_in_thoughts_are_thoughts() {
    let call = "<tool_call>now</tool_call>";
    let found = read(parser(TAGS, Thoughts::Begun), [&format!("I could {call}</think>{call}")[..]]);
    let expected = called("", &[("now", json!({}))]);
    assert_eq!(found, Answer { reasoning: format!("I could {call}"), ..expected });
}

#[test]
fn what_only_looks_like_a_call_is_text() {
    for (form, texts) in [
        (
            CallForm::Python,
            &[
                "get_weather",
                "get_weather\n",
                "get_weather\n ```python\nprint(1)\n```",
                "now\n```python\ntool_call(1)",
                "nothing\n```python\ntool_call(a=1)\n```",
                "see get_weather\n",
                "now\n```python\ntool_call(__import__('os'))",
                "now\n```python\nos.system(a='x')",
            ][..],
        ),
        (
            CallForm::Json,
            &[
                "now\n{5}",
                "now is the time\n{}",
                "now\n",
                "now\nlater {}",
                "no\n{\"a\": 1}",
                "{\"a\": 1}",
                "a now\n{}",
            ],
        ),
        (
            TAGS,
            &[
                "<tool_call>",
                "<tool_call>now",
                "<tool_call>{\"name\": 1}</tool_call>",
                "<tool_cal",
                "<tool_call>now\n<x>",
                "<tool_call></tool_call>",
            ],
        ),
    ] {
        for text in texts {
            assert_eq!(read(parser(form, Thoughts::None), [*text]), said(text));
        }
        assert!(
            read(parser(form, Thoughts::None), ["now\n".repeat(1000).as_str()]).calls.is_empty()
        );
    }
    let offers_none = Expects {
        calls: Some((CallForm::Json, Offered::new(&json!([])))),
        thoughts: Thoughts::None,
    };
    let text = "get_weather\n{\"city\": \"x\"}";
    assert_eq!(read(AnswerParser::new(offers_none, String::new()), [text]), said(text));
}

#[test]
fn a_damaged_call_is_never_complete() {
    for (form, text, arguments, rest) in [
        (
            CallForm::Python,
            "now\n```python\ntool_call(a='x', b=f(1))",
            "{\"a\":\"x\",\"b\":",
            "f(1))",
        ),
        (CallForm::Python, "now\n```python\ntool_call(a='x", "{\"a\":\"x", ""),
        (CallForm::Json, "now\n{\"a\": 1 2}", "{\"a\":1", "2}"),
        (CallForm::Json, "now\n{\"a\": \"b", "{\"a\":\"b", ""),
        (CallForm::Json, "now\n{\"a\": Beijing}", "{\"a\":", "Beijing}"),
        (CallForm::Json, "now\n{\"a\": tru", "{\"a\":", "tru"),
        (
            TAGS,
            "<tool_call>now<arg_key>a</arg_key><arg_value>1</arg_value>oops</tool_call>",
            "{\"a\":1",
            "oops</tool_call>",
        ),
        (
            TAGS,
            "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Bei</arg",
            "{\"city\":\"Bei</arg",
            "",
        ),
        (TAGS, "<tool_call>get_weather<arg_key>days</arg_key><arg_value>12", "{\"days\":12", ""),
        (
            TAGS,
            "<tool_call>now<arg_key>a</arg_key>\n<arg_val",
            "",
            "<arg_key>a</arg_key>\n<arg_val",
        ),
        (CallForm::Json, "now\n{\"a\": [1, 23", "{\"a\":[1,23", ""),
        (CallForm::Python, "now\n```python\ntool_call(a=12", "{\"a\":12", ""),
        (CallForm::Python, "now\n```python\ntool_call(a=12, days", "{\"a\":12", ", days"),
    ] {
        let found = read(parser(form, Thoughts::None), [text]);
        let calls = vec![(found.calls[0].0.clone(), arguments.to_owned(), false)];
        assert_eq!(found, Answer { calls, ..said(rest) }, "{text}");
    }
}

#[test]
fn thoughts_come_first() {
    let thought =
        |reasoning: &str, text: &str| Answer { reasoning: reasoning.to_owned(), ..said(text) };
    for (thinks, text, expected) in [
        (
            Thoughts::Possible,
            "\n<think>\nHm.\n\nYes.\n</think>\n\n你好\n",
            thought("Hm.\n\nYes.", "你好\n"),
        ),
        (Thoughts::Possible, "<think></think>好", thought("", "好")),
        (Thoughts::Possible, "<think>never closed </thin", thought("never closed </thin", "")),
        (Thoughts::Possible, "no thought</think>", said("no thought</think>")),
        (Thoughts::Possible, "a<think>b</think>", said("a<think>b</think>")),
        (Thoughts::Possible, "<thin", said("<thin")),
        (Thoughts::Begun, "\nHm.</think>好", thought("Hm.", "好")),
        (Thoughts::Begun, "<think>", thought("<think>", "")),
        (Thoughts::Begun, "", said("")),
    ] {
        assert_eq!(read(parser(TAGS, thinks), [text]), expected, "{text}");
    }
    let call = "<think>a</think>\n<tool_call>now</tool_call>";
    let expected = Answer { reasoning: "a".to_owned(), ..called("", &[("now", json!({}))]) };
    assert_eq!(read(parser(TAGS, Thoughts::Possible), [call]), expected);
    assert_eq!(read(parser(TAGS, Thoughts::None), ["<think>a</think>"]), said("<think>a</think>"));
}

#[test]
fn pieces_are_given_out_as_they_come() {
    let mut parser = parser(TAGS, Thoughts::Possible);
    let text = |event: &AnswerEvent| format!("{event:?}");
    for (piece, expected) in [
        ("<think>a b", "Reasoning(\"a b\")"),
        ("</think>\n\n好", "Text(\"好\")"),
        (
            "\n<tool_call>get_weather\n<arg_key>",
            "CallStart { index: 0, id: \"call_0\", name: \"get_weather\" }",
        ),
        (
            "city</arg_key>\n<arg_value>北",
            "CallArguments { index: 0, piece: \"{\\\"city\\\":\\\"北\" }",
        ),
        ("京", "CallArguments { index: 0, piece: \"京\" }"),
    ] {
        let events = parser.push(piece);
        assert_eq!(events.iter().map(text).collect::<Vec<_>>(), [expected]);
    }
}

/// Texts that are made of the parts of calls.
fn answers() -> impl Strategy<Value = String> {
    const PARTS: [&str; 34] = [
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<arg_key>",
        "</arg_key>",
        "<arg_value>",
        "</arg_value>",
        "get_weather",
        "now",
        "city",
        "days",
        "\n",
        "\n\n",
        " ",
        "{",
        "}",
        "\"",
        "'",
        ":",
        ",",
        "(",
        ")",
        "=",
        "```python",
        "```",
        "tool_call",
        "\\",
        "1",
        "北京",
        "[",
        "]",
        "<",
        "x",
    ];
    const BEGINNINGS: [&str; 5] = [
        "",
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>",
        "now\n{\"",
        "now\n ```python\ntool_call(a=",
        "<tool_call>get_weather\n<arg_key>days</arg_key>\n<arg_value>",
    ];
    let parts = proptest::collection::vec(proptest::sample::select(&PARTS[..]), 0..24);
    (proptest::sample::select(&BEGINNINGS[..]), parts)
        .prop_map(|(first, parts)| first.to_owned() + &parts.concat())
}

proptest! {
    #[test]
    fn nothing_depends_on_how_the_text_was_cut(
        text in answers(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        form in prop_oneof![Just(CallForm::Python), Just(CallForm::Json), Just(TAGS)],
        thoughts in prop_oneof![Just(Thoughts::None), Just(Thoughts::Possible), Just(Thoughts::Begun)],
    ) {
        let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).filter(|&at| text.is_char_boundary(at)).collect();
        places.extend([0, text.len()]);
        places.sort_unstable();
        let pieces: Vec<_> = places.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
        let whole = read(parser(form, thoughts), [&text[..]]);
        prop_assert_eq!(&whole, &read(parser(form, thoughts), pieces));
        for (_, arguments, is_complete) in &whole.calls {
            let read: Result<serde_json::Map<String, Value>, _> = serde_json::from_str(arguments);
            prop_assert_eq!(read.is_ok(), *is_complete, "{}", arguments);
        }
    }

    /// Some letters stand for all: they are neither in tags nor in names.
    #[test]
    fn nothing_that_is_said_is_lost(text in answers()) {
        let count = |text: &str| text.chars().filter(|c| "x1北".contains(*c)).count();
        let found = read(parser(TAGS, Thoughts::Possible), [&text[..]]);
        let calls = found.calls.iter().map(|(name, arguments, _)| count(name) + count(arguments));
        let all = count(&found.text) + count(&found.reasoning) + calls.sum::<usize>();
        prop_assert_eq!(all, count(&text), "{:?}", found);
    }

    #[test]
    fn a_text_without_calls_and_thoughts_is_itself(text in "[^<]{0,80}") {
        prop_assert_eq!(read(parser(TAGS, Thoughts::Possible), [&text[..]]), said(&text));
        let nothing = Expects { calls: None, thoughts: Thoughts::None };
        prop_assert_eq!(read(AnswerParser::new(nothing, String::new()), [&text[..]]), said(&text));
    }
}

#[test]
fn after_a_text_there_are_no_calls_where_either_is_expected() {
    let json = r#"{"a": "<tool_call>now</tool_call>"}"#;
    let mixed = parser(TAGS, Thoughts::None);
    assert_eq!(read(mixed.clone(), [json]).calls.len(), 1);
    let either = mixed.without_calls_after_text();
    assert_eq!(read(either.clone(), [json]), said(json));
    let calls = "\n<tool_call>now</tool_call>\n<tool_call>now</tool_call>";
    assert_eq!(read(either, [calls]).calls.len(), 2);
    let lines = parser(CallForm::Json, Thoughts::None).without_calls_after_text();
    assert_eq!(read(lines.clone(), ["5\nnow\n{}"]), said("5\nnow\n{}"));
    assert_eq!(read(lines, ["now\n{}"]).calls.len(), 1);
}
