//! The `chat_template` of a model, rendered as in transformers: a line with only a block leaves no newline, `tojson` is
//! Python's `json.dumps(…, ensure_ascii=False)`, strings have Python's methods, and `raise_exception` rejects a conversation.
//!
//! A template is a program from an untrusted file. It has access to the conversation and the clock only. Its steps are counted, and
//! what a step costs beside that is paid for before it is done: the bytes of texts and the values that are looked at, see [`guard`]. So
//! time and memory are limited without a clock. Values cannot contain themselves, see [`held`].
//!
//! Parsing and dropping nested values is recursive, so both run on a thread with a stack that is large enough. It takes address space,
//! of which only what is touched becomes memory: 32 MB, and for parsing ten kilobytes 72 MB. The thread ends before the result is
//! returned.
//!
//! Older versions of transformers had a `tojson` that sorted keys and escaped all but ASCII. The models were trained with the
//! output of the newer versions.

mod functions;
mod guard;
mod held;
mod operators;
mod percent;
mod pieces;
mod source;
mod text;
mod weight;

use super::answer::{self, CallForm};
use super::thinking::{ENABLE_THINKING, Thinking};
use super::transformers::{Conversation, Wants};
use crate::error::{Error, Result};
use crate::limits::template::{FUEL, MAX_TEMPLATE, MAX_TEXT, STACK, STACK_PER_BYTE};
use chrono::NaiveDateTime;
use functions::REJECTED;
use minijinja::machinery::{eval, get_compiled_template, make_string_output};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, ErrorKind, Value, context};
use serde_json::{Map, Value as Json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// A compiled template.
#[derive(Debug, Clone)]
pub(super) struct Jinja {
    environment: Environment<'static>,
    /// Names of special tokens, such as `eos_token`.
    tokens: Map<String, Json>,
    path: PathBuf,
    source: Arc<str>,
    wants: Wants,
    /// Stands for the clock in tests.
    now: Option<NaiveDateTime>,
}

const NAME: &str = "chat_template";

/// A template that looks into a content with several parts mentions one of these. Others get the text of all parts.
const PARTS: [&str; 9] = [
    "is string",
    "is not string",
    "is iterable",
    "is sequence",
    "is mapping",
    "'text'",
    "\"text\"",
    ".text",
    "in message.content",
];

impl Jinja {
    /// `tokens` become variables of the template. Errors name `path`.
    ///
    /// # Errors
    /// If the source is not a valid template, or too long.
    pub(super) fn new(source: String, tokens: Map<String, Json>, path: &Path) -> Result<Self> {
        if source.len() > MAX_TEMPLATE {
            let length = source.len();
            return Err(Error::file(
                path,
                format!("{NAME} has {length} bytes, and {MAX_TEMPLATE} are the most"),
            ));
        }
        // As Jinja2 reads a template.
        let source = source.replace("\r\n", "\n").replace('\r', "\n");
        let mut environment = Environment::new();
        // These values are always consistent.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        let syntax = syntax.map_err(|e| Error::file(path, e.to_string()))?;
        environment.set_syntax(syntax.clone());
        environment.set_unknown_method_callback(functions::method);
        environment.add_filter("tojson", functions::to_json);
        environment.add_filter("string", functions::string);
        environment.add_filter("format", functions::format);
        environment.add_function("raise_exception", functions::raise_exception);
        environment.remove_global("debug");
        operators::add(&mut environment);
        let mentions = |names: &[&str]| names.iter().any(|name| source.contains(name));
        let wants = Wants {
            observations: false,
            metadata: !mentions(&["tool_calls"]) && mentions(&["metadata"]),
            tools_in_messages: mentions(&["['tools']", "[\"tools\"]", ".tools"]),
            parts: mentions(&PARTS),
            null: mentions(&["none", "None"]),
        };
        let shared = Arc::from(source.as_str());
        let source = source::rewritten(&source, &syntax).map_err(|e| failed(path, &e))?;
        let stack = STACK + STACK_PER_BYTE * source.len();
        let environment = aside(path, stack, || {
            environment
                .add_template_owned(NAME, source.as_str().to_owned())
                .map_err(|e| e.to_string())?;
            let template = environment.get_template(NAME).map_err(|e| e.to_string())?;
            guard::guarded(&get_compiled_template(&template).instructions)?;
            Ok(environment)
        })?
        .map_err(|e: String| failed(path, &e))?;
        Ok(Jinja { environment, tokens, path: path.into(), source: shared, wants, now: None })
    }

    /// The results of tools get the role `observation` if `observes`, the model has only that role, and the template does not
    /// mention the role `tool`.
    pub(super) fn observing(mut self, observes: bool) -> Self {
        let speaks = ["'tool'", "\"tool\""].iter().any(|tool| self.source().contains(tool));
        self.wants.observations = observes && !speaks;
        self
    }

    /// What it looks for in messages.
    pub(super) fn wants(&self) -> Wants {
        self.wants
    }

    /// How the model that it belongs to writes calls of tools.
    pub(super) fn call_form(&self) -> Option<CallForm> {
        match () {
            () if self.source.contains("<arg_key>") => {
                Some(CallForm::Tags { compact: self.source.contains("</arg_key><arg_value>") })
            }
            () if self.wants.metadata => Some(CallForm::Json),
            () => None,
        }
    }

    /// When the model thinks before it answers.
    pub(super) fn thinking(&self) -> Thinking {
        match () {
            () if self.knows(ENABLE_THINKING) => Thinking::Switchable,
            () if self.knows(answer::THINK) || self.knows(answer::END) => Thinking::Always,
            () => Thinking::Never,
        }
    }

    /// Whether it mentions a variable, or writes a tag.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.source.contains(name)
    }

    /// The template itself.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Renders a conversation. `variables` are beside the messages and the tools.
    ///
    /// # Errors
    /// If there is no message, or the template rejects the conversation, fails, or exceeds a limit.
    pub(super) fn render(
        &self,
        conversation: Conversation,
        variables: &Map<String, Json>,
    ) -> Result<String> {
        if conversation.messages.is_empty() && conversation.tools.is_none() {
            return Err(Error::Prompt("the conversation is empty".into()));
        }
        let render = || self.render_here(&conversation, variables);
        aside(&self.path, STACK, render)?
    }

    fn render_here(
        &self,
        conversation: &Conversation,
        variables: &Map<String, Json>,
    ) -> Result<String> {
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(fuel(conversation)));
        let left = AtomicUsize::new(MAX_TEXT);
        environment
            .set_formatter(move |out, state, value| functions::write(out, state, value, &left));
        let now = self.now;
        let strftime = move |format: &str| functions::strftime(format, now);
        environment.add_function("strftime_now", strftime);
        let context = context! {
            messages => Value::from(Serde(&conversation.messages)),
            tools => Value::from(Serde(&conversation.tools)),
            ..context! { ..Value::from(Serde(variables)), ..Value::from(Serde(&self.tokens)) }
        };
        let template = environment.get_template(NAME);
        let template = template.map_err(|error| failed(&self.path, &error.to_string()))?;
        let compiled = get_compiled_template(&template);
        let code = guard::guarded(&compiled.instructions).map_err(|e| failed(&self.path, &e))?;
        let mut text = String::new();
        let mut out = make_string_output(&mut text);
        eval(&environment, &code, context, &compiled.blocks, &mut out, AutoEscape::None)
            .map(drop)
            .map_err(|error| self.error(&error))?;
        Ok(text)
    }

    /// The error of a conversation that the template rejects, or on which it fails: its messages may have fields of any JSON.
    fn error(&self, error: &minijinja::Error) -> Error {
        match error.kind() {
            ErrorKind::InvalidOperation
                if error.detail().is_some_and(|d| d.starts_with(REJECTED)) =>
            {
                Error::Prompt(error.detail().unwrap_or_default().into())
            }
            _ => Error::Prompt(format!("{}: {NAME}: {error}", self.path.display())),
        }
    }
}

fn failed(path: &Path, why: &str) -> Error {
    Error::file(path, format!("{NAME}: {why}"))
}

/// Runs `work` on a thread with `stack` bytes of stack and waits for it. Errors name `path`.
fn aside<T: Send>(path: &Path, stack: usize, work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(stack).spawn_scoped(scope, work);
        let thread =
            thread.map_err(|error| failed(path, &format!("cannot start a thread: {error}")))?;
        thread.join().map_err(|_| failed(path, "cannot be rendered"))
    })
}

fn fuel(conversation: &Conversation) -> u64 {
    let [once, message, byte, pair, most] = FUEL;
    let count = conversation.messages.len() as u64;
    let pairs = pair.saturating_mul(count.saturating_mul(count));
    most.min(
        once.saturating_add(message * count)
            .saturating_add(byte * conversation.bytes)
            .saturating_add(pairs),
    )
}

#[cfg(test)]
mod tests;
