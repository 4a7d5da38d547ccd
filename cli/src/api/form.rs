//! The form that an answer must have: JSON, a grammar, or the call of a tool.

use glm_model::Constraint;
#[cfg(feature = "grammar")]
use glm_model::Grammar;
use serde_json::Value;

use super::chat::ChatRequest;
use super::error::{ApiError, Result};
use super::model::ApiModel;

/// The form of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    Text(TextForm),
    /// The call of one of the tools, or of the one with this name.
    Call {
        tools: Value,
        name: Option<String>,
    },
    /// A text, or calls of the tools: the model chooses.
    TextOrCall {
        text: TextForm,
        tools: Value,
    },
}

/// The form of a text.
#[derive(Debug, Clone, PartialEq)]
pub enum TextForm {
    /// A JSON object.
    Object,
    /// JSON that a schema describes.
    Schema(Value),
    /// What a grammar in the notation of Lark describes.
    Grammar(String),
}

impl Form {
    /// The form that a request asks for, if it asks for one. `tools` are those that may be called.
    ///
    /// # Errors
    /// If a field is wrong, or the request asks for two forms.
    pub fn of(request: &ChatRequest, tools: Option<&Value>) -> Result<Option<Self>> {
        let call = call(request.tool_choice.as_ref(), tools)?;
        let format = of_format(request.response_format.as_ref())?;
        let grammar = request.grammar.clone().map(TextForm::Grammar);
        let form = match (call, format, grammar) {
            (None, None, None) => return Ok(None),
            (Some(call), None, None) => call,
            (None, Some(text), None) | (None, None, Some(text)) => match tools {
                None => Self::Text(text),
                Some(tools) => Self::TextOrCall { text, tools: tools.clone() },
            },
            _ => {
                return Err(ApiError::invalid(
                    "an answer can have one form: a call of a tool, response_format or grammar",
                ));
            }
        };
        match request.ignore_eos {
            Some(true) => Err(ApiError::field(
                "ignore_eos",
                "an answer with a form ends with it: ignore_eos must be false",
            )),
            _ => Ok(Some(form)),
        }
    }

    /// What the next id of an answer to `prompt` may be.
    ///
    /// # Errors
    /// If the form is not valid or exceeds a limit, or the model cannot answer in it.
    #[cfg(feature = "grammar")]
    pub fn constraint(&self, model: &ApiModel, prompt: &[u32]) -> Result<Box<dyn Constraint>> {
        let compile = |grammar: &Grammar, field: &str| {
            let constraint = model.grammars()?.compile(grammar, model.tokenizer(), prompt);
            constraint.map_err(|error| ApiError::from(error).with_param(field))
        };
        let constraint = match self {
            Self::Text(text) => compile(&text.grammar()?, text.field()),
            Self::Call { tools, name } => {
                let grammar = Grammar::call(tools, name.as_deref());
                let wrong = |error| ApiError::from(error).with_param("tool_choice");
                compile(&grammar.map_err(wrong)?, "tool_choice")
            }
            Self::TextOrCall { text, tools } => {
                let text_alone = text.grammar()?;
                let grammar = text_alone.clone().or_call(tools);
                let wrong = |error| ApiError::from(error).with_param("tools");
                compile(&grammar.map_err(wrong)?, "tools")
                    // The error is of the text if that has one alone.
                    .or_else(|error| compile(&text_alone, text.field()).and(Err(error)))
            }
        };
        Ok(Box::new(constraint?))
    }

    /// This build has no grammars.
    #[cfg(not(feature = "grammar"))]
    pub fn constraint(&self, _: &ApiModel, _: &[u32]) -> Result<Box<dyn Constraint>> {
        Err(ApiError::invalid(
            "this program was built without forms of answers (the feature `grammar`)",
        ))
    }
}

#[cfg(feature = "grammar")]
impl TextForm {
    /// The field that asks for it.
    fn field(&self) -> &'static str {
        match self {
            Self::Object | Self::Schema(_) => "response_format",
            Self::Grammar(_) => "grammar",
        }
    }

    /// # Errors
    /// If it is not valid or exceeds a limit.
    fn grammar(&self) -> Result<Grammar> {
        let grammar = match self {
            Self::Object => Ok(Grammar::json_object()),
            Self::Schema(schema) => Grammar::json_schema(schema),
            Self::Grammar(grammar) => Grammar::lark(grammar),
        };
        grammar.map_err(|error| ApiError::from(error).with_param(self.field()))
    }
}

