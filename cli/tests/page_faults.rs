//! The chat page: what goes wrong is said in words, and nothing is lost.
#![cfg(all(unix, feature = "serve", feature = "demo"))]

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::browser::{ENTER, ESCAPE};
use common::page::{Page, delta, finish};
use common::text;
use serde_json::json;

#[test]
#[ignore = "needs chromium and chromedriver"]
fn a_busy_server_is_asked_again() {
    let page = Page::open();
    let busy = json!({ "status": 429, "headers": { "Retry-After": "2" }, "body": { "error": { "message": "full" } } });
    page.script(&busy);
    page.script_texts(&["Here."]);
    let start = Instant::now();
    page.send("Hello");
    page.wait(
        "document.querySelector('.answer .note')?.textContent.includes('Trying again in 2 s')",
    );
    assert_eq!(page.answered(), "Here.");
    assert!(start.elapsed() >= Duration::from_secs(2));
    // Waiting can be stopped. The question stays, and can be asked again.
    page.script(&busy);
    page.send("Hello again");
    page.wait("document.querySelector('.answer:last-of-type .note')?.textContent.includes('busy')");
    page.keys(ESCAPE);
    page.wait("document.querySelector('.trouble')");
    assert_eq!(page.texts(".bubble"), ["Hello", "Hello again"]);
    page.script_texts(&["Now."]);
    page.click(".trouble button");
    assert_eq!(page.answered(), "Now.");
    // Another question takes the place of one without an answer: not all models take two in a row.
    page.script(&json!({ "gone": true }));
    page.send("Never answered");
    page.wait("document.querySelector('.trouble')");
    page.ask("你好");
    assert_eq!(page.texts(".bubble"), ["Hello", "Hello again", "你好"]);
    assert!(page.count(".trouble") == 0 && page.count(".answer") == 3);
    page.click(".notice button");
    assert_eq!(page.texts(".bubble"), ["Hello", "Hello again", "Never answered"]);
    page.finish();
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn failures_are_said_and_the_question_stays() {
    let page = Page::open();
    let refused = |status: u16, code: &str, message: &str| json!({ "status": status, "body": { "error": { "message": message, "code": code } } });
    for (answer, said) in [
        (json!({ "gone": true }), "Check that glm serve is running"),
        (
            refused(400, "context_length_exceeded", "9 tokens"),
            "Start a new conversation, or edit an earlier question",
        ),
        (refused(400, "x", "top_k is odd"), "refused the request: top_k is odd"),
        (refused(500, "x", "no memory"), "failed (status 500): no memory"),
        (json!({ "chunks": [], "end": "cut" }), "connection ended"),
        (json!({ "chunks": [{ "error": { "message": "it broke" } }], "end": "done" }), "it broke"),
        (json!({ "chunks": [finish("stop")], "end": "done" }), "answered nothing"),
    ] {
        page.click("#new");
        page.wait("document.querySelector('.welcome')");
        page.script(&answer);
        page.send("Hello");
        page.wait("document.querySelector('.trouble')");
        assert!(page.text(".trouble p").contains(said), "{said}: {}", page.text(".trouble"));
        assert_eq!(page.texts(".bubble"), ["Hello"]);
        assert_eq!(page.count(".answer"), 0);
    }
    // What came before the connection broke stays.
    page.click("#new");
    page.wait("document.querySelector('.welcome')");
    page.script(&json!({ "chunks": [delta(&json!({ "content": "Half" }))], "end": "cut" }));
    page.send("Hello");
    page.wait("document.querySelector('.trouble')");
    assert_eq!(page.last_answer(), "Half");
    page.script_texts(&["Whole"]);
    page.click(".trouble button");
    page.wait("document.querySelector('.answer .prose').textContent === 'Whole'");
    assert_eq!(page.count(".message"), 2);
    page.finish();
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn a_cut_answer_says_why() {
    let page = Page::open();
    let usage = |total: u32| json!({ "choices": [], "usage": { "prompt_tokens": 5, "completion_tokens": 9, "total_tokens": total } });
    for (total, said) in [(14, "reached the limit"), (512, "context of 512 tokens is full")] {
        let chunks = json!([delta(&json!({ "content": "A" })), finish("length"), usage(total)]);
        page.script(&json!({ "chunks": chunks, "end": "done" }));
        page.ask("Hello");
        assert!(
            page.text(".answer:last-of-type p.note").contains(said),
            "{}",
            page.text(".answer:last-of-type")
        );
    }
    page.finish();
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn a_key_is_asked_for_and_kept_in_the_tab() {
    let key = tempfile::NamedTempFile::new().unwrap();
    fs::write(key.path(), "a-long-secret-key\n").unwrap();
    let page = Page::open_with(&["--api-key-file", &text(key.path())], 1100, 800);
    // What no header can hold is no key: the browser says so, and the dialog stays.
    page.wait("document.querySelector('#key[open]')");
    page.type_into("[name=key]", "密钥");
    page.keys(ENTER);
    assert_eq!(
        page.run("return document.querySelector('#key[open] [name=key]').matches(':invalid')"),
        json!(true)
    );
    page.run("document.querySelector('[name=key]').value = ''");
    for (typed, said) in
        [("wrong", "answers only with a key"), ("a-long-secret-key", "refused this key")]
    {
        page.wait("document.querySelector('#key[open] [name=key]') && !document.querySelector('[name=key]').value");
        assert!(page.text("#key-why").contains(said), "{}", page.text("#key"));
        page.type_into("[name=key]", typed);
        page.keys(ENTER);
    }
    page.wait("document.querySelector('#model').textContent");
    page.wait("!document.querySelector('dialog[open]')");
    assert!(!page.ask("你好").is_empty());
    page.reload();
    page.wait("document.querySelector('#model').textContent");
    assert_eq!(page.count("dialog[open]"), 0);
    assert_eq!(page.run("return JSON.stringify(localStorage).includes('secret')"), json!(false));
    // Without a key, a question says what is missing.
    page.run("sessionStorage.clear()");
    page.reload();
    page.wait("document.querySelector('#key[open]')");
    page.keys(ESCAPE);
    page.wait("document.querySelector('.notice p')?.textContent.includes('API key')");
    page.send("Hello");
    page.wait("document.querySelector('#key[open]')");
    page.keys(ESCAPE);
    page.wait("document.querySelector('.trouble')");
    assert!(page.text(".trouble p").contains("API key"));
}

/// A storage that takes nothing more, and one that the browser forbids.
#[test]
#[ignore = "needs chromium and chromedriver"]
fn the_page_works_without_storage() {
    for (fault, said) in [
        (
            "Storage.prototype.setItem = () => { throw new DOMException('', 'QuotaExceededError') }",
            "storage is full",
        ),
        (
            "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('', 'SecurityError') } })",
            "does not let this page store",
        ),
    ] {
        let page = Page::open();
        page.before_pages(fault);
        page.reload();
        page.wait("document.querySelector('.welcome')");
        page.script_texts(&["One"]);
        page.ask("First");
        assert!(page.text("#storage-notice").contains(said), "{}", page.text("#storage-notice"));
        page.click("#new");
        page.wait("document.querySelector('.welcome')");
        page.script_texts(&["Two"]);
        page.ask("Second");
        assert_eq!(page.texts("#conversations a"), ["Second", "First"]);
        page.click("#conversations li:last-child a");
        page.wait("document.querySelector('.bubble').textContent === 'First'");
        assert_eq!(page.last_answer(), "One");
        page.finish();
    }
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn room_in_the_storage_is_used_again() {
    let page = Page::open();
    page.run(
        "localStorage['glm.conversation.old'] = JSON.stringify({ id: 'old', title: 'Old', changed: 1, messages: [{ role: 'user', content: 'x'.repeat(4e6) }] });
        let free = 'x'.repeat(1 << 20);
        for (let i = 0; free.length > 0; i++) try { localStorage[`other${i}`] = free } catch { free = free.slice(free.length / 2 + 1) }",
    );
    page.reload();
    page.wait("document.querySelectorAll('#conversations a').length === 1");
    page.script_texts(&["One"]);
    page.ask("First");
    assert!(page.text("#storage-notice").contains("storage is full"));
    page.click("#conversations li:last-child a");
    page.wait("document.querySelector('#title').textContent === 'Old'");
    page.click("#delete");
    page.wait("document.querySelector('#storage-notice').hidden");
    page.reload();
    page.wait("document.querySelectorAll('#conversations a').length === 1");
    assert_eq!(page.texts("#conversations a"), ["First"]);
    page.finish();
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn two_tabs_show_the_same_conversations() {
    let page = Page::open();
    page.script_texts(&["One"]);
    page.ask("First");
    let other = "const frame = document.createElement('iframe'); frame.src = 'about:blank'; document.body.append(frame);
        const key = Object.keys(localStorage).find((key) => key.startsWith('glm.conversation.'));
        const one = JSON.parse(localStorage[key]);
        one.messages.push({ role: 'user', content: 'From the other tab' }, { role: 'assistant', content: 'Yes' });
        frame.contentWindow.localStorage[key] = JSON.stringify(one);
        frame.contentWindow.localStorage['glm.conversation.x'] = JSON.stringify({ ...one, id: 'x', title: 'Another', isNamed: true })";
    page.run(other);
    page.wait("document.querySelectorAll('.answer').length === 2");
    page.wait("document.querySelectorAll('#conversations a').length === 2");
    assert_eq!(page.last_answer(), "Yes");
}
