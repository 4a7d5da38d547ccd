//! Conversations that are to be answered, and the answers.

pub mod response;

use crate::limits::request::MOST_LOGPROBS;
use crate::limits::request::MOST_NAME;
use glm_model::{PromptOptions, messages_from_json, offer_tools};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use self::response::Head;
use super::answer::Reader;
use super::error::{ApiError, Result};
use super::fields::{Fields, Read};
use super::form::Form;
use super::model::{ApiModel, Question, response_id};
use super::sampling::{choices, sampled_request};

sampled_request! {
    /// A conversation that is to be answered.
    #[derive(Default)]
    pub struct ChatRequest {
        /// The messages: objects with `role` (system, user, assistant, tool) and `content`, a text or a list of text parts.
        pub messages: Vec<Value>,
        /// Most tokens of an answer, prompt excluded.
        pub max_completion_tokens: Option<usize>,
        /// Number of answers.
        pub n: Option<usize>,
        /// Send the answer in pieces, as events.
        pub stream: Option<bool>,
        pub stream_options: Option<StreamOptions>,
        /// The tools that may be called: objects with `type` (function) and `function`.
        pub tools: Option<Vec<Value>>,
        /// Whether tools are called: `auto`, the default with tools, `none`, `required`, or an object that names a function.
        pub tool_choice: Option<Value>,
        /// With false, an answer ends after its first call.
        pub parallel_tool_calls: Option<bool>,
        /// The form of the answer: an object whose `type` is `text`, `json_object` or `json_schema`. With tools, the answer has this form
        /// or calls them.
        pub response_format: Option<Value>,
        /// A grammar of the answer, in the notation of Lark. With tools, the answer follows it or calls them.
        pub grammar: Option<String>,
        pub chat_template_kwargs: Option<TemplateArguments>,
        /// Report the probability of each token.
        pub logprobs: Option<bool>,
        /// Alternatives of each token; up to 20.
        pub top_logprobs: Option<usize>,
    }
}

/// What is asked of the chat template.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
pub struct TemplateArguments {
    /// Whether the model thinks before it answers. What it cannot do is an error.
    pub enable_thinking: Option<bool>,
    /// Whether thoughts before the last question are left out. What the template cannot do is an error.
    pub clear_thinking: Option<bool>,
}

impl TemplateArguments {
    /// What a client of another API asks for. Such clients ask every model to think, so what the model cannot do is left out.
    pub fn hinted(enable_thinking: Option<bool>, model: &ApiModel) -> Option<Self> {
        let mut options = PromptOptions::default();
        options.thinking = enable_thinking;
        let is_possible = model.bundle().template().check_prompt_options(options).is_ok();
        is_possible.then_some(Self { enable_thinking, clear_thinking: None })
    }
}

/// What a stream has beside the answer.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
pub struct StreamOptions {
    /// Send the numbers of tokens at the end.
    #[serde(default)]
    pub include_usage: bool,
}

impl ChatRequest {
    /// What is asked of the model, and the form of the response.
    ///
    /// # Errors
    /// If a field is wrong or not supported.
    pub fn question(&mut self, model: &ApiModel) -> Result<(Question, Head)> {
        let adapter = model.adapter(self.model.as_deref())?;
        let logprobs = logprobs(self)?;
        let mut sampled = self.sampled();
        if self.max_completion_tokens == Some(0) {
            let problem = "max_completion_tokens must be at least 1";
            return Err(ApiError::field("max_completion_tokens", problem));
        }
        sampled.max_tokens = self.max_completion_tokens.or(sampled.max_tokens);
        let mut request = sampled.request(model.bundle())?;
        request.logprobs = logprobs;
        let tools = tools(self)?;
        let form = Form::of(self, tools.as_ref())?;
        let has_one_call = self.parallel_tool_calls == Some(false);
        let choices = choices(self.n)?;
        model.check_answers(1, choices)?;
        let prompt = prompt(model, self, tools.as_ref())?;
        let template = model.bundle().template();
        let stream = sampled.stopping(template.stream(model.tokenizer()))?;
        let reader = |_| {
            let id = response_id("call");
            let parser = template.answer_parser(model.tokenizer(), &prompt, tools.as_ref(), id);
            // An answer with a form is a text or calls.
            let parser = if form.is_some() { parser.without_calls_after_text() } else { parser };
            Reader::new(stream.clone(), Some(parser)).with_one_call(has_one_call)
        };
        let readers = (0..choices).map(reader).collect();
        let name = model.answering_name(self.model.as_deref());
        let head = Head::new(name, model.tokenizer(), logprobs.is_some());
        Ok((Question { prompts: vec![prompt], adapter, choices, request, form, readers }, head))
    }
}

