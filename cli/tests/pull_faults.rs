//! `glm pull`: servers and disks that fail. Nothing is then stored under a final name that is not complete.
#![cfg(unix)]

mod common;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use common::hub::{Fault, Hub, sha256};
use common::pulling::{NAME, Pulling, files, names, refused, succeeded, talking};
use common::{stderr, talker};
use serde_json::json;

fn bytes() -> Vec<u8> {
    fs::read(Path::new(&talker()).join("model.safetensors")).unwrap()
}

fn weights() -> String {
    sha256(&bytes())
}

/// Checks that the weights were pulled and are right.
fn check(folder: &Path) {
    assert!(fs::read(folder.join("model.safetensors")).unwrap() == bytes());
}

/// Checks that no snapshot can be run and that there is nothing outside the cache.
fn check_nothing(pulling: &Pulling) {
    let list = pulling.home.json(&["list", "--json", "--all"]);
    assert!(list.as_array().unwrap().iter().all(|model| model["state"] != "ready"), "{list}");
    assert!(!pulling.blobs().contains(&weights()));
}

#[test]
fn cut_connections_are_continued() {
    let pulling = Pulling::new();
    pulling.hub.fail(&weights(), 2, Fault::Cut(1_000_000));
    pulling.hub.fail("/tree/", 1, Fault::Cut(10));
    pulling.hub.fail("/revision/", 1, Fault::Close);
    pulling.hub.fail("/config.json", 1, Fault::Close);
    check(&pulling.pull());
    let downloads = pulling.hub.downloads(&weights());
    let starts: Vec<_> = downloads.iter().map(|it| it.start.unwrap_or(0)).collect();
    assert_eq!(starts, [0, 1_000_000, 2_000_000]);
    assert_eq!(pulling.hub.sent(&weights()), bytes().len());
}

#[test]
fn a_server_without_ranges_starts_anew() {
    let pulling = Pulling::new();
    pulling.hub.fail(&weights(), 1, Fault::Cut(1_000_000));
    pulling.hub.fail(&weights(), 1, Fault::IgnoreRange);
    check(&pulling.pull());
    assert_eq!(pulling.hub.sent(&weights()), 1_000_000 + bytes().len());
}

#[test]
fn what_a_wrong_hash_has_is_not_stored() {
    let pulling = Pulling::new();
    pulling.hub.fail(&weights(), 100, Fault::Damage);
    let said = pulling.refusal(&["pull", NAME]);
    assert!(said.contains("model.safetensors") && said.contains("SHA-256"), "{said}");
    check_nothing(&pulling);
    let left = pulling.blobs().into_iter().filter(|blob| blob.starts_with(&weights())).count();
    assert_eq!(left, 0, "what is wrong is not continued");
    pulling.hub.mend();
    check(&pulling.pull());
    let pulling = Pulling::new();
    pulling.hub.fail("/config.json", 100, Fault::Damage);
    let said = pulling.refusal(&["pull", NAME]);
    assert!(said.contains("config.json"), "{said}");
    pulling.hub.mend();
    check(&pulling.pull());
}

#[test]
fn a_server_that_asks_to_wait_is_asked_later() {
    let pulling = Pulling::new();
    pulling.hub.fail(&weights(), 1, Fault::Refuse(429, "Retry-After: 2"));
    pulling.hub.fail("/tree/", 1, Fault::Refuse(503, ""));
    let started = Instant::now();
    let (folder, said) = pulling.succeed(&["pull", NAME]);
    assert!(started.elapsed() >= Duration::from_millis(2500), "{:?}", started.elapsed());
    assert!(said.contains("429") && said.contains("503") && said.contains("2.0 s"), "{said}");
    check(Path::new(folder.trim_end()));
    // Not for hours.
    let pulling = Pulling::new();
    pulling.hub.fail("/revision/", 100, Fault::Refuse(429, "Retry-After: 86400"));
    let started = Instant::now();
    let said = pulling.refusal(&["pull", NAME]);
    assert!(said.contains("429") && said.contains("86400"), "{said}");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn refusals_say_what_to_do() {
    let pulling = Pulling::new();
    let refuse = |part: &str, status, line: &'static str| {
        pulling.hub.mend();
        pulling.hub.fail(part, 100, Fault::Refuse(status, line));
        pulling.refusal(&["pull", NAME])
    };
    let page = format!("{}/{NAME}", pulling.hub.url());
    for status in [401, 403] {
        for part in ["/api/", "/resolve/"] {
            let said = refuse(part, status, "X-Error-Code: GatedRepo");
            assert!(said.contains("HF_TOKEN") && said.contains(&page), "{said}");
        }
    }
    let said = refuse("/api/", 401, "");
    assert!(said.contains("HF_TOKEN") && said.contains(NAME), "{said}");
    let said = refuse("/api/", 404, "");
    assert!(said.contains(NAME) && said.contains(&pulling.hub.url()), "{said}");
    pulling.hub.mend();
    let said = pulling.refusal(&["pull", NAME, "--revision", "v9"]);
    assert!(said.contains("v9") && said.contains(NAME), "{said}");
    let said = pulling.refusal(&["pull", "THUDM/nothing"]);
    assert!(said.contains("THUDM/nothing"), "{said}");
    let said = pulling.glm(&["pull", "THUDM/nothing"]).env("HF_TOKEN", "hf_x").output().unwrap();
    assert!(refused(&said).contains("THUDM/nothing"));
    check_nothing(&pulling);
}

