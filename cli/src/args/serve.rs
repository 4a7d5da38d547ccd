//! The arguments of `glm serve`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::number::whole;
use super::path::path;
use super::{Api, Model};
use crate::limits::request::MOST_SEQUENCES;
use crate::messages;

const EXAMPLES: &str = "\
A browser shows a chat page at the address of the server.

Programs send requests as to OpenAI's API: POST /v1/chat/completions, /v1/responses,
/v1/completions, /v1/fill, /tokenize and /detokenize; GET /v1/models, /health, /metrics and
/openapi.json. POST /v1/messages is as in Anthropic's API. SIGTERM or Ctrl-C ends the server after the
answers in progress; a second one ends it at once.

Examples:
  glm serve -m chatglm-6b:int4
  glm serve --port 8080 --max-sequences 4 --kv-memory 2GB
  glm serve --host 0.0.0.0 --api-key-file key.txt
  curl http://127.0.0.1:11435/v1/completions -d '{\"prompt\": \"你好\"}'";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Serve {
    #[command(flatten)]
    pub model: Model,
    /// Address to listen on. One that other machines can reach needs a key.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub host: String,
    /// Port to listen on; 0 lets the system choose one.
    #[arg(long, value_name = "N", default_value_t = 11435)]
    pub port: u16,
    /// File with the key that requests must have, as in `Authorization: Bearer KEY`: at least 16 characters. [default: the variable
    /// GLM_API_KEY, else none]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, value_parser = path())]
    pub api_key_file: Option<PathBuf>,
    /// Let pages of this origin, such as `https://example.org`, use the server from a browser, and accept its host, which a proxy passes
    /// on; can be given several times.
    #[arg(long, value_name = "URL", value_parser = origin)]
    pub origin: Vec<String>,
    /// Answers that are generated at the same time.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = whole::<usize>(1..=MOST_SEQUENCES))]
    pub max_sequences: usize,
    /// Answers that may wait for their turn. More are refused with status 429.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = whole::<usize>(0..=65536))]
    pub queue: usize,
    #[command(flatten)]
    pub api: Api,
    /// File from which the kept prompts are read at the start and to which they are written at the end. Not for bidirectional models.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, value_parser = path())]
    pub cache_file: Option<PathBuf>,
    /// Longest time of a request in seconds; 0 means no limit.
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = limit)]
    pub request_timeout: Limit,
    /// Longest time in seconds that a client may take to send the headers or the body of a request, be idle between requests, or delay a
    /// response because it reads less than 4 KiB of it a second.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = client_time)]
    pub client_timeout: Duration,
    /// How long answers in progress may take when the server is asked to end, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub grace: Duration,
    /// Write the bodies of requests to the log. They contain the prompts.
    #[arg(long)]
    pub log_prompts: bool,
}

/// A limit of time, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub Option<Duration>);

/// A number of seconds of which 0 means that there is no limit.
fn limit(text: &str) -> Result<Limit, String> {
    let time = seconds(text)?;
    Ok(Limit((!time.is_zero()).then_some(time)))
}

/// A number of seconds, up to an hour.
fn client_time(text: &str) -> Result<Duration, String> {
    whole::<u64>(1..=3600)(text).map(Duration::from_secs)
}

/// A number of seconds, up to a month.
fn seconds(text: &str) -> Result<Duration, String> {
    whole::<u64>(0..=30 * 24 * 3600)(text).map(Duration::from_secs)
}

/// An origin as browsers send it: a scheme, a host and perhaps a port.
fn origin(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_host = |host: &str| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "-.:[]_".contains(c);
        !host.is_empty() && host.chars().all(is_part)
    };
    match host.is_some_and(is_host) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err(messages::not_an_origin()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_have_a_scheme_and_no_path() {
        assert_eq!(origin("https://Example.org:8443"), Ok("https://example.org:8443".to_owned()));
        assert!(origin("http://[::1]:3000").is_ok());
        for wrong in ["*", "example.org", "https://", "https://a/b", "ftp://a", "https://a b"] {
            assert!(origin(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_time_is_no_limit() {
        assert_eq!(limit("0"), Ok(Limit(None)));
        assert_eq!(limit("5"), Ok(Limit(Some(Duration::from_secs(5)))));
        assert!(limit("-1").is_err() && limit("1.5").is_err());
        // Clients always have a limit.
        assert!(client_time("0").is_err() && client_time("3600").is_ok());
    }
}
