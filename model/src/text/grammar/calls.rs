//! Grammars for calls of tools in the form of each model; see [`crate::text::chat`].

use super::lark::{quoted, schema};
use super::size;
use crate::error::{Error, Result};
use crate::limits::grammar::MAX_NAME;
use crate::text::chat::CallForm;
use crate::text::chat::python;
use crate::text::chat::tools::{Kinds, function};
use serde_json::{Map, Value};
use std::fmt::Write;

/// Checks the tools, and the `schema` of a text that may come in place of calls.
///
/// # Errors
/// If there is no tool, or none with this name, or if the schemas are too large.
pub(super) fn check(tools: &Value, name: Option<&str>, schema: Option<&Value>) -> Result<()> {
    let parameters = functions(tools, name).map(|(_, parameters)| parameters);
    size::check(schema.into_iter().chain(parameters))?;
    match (functions(tools, name).next(), name) {
        (Some(_), _) => Ok(()),
        (None, Some(name)) => {
            let name = shortened(name);
            Err(Error::Grammar(format!("there is no tool {name:?} to call")))
        }
        (None, None) => Err(Error::Grammar("there is no tool to call".to_owned())),
    }
}

/// The tools that have a name, or the one with this name: the name, and the schema of the arguments.
fn functions<'t>(
    tools: &'t Value,
    name: Option<&'t str>,
) -> impl Iterator<Item = (&'t str, &'t Value)> {
    let tools = tools.as_array().map_or(&[][..], Vec::as_slice).iter().map(function);
    let named = tools.filter_map(|tool| Some((tool["name"].as_str()?, &tool["parameters"])));
    named.filter(move |(found, _)| name.is_none_or(|name| name == *found))
}

/// The rules of `calls`: a call of one of the tools, or of the one with this name. GLM-4.5 may call several.
///
/// # Errors
/// If the form has no way to write the name of an argument.
pub(super) fn lark(form: CallForm, tools: &Value, name: Option<&str>) -> Result<String> {
    let mut rules = String::new();
    let mut count = 0;
    for (name, parameters) in functions(tools, name) {
        if form != CallForm::Json {
            arguments(parameters)
                .iter()
                .try_for_each(|argument| check_argument(name, argument.name))?;
        }
        let call = format!("call_{count}");
        match form {
            CallForm::Json => json_call(&call, name, parameters, &mut rules),
            CallForm::Tags { compact } => tags(&call, name, parameters, compact, &mut rules),
            CallForm::Python => keywords(&call, name, parameters, &mut rules),
        }
        count += 1;
    }
    let calls: Vec<_> = (0..count).map(|i| format!("call_{i}")).collect();
    let several = if matches!(form, CallForm::Tags { .. }) { "(\"\\n\"? call)*" } else { "" };
    Ok(format!("calls: call {several}\ncall: {}\n{rules}", calls.join(" | ")))
}

/// # Errors
/// If what surrounds names in calls is part of this one.
fn check_argument(tool: &str, name: &str) -> Result<()> {
    let is_plain = !name.is_empty() && name.trim() == name && name.len() <= MAX_NAME;
    if is_plain && !name.contains(['<', '=', ',', '(', ')', '\'', '"', '\n']) {
        return Ok(());
    }
    let (name, tool) = (shortened(name), shortened(tool));
    Err(Error::Grammar(format!(
        "this model cannot write the argument {name:?} of the tool {tool:?}"
    )))
}

/// The characters of a name that an error shows.
const SHOWN: usize = 64;

/// A name that may be long, as an error shows it.
fn shortened(name: &str) -> String {
    name.chars().take(SHOWN).collect()
}

/// `name`, a new line, and the arguments as JSON.
fn json_call(call: &str, name: &str, parameters: &Value, rules: &mut String) {
    let line = quoted(&format!("{name}\n"));
    let arguments = schema(&object(parameters));
    // Writing to a String cannot fail.
    let _ = writeln!(rules, "{call}: {line} %json {arguments}");
}

/// A schema of arguments: an object that has only known names, unless the schema says otherwise. A tool without a schema takes
/// no arguments.
fn object(parameters: &Value) -> Value {
    let mut fields = parameters.as_object().cloned().unwrap_or_default();
    fields.entry("type").or_insert("object".into());
    // Schemas that are combined each have names of their own.
    let is_combined =
        ["$ref", "allOf", "anyOf", "oneOf"].iter().any(|key| fields.contains_key(*key));
    if !is_combined {
        fields.entry("additionalProperties").or_insert(false.into());
    }
    fields.into()
}

/// An argument: its name, its schema, and whether it must be given.
struct Argument<'s> {
    name: &'s str,
    schema: &'s Value,
    is_required: bool,
}

fn arguments(parameters: &Value) -> Vec<Argument<'_>> {
    let required = parameters["required"].as_array().map_or(&[][..], Vec::as_slice);
    let properties = parameters["properties"].as_object();
    let is_required = |name: &str| required.iter().any(|required| required == name);
    let properties = properties.into_iter().flatten();
    properties
        .map(|(name, schema)| Argument { name, schema, is_required: is_required(name) })
        .collect()
}