#[test]
fn without_a_connection_nothing_is_asked() {
    let pulling = Pulling::new();
    let run = pulling.glm(&["pull", NAME]).env("HF_HUB_OFFLINE", "1").output().unwrap();
    let said = refused(&run);
    assert!(said.contains("HF_HUB_OFFLINE"), "{said}");
    let run = pulling.glm(&["pull", NAME]).env("HF_ENDPOINT", "hf-mirror.com").output().unwrap();
    assert_eq!(run.status.code(), Some(2));
    assert!(stderr(&run).contains("HF_ENDPOINT"), "{}", stderr(&run));
    let run = pulling.glm(&["pull", NAME]).env("HF_TOKEN", "hf_secret\nx").output().unwrap();
    assert_eq!(run.status.code(), Some(2));
    let said = stderr(&run);
    assert!(said.contains("HF_TOKEN") && !said.contains("secret"), "{said}");
    for words in [
        &["pull"][..],
        &["pull", "a/b/c"],
        &["pull", NAME, "--from", "x"],
        &["pull", NAME, "--quantize=3"],
        &["pull", NAME, "--quantize", "3"],
        &["pull", NAME, "--group", "64"],
        &["pull", NAME, "--threads", "1"],
    ] {
        assert_eq!(pulling.run(words).status.code(), Some(2), "{words:?}");
    }
    assert!(pulling.hub.requests().is_empty());
}

/// The hub gets it, and nobody reads it.
#[test]
fn a_password_in_the_address_is_not_shown() {
    let pulling = Pulling::new();
    let address = pulling.hub.url().replace("http://", "http://me:s%65cret@");
    let pull = |endpoint: &str| {
        let mut command = pulling.glm(&["pull", NAME]);
        command.env("HF_ENDPOINT", endpoint).env("HF_TOKEN", "hf_x").output().unwrap()
    };
    let (folder, said) = succeeded(&pull(&address));
    check(Path::new(folder.trim_end()));
    assert!(!said.contains("cret"), "{said}");
    let requests = pulling.hub.take_requests();
    let expected = Some("Basic bWU6c2VjcmV0".to_owned());
    assert!(requests.iter().all(|it| it.authorization == expected), "{requests:?}");
    // Pages, URLs and the address itself.
    let refusals = [401, 404, 410].map(|status| Fault::Refuse(status, ""));
    for fault in refusals.into_iter().chain([Fault::Body("{".to_owned())]) {
        pulling.hub.mend();
        pulling.hub.fail("/api/", 100, fault);
        let said = refused(&pull(&address));
        assert!(said.contains(&pulling.hub.url()) && !said.contains("cret"), "{said}");
    }
    for wrong in ["me:s%65cret@hub", "ftp://me:s%65cret@hub", "https://me:s%65/cret@hub"] {
        let run = pull(wrong);
        assert_eq!(run.status.code(), Some(2));
        let said = stderr(&run);
        assert!(said.contains("hub") && !said.contains("cret"), "{said}");
    }
}

#[test]
fn other_hosts_and_relative_places_are_followed() {
    let pulling = Pulling::new();
    let contents = Hub::start();
    pulling.hub.serve_large_from(&contents);
    contents.fail(&weights(), 1, Fault::Redirect(format!("/large/{}?signed=1", weights())));
    contents.fail(&weights(), 1, Fault::Cut(500_000));
    check(&pulling.pull());
    let starts: Vec<_> = contents.downloads(&weights()).iter().map(|it| it.start).collect();
    assert_eq!(starts.last().unwrap(), &Some(500_000));
    // In a circle.
    let pulling = Pulling::new();
    pulling.hub.fail("/large/", 1000, Fault::Redirect(format!("/large/{}", weights())));
    let said = pulling.refusal(&["pull", NAME]);
    assert!(said.to_lowercase().contains("redirect"), "{said}");
}

