//! `glm serve`: `/metrics`.

#![cfg(all(unix, feature = "serve"))]

mod common;

use std::collections::BTreeMap;
use std::io::Write;

use common::causal::Family as Causal;
use common::server::{Server, chat};
use common::text;
use serde_json::json;

#[test]
fn numbers_are_counted() {
    let server = Server::start(&[]);
    let reply = server.chat("你好", json!({ "temperature": 0 })).ok();
    server.chat("你好", json!({ "temperature": "hot" })).error(400);
    let path = "/v1/chat/completions";
    assert_eq!(
        server.metric(&format!("glm_requests_total{{path=\"{path}\",status=\"200\"}}")),
        1.0
    );
    assert_eq!(
        server.metric(&format!("glm_requests_total{{path=\"{path}\",status=\"400\"}}")),
        1.0
    );
    let tokens = reply["usage"]["completion_tokens"].as_f64().unwrap();
    assert_eq!(server.metric("glm_answer_tokens_total"), tokens);
    assert_eq!(
        Some(server.metric("glm_prompt_tokens_total")),
        reply["usage"]["prompt_tokens"].as_f64()
    );
    assert_eq!(server.metric("glm_time_to_first_token_seconds_count"), 1.0);
    assert_eq!(server.metric("glm_time_per_token_seconds_count"), tokens - 1.0);
    server.wait_for("the answer to be over", || server.metric("glm_sequences_running") == 0.0);
}

/// A family of samples: its type, and the values by name and labels.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
    samples: BTreeMap<String, f64>,
}

/// Parses the text format of OpenMetrics, which Prometheus reads.
///
/// # Panics
/// If the text is not valid.
fn parse(text: &str) -> BTreeMap<String, Family> {
    let text = text.strip_suffix("# EOF\n").expect("it ends with EOF");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut open = String::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let parts: Vec<_> = comment.splitn(3, ' ').collect();
            let [word, name, rest] = parts[..] else { panic!("{line}") };
            assert!(is_name(name) && !rest.is_empty(), "{line}");
            if open != name {
                assert!(!families.contains_key(name), "{name} comes twice");
                open = name.to_owned();
            }
            let family = families.entry(open.clone()).or_default();
            match word {
                "HELP" => family.help = rest.to_owned(),
                "TYPE" => family.kind = rest.to_owned(),
                _ => panic!("{line}"),
            }
            assert!(family.samples.is_empty(), "{line}");
            continue;
        }
        let (key, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        let (name, labels) = match key.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
            None => (key, ""),
        };
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (label, value) = label.split_once('=').unwrap();
            let is_quoted = value.len() >= 2 && value.starts_with('"') && value.ends_with('"');
            assert!(is_name(label) && is_quoted, "{line}");
        }
        let family = families.get_mut(&open).unwrap();
        let suffix = name.strip_prefix(open.as_str()).unwrap_or_else(|| panic!("{line} in {open}"));
        let suffixes: &[_] = match family.kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_sum", "_count"],
            kind => panic!("{kind}"),
        };
        assert!(is_name(name) && suffixes.contains(&suffix), "{line}");
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(value.is_finite() && value >= 0.0, "{line}");
        assert!(family.samples.insert(key.to_owned(), value).is_none(), "{line} comes twice");
    }
    families
}

