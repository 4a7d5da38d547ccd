//! Conversations: messages, and answers that become messages.

mod messages;
mod overflow;

use crate::error::{Error, Result};
use crate::generate::bundle::Bundle;
use crate::generate::draft::DraftStats;
use crate::generate::generation::{
    FinishReason, Generation, Request, TextGeneration, check_prompt,
};
use crate::network::adapter::Adapter;
use crate::network::hook::Progress;
use crate::network::sequence::Sequence;
use crate::text::chat::{Message, Role};
pub use messages::{messages_from_json, messages_to_json};
pub use overflow::Overflow;
use overflow::{Fitted, fit, instructions, longest_prompt};

/// How a [`Conversation`] answers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConversationOptions {
    /// How each answer is generated. The seed is that of the first answer; each further answer uses the next seed.
    pub request: Request,
    /// Texts that end an answer. They are not part of it.
    pub stop_strings: Vec<String>,
    /// What happens when the conversation does not fit in the context.
    pub overflow: Overflow,
    /// Tokens that the context holds, as in [`Model::sequence`](crate::Model::sequence).
    pub context: Option<usize>,
}

impl ConversationOptions {
    /// Answers to `request`, without stop strings, in the default context. See [`Bundle::request`].
    pub fn new(request: Request) -> Self {
        let (stop_strings, overflow) = (Vec::new(), Overflow::default());
        Self { request, stop_strings, overflow, context: None }
    }
}

/// Messages, and the means to answer them.
///
/// An answer becomes a message when [`Reply::finish`] succeeds. Until then, and after every error, the conversation is as it was
/// before the question.
pub struct Conversation {
    bundle: Bundle,
    state: State,
}

/// What changes.
struct State {
    messages: Vec<Message>,
    options: ConversationOptions,
    /// The tokens of the last prompt and answer. A reply takes it and gives it back.
    sequence: Option<Sequence>,
    /// Tokens that a sequence holds.
    capacity: usize,
}

impl Conversation {
    /// A conversation without messages.
    ///
    /// # Errors
    /// If an option is outside its range.
    pub fn new(bundle: &Bundle, options: ConversationOptions) -> Result<Self> {
        validate(bundle, &options)?;
        let sequence = bundle.model().sequence(options.context)?;
        let capacity = sequence.capacity();
        let state = State { messages: Vec::new(), options, sequence: Some(sequence), capacity };
        Ok(Self { bundle: bundle.clone(), state })
    }

    /// A conversation with the messages that [`Conversation::to_json`] wrote, or with others that [`messages_from_json`] can read.
    /// They may end with a question or with an answer.
    ///
    /// # Errors
    /// As [`Conversation::new`] and [`messages_from_json`].
    pub fn from_json(bundle: &Bundle, options: ConversationOptions, json: &str) -> Result<Self> {
        let mut conversation = Self::new(bundle, options)?;
        conversation.state.messages = messages_from_json(json)?;
        Ok(conversation)
    }

    /// The messages as JSON; see [`messages_to_json`].
    pub fn to_json(&self) -> String {
        messages_to_json(self.messages())
    }

    /// What answers.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// The messages.
    pub fn messages(&self) -> &[Message] {
        &self.state.messages
    }

    /// The options; the seed is that of the next answer.
    pub fn options(&self) -> &ConversationOptions {
        &self.state.options
    }

    /// Replaces the options from the next answer on. The context keeps its size.
    ///
    /// # Errors
    /// If an option is outside its range. The options then stay as they were.
    pub fn set_options(&mut self, options: ConversationOptions) -> Result<()> {
        validate(&self.bundle, &options)?;
        let context = self.state.options.context;
        self.state.options = ConversationOptions { context, ..options };
        Ok(())
    }

    /// Answers from the next one on have another adapter of the model, or none: see [`Model::with_adapter`](crate::Model::with_adapter).
    /// The messages stay, and are computed again with it.
    ///
    /// # Errors
    /// If the adapter belongs to another model. The conversation is then as it was.
    pub fn set_adapter(&mut self, adapter: Option<&Adapter>) -> Result<()> {
        if adapter != self.bundle.model().adapter() {
            self.bundle = self.bundle.with_adapter(adapter)?;
            self.state.sequence = None;
        }
        Ok(())
    }

    /// Tokens that the context holds.
    pub fn context(&self) -> usize {
        self.state.capacity
    }

    /// Tokens of the messages as a prompt, with an empty question behind them unless they end with one.
    ///
    /// # Errors
    /// If the template cannot write the messages.
    pub fn prompt_tokens(&self) -> Result<usize> {
        Ok(self.encode(&with_question(&self.state.messages))?.len())
    }

