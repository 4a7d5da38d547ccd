//! Shows an answer while it is generated, and reports on it.

use std::time::{Duration, Instant};

use anyhow::Result;
use glm_model::{
    AnswerEvent, AnswerGeneration, DraftStats, Error, FinishReason, Generation, Progress, Reply,
    TextGeneration,
};
use serde_json::{Value, json};

use crate::messages;
use crate::output::{self, note};
use crate::progress;
use crate::units::seconds;

/// Shows pieces of an answer: of the thoughts before it, and of its text.
pub type Show<'a> = dyn FnMut(&AnswerEvent) -> Result<()> + 'a;

/// An answer that is being generated.
pub trait Answering {
    /// The next piece of the thoughts or of the text.
    fn next_event(&mut self) -> Option<glm_model::Result<AnswerEvent>>;

    /// Reads the prompt.
    fn read_prompt(&mut self, progress: &mut Progress<'_>) -> glm_model::Result<()>;

    /// The generation of the text.
    fn generation(&self) -> &TextGeneration<'_>;
}

impl Answering for TextGeneration<'_> {
    fn next_event(&mut self) -> Option<glm_model::Result<AnswerEvent>> {
        self.next().map(|piece| piece.map(AnswerEvent::Text))
    }

    fn read_prompt(&mut self, progress: &mut Progress<'_>) -> glm_model::Result<()> {
        TextGeneration::read_prompt(self, progress)
    }

    fn generation(&self) -> &TextGeneration<'_> {
        self
    }
}

impl Answering for AnswerGeneration<'_> {
    fn next_event(&mut self) -> Option<glm_model::Result<AnswerEvent>> {
        self.next()
    }

    fn read_prompt(&mut self, progress: &mut Progress<'_>) -> glm_model::Result<()> {
        AnswerGeneration::read_prompt(self, progress)
    }

    fn generation(&self) -> &TextGeneration<'_> {
        self.text()
    }
}

impl Answering for Reply<'_> {
    fn next_event(&mut self) -> Option<glm_model::Result<AnswerEvent>> {
        Reply::next_event(self)
    }

    fn read_prompt(&mut self, progress: &mut Progress<'_>) -> glm_model::Result<()> {
        Reply::read_prompt(self, progress)
    }

    fn generation(&self) -> &TextGeneration<'_> {
        Reply::generation(self)
    }
}

/// An answer that was shown.
pub struct Shown {
    pub ids: Vec<u32>,
    /// Empty if only ids were generated.
    pub text: String,
    /// What the model thought before.
    thoughts: String,
    pub finish: FinishReason,
    /// Whether a stop string ended the text.
    pub is_cut: bool,
    prompt_tokens: usize,
    /// Tokens that the context holds.
    context: usize,
    /// Tokens of the prompt that were not read again.
    kept: usize,
    draft: DraftStats,
    reading: Duration,
    answering: Duration,
}

/// Generates text and passes it to `show` piece by piece. `with_bar` shows a bar while the prompt is read.
pub fn show(answer: &mut impl Answering, with_bar: bool, show: &mut Show<'_>) -> Result<Shown> {
    let tokens = answer.generation().generation().prompt_tokens();
    let reading = timed_reading(tokens, with_bar, |progress| answer.read_prompt(progress))?;
    let started = Instant::now();
    let (mut text, mut thoughts) = (String::new(), String::new());
    while let Some(event) = answer.next_event() {
        let event = event?;
        show(&event)?;
        match &event {
            AnswerEvent::Text(piece) => text.push_str(piece),
            AnswerEvent::Reasoning(piece) => thoughts.push_str(piece),
            _ => {}
        }
    }
    let done = answer.generation();
    let ids = done.ids().to_vec();
    let shown = Shown::new(done.generation(), ids, reading, started.elapsed());
    let finish = done.finish_reason().unwrap_or(FinishReason::Stop);
    Ok(Shown { text, thoughts, finish, is_cut: done.is_cut(), ..shown })
}

/// Generates ids alone.
pub fn generate_ids(mut generation: Generation) -> Result<Shown> {
    let tokens = generation.prompt_tokens();
    let reading = timed_reading(tokens, true, |progress| generation.read_prompt(progress))?;
    let started = Instant::now();
    let ids = generation.by_ref().collect::<Result<_, _>>()?;
    Ok(Shown::new(&generation, ids, reading, started.elapsed()))
}

