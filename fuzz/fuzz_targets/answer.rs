//! No answer makes its parser panic. What it finds does not depend on how the text was cut, and the arguments of a complete call
//! are a JSON object. `GLM_TOKENIZER` is the folder of a tokenizer of GLM-4.

#![no_main]

use glm_model::{AnswerEvent, AnswerParser, Template, Tokenizer};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(glm_fuzz::tokenizer);

/// Every form of calls, with thoughts in the last one.
static TEMPLATES: LazyLock<[Template; 3]> = LazyLock::new(|| {
    let tags: &[u8] = b"{{ messages[0].tool_calls }}{# <arg_key></arg_key><arg_value> </think> #}";
    let tags = Template::from_files(&[("chat_template.jinja", tags)], &TOKENIZER);
    let [python, json] = ["chatglm3", "glm4"].map(Template::named);
    [python, json, tags].map(|template| template.expect("a template"))
});

/// The thoughts, the text, and the arguments of the calls.
#[derive(Debug, Default, PartialEq)]
struct Found {
    thoughts: String,
    text: String,
    calls: Vec<(String, bool)>,
}

impl Found {
    fn add(&mut self, events: Vec<AnswerEvent>) {
        for event in events {
            match event {
                AnswerEvent::Reasoning(piece) => self.thoughts += &piece,
                AnswerEvent::Text(piece) => self.text += &piece,
                AnswerEvent::CallStart { .. } => self.calls.push((String::new(), false)),
                AnswerEvent::CallArguments { index, piece } => self.calls[index].0 += &piece,
                AnswerEvent::CallEnd { index } => self.calls[index].1 = true,
                _ => {}
            }
        }
    }
}

fn read<'p>(mut parser: AnswerParser, pieces: impl Iterator<Item = &'p str>) -> Found {
    let mut found = Found::default();
    pieces.for_each(|piece| found.add(parser.push(piece)));
    found.add(parser.finish());
    found
}

fuzz_target!(|input: (u8, &str)| {
    let (form, text) = input;
    let schema = json!({ "properties": { "a": { "type": "string" }, "b": { "type": "integer" } } });
    let tools = json!([{ "name": "f", "parameters": schema }, { "name": "g" }]);
    let template = &TEMPLATES[usize::from(form) % TEMPLATES.len()];
    let parser = template.answer_parser(&TOKENIZER, &[], Some(&tools), "");
    let whole = read(parser.clone(), std::iter::once(text));
    assert_eq!(whole, read(parser, text.split_inclusive(['<', '\n', '"', 'e'])));
    for (arguments, is_complete) in &whole.calls {
        let is_object = serde_json::from_str::<Map<String, Value>>(arguments).is_ok();
        assert_eq!(is_object, *is_complete, "{arguments}");
    }
});
