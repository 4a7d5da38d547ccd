//! The thread that computes answers: it owns the [`Batch`], and every pass goes over all answers in progress.
//!
//! ```text
//! handlers ── tasks ─▶ engine: submit, pass, pass, …
//!    ▲                    │
//!    └── events, one bounded channel for each job
//! ```
//!
//! The engine never waits for a client. A client that has gone, or that leaves its channel full, is cancelled before the next pass. So is a
//! job whose places another client has got before it began.

mod cache_file;
mod live;
mod places;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc as jobs};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use glm_model::{
    Batch, BatchOptions, CancelToken, Client, Error, Event, Model, Submission, Ticket,
};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::oneshot;

use self::live::{Choice, Live};
pub use self::places::Places;
use self::places::{Capacity, Request};
use super::error::{ApiError, Result as ApiResult};
use super::metrics::Metrics;
use crate::failure;
use crate::limits::server::BEHIND;
use crate::messages;
use crate::output::note;

/// What a handler receives. To drop it cancels the answers that have not ended.
pub struct Events {
    received: mpsc::Receiver<(usize, Event)>,
    job: u64,
    tasks: jobs::Sender<Task>,
    request: Arc<Request>,
    shared: Arc<Shared>,
}

impl Events {
    /// The next event and the number of its prompt in the job; `None` if the engine has dropped the answers.
    ///
    /// # Errors
    /// If the request has lost its places to another client before one of the answers began.
    pub async fn recv(&mut self) -> ApiResult<Option<(usize, Event)>> {
        match self.received.recv().await {
            None if self.request.gave_way() => {
                Err(ApiError::queue_is_full(self.shared.retry_after()))
            }
            event => Ok(event),
        }
    }

    /// Ends one answer to a prompt of the job, whose further ids are not needed.
    pub fn stop(&self, prompt: usize, choice: usize) {
        // An engine that has ended computes nothing.
        let _ = self.tasks.send(Task::Stop { job: self.job, prompt, choice });
    }
}

/// Prompts that are answered together, for one request.
struct Job {
    number: u64,
    submissions: Vec<Submission>,
    events: mpsc::Sender<(usize, Event)>,
    arrived: Instant,
    /// A place for each answer.
    places: Places,
}

/// What the thread is to do.
enum Task {
    Answer(Job),
    Stop {
        job: u64,
        prompt: usize,
        choice: usize,
    },
    /// Save the cache unless that is cancelled, say how it went, and end.
    End(CancelToken, oneshot::Sender<glm_model::Result<()>>),
}

/// The handle of the engine.
pub struct Engine {
    tasks: jobs::Sender<Task>,
    /// Jobs so far.
    jobs: AtomicU64,
    has_file: bool,
    capacity: Capacity,
    shared: Arc<Shared>,
}

/// What the thread and its handle share.
#[derive(Default)]
struct Shared {
    stops: AtomicBool,
    /// Milliseconds that an answer took lately.
    duration: AtomicU64,
}

impl Engine {
    /// Starts the thread. At most `options.max_sequences` answers are generated at a time, and `queue` more wait. The cache is that of
    /// the file, if it has one for this model. `failed` is called if the thread ends by a panic.
    ///
    /// # Errors
    /// If an option is out of range, the file cannot be used, or there is no thread.
    pub fn start(
        model: &Model,
        options: BatchOptions,
        queue: usize,
        file: Option<PathBuf>,
        metrics: Metrics,
        failed: impl FnOnce() + Send + 'static,
    ) -> Result<Self> {
        let capacity = Capacity::new(options.max_sequences + queue);
        let mut batch = Batch::new(model, options)?;
        if let Some(said) = cache_file::read(&mut batch, file.as_deref())? {
            note(&said);
        }
        let has_file = file.is_some();
        let shared = Arc::new(Shared::default());
        let (tasks, received) = jobs::channel();
        let worker = Worker {
            model: model.clone(),
            batch,
            file,
            tasks: received,
            live: HashMap::new(),
            metrics,
            shared: Arc::clone(&shared),
            is_changed: false,
            second: ([0; 2], Instant::now()),
        };
        let run = move || {
            // The hook of panics has written to the log.
            if catch_unwind(AssertUnwindSafe(|| worker.run())).is_err() {
                failed();
            }
        };
        thread::Builder::new().name("engine".to_owned()).spawn(run).context("engine")?;
        Ok(Self { tasks, jobs: AtomicU64::new(0), has_file, capacity, shared })
    }