/// Reads a prompt of `tokens` tokens and returns the time.
fn timed_reading(
    tokens: usize,
    with_bar: bool,
    read: impl FnOnce(&mut Progress<'_>) -> glm_model::Result<()>,
) -> Result<Duration> {
    let started = Instant::now();
    let bar = with_bar.then(|| progress::reading(tokens));
    let done = read(&mut |fraction| bar.iter().for_each(|bar| progress::set(bar, fraction)));
    bar.iter().for_each(progress::Reading::finish_and_clear);
    done?;
    Ok(started.elapsed())
}

impl Shown {
    fn new(generation: &Generation, ids: Vec<u32>, reading: Duration, answering: Duration) -> Self {
        Self {
            ids,
            text: String::new(),
            thoughts: String::new(),
            finish: generation.finish_reason().unwrap_or(FinishReason::Stop),
            is_cut: false,
            prompt_tokens: generation.prompt_tokens(),
            context: generation.context(),
            kept: generation.kept(),
            draft: generation.draft_stats(),
            reading,
            answering,
        }
    }

    /// Notes if the context or the maximum number of tokens ended the answer, and prints statistics if `stats`. Fails if Ctrl-C
    /// ended it.
    pub fn close(&self, stats: bool) -> Result<()> {
        match self.finish {
            FinishReason::Context => note(&messages::context_ended_answer()),
            FinishReason::Length => note(&messages::length_ended_answer(self.ids.len())),
            _ => {}
        }
        if stats {
            note(&self.stats());
        }
        match self.finish {
            FinishReason::Cancelled => Err(Error::Cancelled.into()),
            _ => Ok(()),
        }
    }

    /// Tokens, times, the context, and what became of drafts.
    fn stats(&self) -> String {
        let answer = messages::answer_stats(
            self.prompt_tokens - self.kept,
            self.kept,
            seconds(self.reading),
            self.ids.len(),
            seconds(self.answering),
            format!("{:.1}", self.tokens_per_second()),
        );
        // The last id is not fed back, so it may exceed the context by one.
        let used = (self.prompt_tokens + self.ids.len()).min(self.context);
        let context = messages::context_stats(used, self.context);
        let DraftStats { drafted, accepted, .. } = self.draft;
        let drafts = match self.ids_per_pass() {
            Some(rate) if drafted > 0 => {
                messages::draft_stats(accepted, drafted, format!("{rate:.2}"))
            }
            _ => String::new(),
        };
        format!("[{answer}{context}{drafts}]")
    }

    fn tokens_per_second(&self) -> f64 {
        self.ids.len() as f64 / self.answering.as_secs_f64().max(1e-6)
    }

    /// Ids that a pass has generated; unknown without drafting and without passes.
    fn ids_per_pass(&self) -> Option<f64> {
        let DraftStats { passes, ids, .. } = self.draft;
        (passes > 0).then(|| ids as f64 / passes as f64)
    }

    /// `fields`, and the fields that every answer has. `seed` is `None` for greedy answers.
    pub fn json(&self, seed: Option<u64>, mut fields: Value) -> Value {
        let rest = json!({
            "ids": self.ids,
            "finish": self.finish.name(),
            "prompt_tokens": self.prompt_tokens,
            "kept_tokens": self.kept,
            "seed": seed,
            "prompt_seconds": self.reading.as_secs_f64(),
            "answer_seconds": self.answering.as_secs_f64(),
            "tokens_per_second": self.tokens_per_second(),
            "drafted_tokens": self.draft.drafted,
            "accepted_tokens": self.draft.accepted,
            "tokens_per_pass": self.ids_per_pass(),
        });
        if let (Value::Object(fields), Value::Object(rest)) = (&mut fields, rest) {
            if !self.thoughts.is_empty() {
                fields.insert("reasoning_content".to_owned(), self.thoughts.as_str().into());
            }
            fields.extend(rest);
        }
        fields
    }
}

/// Shows the text of an answer as it is, and nothing of the thoughts before it.
pub fn say_text(event: &AnswerEvent) -> Result<()> {
    match event {
        AnswerEvent::Text(piece) => output::say(piece),
        _ => Ok(()),
    }
}

/// The seed of random numbers, if any are drawn.
pub fn seed(sampling: &glm_model::Sampling) -> Option<u64> {
    (sampling.temperature != 0.0).then_some(sampling.seed)
}