/// `<tool_call>name`, the arguments between tags, and `</tool_call>`.
fn tags(call: &str, name: &str, parameters: &Value, compact: bool, rules: &mut String) {
    let gap = if compact { "" } else { "\n" };
    let (mut parts, mut values) = (Vec::new(), String::new());
    for (i, argument) in arguments(parameters).iter().enumerate() {
        let key = format!("<arg_key>{}</arg_key>{gap}<arg_value>", argument.name);
        let value = tag_value(&format!("{call}_{i}"), argument.schema, parameters, &mut values);
        let after = if compact { String::new() } else { format!(" {}", quoted("\n")) };
        let part = format!("{} {value}{after}", quoted(&key));
        parts.push(if argument.is_required { part } else { format!("({part})?") });
    }
    let begin = quoted(&format!("<tool_call>{name}{gap}"));
    let _ = writeln!(rules, "{call}: {begin} {} \"</tool_call>\"\n{values}", parts.join(" "));
}

/// The rule of a value up to its tag: bare if it is a text, else JSON. Returns what stands for it.
fn tag_value(rule: &str, value: &Value, parameters: &Value, rules: &mut String) -> String {
    const END: &str = "</arg_value>";
    let kinds = Kinds::of(value);
    if let Some(choices) = value["enum"].as_array() {
        let written = |choice: &Value| match choice.as_str() {
            Some(text) => quoted(&format!("{text}{END}")),
            None => quoted(&format!("{}{END}", python::json(choice, None))),
        };
        return format!("({})", choices.iter().map(written).collect::<Vec<_>>().join(" | "));
    }
    if kinds.has_text() {
        let _ = writeln!(rules, "{rule}[suffix={}]: /(?s:.*)/", quoted(END));
        return rule.to_owned();
    }
    format!("%json {} {}", schema(&with_definitions(value, parameters)), quoted(END))
}

/// A part of a schema, with the definitions that it may refer to.
fn with_definitions(part: &Value, whole: &Value) -> Value {
    let mut fields: Map<_, _> = part.as_object().cloned().unwrap_or_default();
    for name in ["$defs", "definitions"] {
        if let Some(definitions) = whole.get(name) {
            fields.insert(name.to_owned(), definitions.clone());
        }
    }
    fields.into()
}

/// `name`, a new line, and a call in Python with keywords. Lists and objects are any: their schema is not looked into.
fn keywords(call: &str, name: &str, parameters: &Value, rules: &mut String) {
    let begin = quoted(&format!("{name}\n ```python\ntool_call("));
    let arguments = arguments(parameters);
    let first = format!("{call}_first_0");
    let _ = writeln!(rules, "{call}: {begin} {first} \")\\n```\"");
    for (i, Argument { name, schema, is_required }) in arguments.iter().enumerate() {
        let next = i + 1;
        let value = python_value(schema);
        for (state, comma) in [("first", ""), ("more", ", ")] {
            let given = quoted(&format!("{comma}{name}="));
            let _ = write!(rules, "{call}_{state}_{i}: {given} {value} {call}_more_{next}");
            let skipped = format!(" | {call}_{state}_{next}");
            let _ = writeln!(rules, "{}", if *is_required { "" } else { &skipped });
        }
    }
    let last = arguments.len();
    let _ = writeln!(rules, "{call}_first_{last}: \"\"\n{call}_more_{last}: \"\"");
    if !rules.contains("value: TEXT") {
        rules.push_str(PYTHON);
    }
}

/// Values in Python.
const PYTHON: &str = r#"
value: TEXT | NUMBER | truth | "None" | list | object
list: "[" (value (", " value)*)? "]"
object: "{" (TEXT ": " value (", " TEXT ": " value)*)? "}"
truth: "True" | "False"
TEXT: /'([^'\\\n]|\\[\\'"nrt])*'/
INTEGER: /-?(0|[1-9][0-9]{0,17})/
NUMBER: /-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?/
"#;

/// What stands for a value with this schema.
fn python_value(schema: &Value) -> String {
    if let Some(choices) = schema["enum"].as_array() {
        let written = |choice: &Value| {
            let mut text = String::new();
            python::repr(choice, &mut text);
            quoted(&text)
        };
        return format!("({})", choices.iter().map(written).collect::<Vec<_>>().join(" | "));
    }
    let named = |name: &Value| match name.as_str() {
        Some("string") => "TEXT",
        Some("integer") => "INTEGER",
        Some("number") => "NUMBER",
        Some("boolean") => "truth",
        Some("null") => "\"None\"",
        Some("array") => "list",
        Some("object") => "object",
        _ => "value",
    };
    match &schema["type"] {
        Value::Array(names) if !names.is_empty() => {
            format!("({})", names.iter().map(named).collect::<Vec<_>>().join(" | "))
        }
        name => named(name).to_owned(),
    }
}
