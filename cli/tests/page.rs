//! The chat page: conversations, answers and files. `page_*.rs` have more.
#![cfg(all(unix, feature = "serve", feature = "demo"))]

mod common;

use std::fs;

use common::browser::{ENTER, ESCAPE, SHIFT};
use common::page::{Page, delta, finish};
use common::server::Server;
use common::{glm, json, stdout, text};
use serde_json::{Value, json};

/// Without a browser: the files are there, with their headers, and need no key.
#[test]
fn the_page_is_served() {
    let server = Server::start_with(&[], &[("GLM_API_KEY", "a-long-secret-key")]);
    let page = server.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let mut names: Vec<String> = quoted(&page.body, "\"page/");
    assert!(names.len() >= 3, "{names:?}");
    let mut at = 0;
    while let Some(name) = names.get(at).cloned() {
        let file = server.get(&format!("/page/{name}"));
        assert_eq!(file.status, 200, "{name}");
        let kind = match name.rsplit_once('.').unwrap().1 {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            _ => "image/svg+xml",
        };
        assert_eq!(file.header("content-type"), Some(kind), "{name}");
        assert!(file.header("content-security-policy").unwrap().contains("script-src 'self';"));
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(file.header("referrer-policy"), Some("no-referrer"));
        for import in quoted(&file.body, "from \"./") {
            if !names.contains(&import) {
                names.push(import);
            }
        }
        at += 1;
    }
    assert!(names.len() > 15, "{names:?}");
    assert_eq!(server.send("POST", "/", &[], "").status, 405);
    assert_eq!(server.get("/page/nothing.js").status, 401);
}

/// What stands between this and the next quotation mark, each time.
fn quoted(text: &str, before: &str) -> Vec<String> {
    let parts = text.split(before).skip(1);
    parts.filter_map(|part| Some(part.split_once('"')?.0.to_owned())).collect()
}

/// What the demonstration model answers without the page.
fn answer_to(messages: &Value) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), messages.to_string()).unwrap();
    let answer = json(&["chat", "--greedy", "--json", "--messages", &text(file.path())]);
    answer["text"].as_str().unwrap().trim().to_owned()
}

