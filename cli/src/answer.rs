//! One answer, shown while it is generated.

use std::time::{Duration, Instant};

use anyhow::Result;
use glm_model::{
    Answer, CancelToken, Error, Finish, Model, Request, Session, Template, TextAnswer, TextStream,
    Tokenizer,
};
use serde_json::{Value, json};

use crate::args::Answering;
use crate::output::note;
use crate::progress;
use crate::units::{count, seconds};

/// What answers, and how.
pub struct Answerer {
    session: Session,
    request: Request,
    stops: Vec<String>,
    template: Option<Template>,
    greedy: bool,
    bar: bool,
}

/// An answer.
pub struct Reply {
    pub ids: Vec<u32>,
    /// What was shown; empty without a tokenizer.
    pub text: String,
    pub finish: Finish,
    /// Whether a stop string has cut the text off.
    pub is_cut: bool,
    prompt_tokens: usize,
    /// Tokens of the prompt that were there already.
    kept: usize,
    reading: Duration,
    answering: Duration,
}

impl Answerer {
    pub fn new(model: &Model, args: &Answering, cancel: CancelToken) -> Result<Self> {
        let session = Session::new(model, args.context)?;
        let request = Request {
            sampling: args.sampling(model.sampling())?,
            max_new_tokens: args.max_new_tokens,
            stop_ids: model.config().special.ends.clone(),
            cancel,
        };
        let greedy = request.sampling.temperature == 0.0;
        Ok(Self { session, request, stops: args.stop.clone(), template: None, greedy, bar: true })
    }

    /// Answers in conversations of this form: ends answers where it ends them, and polishes them as it does.
    pub fn conversing(self, template: Template, tokenizer: &Tokenizer) -> Self {
        Self { template: Some(template.clone()), ..self.ending_as(&template, tokenizer) }
    }

    /// Ends answers where conversations of this form end them.
    pub fn ending_as(self, template: &Template, tokenizer: &Tokenizer) -> Self {
        Self { request: self.request.ending_as(template, tokenizer), ..self }
    }

    /// Draws no bar while a prompt is read.
    pub fn without_bar(self) -> Self {
        Self { bar: false, ..self }
    }

    /// Goes on past the end of an answer.
    pub fn endless(mut self) -> Self {
        self.request.stop_ids.clear();
        self
    }

    /// Tokens that the context holds.
    pub fn context(&self) -> usize {
        self.session.context()
    }

    /// Most ids of an answer, if that is limited.
    pub fn max_new_tokens(&self) -> Option<usize> {
        self.request.max_new_tokens
    }

    /// Where the random numbers start, if there are any.
    pub fn seed(&self) -> Option<u64> {
        (!self.greedy).then_some(self.request.sampling.seed)
    }

    /// From now on draws other numbers; which, the seed decides.
    pub fn next_seed(&mut self) {
        let seed = &mut self.request.sampling.seed;
        *seed = seed.wrapping_add(1);
    }

    /// Answers `prompt`; `show` gets the text in pieces.
    pub fn answer(
        &mut self,
        prompt: &[u32],
        tokenizer: Option<&Tokenizer>,
        show: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Reply> {
        let stream = tokenizer.map(|tokenizer| self.stream(tokenizer)).transpose()?;
        let started = Instant::now();
        let bar = self.bar.then(|| progress::reading(prompt.len()));
        let mut read = |fraction| bar.iter().for_each(|bar| progress::set(bar, fraction));
        let answer = self.session.generate_with_progress(prompt, &self.request, &mut read);
        bar.iter().for_each(|bar| bar.finish_and_clear());
        let answer = answer?;
        let kept = answer.kept();
        let reading = started.elapsed();
        let Said { ids, text, finish, is_cut } = match stream {
            Some(stream) => speak(answer.text(stream), show)?,
            None => count_off(answer)?,
        };
        let answering = started.elapsed() - reading;
        let prompt_tokens = prompt.len();
        Ok(Reply { ids, text, finish, is_cut, prompt_tokens, kept, reading, answering })
    }

    fn stream<'t>(&self, tokenizer: &'t Tokenizer) -> Result<TextStream<'t>> {
        let stream = match &self.template {
            Some(template) => template.stream(tokenizer),
            None => TextStream::new(tokenizer).without_special(),
        };
        Ok(stream.stopping_at(&self.stops)?)
    }
}

/// Ids, text and end of an answer.
struct Said {
    ids: Vec<u32>,
    text: String,
    finish: Finish,
    is_cut: bool,
}

/// Shows an answer while it comes.
fn speak(mut answer: TextAnswer<'_, '_>, show: &mut dyn FnMut(&str) -> Result<()>) -> Result<Said> {
    let mut text = String::new();
    for piece in &mut answer {
        let piece = piece?;
        show(&piece)?;
        text.push_str(&piece);
    }
    let finish = answer.finish().unwrap_or(Finish::Stop);
    Ok(Said { ids: answer.ids().to_vec(), text, finish, is_cut: answer.is_cut() })
}

/// An answer without text.
fn count_off(mut answer: Answer<'_>) -> Result<Said> {
    let ids = answer.by_ref().collect::<Result<_, _>>()?;
    let finish = answer.finish().unwrap_or(Finish::Stop);
    Ok(Said { ids, text: String::new(), finish, is_cut: false })
}

impl Reply {
    /// Says why the answer ended if that is not what one expects, and how long it took if that is wanted. Fails if Ctrl-C
    /// has ended the answer.
    pub fn close(&self, stats: bool) -> Result<()> {
        if self.finish == Finish::Context {
            note("the context is full, and the answer ends here");
        }
        if stats {
            note(&self.stats());
        }
        match self.finish {
            Finish::Cancelled => Err(Error::Cancelled.into()),
            _ => Ok(()),
        }
    }

    /// How long the answer took.
    pub fn stats(&self) -> String {
        format!(
            "[{} read in {}{}; {} in {}, {:.1} a second]",
            count(self.prompt_tokens - self.kept, "token"),
            seconds(self.reading),
            if self.kept > 0 { format!(", {} kept", self.kept) } else { String::new() },
            count(self.ids.len(), "token"),
            seconds(self.answering),
            self.tokens_per_second(),
        )
    }

    fn tokens_per_second(&self) -> f64 {
        self.ids.len() as f64 / self.answering.as_secs_f64().max(1e-6)
    }

    /// `fields`, and what is said of every answer.
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
        });
        if let (Value::Object(fields), Value::Object(rest)) = (&mut fields, rest) {
            fields.extend(rest);
        }
        fields
    }
}
