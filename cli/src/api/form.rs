//! The form that an answer must have: JSON, a grammar, or the call of a tool.

use glm_model::Constraint;
use serde_json::Value;

use super::chat::ChatRequest;
use super::error::{ApiError, Result};
use super::model::ApiModel;

/// The form of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// A JSON object.
    Object,
    /// JSON that a schema describes.
    Schema(Value),
    /// A text that a grammar in the notation of Lark describes.
    Grammar(String),
    /// The call of one of the tools, or of the one with this name.
    Call { tools: Value, name: Option<String> },
}

impl Form {
    /// The form that a request asks for, if it asks for one. `tools` are those that may be called.
    ///
    /// # Errors
    /// If a field is wrong, or the request asks for two forms.
    pub fn of(request: &ChatRequest, tools: Option<&Value>) -> Result<Option<Self>> {
        let forms = [
            call(request.tool_choice.as_ref(), tools)?,
            of_format(request.response_format.as_ref())?,
            request.grammar.clone().map(Self::Grammar),
        ];
        let mut forms = forms.into_iter().flatten();
        match (forms.next(), forms.next()) {
            (Some(_), Some(_)) => Err(ApiError::invalid(
                "an answer can have one form: a call of a tool, response_format or grammar",
            )),
            (Some(_), None) if request.ignore_eos == Some(true) => Err(ApiError::field(
                "ignore_eos",
                "an answer with a form ends with it: ignore_eos must be false",
            )),
            (form, _) => Ok(form),
        }
    }

    /// What the next id of an answer to `prompt` may be.
    ///
    /// # Errors
    /// If the form is not valid or exceeds a limit, or the model cannot answer in it.
    #[cfg(feature = "grammar")]
    pub fn constraint(&self, model: &ApiModel, prompt: &[u32]) -> Result<Box<dyn Constraint>> {
        use glm_model::Grammar;
        let (grammar, field) = match self {
            Self::Object => (Ok(Grammar::json_object()), "response_format"),
            Self::Schema(schema) => (Grammar::json_schema(schema), "response_format"),
            Self::Grammar(grammar) => (Grammar::lark(grammar), "grammar"),
            Self::Call { tools, name } => (Grammar::call(tools, name.as_deref()), "tool_choice"),
        };
        let wrong = |error| ApiError::from(error).with_param(field);
        let constraint =
            model.grammars()?.compile(&grammar.map_err(wrong)?, model.tokenizer(), prompt);
        Ok(Box::new(constraint.map_err(wrong)?))
    }

    /// This build has no grammars.
    #[cfg(not(feature = "grammar"))]
    pub fn constraint(&self, _: &ApiModel, _: &[u32]) -> Result<Box<dyn Constraint>> {
        Err(ApiError::invalid(
            "this program was built without forms of answers (the feature `grammar`)",
        ))
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
fn of_format(format: Option<&Value>) -> Result<Option<Form>> {
    let wrong = |problem: &str| Err(ApiError::field("response_format", problem));
    let Some(format) = format.filter(|format| !format.is_null()) else { return Ok(None) };
    match format["type"].as_str() {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(Form::Object)),
        Some("json_schema") => match format["json_schema"].get("schema") {
            Some(schema) => Ok(Some(Form::Schema(schema.clone()))),
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
        let named = json!({ "type": "function", "function": { "name": "f" } });
        for (fields, expected) in [
            (json!({}), None),
            (json!({ "response_format": { "type": "text" }, "tool_choice": null }), None),
            (json!({ "response_format": { "type": "json_object" } }), Some(Form::Object)),
            (
                json!({ "response_format": { "type": "json_schema", "json_schema": { "schema": { "type": "null" } } } }),
                Some(Form::Schema(json!({ "type": "null" }))),
            ),
            (json!({ "grammar": "start: \"a\"" }), Some(Form::Grammar("start: \"a\"".to_owned()))),
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
        ] {
            assert_eq!(form(fields.clone()), Err(param.map(str::to_owned)), "{fields}");
        }
    }
}
