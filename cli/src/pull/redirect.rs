//! Places of HTTP, and where an answer sends a request.

use ureq::http::uri::{Parts, Scheme};
use ureq::http::{Response, Uri};

/// The place that an answer redirects to, as it is written; `None` if it does not redirect.
pub fn location<T>(response: &Response<T>) -> Option<&str> {
    let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    response.headers().get("Location").filter(|_| is_redirect)?.to_str().ok()
}

/// The place that `location` names in an answer from `base`; `None` if it is no place of HTTP.
pub fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let (scheme, path) = (base.scheme_str()?, base.path());
    // What has a scheme of its own is complete; a colon behind a slash or a question mark is part of a path or of a query.
    let start = location.split(['/', '?', '#']).next().unwrap_or_default();
    let place: Uri = if start.contains(':') {
        location.parse().ok()?
    } else if location.starts_with("//") {
        format!("{scheme}:{location}").parse().ok()?
    } else {
        let path = match location.chars().next() {
            Some('/') => location.to_owned(),
            Some('?') => format!("{path}{location}"),
            _ => format!("{}/{location}", path.rsplit_once('/').map_or("", |(folder, _)| folder)),
        };
        let mut parts: Parts = base.clone().into_parts();
        parts.path_and_query = Some(path.parse().ok()?);
        Uri::from_parts(parts).ok()?
    };
    is_http(&place).then_some(place)
}

/// Whether this is the place of something that HTTP gets.
pub fn is_http(place: &Uri) -> bool {
    let is_known = |scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme);
    place.scheme().is_some_and(is_known) && place.host().is_some()
}

/// Whether both places have the same scheme, host and port.
pub fn is_same_origin(one: &Uri, other: &Uri) -> bool {
    let host = |place: &Uri| place.host().map(str::to_ascii_lowercase);
    let default = |place: &Uri| if place.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
    let port = |place: &Uri| place.port_u16().unwrap_or(default(place));
    one.scheme() == other.scheme() && host(one) == host(other) && port(one) == port(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn places_are_relative_to_the_one_before() {
        let base = uri("https://a:8443/b/c?d=1");
        for (location, expected) in [
            ("http://x/y", "http://x/y"),
            ("HTTPS://x/y?z=a:b", "https://x/y?z=a:b"),
            ("//x/y", "https://x/y"),
            ("/y?z", "https://a:8443/y?z"),
            ("/y:z", "https://a:8443/y:z"),
            ("y", "https://a:8443/b/y"),
            ("?z", "https://a:8443/b/c?z"),
        ] {
            assert_eq!(resolve(&base, location), Some(uri(expected)), "{location}");
        }
        for location in
            ["file:///etc/passwd", "ftp://x/y", "http:", "http://", "javascript:x", "/ "]
        {
            assert_eq!(resolve(&base, location), None, "{location}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let is_same = |other| is_same_origin(&uri("https://hub.com/a"), &uri(other));
        assert!(is_same("https://hub.com/b") && is_same("https://HUB.com:443/b"));
        for other in [
            "http://hub.com/a",
            "https://hub.com:8443/a",
            "https://cdn.hub.com/a",
            "https://hub.com.x/a",
        ] {
            assert!(!is_same(other), "{other}");
        }
    }

    #[test]
    fn only_some_answers_redirect() {
        let answer = |status: u16| {
            Response::builder().status(status).header("Location", "/x").body(()).unwrap()
        };
        for status in [301, 302, 303, 307, 308] {
            assert_eq!(location(&answer(status)), Some("/x"));
        }
        for status in [200, 201, 206, 300, 304, 404] {
            assert_eq!(location(&answer(status)), None, "{status}");
        }
    }
}
