//! `glm serve`: who may send requests.

#![cfg(all(unix, feature = "serve"))]

mod common;

use std::fs;

use common::server::{Server, chat};
use common::{isolated, refusal, talker, text};
use serde_json::json;

const KEY: &str = "a-long-secret-key";

#[test]
fn names_of_other_machines_are_refused() {
    let server = Server::start(&[]);
    for host in ["localhost", "127.0.0.1:1", "[::1]:80"] {
        assert_eq!(server.send("GET", "/health", &[("host", host)], "").status, 200, "{host}");
    }
    for host in ["example.org", "localhost.example.org:80", ""] {
        let error = server.send("GET", "/health", &[("host", host)], "").error(403);
        assert_eq!(error["code"], "host_not_allowed", "{host}");
    }
}

#[test]
fn pages_need_leave() {
    let server = Server::start(&["--origin", "https://example.org"]);
    let send =
        |method: &str, headers: &[(&str, &str)]| server.send(method, "/v1/models", headers, "");
    let allowed = send("GET", &[("origin", "https://example.org")]);
    assert_eq!(allowed.status, 200);
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://example.org"));
    assert_eq!(allowed.header("access-control-expose-headers"), Some("retry-after"));
    let own = format!("http://{}", server.address());
    assert_eq!(send("GET", &[("origin", &own)]).status, 200);
    for origin in ["https://evil.example", "null", "http://example.org", "https://example.org.evil"]
    {
        let refused = send("GET", &[("origin", origin)]);
        assert_eq!(refused.error(403)["code"], "origin_not_allowed", "{origin}");
        assert_eq!(refused.header("access-control-allow-origin"), None);
        // A page can send this without asking first.
        let plain = &[("origin", origin), ("content-type", "text/plain")];
        let body = json!({ "messages": [{ "role": "user", "content": "你好" }] }).to_string();
        server.send("POST", "/v1/chat/completions", plain, &body).error(403);
    }
    let asked = [("origin", "https://example.org"), ("access-control-request-method", "POST")];
    let preflight = send(
        "OPTIONS",
        &[&asked[..], &[("access-control-request-headers", "authorization")]].concat(),
    );
    assert_eq!(preflight.status, 200);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("https://example.org"));
    assert!(preflight.header("access-control-allow-headers").unwrap().contains("authorization"));
    // Without origins, there is nothing for browsers.
    let server = Server::start(&[]);
    let reply = server.send("GET", "/v1/models", &[("origin", "https://example.org")], "");
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (403, None));
}

#[test]
fn a_key_is_needed_where_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    fs::write(&file, "a-long-secret-key\n").unwrap();
    let of_file = Server::start(&["--api-key-file", &text(&file)]);
    let of_variable = Server::start_with(&[], &[("GLM_API_KEY", KEY)]);
    for server in [of_file, of_variable] {
        let send = |headers: &[(&str, &str)]| server.send("GET", "/v1/models", headers, "");
        assert_eq!(send(&[("authorization", "Bearer a-long-secret-key")]).status, 200);
        assert_eq!(send(&[("authorization", "bearer a-long-secret-key")]).status, 200);
        assert_eq!(send(&[("x-api-key", "a-long-secret-key")]).status, 200);
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer a-long-secret",
            "Bearer a-long-secret-key2",
            "Basic a-long-secret-key",
        ] {
            let refused = send(&[("authorization", wrong)]);
            assert_eq!(refused.error(401)["code"], "invalid_api_key", "{wrong}");
            assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
        }
        assert_eq!(server.get("/health").status, 200, "a supervisor needs none");
        let page = server.get("/");
        assert_eq!(page.status, 200, "the page asks for it");
        assert!(page.header("content-security-policy").is_some());
        server.get("/metrics").error(401);
        server.get("/nowhere").error(401);
        assert!(!server.log().contains("a-long-secret-key"));
    }
}

