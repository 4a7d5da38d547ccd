//! The chat page: files that are compiled in, and headers that let the page load nothing else.

use axum::Router;
use axum::http::HeaderName;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::routing::get;

/// Each path and what it holds.
const FILES: &[(&str, &str)] = &[
    ("/", include_str!("page/index.html")),
    ("/page/answering.js", include_str!("page/answering.js")),
    ("/page/chat.js", include_str!("page/chat.js")),
    ("/page/conversation.js", include_str!("page/conversation.js")),
    ("/page/dom.js", include_str!("page/dom.js")),
    ("/page/fill.js", include_str!("page/fill.js")),
    ("/page/icon.svg", include_str!("page/icon.svg")),
    ("/page/inline.js", include_str!("page/inline.js")),
    ("/page/list.js", include_str!("page/list.js")),
    ("/page/main.js", include_str!("page/main.js")),
    ("/page/markdown.js", include_str!("page/markdown.js")),
    ("/page/message.js", include_str!("page/message.js")),
    ("/page/messages.js", include_str!("page/messages.js")),
    ("/page/server.js", include_str!("page/server.js")),
    ("/page/settings.js", include_str!("page/settings.js")),
    ("/page/storage.js", include_str!("page/storage.js")),
    ("/page/stream.js", include_str!("page/stream.js")),
    ("/page/style.css", include_str!("page/style.css")),
];

/// What the page may load: its own files, and answers of this server. Text that a model writes is never run, even if the page were wrong.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
     form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

/// Whether this is a path of the page. The page needs no key: it asks for one.
pub fn has(path: &str) -> bool {
    FILES.iter().any(|(own, _)| *own == path)
}

/// The paths of the page.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.iter().fold(Router::new(), |router, &(path, content)| {
        router.route(path, get(move || async move { (headers(path), content) }))
    })
}

fn headers(path: &str) -> [(HeaderName, &'static str); 5] {
    [
        (CONTENT_TYPE, content_type(path)),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // After an update of the program, browsers must not mix old files with new ones.
        (CACHE_CONTROL, "no-cache"),
    ]
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.') {
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => "text/html; charset=utf-8",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Limit of all files together.
    const MOST_BYTES: usize = 80 << 10;

    #[test]
    fn every_file_is_served() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/serve/page");
        for entry in fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = if name == "index.html" { "/".to_owned() } else { format!("/page/{name}") };
            assert!(has(&path), "{path}");
        }
        assert!(!has("/page/") && !has("/v1/models"));
    }

    #[test]
    fn the_page_is_small() {
        let bytes: usize = FILES.iter().map(|(_, content)| content.len()).sum();
        assert!(bytes < MOST_BYTES, "{bytes} bytes");
    }

    /// Text becomes elements in no other way than through text nodes, nothing is inline, and no address leads elsewhere.
    #[test]
    fn nothing_runs_text_or_loads_from_elsewhere() {
        const FORBIDDEN: [&str; 12] = [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
            "srcdoc",
            " style=",
            "<style",
            "<script>",
            "javascript:",
            "@import",
        ];
        // The name of a namespace is no address.
        let namespace = "http://www.w3.org/2000/svg";
        for (path, content) in FILES {
            let content = content.replace(namespace, "");
            for part in FORBIDDEN.into_iter().chain(["http://", "https://", "\"//"]) {
                assert!(!content.contains(part), "{path} has {part}");
            }
        }
    }
}
