//! A prompt that is being answered, and the places of its answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use glm_model::Event;
use tokio::sync::mpsc;

use super::Shared;
use super::places::Place;
use crate::serve::metrics::Metrics;

/// A prompt that is being answered.
pub struct Live {
    pub events: mpsc::Sender<(usize, Event)>,
    pub job: u64,
    /// Number of the prompt in the job.
    pub index: usize,
    pub arrived: Instant,
    pub prompt_tokens: usize,
    pub choices: Vec<Choice>,
    pub is_behind: bool,
}

pub struct Choice {
    /// When its last token came.
    pub last: Option<Instant>,
    /// `None` once it has ended.
    pub place: Option<Arc<Place>>,
}

impl Live {
    /// Whether all its choices have ended.
    pub fn has_ended(&self) -> bool {
        self.choices.iter().all(|choice| choice.place.is_none())
    }

    /// Its places that are not free again.
    fn places(&self) -> impl Iterator<Item = &Place> {
        self.choices.iter().filter_map(|choice| choice.place.as_deref())
    }

    /// Keeps its places from now on.
    pub fn begin(&self) {
        self.places().for_each(Place::begin);
    }

    /// Whether another client has its places.
    pub fn gave_way(&self) -> bool {
        self.places().any(Place::gave_way)
    }

    /// Frees the place of an answer that has ended, and notes how long it took.
    pub fn end(&mut self, choice: usize, shared: &Shared) {
        let ended = self.choices.get_mut(choice);
        if ended.is_some_and(|ended| ended.place.take().is_some()) {
            let took = self.arrived.elapsed().as_millis();
            shared.duration.store(u64::try_from(took).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// Counts an event, which may end answers.
    pub fn count(&mut self, event: &Event, metrics: &Metrics, shared: &Shared) {
        match event {
            Event::Started { cached } => {
                metrics.prompt_tokens.inc_by(self.prompt_tokens as u64);
                metrics.cached_tokens.inc_by(*cached as u64);
            }
            Event::Token { choice, .. } => {
                metrics.answer_tokens.inc();
                let now = Instant::now();
                match self.choices[*choice].last.replace(now) {
                    Some(before) => metrics.token(now - before),
                    None if *choice == 0 => metrics.first_token(now - self.arrived),
                    None => {}
                }
            }
            Event::Finished { choice, .. } => self.end(*choice, shared),
            Event::Failed(_) => {
                (0..self.choices.len()).for_each(|choice| self.end(choice, shared));
            }
            _ => {}
        }
    }
}