/// The call that is asked for.
fn call(choice: Option<&Value>, tools: Option<&Value>) -> Result<Option<Form>> {
    let wrong = |problem: &str| Err(ApiError::field("tool_choice", problem));
    let named = choice.and_then(|choice| choice["function"]["name"].as_str());
    let name = match choice {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(word)) if ["auto", "none"].contains(&word.as_str()) => return Ok(None),
        Some(Value::String(word)) if word == "required" => None,
        Some(choice) if choice["type"] == "function" && named.is_some() => named.map(str::to_owned),
        Some(_) => return wrong("tool_choice must be auto, none, required, or name a function"),
    };
    match tools {
        Some(tools) => Ok(Some(Form::Call { tools: tools.clone(), name })),
        None => wrong("tool_choice needs tools"),
    }
}

/// The form that `response_format` asks for.
fn of_format(format: Option<&Value>) -> Result<Option<TextForm>> {
    let wrong = |problem: &str| Err(ApiError::field("response_format", problem));
    let Some(format) = format.filter(|format| !format.is_null()) else { return Ok(None) };
    match format["type"].as_str() {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(TextForm::Object)),
        Some("json_schema") => match format["json_schema"].get("schema") {
            Some(schema) => Ok(Some(TextForm::Schema(schema.clone()))),
            None => wrong("response_format has no json_schema with a schema"),
        },
        _ => wrong("the type of response_format must be text, json_object or json_schema"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn form(fields: Value) -> Result<Option<Form>, Option<String>> {
        let mut fields = fields;
        fields["messages"] = json!([]);
        let request: ChatRequest = serde_json::from_value(fields).unwrap();
        let tools = request.tools.clone().map(Value::from);
        Form::of(&request, tools.as_ref()).map_err(|error| error.body().error.param)
    }

    #[test]
    fn a_form_is_that_of_its_field() {
        let tools = json!([{ "type": "function", "function": { "name": "f" } }]);
        let call =
            |name: Option<&str>| Form::Call { tools: tools.clone(), name: name.map(str::to_owned) };
        let either = |text| Form::TextOrCall { text, tools: tools.clone() };
        let named = json!({ "type": "function", "function": { "name": "f" } });
        let (object, lark) = (json!({ "type": "json_object" }), "start: \"a\"");
        for (fields, expected) in [
            (json!({}), None),
            (json!({ "response_format": { "type": "text" }, "tool_choice": null }), None),
            (json!({ "response_format": object }), Some(Form::Text(TextForm::Object))),
            (
                json!({ "response_format": { "type": "json_schema", "json_schema": { "schema": { "type": "null" } } } }),
                Some(Form::Text(TextForm::Schema(json!({ "type": "null" })))),
            ),
            (json!({ "grammar": lark }), Some(Form::Text(TextForm::Grammar(lark.to_owned())))),
            (json!({ "tools": tools, "response_format": object }), Some(either(TextForm::Object))),
            (
                json!({ "tools": tools, "tool_choice": "auto", "grammar": lark }),
                Some(either(TextForm::Grammar(lark.to_owned()))),
            ),
            (json!({ "tools": tools, "tool_choice": "auto" }), None),
            (json!({ "tools": tools, "tool_choice": "required" }), Some(call(None))),
            (json!({ "tools": tools, "tool_choice": named }), Some(call(Some("f")))),
        ] {
            assert_eq!(form(fields.clone()), Ok(expected), "{fields}");
        }
    }

    #[test]
    fn wrong_forms_are_named() {
        for (fields, param) in [
            (json!({ "response_format": { "type": "xml" } }), Some("response_format")),
            (json!({ "response_format": { "type": "json_schema" } }), Some("response_format")),
            (json!({ "tool_choice": "required" }), Some("tool_choice")),
            (json!({ "tool_choice": 5 }), Some("tool_choice")),
            (json!({ "grammar": "start: \"a\"", "ignore_eos": true }), Some("ignore_eos")),
            (json!({ "grammar": "x", "response_format": { "type": "json_object" } }), None),
            (
                json!({ "tools": [{}], "tool_choice": "required", "response_format": { "type": "json_object" } }),
                None,
            ),
        ] {
            assert_eq!(form(fields.clone()), Err(param.map(str::to_owned)), "{fields}");
        }
    }
}