fn user(content: &str) -> Value {
    json!({ "role": "user", "content": content })
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn questions_are_answered_and_conversations_kept() {
    let page = Page::open();
    let first = page.ask("My name is Clara.");
    assert_eq!(first, answer_to(&json!([user("My name is Clara.")])));
    let second = page.ask("What is my name?");
    assert!(second.contains("Clara"), "{second}");
    // On a busy machine, all tokens may come at once, and then there is no speed.
    let facts = page.text(".answer:last-of-type .facts");
    let parts: Vec<_> = facts.split(" · ").collect();
    assert!(parts[0].ends_with(" tokens") && parts[1].ends_with(" s"), "{facts}");
    assert!(parts.get(2).is_none_or(|speed| speed.ends_with(" tokens/s")), "{facts}");
    assert!(
        page.text("#context-text").contains(" of 512 tokens"),
        "{}",
        page.text("#context-text")
    );
    assert_eq!(page.text("#title"), "My name is Clara.");
    assert_eq!(page.texts("#conversations a"), ["My name is Clara."]);

    page.reload();
    page.wait("document.querySelectorAll('.answer').length === 2");
    assert_eq!(page.last_answer(), second);
    assert_eq!(page.text("#title"), "My name is Clara.");

    page.click("#new");
    page.wait("document.querySelector('.welcome')");
    page.ask("你好");
    assert_eq!(page.texts("#conversations a"), ["你好", "My name is Clara."]);
    page.click("#conversations li:last-child a");
    assert_eq!(page.last_answer(), second);
    page.run("history.back()");
    page.wait("document.querySelector('#title').textContent === '你好'");
    page.finish();
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn a_conversation_is_renamed_and_deleted_and_brought_back() {
    let page = Page::open();
    page.ask("你好");
    page.click("#rename");
    page.chord('\u{e009}', "a");
    page.keys("Greeting");
    page.keys(ENTER);
    assert_eq!(page.text("#title"), "Greeting");
    page.click("#rename");
    page.keys("Other");
    page.keys(ESCAPE);
    assert_eq!(page.texts("#conversations a"), ["Greeting"]);
    // The name is kept when the conversation goes on.
    page.ask("再见");
    page.reload();
    page.wait("document.querySelector('#title').textContent === 'Greeting'");

    page.click("#delete");
    page.wait("document.querySelector('.welcome')");
    assert_eq!(page.count("#conversations a"), 0);
    page.click(".notice button");
    page.wait("document.querySelectorAll('.answer').length === 2");
    assert_eq!(page.texts("#conversations a"), ["Greeting"]);
    page.click("#delete");
    page.wait("document.querySelector('.welcome')");
    page.reload();
    page.wait("document.querySelector('.welcome')");
    assert_eq!(page.count("#conversations a"), 0);
    page.finish();
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn conversations_are_searched() {
    let page = Page::open();
    let content = "const one = (id, text) => localStorage[`glm.conversation.${id}`] = JSON.stringify(
        { id, title: text, changed: id, messages: [{ role: 'user', content: `${text} question` }] });
        for (const i of [1, 2, 3, 4, 5]) one(i, ['apple', 'pear', 'plum', 'cherry', 'Peach'][i - 1])";
    page.run(content);
    page.reload();
    page.wait("document.querySelectorAll('#conversations a').length === 5");
    page.type_into("#search", "PEA");
    assert_eq!(page.texts("#conversations a"), ["Peach", "pear"]);
    page.type_into("#search", "x");
    assert_eq!(page.texts("#conversations li"), ["No conversations"]);
    page.finish();
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn an_answer_grows_and_is_stopped() {
    let page = Page::open();
    let chunks = json!([
        delta(&json!({ "role": "assistant", "content": "" })),
        delta(&json!({ "content": "One" }))
    ]);
    page.script(&json!({ "chunks": chunks, "end": "open" }));
    page.send("Count");
    page.wait("document.querySelector('.answer[aria-busy=true] .prose')?.textContent === 'One'");
    page.run_with("more(arguments[0])", &json!([delta(&json!({ "content": ", two" }))]));
    page.wait("document.querySelector('.answer .prose').textContent === 'One, two'");
    page.keys(ESCAPE);
    assert_eq!(page.answered(), "One, two");
    assert_eq!(page.run("return window.wasAborted"), json!(true));
    assert!(page.text(".facts").contains("Stopped"));

    // The button does the same. While one conversation is answered, another can be read.
    page.script(&json!({ "chunks": [delta(&json!({ "content": "A" }))], "end": "open" }));
    page.send("Again");
    page.wait("document.querySelector('#stop').offsetParent");
    page.click("#new");
    page.wait("document.querySelector('.welcome')");
    assert_eq!(page.count("#conversations .busy"), 1);
    page.run_with("more(arguments[0])", &json!([delta(&json!({ "content": "B" }))]));
    page.click("#conversations a");
    page.wait("document.querySelector('.answer:last-of-type .prose').textContent === 'AB'");
    page.click("#stop");
    assert_eq!(page.answered(), "AB");
    page.reload();
    page.wait("document.querySelectorAll('.answer').length === 2");
    assert_eq!(page.last_answer(), "AB");
    page.finish();
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn an_answer_that_the_end_of_the_page_cuts_stays() {
    let page = Page::open();
    page.script(&json!({ "chunks": [delta(&json!({ "content": "Half" }))], "end": "open" }));
    page.send("Count");
    page.wait("document.querySelector('.answer .prose')?.textContent === 'Half'");
    page.reload();
    page.wait("document.querySelector('.answer')");
    assert_eq!(
        (page.texts(".bubble"), page.last_answer()),
        (vec!["Count".to_owned()], "Half".to_owned())
    );
    // The same where another conversation is shown.
    page.script(&json!({ "chunks": [delta(&json!({ "content": "Part" }))], "end": "open" }));
    page.send("Count on");
    page.wait("[...document.querySelectorAll('.answer .prose')].at(-1).textContent === 'Part'");
    page.click("#new");
    page.wait("document.querySelector('.welcome')");
    page.reload();
    page.wait("document.querySelector('.welcome')");
    page.click("#conversations a");
    page.wait("document.querySelectorAll('.answer').length === 2");
    assert_eq!(page.last_answer(), "Part");
    page.click("#new");
    page.wait("document.querySelector('.welcome')");
    page.script_texts(&["One"]);
    page.ask("First");
    // One that had not begun is none.
    page.script(&json!({ "chunks": [], "end": "open" }));
    page.send("Again");
    page.wait("document.querySelector('.waiting')");
    page.reload();
    page.wait("document.querySelector('.trouble')");
    assert_eq!((page.count(".bubble"), page.count(".answer")), (2, 1));
    page.finish();
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn questions_answers_and_code_are_copied() {
    let page = Page::open();
    let permissions = json!({ "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"], "origin": page.url });
    page.devtools("Browser.grantPermissions", &permissions);
    page.script_texts(&["Some **code**:\n```\nlet a = 1;\n```\n"]);
    page.ask("What?");
    let copied = |button: &str| {
        page.run("document.querySelector('#notices').replaceChildren()");
        page.click(button);
        page.wait("document.querySelector('.notice p')?.textContent === 'Copied'");
        page.run("return navigator.clipboard.readText()")
    };
    assert_eq!(copied(".question .copy"), json!("What?"));
    assert_eq!(copied(".code .copy"), json!("let a = 1;"));
    assert_eq!(copied(".below .copy:first-child"), json!("Some **code**:\n```\nlet a = 1;\n```\n"));
    // Without a clipboard, as at an address without TLS, the old way is used.
    page.run(
        "Object.defineProperty(navigator, 'clipboard', { value: undefined, configurable: true })",
    );
    page.run("document.querySelector('#notices').replaceChildren()");
    page.click(".question .copy");
    page.wait("document.querySelector('.notice p')?.textContent === 'Copied'");
    page.run("delete navigator.clipboard");
    assert_eq!(page.run("return navigator.clipboard.readText()"), json!("What?"));
    page.finish();
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn an_answer_is_made_again() {
    let page = Page::open();
    page.script_texts(&["First"]);
    page.ask("你好");
    page.click("[aria-label='Answer again']");
    page.wait("!document.querySelector('.answer .prose').textContent.includes('First')");
    assert_eq!(page.answered(), answer_to(&json!([user("你好")])));
    page.click(".notice button");
    assert_eq!(page.last_answer(), "First");
    // If it cannot be made again, the old one stays.
    page.script(&json!({ "gone": true }));
    page.click("[aria-label='Answer again']");
    page.wait("document.querySelector('.notice p').textContent.includes('glm serve')");
    assert_eq!(page.last_answer(), "First");
    page.finish();
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn a_question_is_edited_and_the_conversation_goes_on_from_there() {
    let page = Page::open();
    page.ask("My name is Clara.");
    page.ask("What is my name?");
    page.click("[aria-label='Edit question']");
    page.chord('\u{e009}', "a");
    page.keys("My name is Maria.");
    page.keys(ENTER);
    let answer = page.answered();
    assert_eq!(page.texts(".bubble"), ["My name is Maria."]);
    assert_eq!(answer, answer_to(&json!([user("My name is Maria.")])));
    assert!(page.ask("What is my name?").contains("Maria"));
    page.click("[aria-label='Edit question']");
    page.chord('\u{e009}', "a");
    page.keys("你好");
    page.chord(SHIFT, ENTER);
    page.keys("!");
    page.keys(ENTER);
    page.answered();
    assert_eq!(page.texts(".bubble"), ["你好\n!"]);
    page.click(".notice button");
    assert_eq!(page.texts(".bubble"), ["My name is Maria.", "What is my name?"]);
    // Escape leaves the question as it is.
    page.click("[aria-label='Edit question']");
    page.keys("x");
    page.keys(ESCAPE);
    assert_eq!(page.texts(".bubble"), ["My name is Maria.", "What is my name?"]);
    page.finish();
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn settings_reach_the_server() {
    let page = Page::open();
    page.click("#open-settings");
    page.type_into("[name=system]", "Be brief.");
    page.type_into("[name=top_p]", "0.5");
    page.type_into("[name=top_k]", "7");
    page.type_into("[name=seed]", "42");
    page.type_into("[name=max_tokens]", "0");
    page.keys(ENTER);
    // Out of range: the browser says so, and the dialog stays.
    assert_eq!(
        page.run("return document.querySelector('[name=max_tokens]').matches(':invalid')"),
        json!(true)
    );
    assert_eq!(page.count("dialog[open]"), 1);
    page.chord('\u{e009}', "a");
    page.keys("9");
    page.keys(ENTER);
    page.wait("!document.querySelector('dialog[open]')");
    page.script_texts(&["Yes."]);
    page.ask("Is it?");
    let request = page.run("return requests[0]");
    let expected = json!([{ "role": "system", "content": "Be brief." }, user("Is it?")]);
    assert_eq!(request["messages"], expected);
    let sampled =
        ["temperature", "top_p", "top_k", "seed", "max_tokens"].map(|name| request[name].clone());
    assert_eq!(sampled, [json!(0), json!(0.5), json!(7), json!(42), json!(9)]);
    // They are kept, and an empty field is the server's choice.
    page.reload();
    page.wait("document.querySelector('.answer')");
    page.click("#open-settings");
    assert_eq!(
        page.run("return document.querySelector('[name=system]').value"),
        json!("Be brief.")
    );
    page.run("document.querySelector('[name=system]').value = ''; document.querySelector('[name=seed]').value = ''");
    page.click("#settings .primary");
    page.script_texts(&["Yes."]);
    page.ask("And now?");
    let request = page.run("return requests[0]");
    assert!(request.get("seed").is_none() && request["messages"][0]["role"] == "user", "{request}");
    page.finish();
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn thoughts_and_tool_calls_are_shown() {
    let page = Page::open();
    let call = |index: u32, id: &str, name: &str, arguments: &str| {
        let function = json!({ "name": name, "arguments": arguments });
        delta(
            &json!({ "tool_calls": [{ "index": index, "id": id, "type": "function", "function": function }] }),
        )
    };
    let piece = |index: u32, arguments: &str| {
        delta(
            &json!({ "tool_calls": [{ "index": index, "function": { "arguments": arguments } }] }),
        )
    };
    let chunks = [
        delta(&json!({ "reasoning_content": "I should " })),
        delta(&json!({ "reasoning_content": "ask." })),
        call(0, "a", "weather", ""),
        piece(0, "{\"city\":"),
        piece(0, "\"Berlin\"}"),
        call(1, "b", "time", "{}"),
        finish("tool_calls"),
    ];
    page.script(&json!({ "chunks": chunks, "end": "done" }));
    page.send("Weather?");
    page.answered();
    // Thoughts are folded until they are asked for.
    assert_eq!(page.text(".thought summary"), "Thoughts");
    assert_eq!(page.run("return document.querySelector('.thought').open"), json!(false));
    page.click(".thought summary");
    assert_eq!(page.text(".thought div"), "I should ask.");
    assert_eq!(page.texts(".tool summary"), ["Calls the tool weather", "Calls the tool time"]);
    assert_eq!(page.texts(".tool pre"), ["{\n  \"city\": \"Berlin\"\n}", "{}"]);
    // The calls are part of the next request, the thoughts are not.
    page.script_texts(&["Sunny."]);
    page.ask("And?");
    let answer = page.run("return requests[1].messages[1]");
    let cut = [delta(&json!({ "content": "Let me see." })), call(0, "c", "weather", "{\"city\":")];
    page.script(&json!({ "chunks": cut, "end": "open" }));
    page.send("Again?");
    page.wait("document.querySelectorAll('.tool').length === 3");
    page.keys(ESCAPE);
    page.answered();
    // A call that was cut is none.
    assert_eq!(page.count(".tool"), 2);
    page.script_texts(&["Sunny."]);
    page.ask("Well?");
    assert!(page.run("return requests[3].messages.at(-2)").get("tool_calls").is_none());
    assert_eq!(answer["tool_calls"][0]["function"]["arguments"], "{\"city\":\"Berlin\"}");
    assert!(answer.get("reasoning_content").is_none() && answer.get("page").is_none());
    page.finish();
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn an_export_is_read_by_the_program_and_by_the_page() {
    let page = Page::open();
    page.ask("My name is Clara.");
    page.ask("What is my name?");
    page.click("#export");
    let file = page.download();
    assert_eq!(file.file_name().unwrap(), "My-name-is-Clara.json");
    let exported: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let contents: Vec<_> =
        exported.as_array().unwrap().iter().map(|one| one["content"].as_str().unwrap()).collect();
    assert_eq!([contents[0], contents[2]], ["My name is Clara.", "What is my name?"]);

    // The conversation ends with an answer, so the program goes on with it.
    let program = glm(&["chat", "--greedy", "--messages", &text(&file)])
        .write_stdin("What is my name?\n")
        .output()
        .unwrap();
    assert!(program.status.success() && stdout(&program).contains("Clara"), "{program:?}");

    page.click("#delete");
    page.wait("document.querySelector('.welcome')");
    page.type_into("#import-file", &text(&file));
    page.wait("document.querySelectorAll('.answer').length === 2");
    assert_eq!(page.texts(".bubble"), [contents[0], contents[2]]);
    assert_eq!(page.text("#title"), "My name is Clara.");

    for (json, said) in [
        ("{", "is not JSON"),
        ("{}", "no list of messages"),
        ("[{\"role\": \"poet\", \"content\": \"\"}]", "message 1"),
    ] {
        let wrong = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
        fs::write(wrong.path(), json).unwrap();
        page.type_into("#import-file", &text(wrong.path()));
        page.wait(&format!("document.querySelector('.notice p').textContent.includes('{said}')"));
    }
    page.finish();
}
