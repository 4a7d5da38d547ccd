//! Conversations: messages, and answers that become messages.

mod messages;
mod overflow;
mod reply;

use crate::error::{Error, Result};
use crate::generate::bundle::Bundle;
use crate::generate::generation::{Generation, Request, check_prompt};
use crate::network::adapter::Adapter;
use crate::network::sequence::Sequence;
use crate::text::chat::{Message, PromptOptions, Role};
pub use messages::{images_refused, messages_from_json, messages_to_json};
pub use overflow::Overflow;
use overflow::{Fitted, fit, instructions, longest_prompt};
pub use reply::{Answer, Reply};

/// How a [`Conversation`] answers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConversationOptions {
    /// How each answer is generated. The seed is that of the first answer; each further answer uses the next seed.
    pub request: Request,
    /// How the messages become a prompt: whether the model is to think, for example.
    pub prompt: PromptOptions,
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
        let (prompt, stop_strings) = (PromptOptions::default(), Vec::new());
        Self { request, prompt, stop_strings, overflow: Overflow::default(), context: None }
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
    /// If an option is outside its range, or asks for what the model cannot do.
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
        let (template, tokenizer) = (self.bundle.template(), self.bundle.tokenizer());
        template.prompt_ids_with(tokenizer, messages, self.state.options.prompt)
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
        // Calls of tools stay in the text: the template writes them again as they are.
        let parser = bundle.template().answer_parser(bundle.tokenizer(), &prompt, None, "");
        Ok(Reply::new(state, messages, prompt, dropped, generation.answer(parser)))
    }
}

/// Checks the options that have a range, and that the model can do what they ask for.
fn validate(bundle: &Bundle, options: &ConversationOptions) -> Result<()> {
    options.request.sampling.validate()?;
    bundle.template().check_prompt_options(options.prompt)?;
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

#[cfg(all(test, feature = "demo"))]
mod tests;