#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let pulling = Pulling::new();
    let said = refused(&pulling.run_with_limit(1500, &["pull", NAME]));
    assert!(said.contains("File too large") && said.contains(&weights()), "{said}");
    check_nothing(&pulling);
    pulling.hub.take_requests();
    check(&pulling.pull());
    let starts: Vec<_> = pulling.hub.downloads(&weights()).iter().map(|it| it.start).collect();
    assert!(matches!(starts[..], [Some(start)] if start > 100_000), "{starts:?}");
}

#[test]
fn a_repository_that_does_not_fit_is_not_begun() {
    let pulling = Pulling::new();
    let config = &talking().files["config.json"];
    let tree = json!([
        { "type": "file", "path": "config.json", "size": config.bytes.len(), "oid": config.hash },
        { "type": "file", "path": "model.safetensors", "size": 1_u64 << 50, "oid": "0".repeat(40),
            "lfs": { "oid": weights(), "size": 1_u64 << 50 } },
    ]);
    pulling.hub.fail("/tree/", 1, Fault::Body(tree.to_string()));
    let said = pulling.refusal(&["pull", NAME]);
    assert!(said.contains("1126 TB") || said.contains("1.13"), "{said}");
    assert!(pulling.hub.downloads("/large/").is_empty());
    check_nothing(&pulling);
}

#[test]
fn a_hostile_list_writes_nothing() {
    let pulling = Pulling::new();
    let all = files(pulling.home.path());
    let entry = |path: &str, oid: &str| {
        json!([{ "type": "file", "path": path, "size": 3, "oid": oid }]).to_string()
    };
    let good = "a".repeat(40);
    for body in [
        entry("../../../../config.json", &good),
        entry("/tmp/config.json", &good),
        entry("..\\config.json", &good),
        entry("config.json", "../../../../evil"),
        entry("config.json", ""),
        "[".repeat(100_000),
        " ".repeat(17 << 20),
        "{}".to_owned(),
        "[]".to_owned(),
        String::new(),
    ] {
        pulling.hub.mend();
        pulling.hub.fail("/tree/", 1, Fault::Body(body.clone()));
        let said = pulling.refusal(&["pull", NAME]);
        assert!(said.len() < 1000, "{said}");
        assert!(pulling.hub.downloads("/resolve/").is_empty());
    }
    for commit in ["../../evil", "main", ""] {
        pulling.hub.mend();
        pulling.hub.fail("/revision/", 1, Fault::Body(json!({ "sha": commit }).to_string()));
        pulling.refusal(&["pull", NAME]);
    }
    assert_eq!(files(pulling.home.path()), all);
}

#[test]
fn sizes_that_are_not_those_of_the_list_are_refused() {
    for size in [1_000_000, bytes().len() + 1_000_000] {
        let pulling = Pulling::new();
        let mut lying = talking();
        lying.sizes.insert("model.safetensors".into(), size);
        pulling.hub.add(NAME, lying);
        let said = pulling.refusal(&["pull", NAME]);
        assert!(said.contains("model.safetensors") || said.contains(&weights()), "{said}");
        check_nothing(&pulling);
    }
}

#[test]
fn what_cannot_be_run_is_refused_before_its_weights_come() {
    let pulling = Pulling::new();
    let config = |kind: &str| json!({ "model_type": kind, "architectures": ["X"] }).to_string();
    let bert = talking().with("config.json", config("bert").into_bytes());
    pulling.hub.add("a/bert", bert);
    let said = pulling.refusal(&["pull", "a/bert"]);
    assert!(said.contains("bert"), "{said}");
    let mut gguf = talking();
    gguf.files.retain(|name, _| name.ends_with(".gguf") || name == "config.json");
    pulling.hub.add("a/gguf", gguf);
    let said = pulling.refusal(&["pull", "a/gguf"]);
    assert!(said.to_lowercase().contains("gguf"), "{said}");
    let mut bare = talking();
    bare.files.retain(|name, _| name != "config.json" && !name.ends_with(".gguf"));
    pulling.hub.add("a/bare", bare);
    let said = pulling.refusal(&["pull", "a/bare"]);
    assert!(said.contains("config.json"), "{said}");
    assert!(pulling.hub.downloads("/large/").iter().all(|it| !it.target.contains(&weights())));
    for name in ["a/bert", "a/gguf", "a/bare"] {
        assert!(!names(&pulling.home.repository(name).join("blobs")).contains(&weights()));
    }
}

#[test]
fn messages_are_in_chinese_where_the_language_is() {
    let pulling = Pulling::new();
    let run =
        |name: &str| pulling.glm(&["pull", name]).env("LC_ALL", "zh_CN.UTF-8").output().unwrap();
    let (_, said) = succeeded(&run(NAME));
    let is_chinese = |line: &str| line.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
    assert!(said.lines().count() > 0 && said.lines().all(is_chinese), "{said}");
    let said = stderr(&run("a/b"));
    assert!(said.starts_with("错误："), "{said}");
}
