//! The `chat_template` of a model, rendered as in transformers: a line with only a block leaves no newline, `tojson` is
//! Python's `json.dumps(…, ensure_ascii=False)`, strings have Python's methods, and `raise_exception` rejects a conversation.
//!
//! A template is a program from an untrusted file. It has access to the conversation only. The number of steps, the time and
//! the length of the output are limited; memory is limited through the number of steps. Parsing long expressions and dropping
//! deeply nested values is recursive, so both run on a thread with a large stack.
//!
//! Older versions of transformers had a `tojson` that sorted keys and escaped all but ASCII. The models were trained with the
//! output of the newer versions.

use super::answer::CallForm;
use super::python;
use super::transformers::{Conversation, Wants};
use crate::error::{Error, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, ErrorKind, State, Value, context};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde_json::{Map, Value as Json};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Longest template in bytes. Published ones have some ten kilobytes.
const MAX_TEMPLATE: usize = 128 << 10;

/// Longest output in bytes.
const MAX_TEXT: usize = 16 << 20;

/// The fuel of a template: the base, the addition for each message and for each byte of a message, and the maximum. A step
/// costs one unit, and so do 64 bytes of memory.
const FUEL: [u64; 4] = [50_000, 2_000, 1, 500_000];

/// Stack in bytes. A level of nesting costs at least one and a half units of fuel, which bounds the depth. The system
/// provides only the pages that are touched.
const STACK: usize = 512 << 20;

/// Timeout of a template. A value that contains its predecessor twice, thirty levels deep, takes few steps to make and 2^30
/// steps to write.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A compiled template.
#[derive(Debug, Clone)]
pub(super) struct Jinja {
    environment: Environment<'static>,
    /// Names of special tokens, such as `eos_token`.
    tokens: Map<String, Json>,
    path: PathBuf,
    source: Arc<str>,
    wants: Wants,
}

const NAME: &str = "chat_template";

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
        environment.set_syntax(syntax.map_err(|e| Error::file(path, e.to_string()))?);
        environment.set_unknown_method_callback(method);
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", raise_exception);
        let mentions = |names: &[&str]| names.iter().any(|name| source.contains(name));
        let wants = Wants {
            observations: false,
            metadata: !mentions(&["tool_calls"]) && mentions(&["metadata"]),
            tools_in_messages: mentions(&["['tools']", "[\"tools\"]", ".tools"]),
        };
        let shared = Arc::from(source.as_str());
        let read = move || environment.add_template_owned(NAME, source).map(|()| environment);
        let environment = aside(path, read)?.map_err(|e| failed(path, &e.to_string()))?;
        Ok(Jinja { environment, tokens, path: path.into(), source: shared, wants })
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

    /// Whether the model may think before it answers.
    pub(super) fn thinks(&self) -> bool {
        self.source.contains("</think>")
    }

    /// The template itself.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Renders a conversation. `thinking` is the variable `enable_thinking`.
    ///
    /// # Errors
    /// If there is no message, or the template rejects the conversation, fails, or exceeds a limit.
    pub(super) fn render(
        &self,
        conversation: Conversation,
        thinking: Option<bool>,
    ) -> Result<String> {
        if conversation.messages.is_empty() && conversation.tools.is_none() {
            return Err(Error::Prompt("the conversation is empty".into()));
        }
        let template = self.clone();
        aside(&self.path, move || template.render_here(&conversation, thinking))?
    }

    fn render_here(&self, conversation: &Conversation, thinking: Option<bool>) -> Result<String> {
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(fuel(conversation)));
        let switch: Map<_, _> =
            thinking.map(|on| ("enable_thinking".to_owned(), on.into())).into_iter().collect();
        let context = context! {
            messages => Value::from(Serde(&conversation.messages)),
            tools => Value::from(Serde(&conversation.tools)),
            add_generation_prompt => true,
            ..context! { ..Value::from(Serde(&switch)), ..Value::from(Serde(&self.tokens)) }
        };
        let mut text = Limited(Vec::new());
        let rendered = environment
            .get_template(NAME)
            .and_then(|template| template.render_captured_to(context, &mut text).map(drop));
        rendered.map_err(|error| self.error(&error))?;
        String::from_utf8(text.0).map_err(|_| Error::file(&self.path, format!("{NAME}: not UTF-8")))
    }

    fn error(&self, error: &minijinja::Error) -> Error {
        match error.kind() {
            ErrorKind::InvalidOperation
                if error.detail().is_some_and(|d| d.starts_with(REJECTED)) =>
            {
                Error::Prompt(error.detail().unwrap_or_default().into())
            }
            _ => Error::file(&self.path, format!("{NAME}: {error}")),
        }
    }
}

