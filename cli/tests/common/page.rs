//! The chat page in a browser, before a server with the demonstration model.

#![allow(dead_code, reason = "each test file uses its part")]

use std::ops::Deref;

use super::browser::{Browser, ENTER};
use super::server::Server;
use serde_json::{Value, json};

/// The page in a window.
pub struct Page {
    browser: Browser,
    _server: Server,
    pub url: String,
}

impl Deref for Page {
    type Target = Browser;

    fn deref(&self) -> &Browser {
        &self.browser
    }
}

/// Answers in place of the server's: each request takes the next of `scripted`, if there is one. Requests are kept in `requests`.
const SCRIPTED: &str = r#"
    const real = window.fetch.bind(window);
    window.scripted = [];
    window.requests = [];
    window.fetch = async (address, options = {}) => {
        if (options.method !== "POST") return real(address, options);
        requests.push({ address, ...JSON.parse(options.body) });
        if (scripted.length === 0) return real(address, options);
        const { gone, status, headers, body, chunks, end } = scripted.shift();
        if (gone) throw new TypeError("no connection");
        if (status) return new Response(JSON.stringify(body), { status, headers });
        const encoder = new TextEncoder();
        return new Response(new ReadableStream({
            start(controller) {
                options.signal.addEventListener("abort", () => {
                    window.wasAborted = true;
                    controller.error(options.signal.reason);
                });
                const send = (data) => controller.enqueue(encoder.encode(`data: ${data}\r\n\r\n`));
                for (const chunk of chunks) send(JSON.stringify(chunk));
                window.more = (chunk) => send(JSON.stringify(chunk));
                if (end === "done") send("[DONE]");
                if (end !== "open") controller.close();
            },
        }));
    };
"#;

impl Page {
    /// The page in a window of usual size, in English; answers are greedy.
    pub fn open() -> Self {
        Self::open_with(&[], 1100, 800)
    }

    /// The same with more words for `glm serve` and another size.
    pub fn open_with(words: &[&str], width: u32, height: u32) -> Self {
        let (server, browser) = (Server::start(words), Browser::open(width, height));
        let url = format!("http://{}", server.address());
        browser.before_pages(SCRIPTED);
        browser
            .before_pages(r#"localStorage["glm.settings"] ??= '{"sampling": {"temperature": 0}}'"#);
        browser.go(&url);
        browser.wait("document.querySelector('#title').textContent");
        Self { browser, _server: server, url }
    }

    /// Asks a question and waits for the end of its answer, which is returned.
    #[track_caller]
    pub fn ask(&self, question: &str) -> String {
        self.send(question);
        self.answered()
    }

    /// Sends a question. One of several lines is pasted.
    #[track_caller]
    pub fn send(&self, question: &str) {
        if question.contains('\n') {
            let paste = "const field = document.querySelector('#question'); field.focus(); field.value = arguments[0]";
            self.run_with(paste, &json!([question]));
        } else {
            self.type_into("#question", question);
        }
        self.keys(ENTER);
    }

    /// Waits for the end of an answer, and returns it.
    #[track_caller]
    pub fn answered(&self) -> String {
        self.wait("document.querySelector('.message') && !document.querySelector('#send').hidden");
        match self.count(".answer") {
            0 => String::new(),
            _ => self.last_answer(),
        }
    }

    /// What is shown of the last answer.
    pub fn last_answer(&self) -> String {
        let script = "return [...document.querySelectorAll('.answer .prose')].at(-1).innerText";
        self.run(script).as_str().unwrap().trim().to_owned()
    }

    /// The next request is answered with this.
    pub fn script(&self, answer: &Value) {
        self.run_with("scripted.push(arguments[0])", &json!([answer]));
    }

    /// The next request is answered with these texts, one after the other.
    pub fn script_texts(&self, texts: &[&str]) {
        let chunks: Vec<Value> =
            texts.iter().map(|text| delta(&json!({ "content": text }))).collect();
        self.script(&json!({ "chunks": chunks, "end": "done" }));
    }

    /// Texts of what a selector has.
    pub fn texts(&self, selector: &str) -> Vec<String> {
        let script = "return [...document.querySelectorAll(arguments[0])].map((one) => one.innerText.trim())";
        serde_json::from_value(self.run_with(script, &json!([selector]))).unwrap()
    }

    /// Checks what holds at the end of everything: no request went elsewhere, and the console has no error.
    #[track_caller]
    pub fn finish(self) {
        let script = "return performance.getEntries().map((entry) => entry.name).filter((name) => /^\\w+:/.test(name))";
        let addresses: Vec<String> = serde_json::from_value(self.run(script)).unwrap();
        assert!(addresses.len() > 10, "{addresses:?}");
        let own = format!("{}/", self.url);
        for address in addresses {
            assert!(address.starts_with(&own) || address.starts_with("blob:"), "{address}");
        }
        assert_eq!(self.console(), [""; 0]);
    }
}

/// A chunk of an answer with this delta.
pub fn delta(delta: &Value) -> Value {
    json!({ "choices": [{ "index": 0, "delta": delta, "finish_reason": null }] })
}

/// The last chunk of an answer.
pub fn finish(reason: &str) -> Value {
    json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": reason }] })
}