fn is_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[test]
fn the_text_is_what_prometheus_reads() {
    let server = Server::start(&[]);
    let read = || {
        let reply = server.get("/metrics");
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert_eq!((reply.status, reply.header("content-type")), (200, Some(kind)));
        parse(&reply.body)
    };
    let before = read();
    server.chat("你好", json!({ "temperature": 0 })).ok();
    server.get("/nowhere").error(404);
    server.wait_for("the request", || server.log().contains("200: prompt"));
    let after = read();
    assert!(before.keys().eq(after.keys()), "families do not come and go");
    for (name, kind) in [
        ("glm_requests", "counter"),
        ("glm_sequences_running", "gauge"),
        ("glm_sequences_waiting", "gauge"),
        ("glm_prompt_tokens", "counter"),
        ("glm_prompt_tokens_cached", "counter"),
        ("glm_answer_tokens", "counter"),
        ("glm_prompt_tokens_per_second", "gauge"),
        ("glm_answer_tokens_per_second", "gauge"),
        ("glm_kv_bytes", "gauge"),
        ("glm_kv_pages", "gauge"),
        ("glm_prefix_cache_bytes", "gauge"),
        ("glm_longest_pass_seconds", "gauge"),
        ("glm_time_to_first_token_seconds", "histogram"),
        ("glm_time_per_token_seconds", "histogram"),
        ("glm_request_seconds", "histogram"),
    ] {
        assert_eq!(after[name].kind, kind, "{name}");
        assert!(!after[name].help.is_empty(), "{name}");
    }
    for (name, family) in &after {
        for (sample, value) in &family.samples {
            let before = before[name].samples.get(sample).copied().unwrap_or_default();
            assert!(family.kind == "gauge" || *value >= before, "{sample} has become less");
        }
        if family.kind == "histogram" {
            histogram(name, family);
        }
    }
    let grown = |family: &str, sample: &str| {
        let of = |families: &BTreeMap<String, Family>| {
            families[family].samples.get(sample).copied().unwrap_or_default()
        };
        of(&after) - of(&before)
    };
    assert!(grown("glm_prompt_tokens", "glm_prompt_tokens_total") > 0.0);
    assert!(grown("glm_answer_tokens", "glm_answer_tokens_total") > 1.0);
    let first = "glm_time_to_first_token_seconds";
    assert_eq!(grown(first, &format!("{first}_count")), 1.0);
    assert!(grown(first, &format!("{first}_sum")) > 0.0);
    // No pass is longer than the request that it is a part of.
    let longest = |families: &BTreeMap<_, Family>| families["glm_longest_pass_seconds"].samples["glm_longest_pass_seconds"];
    assert_eq!(longest(&before), 0.0);
    let request = grown("glm_request_seconds", "glm_request_seconds_sum");
    assert!(longest(&after) > 0.0 && longest(&after) < request, "{} {request}", longest(&after));
    server.chat("你好", json!({ "max_tokens": 1 })).ok();
    assert!(longest(&read()) >= longest(&after));
    let lost = r#"glm_requests_total{path="other",status="404"}"#;
    assert_eq!(grown("glm_requests", lost), 1.0);
}

/// Checks that the buckets grow up to the count.
fn histogram(name: &str, family: &Family) {
    let prefix = format!("{name}_bucket{{le=\"");
    let buckets = family.samples.iter().filter_map(|(sample, &value)| {
        let bound = sample.strip_prefix(&prefix)?.strip_suffix("\"}")?;
        Some((bound.parse::<f64>().unwrap(), value))
    });
    let mut buckets: Vec<_> = buckets.collect();
    buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
    assert!(buckets.len() > 10 && buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{name}");
    let last = *buckets.last().unwrap();
    assert_eq!(last, (f64::INFINITY, family.samples[&format!("{name}_count")]), "{name}");
}

#[test]
fn tokens_that_are_not_computed_again_are_counted() {
    let folder = Causal::ChatGlm3.folder();
    let server = Server::of(&text(folder.path()), &[], &[]);
    let ask = |question: &str| {
        let question = format!("{}{question}", "一二三四五六七八九十".repeat(20));
        let usage = server.chat(&question, json!({ "max_tokens": 2 })).ok()["usage"].clone();
        let cached = usage["prompt_tokens_details"]["cached_tokens"].as_f64().unwrap();
        [usage["prompt_tokens"].as_f64().unwrap(), cached]
    };
    let replies = ["甲", "乙", "甲"].map(ask);
    assert!(replies[0][1] == 0.0 && replies[1][1] > 500.0 && replies[2][1] > replies[1][1]);
    for (name, index) in [("glm_prompt_tokens_total", 0), ("glm_prompt_tokens_cached_total", 1)] {
        let sum: f64 = replies.iter().map(|reply| reply[index]).sum();
        assert_eq!(server.metric(name), sum, "{name}");
    }
}

#[test]
fn what_runs_and_what_waits_is_seen() {
    let server = Server::start(&["--max-sequences", "2", "--cache-memory", "0"]);
    let body = chat("你好", json!({ "ignore_eos": true, "n": 2, "seed": 1, "stream": true }));
    let path = "/v1/chat/completions";
    let request = server.request("POST", path, &[], &body.to_string());
    // So many that some wait while the numbers are read.
    let answers = [(); 16].map(|()| {
        let mut stream = server.connect();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    });
    server.wait_for("two answers, and others that wait", || {
        let of = |name: &str| server.metric(&format!("glm_{name}"));
        of("sequences_running") == 2.0 && of("sequences_waiting") > 0.0 && of("kv_pages") > 0.0
    });
    drop(answers);
    for name in ["sequences_running", "sequences_waiting", "kv_pages", "kv_bytes"] {
        server.wait_for(name, || server.metric(&format!("glm_{name}")) == 0.0);
    }
}
