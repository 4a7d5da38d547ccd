//! An answer in a conversation while it is generated.

use super::State;
use crate::error::{Error, Result};
use crate::generate::answering::AnswerGeneration;
use crate::generate::draft::DraftStats;
use crate::generate::generation::{FinishReason, TextGeneration};
use crate::network::hook::Progress;
use crate::text::chat::{AnswerEvent, Message, Role};

/// An answer in a [`Conversation`](super::Conversation), given out in pieces of text as it is generated. [`Reply::next_event`] also gives out what the model
/// thinks before it answers.
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
    generation: Option<AnswerGeneration<'c>>,
    /// What was given out: the text, and the thoughts.
    text: String,
    thoughts: String,
    has_failed: bool,
}

/// A finished answer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// What the model thought before.
    pub thoughts: String,
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

impl<'c> Reply<'c> {
    /// The answer that `generation` gives out. Finished, it and `messages` are those of the conversation.
    pub(super) fn new(
        state: &'c mut State,
        messages: Vec<Message>,
        prompt: Vec<u32>,
        dropped: usize,
        generation: AnswerGeneration<'c>,
    ) -> Self {
        let (text, thoughts, generation) = (String::new(), String::new(), Some(generation));
        Reply { state, messages, prompt, dropped, generation, text, thoughts, has_failed: false }
    }
}

impl Reply<'_> {
    /// The next piece of the answer: of the thoughts before it, or of its text.
    pub fn next_event(&mut self) -> Option<Result<AnswerEvent>> {
        let event = self.generation.as_mut()?.next()?;
        match &event {
            Ok(AnswerEvent::Text(piece)) => self.text.push_str(piece),
            Ok(AnswerEvent::Reasoning(piece)) => self.thoughts.push_str(piece),
            Ok(_) => {}
            Err(_) => self.has_failed = true,
        }
        Some(event)
    }

    /// Ids of the prompt.
    pub fn prompt_ids(&self) -> &[u32] {
        &self.prompt
    }

    /// Rounds that are dropped because the conversation does not fit in the context.
    pub fn dropped_rounds(&self) -> usize {
        self.dropped
    }

    /// The text that was given out so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The thoughts that were given out so far.
    pub fn thoughts(&self) -> &str {
        &self.thoughts
    }

    /// The generation whose text this is.
    ///
    /// # Panics
    /// Never: only finishing and dropping a reply take it.
    pub fn generation(&self) -> &TextGeneration<'_> {
        self.generation.as_ref().expect("a reply has a generation until it is dropped").text()
    }

    /// See [`Generation::read_prompt`](crate::Generation::read_prompt).
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
            thoughts: std::mem::take(&mut self.thoughts),
            prompt_ids: std::mem::take(&mut self.prompt),
        };
        if answer.is_appended {
            // A template decides which thoughts it shows.
            let thoughts = (!answer.thoughts.is_empty()).then(|| answer.thoughts.clone());
            let said = Message::new(Role::Assistant, answer.text.clone());
            self.messages.push(Message { reasoning_content: thoughts, ..said });
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
        loop {
            match self.next_event()? {
                Ok(AnswerEvent::Text(piece)) => return Some(Ok(piece)),
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Drop for Reply<'_> {
    fn drop(&mut self) {
        self.state.sequence = self.generation.take().map(AnswerGeneration::into_sequence);
    }
}