    /// Replaces the messages, and returns those that were there.
    ///
    /// # Errors
    /// If the template cannot write them, as in [`Conversation::check`]. The conversation is then as it was.
    pub fn set_messages(&mut self, messages: Vec<Message>) -> Result<Vec<Message>> {
        self.encode(&with_question(&messages))?;
        Ok(std::mem::replace(&mut self.state.messages, messages))
    }

    /// Appends a message.
    pub fn append(&mut self, message: Message) {
        self.state.messages.push(message);
    }

    /// Asks a question: the messages with a new one by the user are answered.
    ///
    /// # Errors
    /// As [`Conversation::answer`].
    pub fn ask(&mut self, question: impl Into<String>) -> Result<Reply<'_>> {
        let mut messages = self.state.messages.clone();
        messages.push(Message::new(Role::User, question));
        self.reply(messages)
    }

    /// Answers the messages as they are.
    ///
    /// # Errors
    /// If the template cannot write the messages, they do not fit in the context, or there is no memory.
    pub fn answer(&mut self) -> Result<Reply<'_>> {
        self.reply(self.state.messages.clone())
    }

    /// Answers the last question again, with the next seed. The new answer replaces the old one.
    ///
    /// # Errors
    /// If the last message is not an answer, and as [`Conversation::answer`].
    pub fn regenerate(&mut self) -> Result<Reply<'_>> {
        let mut messages = self.state.messages.clone();
        if messages.pop_if(|last| last.role == Role::Assistant).is_none() {
            return Err(Error::Prompt("there is no answer yet to generate again".to_owned()));
        }
        self.reply(messages)
    }

    /// Removes the last question and everything after it. Returns whether there was one.
    pub fn undo(&mut self) -> bool {
        let messages = &mut self.state.messages;
        let question = messages.iter().rposition(|message| message.role == Role::User);
        question.inspect(|&at| messages.truncate(at)).is_some()
    }

    /// Removes all messages except instructions at the beginning.
    pub fn clear(&mut self) {
        self.state.messages.truncate(instructions(&self.state.messages));
    }

    /// Checks that the template can write the messages, with a question behind them unless they end with one.
    ///
    /// # Errors
    /// If it cannot.
    pub fn check(&self) -> Result<()> {
        self.encode(&with_question(&self.state.messages)).map(|_| ())
    }

    /// Drops the oldest rounds as [`Overflow::DropOldest`] does before an answer, and returns how many. Messages that end with an
    /// answer are measured with an empty question behind them.
    ///
    /// # Errors
    /// If the template cannot write the messages.
    pub fn trim(&mut self) -> Result<usize> {
        let count = self.state.messages.len();
        let messages = with_question(&self.state.messages);
        let added = messages.len() - count;
        let mut fitted = fit(messages, self.longest_prompt(), |messages| self.encode(messages))?;
        fitted.messages.truncate(fitted.messages.len() - added);
        self.state.messages = fitted.messages;
        Ok(fitted.dropped)
    }

    fn encode(&self, messages: &[Message]) -> Result<Vec<u32>> {
        self.bundle.template().prompt_ids(self.bundle.tokenizer(), messages)
    }

    fn longest_prompt(&self) -> usize {
        longest_prompt(self.state.capacity, self.state.options.request.max_new_tokens)
    }

    /// The answer to `messages`, which replace those of the conversation when it is finished.
    fn reply(&mut self, messages: Vec<Message>) -> Result<Reply<'_>> {
        let Fitted { messages, prompt, dropped } = match self.state.options.overflow {
            Overflow::Error => Fitted { prompt: self.encode(&messages)?, messages, dropped: 0 },
            Overflow::DropOldest => {
                fit(messages, self.longest_prompt(), |messages| self.encode(messages))?
            }
        };
        let Self { bundle, state } = self;
        let model = bundle.model();
        // An error must not cost the sequence.
        check_prompt(model, &prompt, state.capacity)?;
        let stream = bundle.template().stream(bundle.tokenizer());
        let stream = stream.stopping_at(&state.options.stop_strings)?;
        let sequence = state.sequence.take();
        let sequence = sequence.map_or_else(|| model.sequence(Some(state.capacity)), Ok)?;
        let request = state.options.request.clone();
        let generation = Generation::new(model, sequence, &prompt, request)?.text(stream);
        let text = String::new();
        let generation = Some(generation);
        Ok(Reply { state, messages, prompt, dropped, generation, text, has_failed: false })
    }
}

/// Checks the options that have a range.
fn validate(bundle: &Bundle, options: &ConversationOptions) -> Result<()> {
    options.request.sampling.validate()?;
    bundle.template().stream(bundle.tokenizer()).stopping_at(&options.stop_strings)?;
    Ok(())
}