    /// Asks for answers to the prompts, which are of one client.
    ///
    /// # Errors
    /// If too many answers wait already, or the engine has ended.
    pub fn submit(&self, submissions: Vec<Submission>) -> ApiResult<Events> {
        let client = submissions.first().map(|first| first.client).unwrap_or_default();
        let answers = submissions.iter().map(|submission| submission.choices.max(1)).sum();
        self.submit_in(self.take(client, answers, false)?, submissions)
    }

    /// Places for this many answers of a client, one after the other. Once the first of them has begun, no other client gets the places.
    ///
    /// # Errors
    /// If too many answers wait already, or the address has half of the places for such answers.
    pub fn places(&self, client: Client, answers: usize) -> ApiResult<Places> {
        self.take(client, answers, true)
    }

    fn take(&self, client: Client, answers: usize, keeps: bool) -> ApiResult<Places> {
        let places = self.capacity.take(client, answers, keeps);
        places.ok_or_else(|| ApiError::queue_is_full(self.shared.retry_after()))
    }

    /// As [`Engine::submit`], in places that the request has already: one for each answer.
    ///
    /// # Errors
    /// If the engine has ended.
    pub fn submit_in(&self, places: Places, submissions: Vec<Submission>) -> ApiResult<Events> {
        let (events, received) = mpsc::channel(BEHIND);
        let number = self.jobs.fetch_add(1, Ordering::Relaxed);
        let request = Arc::clone(&places.request);
        let job = Job { number, submissions, events, arrived: Instant::now(), places };
        self.tasks.send(Task::Answer(job)).map_err(|_| ApiError::draining())?;
        let (tasks, shared) = (self.tasks.clone(), Arc::clone(&self.shared));
        Ok(Events { received, job: number, tasks, request, shared })
    }

    /// Ends all answers.
    pub fn stop(&self) {
        self.shared.stops.store(true, Ordering::Relaxed);
    }

    /// Saves the cache, if there is a file for it. The thread has ended then.
    ///
    /// # Errors
    /// If the file cannot be written, `cancel` asks for the end before it is, or the thread panics.
    pub async fn end(&self, cancel: &CancelToken) -> glm_model::Result<()> {
        let (done, saved) = oneshot::channel();
        if !self.has_file || self.tasks.send(Task::End(cancel.clone(), done)).is_err() {
            return Ok(());
        }
        // Nothing is received from a thread that has panicked.
        saved.await.unwrap_or(Err(glm_model::Error::Panicked("the engine")))
    }
}

impl Shared {
    /// Seconds after which a place may be free: the time that an answer took lately.
    fn retry_after(&self) -> u64 {
        let duration = Duration::from_millis(self.duration.load(Ordering::Relaxed));
        duration.as_secs().clamp(1, 60)
    }
}

/// The thread.
struct Worker {
    model: Model,
    batch: Batch,
    /// Where the cache is saved.
    file: Option<PathBuf>,
    tasks: jobs::Receiver<Task>,
    live: HashMap<Ticket, Live>,
    metrics: Metrics,
    shared: Arc<Shared>,
    /// Whether the log says that a file of the model was changed.
    is_changed: bool,
    /// The tokens at the beginning of the current second.
    second: ([u64; 2], Instant),
}

impl Worker {
    fn run(mut self) {
        loop {
            let first = if self.live.is_empty() {
                self.report();
                match self.tasks.recv() {
                    Ok(task) => Some(task),
                    Err(_) => return,
                }
            } else {
                None
            };
            let tasks: Vec<_> = first.into_iter().chain(self.tasks.try_iter()).collect();
            for task in tasks {
                match task {
                    Task::Answer(job) => self.take(job),
                    Task::Stop { job, prompt, choice } => self.stop(job, prompt, choice),
                    Task::End(cancel, done) => {
                        let file = self.file.as_deref();
                        let _ = done.send(cache_file::write(&self.batch, file, &cancel));
                        return;
                    }
                }
            }
            if self.shared.stops.load(Ordering::Relaxed) {
                self.cancel(|_| true);
            }
            self.cancel(|live| live.is_behind || live.events.is_closed() || live.gave_way());
            self.pass();
            self.report();
        }
    }