/// A proxy passes on the host that the browser names.
#[test]
fn the_page_works_behind_a_proxy() {
    let server = Server::start_with(&["--origin", "https://chat.example"], &[("GLM_API_KEY", KEY)]);
    let host = ("host", "chat.example");
    let own = ("origin", "https://chat.example");
    let key = ("authorization", "Bearer a-long-secret-key");
    let body = chat("你好", json!({ "max_tokens": 1 })).to_string();
    let send = |server: &Server, headers: &[(&str, &str)]| {
        server.send("POST", "/v1/chat/completions", headers, &body)
    };
    send(&server, &[host, key, own]).ok();
    assert_eq!(server.send("GET", "/", &[host], "").status, 200);
    send(&server, &[host, own]).error(401);
    let evil = ("origin", "https://evil.example");
    assert_eq!(send(&server, &[host, key, evil]).error(403)["code"], "origin_not_allowed");
    let without = Server::start(&[]);
    assert_eq!(send(&without, &[host, own]).error(403)["code"], "host_not_allowed");
    send(&without, &[("host", "localhost:8080"), ("origin", "http://localhost:8080")]).ok();
}

/// A page whose name was made to mean this machine could try keys.
#[test]
fn a_key_does_not_allow_names_of_other_machines() {
    let server = Server::start_with(&[], &[("GLM_API_KEY", KEY)]);
    let key = ("authorization", "Bearer a-long-secret-key");
    let rebound = [("host", "evil.example"), ("origin", "http://evil.example")];
    for path in ["/v1/models", "/health", "/"] {
        let with_key = [&rebound[..], &[key]].concat();
        for headers in [&rebound[..], &with_key] {
            let error = server.send("GET", path, headers, "").error(403);
            assert_eq!(error["code"], "host_not_allowed", "{path}");
        }
    }
    assert_eq!(server.send("GET", "/v1/models", &[key], "").status, 200);
}

#[test]
fn short_keys_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    fs::write(&file, "fifteen-letters\n").unwrap();
    let words = ["serve", "-m", &talker(), "--port", "0"];
    let said = refusal(&[&words[..], &["--api-key-file", &text(&file)]].concat(), 1);
    assert!(said.contains(&text(&file)) && said.contains("16"), "{said}");
    assert!(!said.contains("fifteen-letters"), "{said}");
    let home = tempfile::tempdir().unwrap();
    let mut command = assert_cmd::Command::from_std(isolated(home.path()));
    let refused = command.args(words).env("GLM_API_KEY", "fifteen-letters").assert().code(1);
    let said = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
    assert!(said.contains("GLM_API_KEY") && !said.contains("fifteen-letters"), "{said}");
}

#[test]
fn other_machines_need_a_key() {
    let said = refusal(&["serve", "-m", &talker(), "--host", "0.0.0.0", "--port", "0"], 2);
    assert!(said.contains("--api-key-file"), "{said}");
    let server = Server::start_with(&["--host", "0.0.0.0"], &[("GLM_API_KEY", KEY)]);
    // The name of the machine is not known here.
    let headers = [("host", "server.example"), ("authorization", "Bearer a-long-secret-key")];
    assert_eq!(server.send("GET", "/v1/models", &headers, "").status, 200);
    server.get("/v1/models").error(401);
}

#[test]
fn wrong_flags_are_usage() {
    for words in [
        &["--origin", "example.org"][..],
        &["--max-sequences", "0"],
        &["--kv-memory", "much"],
        &["--port", "65536"],
        &["--context", "0"],
        &["--grace", "-1"],
        &["--client-timeout", "0"],
        &["--template", "none"],
        // The demonstration model is bidirectional.
        &["--cache-file", "cache"],
    ] {
        refusal(&[&["serve", "-m", &talker(), "--port", "0"], words].concat(), 2);
    }
    refusal(&["serve", "-m", &talker(), "--port", "0", "--api-key-file", "/nowhere"], 1);
    refusal(&["serve", "-m", &talker(), "--host", "no.such.host.invalid"], 1);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let said = refusal(&["serve", "-m", &talker(), "--port", &port], 1);
    assert!(said.contains(&port), "{said}");
}
