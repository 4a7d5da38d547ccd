//! What `/metrics` reports, in the text format of Prometheus.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// What is counted.
#[derive(Clone)]
pub struct Metrics {
    requests: Family<Status, Counter>,
    /// Answers that are generated.
    pub running: Gauge,
    /// Answers that wait for their turn.
    pub waiting: Gauge,
    pub prompt_tokens: Counter,
    pub cached_tokens: Counter,
    pub answer_tokens: Counter,
    /// Bytes of the keys and values of all sequences.
    pub kv_bytes: Gauge,
    pub kv_pages: Gauge,
    pub cache_bytes: Gauge,
    prompt_rate: Rate,
    answer_rate: Rate,
    longest_pass: Rate,
    first_token: Histogram,
    each_token: Histogram,
    request_time: Histogram,
}

type Rate = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Status {
    path: String,
    status: u16,
}

/// Bounds of times in seconds, from a millisecond to ten minutes.
const SECONDS: [f64; 18] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    120.0, 300.0, 600.0,
];

impl Metrics {
    pub fn new() -> Self {
        Self {
            requests: Family::default(),
            running: Gauge::default(),
            waiting: Gauge::default(),
            prompt_tokens: Counter::default(),
            cached_tokens: Counter::default(),
            answer_tokens: Counter::default(),
            kv_bytes: Gauge::default(),
            kv_pages: Gauge::default(),
            cache_bytes: Gauge::default(),
            prompt_rate: Rate::default(),
            answer_rate: Rate::default(),
            longest_pass: Rate::default(),
            first_token: Histogram::new(SECONDS),
            each_token: Histogram::new(SECONDS),
            request_time: Histogram::new(SECONDS),
        }
    }

    /// A request was answered, or its client has gone.
    pub fn request(&self, path: &str, status: u16, time: Duration) {
        self.requests.get_or_create(&Status { path: path.to_owned(), status }).inc();
        self.request_time.observe(time.as_secs_f64());
    }

    /// The first token of an answer came this long after its request.
    pub fn first_token(&self, time: Duration) {
        self.first_token.observe(time.as_secs_f64());
    }

    /// A token of an answer came this long after the one before.
    pub fn token(&self, time: Duration) {
        self.each_token.observe(time.as_secs_f64());
    }

    /// So many tokens came in this time.
    pub fn rate(&self, [prompt, answer]: [u64; 2], time: Duration) {
        let seconds = time.as_secs_f64().max(f64::MIN_POSITIVE);
        self.prompt_rate.set(prompt as f64 / seconds);
        self.answer_rate.set(answer as f64 / seconds);
    }

    /// The longest pass so far.
    pub fn longest_pass(&self, time: Duration) {
        self.longest_pass.set(time.as_secs_f64());
    }

    /// All numbers as text.
    pub fn text(&self) -> String {
        let mut registry = Registry::with_prefix("glm");
        let mut text = String::new();
        registry.register("requests", "Requests by path and status", self.requests.clone());
        registry.register("sequences_running", "Answers that are generated", self.running.clone());
        registry.register(
            "sequences_waiting",
            "Answers that wait for their turn",
            self.waiting.clone(),
        );
        registry.register("prompt_tokens", "Tokens of prompts", self.prompt_tokens.clone());
        registry.register(
            "prompt_tokens_cached",
            "Tokens of prompts that were not computed again",
            self.cached_tokens.clone(),
        );
        registry.register("answer_tokens", "Tokens of answers", self.answer_tokens.clone());
        registry.register(
            "prompt_tokens_per_second",
            "Tokens of prompts a second, over the last second",
            self.prompt_rate.clone(),
        );
        registry.register(
            "answer_tokens_per_second",
            "Tokens of answers a second, over the last second",
            self.answer_rate.clone(),
        );
        registry.register("kv_bytes", "Bytes of keys and values", self.kv_bytes.clone());
        registry.register("kv_pages", "Pages of keys and values", self.kv_pages.clone());
        registry.register("prefix_cache_bytes", "Bytes of kept prompts", self.cache_bytes.clone());
        registry.register(
            "longest_pass_seconds",
            "Time of the longest pass: so long have answers waited for a token",
            self.longest_pass.clone(),
        );
        registry.register(
            "time_to_first_token_seconds",
            "Time from a request to the first token of its answer",
            self.first_token.clone(),
        );
        registry.register(
            "time_per_token_seconds",
            "Time from a token of an answer to the next",
            self.each_token.clone(),
        );
        registry.register(
            "request_seconds",
            "Time from a request to the end of its answer",
            self.request_time.clone(),
        );
        // Writing to a string does not fail.
        let _ = encode(&mut text, &registry);
        text
    }
}