    fn take(&mut self, job: Job) {
        let Job { number, submissions, events, arrived, places } = job;
        let mut places = places.each.into_iter();
        for (index, submission) in submissions.into_iter().enumerate() {
            let prompt_tokens = submission.prompt.len();
            let place = |_| Choice { last: None, place: places.next() };
            let choices = (0..submission.choices).map(place).collect();
            match self.batch.submit(submission) {
                Ok(ticket) => {
                    let live = Live {
                        events: events.clone(),
                        job: number,
                        index,
                        arrived,
                        prompt_tokens,
                        choices,
                        is_behind: false,
                    };
                    self.live.insert(ticket, live);
                }
                Err(error) => {
                    let _ = events.try_send((index, Event::Failed(error)));
                }
            }
        }
    }

    /// Ends one answer without an event.
    fn stop(&mut self, job: u64, prompt: usize, choice: usize) {
        let mut live = self.live.iter_mut();
        let found = live.find(|(_, live)| (live.job, live.index) == (job, prompt));
        // It may have ended meanwhile.
        let Some((&ticket, live)) = found else { return };
        self.batch.stop(ticket, choice);
        live.end(choice, &self.shared);
        if live.has_ended() {
            self.live.remove(&ticket);
        }
    }

    /// Ends answers without an event: their channels close.
    fn cancel(&mut self, is_over: impl Fn(&Live) -> bool) {
        let Self { batch, live, .. } = self;
        live.retain(|ticket, live| {
            let is_over = is_over(live);
            if is_over {
                batch.cancel(*ticket);
            }
            !is_over
        });
    }

    fn pass(&mut self) {
        let Self { batch, live, metrics, shared, is_changed, .. } = self;
        batch.pass(&mut |ticket, event| {
            let Some(answer) = live.get_mut(&ticket) else { return };
            if matches!(event, Event::Begun) {
                answer.begin();
                return;
            }
            // It is cancelled before the next pass.
            if answer.gave_way() {
                return;
            }
            if let &Event::Failed(Error::FileChanged { ref path, change }) = &event
                && !std::mem::replace(is_changed, true)
            {
                // Once: all further requests fail with it.
                let error = Error::FileChanged { path: path.clone(), change }.into();
                note(&messages::error(failure::message(&error)));
            }
            answer.count(&event, metrics, shared);
            let sent = answer.events.try_send((answer.index, event));
            answer.is_behind |= matches!(sent, Err(TrySendError::Full(_)));
            if answer.has_ended() {
                live.remove(&ticket);
            }
        });
    }

    fn report(&mut self) {
        let stats = self.batch.stats();
        let pool = self.model.kv_pool();
        let metrics = &self.metrics;
        let set = |gauge: &prometheus_client::metrics::gauge::Gauge, number: u64| {
            gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
        };
        set(&metrics.running, stats.running as u64);
        set(&metrics.waiting, stats.waiting as u64);
        set(&metrics.kv_bytes, pool.used_bytes());
        set(&metrics.kv_pages, pool.used_bytes() / pool.page_bytes().max(1));
        set(&metrics.cache_bytes, stats.cache_bytes);
        metrics.longest_pass(stats.longest_pass);
        let tokens = [metrics.prompt_tokens.get(), metrics.answer_tokens.get()];
        let (before, since) = self.second;
        let is_idle = self.live.is_empty();
        if is_idle || since.elapsed() >= Duration::from_secs(1) {
            let new = [tokens[0] - before[0], tokens[1] - before[1]];
            metrics.rate(if is_idle { [0; 2] } else { new }, since.elapsed());
            self.second = (tokens, Instant::now());
        }
    }
}