fn failed(path: &Path, why: &str) -> Error {
    Error::file(path, format!("{NAME}: {why}"))
}

/// Runs `work` on a thread with a large stack and waits for it, at most [`TIMEOUT`]. After that the thread is abandoned. Errors
/// name `path`.
fn aside<T: Send + 'static>(path: &Path, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (send, receive) = channel();
    let work = move || drop(send.send(work()));
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(work);
    thread.map_err(|error| failed(path, &format!("cannot start a thread: {error}")))?;
    receive.recv_timeout(TIMEOUT).map_err(|error| match error {
        RecvTimeoutError::Timeout => failed(path, "takes too long"),
        RecvTimeoutError::Disconnected => failed(path, "cannot be rendered"),
    })
}

/// Python's string methods. The padding of `format` costs no fuel, so large widths are rejected.
fn method(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, minijinja::Error> {
    // The format specifications in `{:…}`.
    let specs = |text: &str| -> Vec<String> {
        let fields = text.split('{').skip(1).filter_map(|field| field.split('}').next());
        fields.filter_map(|field| Some(field.split_once(':')?.1.to_owned())).collect()
    };
    let is_wide = |text: &str| {
        let digits = |spec: &String| spec.split(|c: char| !c.is_ascii_digit()).any(|n| n.len() > 3);
        specs(text).iter().any(digits)
    };
    if method == "format" && value.as_str().is_some_and(is_wide) {
        let problem = "format with a width of more than three digits is not supported";
        return Err(minijinja::Error::new(ErrorKind::InvalidOperation, problem));
    }
    unknown_method_callback(state, value, method, args)
}

fn fuel(conversation: &Conversation) -> u64 {
    let [once, message, byte, most] = FUEL;
    let count = conversation.messages.len() as u64;
    most.min(once + message * count + byte * conversation.bytes)
}

/// Python's `json.dumps(value, ensure_ascii=False, indent=indent)`.
fn to_json(value: Value, options: Kwargs) -> Result<String, minijinja::Error> {
    let indent = options.get::<Option<usize>>("indent")?;
    for unusual in ["ensure_ascii", "sort_keys"] {
        if options.get::<Option<bool>>(unusual)? == Some(true) {
            let problem = format!("tojson with {unusual} is not supported");
            return Err(minijinja::Error::new(ErrorKind::InvalidOperation, problem));
        }
    }
    options.assert_all_used()?;
    // The output grows with the indent, and no template needs a larger one.
    let indent = indent.map(|indent| indent.min(16));
    let bad = |problem: String| minijinja::Error::new(ErrorKind::BadSerialization, problem);
    let mut text = Limited(Vec::new());
    python::write_json(&value, indent, &mut text).map_err(|error| bad(error.to_string()))?;
    String::from_utf8(text.0).map_err(|error| bad(error.to_string()))
}

const REJECTED: &str = "the chat template of the model rejects the conversation: ";

fn raise_exception(message: String) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, format!("{REJECTED}{message}")))
}

