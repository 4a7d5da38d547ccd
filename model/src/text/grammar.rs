//! Answers that follow a grammar: a JSON schema, a regular expression, a grammar in Lark's notation, or the call of a tool.
//!
//! The crate [`llguidance`] computes which tokens may follow. A [`GrammarCompiler`] knows the tokens of one model; it takes some
//! tenths of a second to build, and is shared by all requests. What it compiles is the state of one answer.
//!
//! ```text
//! Grammar, prompt → GrammarCompiler → GrammarConstraint → tokens that may come next → one of them → …
//! ```
//!
//! An answer in a conversation may begin with thoughts, and begins on the line after its role. The grammar is that of what
//! follows.

mod budget;
mod calls;
mod lark;
mod size;
mod vocabulary;
mod watch;

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::generate::constraint::{Constraint, IdSet};
use crate::limits::grammar::{
    MAX_ANSWERS_TIME, MAX_DEPTH, MAX_LEXER_STATES, MAX_SOURCE, MAX_TOKEN_TIME, MORE_TIME, STACK,
};
use crate::text::chat::{CallForm, Template, Thoughts};
use crate::text::nesting::is_deeper;
use crate::text::tokenizer::Tokenizer;
use budget::{Budget, TimeLimits};
use llguidance::api::{GrammarWithLexer, ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{InferenceCapabilities, TokEnv};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use vocabulary::Vocabulary;
use watch::Watch;

/// The name of a grammar within another.
const INNER: &str = "inner";

/// The limits of work and memory. For one token, the crate allows 200 000 steps of the lexer and 50 000 items of the parser, 2 000 at one place.
fn parser_limits() -> ParserLimits {
    ParserLimits {
        max_lexer_states: MAX_LEXER_STATES,
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

/// What an answer must look like: a text, calls of tools, or either of both.
#[derive(Debug, Clone)]
pub struct Grammar {
    text: Option<Text>,
    calls: Option<Calls>,
}

#[derive(Debug, Clone)]
enum Text {
    /// A JSON schema.
    Json(Value),
    Lark(String),
    Regex(String),
}

#[derive(Debug, Clone)]
struct Calls {
    tools: Value,
    /// The name of the only tool that may be called.
    name: Option<String>,
}

impl Grammar {
    /// JSON that a schema describes.
    ///
    /// # Errors
    /// If the schema is longer than 64 KiB, is nested deeper than 64 levels, or combines too many alternatives.
    pub fn json_schema(schema: &Value) -> Result<Self> {
        check_depth("the JSON schema", schema)?;
        size::check(std::iter::once(schema))?;
        Ok(Self::of_text(Text::Json(schema.clone())))
    }

    /// A JSON object.
    pub fn json_object() -> Self {
        Self::of_text(Text::Json(json!({ "type": "object" })))
    }

    /// A text that a grammar in the notation of Lark describes, as [`llguidance`] reads it; its first rule is `start`. Schemas within it
    /// (`%json`) are not supported.
    ///
    /// # Errors
    /// If the grammar is longer than 256 KiB, has brackets nested deeper than 64 levels, or contains `%json`.
    pub fn lark(grammar: &str) -> Result<Self> {
        check_text("the grammar", grammar)?;
        // The limits of schemas would not hold for it.
        if grammar.contains("%json") {
            let problem = "a grammar cannot contain %json: give a JSON schema in place of the grammar, or write \\u0025json if it is text";
            return Err(Error::Grammar(problem.to_owned()));
        }
        Ok(Self::of_text(Text::Lark(grammar.to_owned())))
    }

    /// A text that a regular expression describes as a whole.
    ///
    /// # Errors
    /// As [`Grammar::lark`].
    pub fn regex(expression: &str) -> Result<Self> {
        check_text("the regular expression", expression)?;
        Ok(Self::of_text(Text::Regex(expression.to_owned())))
    }

    /// The call of one of these tools, or of the one with this name. `tools` are given as for [`offer_tools`](crate::offer_tools).
    ///
    /// # Errors
    /// If there is no such tool, if the tools are longer than 256 KiB or nested deeper than 64 levels, or if the schema of one is too
    /// large, as for [`Grammar::json_schema`].
    pub fn call(tools: &Value, name: Option<&str>) -> Result<Self> {
        Ok(Grammar { text: None, calls: Some(Calls::new(tools, name, None)?) })
    }

    /// An answer that follows this grammar, or the call of one of these tools: the model chooses. One that has no form for calls
    /// follows the grammar. [`AnswerParser::without_calls_after_text`](crate::AnswerParser::without_calls_after_text) reads the answer.
    ///
    /// # Errors
    /// As [`Grammar::call`], where the schema of this grammar counts together with those of the tools.
    pub fn or_call(self, tools: &Value) -> Result<Self> {
        let schema = match &self.text {
            Some(Text::Json(schema)) => Some(schema),
            _ => None,
        };
        let calls = Some(Calls::new(tools, None, schema)?);
        Ok(Grammar { calls, ..self })
    }

    fn of_text(text: Text) -> Self {
        Grammar { text: Some(text), calls: None }
    }
}

impl Calls {
    /// `schema` is that of the text which may come in place of calls.
    ///
    /// # Errors
    /// As [`Grammar::call`].
    fn new(tools: &Value, name: Option<&str>, schema: Option<&Value>) -> Result<Self> {
        check_depth("the list of tools", tools)?;
        check_length("the list of tools", tools.to_string().len())?;
        calls::check(tools, name, schema)?;
        Ok(Calls { tools: tools.clone(), name: name.map(str::to_owned) })
    }
}

/// # Errors
/// If the JSON is too deep.
fn check_depth(what: &str, value: &Value) -> Result<()> {
    if is_deeper(value, MAX_DEPTH) {
        return Err(Error::Grammar(format!("{what} is nested deeper than {MAX_DEPTH} levels")));
    }
    Ok(())
}

/// # Errors
/// If the text is too long or too deep.
fn check_text(what: &str, text: &str) -> Result<()> {
    let (mut depth, mut deepest) = (0_usize, 0);
    for c in text.chars() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    if deepest > MAX_DEPTH {
        let problem = format!("{what} has brackets nested deeper than {MAX_DEPTH} levels");
        return Err(Error::Grammar(problem));
    }
    check_length(what, text.len())
}

fn check_length(what: &str, length: usize) -> Result<()> {
    match length {
        0..=MAX_SOURCE => Ok(()),
        _ => {
            Err(Error::Grammar(format!("{what} has {length} bytes, and {MAX_SOURCE} are the most")))
        }
    }
}

/// Compiles grammars for the tokens of one model.
#[derive(Clone)]
pub struct GrammarCompiler(Arc<Parts>);

struct Parts {
    factory: ParserFactory,
    template: Template,
    watch: Watch,
    limits: TimeLimits,
}

impl GrammarCompiler {
    /// A compiler for a model with this tokenizer and template, whose answers end with one of the ids `ends`.
    ///
    /// # Errors
    /// If the tokenizer has none of the `ends`, or a thread cannot be started.
    pub fn new(tokenizer: &Tokenizer, template: &Template, ends: &[u32]) -> Result<Self> {
        let limits =
            TimeLimits { token: MAX_TOKEN_TIME, answers: MAX_ANSWERS_TIME, more: MORE_TIME };
        Self::with_limits(tokenizer, template, ends, limits)
    }

    fn with_limits(
        tokenizer: &Tokenizer,
        template: &Template,
        ends: &[u32],
        limits: TimeLimits,
    ) -> Result<Self> {
        let vocabulary: TokEnv = Arc::new(Vocabulary::new(tokenizer, ends)?);
        let capabilities = InferenceCapabilities::default();
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let mut factory =
            ParserFactory::new(&vocabulary, capabilities, &slices).map_err(|e| invalid(&e))?;
        factory.quiet();
        *factory.limits_mut() = parser_limits();
        let template = template.clone();
        let watch = Watch::start(limits.token).map_err(|error| no_thread(&error))?;
        Ok(GrammarCompiler(Arc::new(Parts { factory, template, watch, limits })))
    }

    /// The state of an answer to `prompt` that follows `grammar`. `tokenizer` is the one that the compiler was built for.
    ///
    /// # Errors
    /// If the grammar is not valid, has parts that are not supported, or exceeds a limit; and for a call, if the model has no
    /// form for calls.
    pub fn compile(
        &self,
        grammar: &Grammar,
        tokenizer: &Tokenizer,
        prompt: &[u32],
    ) -> Result<GrammarConstraint> {
        let Parts { factory, template, watch, limits } = &*self.0;
        let thoughts = template.thoughts(tokenizer, prompt);
        let source = whole(grammar, template.call_form(), thoughts)?;
        let parser = thread::scope(|scope| {
            let compile = || factory.create_parser(source);
            let thread = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, compile);
            let thread = thread.map_err(|error| no_thread(&error))?;
            let parser = thread
                .join()
                .map_err(|_| Error::Grammar("the grammar cannot be compiled".into()))?;
            parser.map_err(|error| match grammar.text {
                Some(Text::Json(_)) | None => of_schema(&error),
                Some(Text::Lark(_) | Text::Regex(_)) => invalid(&error),
            })
        })?;
        let matcher = Matcher::new(Ok(parser)).into_cancellable();
        let budget = Arc::new(Budget::new(*limits));
        Ok(GrammarConstraint { matcher, watch: watch.clone(), budget })
    }
}

impl std::fmt::Debug for GrammarCompiler {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("GrammarCompiler").finish_non_exhaustive()
    }
}

/// The grammar of a whole answer.
fn whole(
    Grammar { text, calls }: &Grammar,
    form: Option<CallForm>,
    thoughts: Thoughts,
) -> Result<TopLevelGrammar> {
    if text.is_none() && form.is_none() {
        return Err(Error::Grammar("this model has no form for calls of tools".to_owned()));
    }
    let (mut alternatives, mut rules, mut inner) = (Vec::new(), String::new(), None);
    if let Some((form, Calls { tools, name })) = form.zip(calls.as_ref()) {
        alternatives.push(format!("{} calls", lark::before_calls(form)));
        rules += &calls::lark(form, tools, name.as_deref())?;
    }
    if let Some(text) = text {
        alternatives.push(format!("{} text", lark::before_text(form)));
        rules += &match text {
            Text::Json(schema) => format!("text: %json {}\n", lark::schema(schema)),
            Text::Lark(_) | Text::Regex(_) => format!("text: @{INNER}\n"),
        };
        inner = match text {
            Text::Json(_) => None,
            Text::Lark(grammar) => Some(GrammarWithLexer::from_lark(grammar.clone())),
            Text::Regex(expression) => Some(GrammarWithLexer::from_regex(expression)),
        };
    }
    let begin = lark::begin(thoughts);
    let answer = alternatives.join(" | ");
    let mut whole = TopLevelGrammar::from_lark(format!("{begin}answer: {answer}\n{rules}"));
    let named = inner.map(|inner| GrammarWithLexer { name: Some(INNER.to_owned()), ..inner });
    whole.grammars.extend(named);
    Ok(whole)
}

fn invalid(error: &impl std::fmt::Display) -> Error {
    Error::Grammar(format!("the grammar is not valid: {error:#}"))
}

fn no_thread(error: &std::io::Error) -> Error {
    Error::Grammar(format!("cannot start a thread: {error}"))
}

/// An error in a schema. The compiler shows the lines around it in the grammar of the whole answer, which nobody has written.
fn of_schema(error: &impl std::fmt::Display) -> Error {
    let whole = format!("{error:#}");
    let first = whole.lines().next().unwrap_or_default();
    let is_place = |place: &str| place.starts_with("at ") && place.ends_with(')');
    let problem =
        first.split_once(": ").filter(|(place, _)| is_place(place)).map_or(first, |(_, rest)| rest);
    Error::Grammar(format!("the schema is not valid: {problem}"))
}

fn too_much_work(reason: &str) -> Error {
    Error::Grammar(format!("the grammar takes too much work to follow: {reason}"))
}

/// The state of an answer that follows a grammar: the constraint of a [`Request`](crate::Request). It and its clones, which are the
/// other answers to the request, have a limit of time together.
#[derive(Clone)]
pub struct GrammarConstraint {
    matcher: Matcher,
    watch: Watch,
    budget: Arc<Budget>,
}

impl GrammarConstraint {
    /// Does the work for one token.
    ///
    /// # Errors
    /// If a limit is exceeded.
    fn guarded<R, E: std::fmt::Display>(
        &mut self,
        work: impl FnOnce(&mut Matcher) -> Result<R, E>,
    ) -> Result<R> {
        let Self { matcher, watch, budget } = self;
        let TimeLimits { token, answers, more } = budget.limits();
        if budget.is_spent() {
            let [answers, more] = [answers, more].map(|limit| limit.as_secs_f32());
            let reason =
                format!("the answers took longer than {answers} s and {more} s for each token");
            return Err(too_much_work(&reason));
        }
        let begin = Instant::now();
        let done = watch.guard(matcher, work);
        budget.spend(begin.elapsed());
        done.map_err(|error| match matcher.is_cancelled() {
            true => too_much_work(&format!("one token took longer than {} s", token.as_secs_f32())),
            // The next line tells what `verbose_errors` would show.
            false => too_much_work(format!("{error:#}").lines().next().unwrap_or_default()),
        })
    }
}

impl Constraint for GrammarConstraint {
    /// Where the grammar is complete, the ids that end an answer are among them.
    fn allowed(&mut self, allowed: &mut IdSet) -> Result<bool> {
        let mask = self.guarded(Matcher::compute_mask_or_eos)?;
        for (word, bits) in allowed.words_mut().iter_mut().zip(mask.as_slice()) {
            *word = *bits;
        }
        Ok(true)
    }

    fn accept(&mut self, id: u32) -> Result<()> {
        self.guarded(|matcher| matcher.consume_token(id))?;
        self.budget.add_token();
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

impl std::fmt::Debug for GrammarConstraint {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("GrammarConstraint").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
