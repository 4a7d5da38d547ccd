//! Who may send requests: hosts, origins and the key.
//!
//! A page in a browser can send requests to this machine. What it names as host and origin tells it from programs: a page whose
//! name was made to mean this machine (DNS rebinding) sends its own name as the host. Where only this machine can reach the server, the host
//! must therefore be this machine, or that of an origin which may use the server: a proxy passes on its name. A key does not make this
//! needless: the page could try keys.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::error::{ApiError, Result};
use super::key::Key;
use super::page;

/// Who may send requests.
pub struct Access {
    pub key: Option<Key>,
    /// Origins of pages that may use the server.
    pub origins: Vec<String>,
    /// Whether only this machine can reach the server.
    pub is_loopback: bool,
}

/// Whether a path needs no key: a supervisor has none, and the page asks for it.
fn is_open(path: &str) -> bool {
    path == "/health" || page::has(path)
}

impl Access {
    /// # Errors
    /// If the host or the origin of a request is not allowed, or it lacks the key.
    fn check(&self, request: &Request) -> Result<()> {
        let headers = request.headers();
        let host =
            text(headers, HOST.as_str()).or_else(|| request.uri().authority().map(|a| a.as_str()));
        let is_own_host = |host| names_this_machine(host) || self.has_origin_of(host);
        if self.is_loopback && !host.is_some_and(is_own_host) {
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "this server listens on this machine alone, and the header Host names another machine; --origin allows the name of a proxy",
            )
            .with_code("host_not_allowed"));
        }
        if let Some(origin) = headers.get(ORIGIN) {
            let origin = origin.to_str().unwrap_or_default();
            if !self.allows(origin) && !is_own(origin, host) {
                return Err(ApiError::new(
                    StatusCode::FORBIDDEN,
                    "pages of this origin may not use the server; --origin names those that may",
                )
                .with_code("origin_not_allowed"));
            }
        }
        let is_open = is_open(request.uri().path());
        match &self.key {
            Some(key) if !is_open && !given(headers).is_some_and(|given| key.is(given)) => {
                Err(ApiError::new(
                    StatusCode::UNAUTHORIZED,
                    "this server needs a key: send the header `Authorization: Bearer KEY`",
                )
                .with_code("invalid_api_key"))
            }
            _ => Ok(()),
        }
    }

    fn allows(&self, origin: &str) -> bool {
        self.origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
    }

    /// Whether an origin has this host, at any port.
    fn has_origin_of(&self, host: &str) -> bool {
        let mut hosts = self.origins.iter().filter_map(|origin| origin.split_once("://"));
        hosts.any(|(_, of)| name(of).eq_ignore_ascii_case(name(host)))
    }

    /// The headers with which a browser lets pages of the allowed origins read answers.
    pub fn cors(&self) -> CorsLayer {
        let origins = self.origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins))
            .allow_methods([Method::GET, Method::POST])
            .allow_headers(tower_http::cors::AllowHeaders::mirror_request())
            // All others that a client needs are readable without it.
            .expose_headers([RETRY_AFTER])
            .allow_private_network(true)
            .max_age(std::time::Duration::from_secs(3600))
    }
}

/// Refuses requests that are not allowed.
pub async fn guard(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    match access.check(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => {
            let mut response = error.into_response();
            if response.status() == StatusCode::UNAUTHORIZED {
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            response
        }
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The key of a request: OpenAI's header, or Anthropic's.
fn given(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(key.trim_ascii())
    });
    bearer.or_else(|| headers.get("x-api-key").map(HeaderValue::as_bytes))
}

/// The name of a host without a port.
fn name(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.')
}

/// Whether a host, with or without a port, is a name of this machine.
fn names_this_machine(host: &str) -> bool {
    let name = name(host);
    let is_loopback = |address: std::net::IpAddr| address.is_loopback();
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(is_loopback)
}

/// Whether the page is one of this server.
fn is_own(origin: &str, host: Option<&str>) -> bool {
    let of = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    of.zip(host).is_some_and(|(origin, host)| origin.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn request(path: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = axum::http::Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    }

    fn access(is_loopback: bool) -> Access {
        Access { key: None, origins: vec!["https://example.org".to_owned()], is_loopback }
    }

    #[test]
    fn a_host_of_this_machine_is_a_name_or_an_address() {
        for host in
            ["localhost", "LOCALHOST:80", "127.0.0.1:11435", "[::1]:1", "127.9.9.9", "localhost."]
        {
            assert!(names_this_machine(host), "{host}");
        }
        for host in [
            "",
            "example.org",
            "localhost.example.org",
            "192.168.0.1:80",
            "127.0.0.1.example.org",
            ":80",
        ] {
            assert!(!names_this_machine(host), "{host}");
        }
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let check = |headers: &[(&str, &str)]| access(true).check(&request("/x", headers)).is_ok();
        let host = ("host", "127.0.0.1:80");
        assert!(check(&[host]));
        assert!(check(&[host, ("origin", "https://example.org")]));
        assert!(check(&[host, ("origin", "http://127.0.0.1:80")]));
        assert!(!check(&[host, ("origin", "http://127.0.0.1:81")]));
        assert!(!check(&[host, ("origin", "null")]));
        assert!(!check(&[("host", "evil.example"), ("origin", "http://evil.example")]));
        assert!(!check(&[]));
        assert!(access(false).check(&request("/x", &[("host", "server.example")])).is_ok());
    }

    #[test]
    fn a_key_does_not_allow_other_hosts() {
        let check = |is_loopback, host: &str, origin: &str, key: &str| {
            let access = Access { key: Some(Key::of_test("k")), ..access(is_loopback) };
            let headers = [("host", host), ("origin", origin), ("authorization", key)];
            access.check(&request("/x", &headers)).map_err(|error| error.status().as_u16())
        };
        let (allowed, other) = ("https://example.org", "https://chat.example");
        for host in ["example.org", "Example.org:8443", "localhost:80"] {
            assert_eq!(check(true, host, allowed, "Bearer k"), Ok(()), "{host}");
            assert_eq!(check(true, host, allowed, "Bearer x"), Err(401), "{host}");
            assert_eq!(check(true, host, other, "Bearer k"), Err(403), "{host}");
        }
        for host in ["chat.example", "example.org.evil", "www.example.org", ""] {
            assert_eq!(check(true, host, "https://chat.example", "Bearer k"), Err(403), "{host}");
        }
        // Other machines can reach it anyway.
        assert_eq!(check(false, "chat.example", other, "Bearer k"), Ok(()));
        assert_eq!(check(false, "chat.example", other, "Bearer x"), Err(401));
    }
}