/// A buffer of at most [`MAX_TEXT`] bytes.
struct Limited(Vec<u8>);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_TEXT {
            return Err(io::Error::other("the output is too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::transformers::conversation;
    use super::*;
    use crate::text::chat::{Message, Role};
    use serde_json::json;

    fn rendered(jinja: &Jinja, messages: &[Message]) -> Result<String> {
        jinja.render(conversation(messages, jinja.wants(), None), None)
    }

    fn render(source: &str, messages: &[Message]) -> Result<String> {
        rendered(&Jinja::new(source.into(), Map::new(), Path::new("t"))?, messages)
    }

    fn problem(source: &str) -> String {
        render(source, &[Message::new(Role::User, "hi")]).expect_err(source).to_string()
    }

    #[test]
    fn blocks_take_their_line_with_them() {
        let source = "{% for m in messages %}\n  {% if m.role == 'user' %}\n<{{ m['content'] }}>\n  {% endif %}\n{% endfor %}\n";
        let messages = [Message::new(Role::User, " a "), Message::new(Role::System, "b")];
        assert_eq!(render(source, &messages).unwrap(), "< a >\n");
    }

    #[test]
    fn lines_may_end_as_on_windows() {
        let source = "{% for m in messages %}\r\n<{{ m.role }}>\r\n{% endfor %}\r\nend\rx\r\n";
        let messages = [Message::new(Role::User, "hi\r\n")];
        assert_eq!(render(source, &messages).unwrap(), "<user>\nend\nx");
        assert_eq!(render("{{ messages[0].content }}", &messages).unwrap(), "hi\r\n");
    }

    #[test]
    fn python_is_spoken() {
        let source = "{{ messages[0].content.strip().startswith('h') }} {{ messages[0].metadata }}{{ messages[0].tools is defined }}{% for i in [1, 2, 3] %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfor %} {{ {'b': 1, 'a': [1.0]} | tojson }}{{ add_generation_prompt }}";
        // minijinja and Python print booleans differently.
        let text = render(source, &[Message::new(Role::User, " hi ")]).unwrap().to_lowercase();
        assert_eq!(text, "true false13 {\"b\": 1, \"a\": [1.0]}true");
    }

    #[test]
    fn numbers_outside_of_widths_are_text() {
        let messages = [Message::new(Role::User, "hi")];
        assert_eq!(
            render("{{ 'since 2024: {:>3}'.format(7) }}", &messages).unwrap(),
            "since 2024:   7"
        );
    }

    #[test]
    fn what_tools_answer_is_observed_where_nothing_else_is_known() {
        let messages = [Message::new(Role::Tool, "42")];
        for (source, expected) in [
            ("{{ messages[0].role }}", "observation"),
            ("{% if messages[0].role == 'tool' %}{{ messages[0].content }}{% endif %}", "42"),
        ] {
            let jinja = Jinja::new(source.into(), Map::new(), Path::new("t")).unwrap();
            assert_eq!(rendered(&jinja.clone().observing(true), &messages).unwrap(), expected);
            assert_ne!(rendered(&jinja.observing(false), &messages).unwrap(), "observation");
        }
    }

    #[test]
    fn tools_keep_their_order_and_their_characters() {
        let tools = json!([{"z": "中", "a": {"<": "'"}}]);
        let message = Message { tools: Some(tools), ..Message::new(Role::System, "") };
        let text = render("{{ tools[0] | tojson(indent=4) }}", &[message]).unwrap();
        assert_eq!(text, "{\n    \"z\": \"中\",\n    \"a\": {\n        \"<\": \"'\"\n    }\n}");
    }

    #[test]
    fn a_template_may_refuse() {
        let messages = [Message::new(Role::User, "hi")];
        let error = render("{{ raise_exception('no system') }}", &messages).unwrap_err();
        assert!(matches!(&error, Error::Prompt(p) if p.ends_with(": no system")), "{error}");
    }

    #[test]
    fn values_may_be_nested_as_deep_as_the_fuel_lasts() {
        let nest = |count: u32, end: &str| {
            let step = "{% set n.s = [n.s] %}";
            let range = format!("{{% for i in range({count}) %}}");
            ["{% set n = namespace(s=[]) %}", &range, step, "{% endfor %}", end].concat()
        };
        let messages = vec![Message::new(Role::User, "hi"); 1000];
        for end in ["{{ n.s }}", "{{ n.s | tojson }}"] {
            let text = render(&nest(20_000, end), &messages).expect("not too much");
            assert!(text.starts_with("[[[[") && text.len() >= 40_000);
        }
        assert!(render(&nest(99_999, ""), &messages).is_err());
    }

    /// The parser does not count chains as nesting, but dropping them is recursive.
    #[test]
    fn long_chains_are_read_and_dropped() {
        let messages = [Message::new(Role::User, "hi")];
        for (link, end) in [("-", "1"), ("1+", "1"), ("not ", "1")] {
            let chain = link.repeat((MAX_TEMPLATE - 10) / link.len());
            let _ = render(&format!("{{{{ {chain}{end} }}}}"), &messages);
        }
        let chain = "{% elif 0 %}".repeat(MAX_TEMPLATE / 13);
        let _ = render(&format!("{{% if 0 %}}{chain}{{% endif %}}"), &messages);
        let _ = render(&format!("{{{{ a{} }}}}", ".b".repeat(MAX_TEMPLATE / 2 - 10)), &messages);
    }

    #[test]
    fn what_is_no_template_or_takes_too_much_is_an_error() {
        for source in [
            "{% for %}",
            "{{ nothing.at.all }}",
            "{{ open('/etc/passwd') }}",
            "{% include 'x' %}",
            "{{ 1 | tojson(sort_keys=true) }}",
            "{{ 'x' * 1000000000 }}",
            "{% for i in range(100000) %}{% for i in range(100000) %}{% endfor %}{% endfor %}",
            "{% set n = namespace(s='xxxxxxxx') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "{{ '{:>99999999999}'.format(1) }}",
            "{% set n = namespace(s=1) %}{% for i in range(40) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s | tojson }}",
        ] {
            let error = problem(source);
            assert!(error.starts_with("t: chat_template"), "{source}: {error}");
        }
        assert!(problem(&" ".repeat(MAX_TEMPLATE + 1)).contains("bytes"));
    }
}