/// The messages, with an empty question if no answer can follow them as they are.
fn with_question(messages: &[Message]) -> Vec<Message> {
    let mut messages = messages.to_vec();
    let is_asked = |last: &Message| !matches!(last.role, Role::Assistant | Role::System);
    if !messages.last().is_some_and(is_asked) {
        messages.push(Message::new(Role::User, ""));
    }
    messages
}

/// An answer in a [`Conversation`], given out in pieces of text as it is generated.
///
/// [`Reply::finish`] appends it to the conversation. Dropping it without that leaves the conversation as it was.
///
/// ```
/// # #[cfg(feature = "demo")] {
/// use glm_model::{Conversation, ConversationOptions, Options, demo};
///
/// let bundle = demo::bundle(&Options::default())?;
/// let options = ConversationOptions::new(bundle.request(7));
/// let mut conversation = Conversation::new(&bundle, options)?;
/// let mut reply = conversation.ask("你好")?;
/// for piece in &mut reply {
///     print!("{}", piece?);
/// }
/// let answer = reply.finish()?;
/// assert_eq!(conversation.messages()[1].content, answer.text);
/// # }
/// # Ok::<(), glm_model::Error>(())
/// ```
pub struct Reply<'c> {
    state: &'c mut State,
    /// The messages that are answered.
    messages: Vec<Message>,
    prompt: Vec<u32>,
    dropped: usize,
    /// `None` once it has given its sequence back.
    generation: Option<TextGeneration<'c>>,
    /// What was given out.
    text: String,
    has_failed: bool,
}

/// A finished answer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// Its ids, with the stop id if it ended with one.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub finish: FinishReason,
    /// Whether it became a message of the conversation: not if it was cancelled before its first word.
    pub is_appended: bool,
    /// Ids of the prompt.
    pub prompt_ids: Vec<u32>,
    /// Tokens of the prompt that were not read again, because they were those of the prompt before.
    pub kept_tokens: usize,
    /// Rounds that were dropped because the conversation did not fit in the context.
    pub dropped_rounds: usize,
    /// The seed that it was generated with.
    pub seed: u64,
    /// How many drafted ids were verified and accepted.
    pub draft: DraftStats,
}

impl Reply<'_> {
    /// Ids of the prompt.
    pub fn prompt_ids(&self) -> &[u32] {
        &self.prompt
    }

    /// Rounds that are dropped because the conversation does not fit in the context.
    pub fn dropped_rounds(&self) -> usize {
        self.dropped
    }

    /// What was given out so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The generation whose text this is.
    ///
    /// # Panics
    /// Never: only finishing and dropping a reply take it.
    pub fn generation(&self) -> &TextGeneration<'_> {
        self.generation.as_ref().expect("a reply has a generation until it is dropped")
    }

    /// See [`Generation::read_prompt`].
    ///
    /// # Errors
    /// As there.
    pub fn read_prompt(&mut self, progress: &mut Progress<'_>) -> Result<()> {
        let Some(generation) = &mut self.generation else { return Ok(()) };
        let read = generation.read_prompt(progress);
        self.has_failed |= read.is_err();
        read
    }

    /// Generates what is left of the answer and appends it to the conversation, unless it was cancelled before its first word.
    /// To end an answer early and append what it has, cancel the request first.
    ///
    /// # Errors
    /// If generating failed, now or before ([`Error::Failed`]). The conversation is then as it was.
    pub fn finish(mut self) -> Result<Answer> {
        for piece in &mut self {
            piece?;
        }
        if self.has_failed {
            return Err(Error::Failed);
        }
        let generation = self.generation();
        let finish = generation.finish_reason().unwrap_or(FinishReason::Stop);
        let answer = Answer {
            is_appended: finish != FinishReason::Cancelled || !self.text.is_empty(),
            ids: generation.ids().to_vec(),
            finish,
            kept_tokens: generation.generation().kept(),
            draft: generation.generation().draft_stats(),
            dropped_rounds: self.dropped,
            seed: self.state.options.request.sampling.seed,
            text: std::mem::take(&mut self.text),
            prompt_ids: std::mem::take(&mut self.prompt),
        };
        if answer.is_appended {
            self.messages.push(Message::new(Role::Assistant, answer.text.clone()));
            self.state.messages = std::mem::take(&mut self.messages);
            let seed = &mut self.state.options.request.sampling.seed;
            *seed = seed.wrapping_add(1);
        }
        Ok(answer)
    }
}

impl Iterator for Reply<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        let piece = self.generation.as_mut()?.next()?;
        match &piece {
            Ok(piece) => self.text.push_str(piece),
            Err(_) => self.has_failed = true,
        }
        Some(piece)
    }
}

impl Drop for Reply<'_> {
    fn drop(&mut self) {
        self.state.sequence = self.generation.take().map(TextGeneration::into_sequence);
    }
}

#[cfg(all(test, feature = "demo"))]
mod tests;
