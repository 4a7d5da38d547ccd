//! Any messages with tools and calls are read, written and rendered by the template of every family, or refused.

#![no_main]

use std::sync::LazyLock;

use glm_fuzz::{Family, Json, Word};
use glm_model::{
    PromptOptions, SpecialNames, Template, Tokenizer, messages_from_json, messages_to_json,
};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

#[derive(Debug, Arbitrary)]
enum Case<'a> {
    Text(&'a str),
    Messages(Vec<Message<'a>>, Option<Json<'a>>),
}

#[derive(Debug, Arbitrary)]
struct Message<'a> {
    role: Role<'a>,
    content: Json<'a>,
    tools: Option<Json<'a>>,
    calls: Vec<Call<'a>>,
    more: Vec<(u8, Json<'a>)>,
}

#[derive(Debug, Arbitrary)]
enum Role<'a> {
    Known(u8),
    Other(&'a str),
}

#[derive(Debug, Arbitrary)]
struct Call<'a> {
    id: Option<&'a str>,
    name: Word<'a>,
    arguments: Json<'a>,
    /// As JSON in a text.
    is_text: bool,
}

impl Message<'_> {
    fn value(&self) -> Value {
        let roles = ["system", "user", "assistant", "observation", "tool", "developer"];
        let role = match self.role {
            Role::Known(at) => roles[usize::from(at) % roles.len()],
            Role::Other(role) => role,
        };
        let call = |call: &Call| {
            let arguments = call.arguments.value();
            let arguments = if call.is_text { json!(arguments.to_string()) } else { arguments };
            json!({ "id": call.id.unwrap_or_default(), "function": { "name": call.name.text(), "arguments": arguments } })
        };
        let mut message = json!({ "role": role, "content": self.content.value() });
        if let Some(tools) = &self.tools {
            message["tools"] = tools.value();
        }
        if !self.calls.is_empty() {
            message["tool_calls"] = self.calls.iter().map(call).collect();
        }
        let names = ["metadata", "reasoning_content", "tool_call_id", "name", "x"];
        for (at, value) in &self.more {
            message[names[usize::from(*at) % names.len()]] = value.value();
        }
        message
    }
}

/// A template and a tokenizer for it.
static TEMPLATES: LazyLock<Vec<(Template, Tokenizer)>> = LazyLock::new(|| {
    let own = Family::ALL.into_iter().map(|family| {
        let folder = family.folder();
        let tokenizer = Tokenizer::open(folder.path()).expect("a tokenizer");
        (Template::open(folder.path(), &tokenizer).expect("a template"), tokenizer)
    });
    let named = ["chatglm", "chatglm2", "plain"].into_iter().map(|name| {
        let tokenizer = glm_model::demo::tokenizer().expect("a tokenizer");
        (Template::named(name).expect("a template"), tokenizer)
    });
    own.chain(named).collect()
});

fuzz_target!(|case: Case| {
    let (json, tools) = match &case {
        Case::Text(text) => ((*text).to_owned(), None),
        Case::Messages(messages, tools) => {
            let messages: Value = messages.iter().take(8).map(Message::value).collect();
            (messages.to_string(), tools.as_ref().map(Json::value))
        }
    };
    let Ok(mut messages) = messages_from_json(&json) else { return };
    let written = messages_to_json(&messages);
    let mut read = messages_from_json(&written).expect("what was written is read");
    read.iter_mut().zip(&messages).for_each(|(read, message)| read.parts = message.parts.clone());
    assert_eq!(read, messages, "{written}");
    if let Some(tools) = tools {
        glm_model::offer_tools(&mut messages, tools);
    }
    for (template, tokenizer) in &*TEMPLATES {
        let _ = template.text(&messages);
        for special_names in [SpecialNames::Ids, SpecialNames::Text] {
            for thinking in [None, Some(true), Some(false)] {
                let mut options = PromptOptions::default();
                (options.special_names, options.thinking) = (special_names, thinking);
                if let Ok(ids) = template.prompt_ids_with(tokenizer, &messages, options) {
                    assert!(ids.iter().all(|&id| tokenizer.knows(id)), "{}", template.name());
                }
            }
        }
    }
});