/// How many alternatives of each token are asked for, if any.
fn logprobs(request: &ChatRequest) -> Result<Option<usize>> {
    let wrong = |problem: String| Err(ApiError::field("top_logprobs", problem));
    match (request.logprobs.unwrap_or(false), request.top_logprobs) {
        (_, Some(top)) if top > MOST_LOGPROBS => {
            wrong(format!("top_logprobs must be from 0 to {MOST_LOGPROBS}"))
        }
        (false, Some(1..)) => wrong("top_logprobs needs logprobs".to_owned()),
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, _) => Ok(None),
    }
}

/// The tools that may be called.
fn tools(request: &mut ChatRequest) -> Result<Option<Value>> {
    let tools = request.tools.take().filter(|tools| !tools.is_empty());
    for (index, tool) in tools.iter().flatten().enumerate() {
        let path = format!("tools[{index}]");
        let problem = match tool["function"]["name"].as_str() {
            Some(name) if tool["type"] == "function" && is_name(name) => continue,
            Some(name) if tool["type"] == "function" => {
                let shown: String = name.chars().take(MOST_NAME).collect();
                format!(
                    "{path} has the name {shown:?}: a name has 1 to {MOST_NAME} letters, digits or _-.:/"
                )
            }
            _ => format!("{path} is no tool with the type \"function\" and a function with a name"),
        };
        return Err(ApiError::field(path, problem));
    }
    let is_none = request.tool_choice.as_ref().is_some_and(|choice| choice == "none");
    Ok(tools.filter(|_| !is_none).map(Value::from))
}

/// Whether a tool can have this name. In the texts of calls, other characters would look like what surrounds a name.
fn is_name(name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || "_-.:/".contains(c);
    (1..=MOST_NAME).contains(&name.len()) && name.chars().all(is_part)
}

/// The ids of the conversation.
fn prompt(model: &ApiModel, request: &ChatRequest, tools: Option<&Value>) -> Result<Vec<u32>> {
    if request.messages.is_empty() {
        return Err(ApiError::field("messages", "messages must have at least one message"));
    }
    let wrong = |error| ApiError::from(error).with_param("messages");
    let mut messages = messages_from_json(&json!(request.messages).to_string()).map_err(wrong)?;
    if let Some(tools) = tools {
        offer_tools(&mut messages, tools.clone());
    }
    let mut options = PromptOptions::default();
    options.special_names = model.special_names();
    let asked = request.chat_template_kwargs.unwrap_or_default();
    options.thinking = asked.enable_thinking.or(model.thinking());
    options.clear_thinking = asked.clear_thinking;
    let wrong_options = |error| ApiError::from(error).with_param("chat_template_kwargs");
    model.bundle().template().check_prompt_options(options).map_err(wrong_options)?;
    let template = model.bundle().template();
    template.prompt_ids_with(model.tokenizer(), &messages, options).map_err(wrong)
}

impl Fields for ChatRequest {
    const READ: Read = &[
        (
            "messages",
            &[
                "role",
                "content",
                "name",
                "tool_calls",
                "tool_call_id",
                "reasoning_content",
                "metadata",
                "tools",
            ],
        ),
        ("messages.content", &["type", "text"]),
        ("messages.tool_calls", &["id", "type", "function"]),
        ("messages.tool_calls.function", &["name", "arguments"]),
        ("tools", &["type", "function"]),
        ("tools.function", &["name", "description", "parameters"]),
        ("tool_choice", &["type", "function"]),
        ("tool_choice.function", &["name"]),
        ("response_format", &["type", "json_schema"]),
        // The answer is always as the schema says.
        ("response_format.json_schema", &["schema", "name", "description", "strict"]),
    ];

    fn values(&self) -> Vec<(&'static str, &[Value])> {
        vec![
            ("messages", &self.messages),
            ("tools", self.tools.as_deref().unwrap_or_default()),
            ("tool_choice", self.tool_choice.as_slice()),
            ("response_format", self.response_format.as_slice()),
        ]
    }
}
