//! The chat page: languages, colours, sizes, the keyboard, and screen readers.
#![cfg(all(unix, feature = "serve", feature = "demo"))]

mod common;

use common::browser::{ENTER, SHIFT, TAB};
use common::page::{Page, delta};
use serde_json::{Value, json};

/// An answer with everything that Markdown has.
const RICH: &str = "## A heading\n\nSome **bold** text with `a_long_name_in_code_that_must_wrap_somewhere` and https://example.com/a/very/long/address/that/must/wrap.\n\n\
    ```rust\nfn a_function_with_a_long_name(argument: &str) -> Result<Vec<String>, Box<dyn Error>> {}\n```\n\n\
    | one column | another column | a third column | a fourth |\n|---|---|---|---|\n| 1 | 2 | 3 | 4 |\n\n1. one\n   - two\n\n> quoted\n\n---\n\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A conversation with an answer of each kind.
fn filled(page: &Page) {
    page.script_texts(&["Short."]);
    page.ask(
        "A question that is long enough to need more than one line in a window that is narrow",
    );
    page.script(&json!({ "chunks": [
        delta(&json!({ "reasoning_content": "Thinking about it." })),
        delta(&json!({ "content": RICH })),
        delta(&json!({ "tool_calls": [{ "index": 0, "id": "a", "function": { "name": "weather", "arguments": "{}" } }] })),
        { "choices": [], "usage": { "prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14, "prompt_tokens_details": { "cached_tokens": 3 } } },
    ], "end": "done" }));
    page.ask("RICH");
}

fn choose(page: &Page, name: &str, value: &str) {
    page.click("#open-settings");
    page.run_with(
        "document.querySelector(`[name=${arguments[0]}]`).value = arguments[1]",
        &json!([name, value]),
    );
    page.click("#settings .primary");
    page.wait(&format!("JSON.parse(localStorage['glm.settings']).{name} === '{value}'"));
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn every_message_is_in_both_languages_and_used() {
    let page = Page::open();
    let table = page.run("return (await import('/page/messages.js')).MESSAGES");
    let values = |text: &str| {
        let mut values: Vec<_> = text
            .split('{')
            .skip(1)
            .filter_map(|part| Some(part.split_once('}')?.0.to_owned()))
            .collect();
        values.retain(|value| value.chars().all(char::is_alphanumeric));
        values.sort();
        values
    };
    let files: Vec<String> = serde_json::from_value(page.run(
        "const names = performance.getEntriesByType('resource').map((one) => one.name).filter((name) => name.endsWith('.js'));
        return Promise.all([location.href, ...names].map(async (name) => (await fetch(name)).text()))",
    )).unwrap();
    let source = files
        .iter()
        .filter(|file| !file.contains("export const MESSAGES"))
        .fold(String::new(), |all, file| all + file);
    for (name, message) in table.as_object().unwrap() {
        let [english, chinese] = [0, 1].map(|i| message[i].as_str().unwrap_or_default());
        assert!(
            !english.is_empty() && !chinese.is_empty() && message.as_array().unwrap().len() == 2,
            "{name}"
        );
        assert_eq!(values(english), values(chinese), "{name}");
        assert!(source.contains(&format!("\"{name}\"")), "nothing uses {name}");
    }
    // Every name that the page uses is in the table.
    let used = source
        .split("text(\"")
        .skip(1)
        .chain(source.split("data-text=\"").skip(1))
        .chain(source.split("data-label=\"").skip(1));
    for name in used
        .chain(source.split("data-placeholder=\"").skip(1))
        .filter_map(|part| part.split('"').next())
    {
        assert!(table.get(name).is_some(), "{name} is not in the table");
    }
    page.finish();
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn the_page_speaks_chinese() {
    let page = Page::open();
    assert_eq!(page.run("return document.documentElement.lang"), json!("en"));
    filled(&page);
    choose(&page, "language", "zh");
    page.wait("document.documentElement.lang === 'zh-CN'");
    assert_eq!(page.text("#new"), "新对话");
    assert_eq!(page.text(".thought summary"), "思考过程");
    assert_eq!(
        page.run("return document.querySelector('#question').placeholder"),
        json!("输入问题")
    );
    page.reload();
    page.wait("document.documentElement.lang === 'zh-CN'");
    // What is left in English are names and what was written.
    let said = page.run("return [...document.querySelectorAll('button, #context-text, .hint, .facts, legend, label > span')].map((one) => one.innerText || one.getAttribute('aria-label')).filter(Boolean)");
    for text in said.as_array().unwrap() {
        let text = text.as_str().unwrap();
        let is_name = ["Top-p", "Top-k", "[MASK]", "[gMASK]", "[sMASK]"].contains(&text);
        assert!(is_name || text.chars().any(|c| ('\u{4e00}'..'\u{9fff}').contains(&c)), "{text}");
    }
    // A browser in Chinese gets Chinese at once.
    page.run("localStorage.clear()");
    page.devtools(
        "Emulation.setUserAgentOverride",
        &json!({ "userAgent": "test", "acceptLanguage": "zh-CN" }),
    );
    page.go(&page.url);
    page.reload();
    page.wait("document.querySelector('.welcome')");
    assert_eq!(page.text("#new"), "新对话");
    page.finish();
}

/// Visible texts whose contrast with what is behind them is below 4.5.
const PALE: &str = r#"
    const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = (color) => {
        context.clearRect(0, 0, 1, 1);
        context.fillStyle = color;
        context.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
        return [r, g, b, a / 255];
    };
    const over = ([r, g, b, a], [x, y, z]) => [r * a + x * (1 - a), g * a + y * (1 - a), b * a + z * (1 - a), 1];
    const behind = (element) => {
        const own = rgba(getComputedStyle(element).backgroundColor);
        return own[3] === 1 || !element.parentElement ? own : over(own, behind(element.parentElement));
    };
    const light = (color) => color.slice(0, 3).map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const pale = [];
    let count = 0;
    const check = (element, color, said) => {
        const ground = behind(element);
        const [a, b] = [light(over(rgba(color), ground)), light(ground)];
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        count++;
        if (contrast < 4.5) pale.push(`${said.slice(0, 40)}: ${contrast.toFixed(2)}`);
    };
    for (const element of document.querySelectorAll("body *")) {
        if (!element.checkVisibility() || element.closest(":disabled, #fill-marks, .unseen")) continue;
        const own = [...element.childNodes].filter((node) => node.nodeType === 3 && node.data.trim());
        if (own.length) check(element, getComputedStyle(element).color, own[0].data.trim());
        if (element.placeholder) check(element, getComputedStyle(element, "::placeholder").color, element.placeholder);
        if (element.value && element.matches("textarea, input")) check(element, getComputedStyle(element).color, element.value);
        if (element.tagName === "svg") check(element, getComputedStyle(element).stroke, "icon");
    }
    return [count, pale];
"#;

#[test]
#[ignore = "needs chromium and chromedriver"]
fn text_is_readable_in_both_themes() {
    let page = Page::open();
    filled(&page);
    page.run("document.querySelector('.thought').open = true");
    let ground = "return getComputedStyle(document.body).backgroundColor";
    let scheme = |value: &str| {
        let features = json!([{ "name": "prefers-color-scheme", "value": value }]);
        page.devtools("Emulation.setEmulatedMedia", &json!({ "features": features }));
    };
    scheme("light");
    let light = page.run(ground);
    scheme("dark");
    let dark = page.run(ground);
    assert_ne!(light, dark);
    choose(&page, "theme", "light");
    assert_eq!(page.run(ground), light);
    choose(&page, "theme", "dark");
    scheme("light");
    assert_eq!(page.run(ground), dark);
    page.reload();
    page.wait("document.querySelector('.answer')");
    assert_eq!(page.run(ground), dark);

    for theme in ["light", "dark"] {
        choose(&page, "theme", theme);
        page.script(&json!({ "gone": true }));
        page.send("Trouble");
        page.wait("document.querySelector('.trouble')");
        let readable = |place: &str| {
            let found = page.run(PALE);
            assert!(found[0].as_u64().unwrap() > 10, "{found}");
            assert_eq!(found[1], json!([]), "{theme}, {place}");
        };
        readable("conversation");
        page.click("#open-settings");
        readable("settings");
        page.click("#settings [data-close]");
        page.click("#to-fill");
        page.wait("!document.querySelector('#fill').hidden");
        page.run("const field = document.querySelector('#fill-text'); field.value = 'a [MASK]'; field.dispatchEvent(new Event('input'))");
        page.click("#fill-go");
        page.wait("document.querySelector('mark.filled')");
        readable("fill");
        // The text of the field is before the marks.
        let marks = "const text = getComputedStyle(document.querySelector('#fill-text')).color;
            return [text, getComputedStyle(document.querySelector('mark')).backgroundColor]";
        assert_ne!(page.run(marks)[0], page.run(marks)[1]);
        page.click("#conversations a");
        page.wait("document.querySelector('.answer')");
    }
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn a_narrow_window_has_no_horizontal_scroll() {
    let page = Page::open();
    filled(&page);
    // The second is a window of 1280 × 720 at 200 %, the third one of 320 × 256, as at 400 %.
    for (width, height) in [(320, 640), (640, 360), (320, 256)] {
        page.resize(width, height);
        let fits = |place: &str| {
            let wide = page.run(
                "const wide = [...document.querySelectorAll('body *')].filter((one) => one.checkVisibility({ visibilityProperty: true }) && !one.closest('pre, .table, .unseen, .skip')
                    && one.getBoundingClientRect().right > innerWidth + 1);
                return [document.documentElement.scrollWidth, ...wide.map((one) => one.outerHTML.slice(0, 80))]",
            );
            assert_eq!(wide, json!([width]), "{place} at {width} × {height}");
        };
        fits("conversation");
        page.click("#open-sidebar");
        page.wait("document.querySelector('#sidebar').getBoundingClientRect().left === 0");
        fits("sidebar");
        page.click("#open-settings");
        page.wait("document.querySelector('#settings[open]')");
        fits("settings");
        page.run("document.querySelector('#settings .primary').scrollIntoView()");
        page.click("#settings .primary");
        page.click("#open-sidebar");
        page.wait("document.querySelector('#sidebar').getBoundingClientRect().left === 0");
        page.click("#to-fill");
        page.wait("!document.querySelector('#fill').hidden");
        fits("fill");
        page.run("document.querySelector('#fill-go').scrollIntoView()");
        page.run("history.back()");
        page.wait("!document.querySelector('#chat').hidden");
        // There is room for the messages and the question.
        let room = page.run("return document.querySelector('#scroller').clientHeight");
        assert!(room.as_u64().unwrap() >= 60, "{room} at {width} × {height}");
    }
    page.finish();
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn everything_is_reached_by_the_keyboard() {
    let page = Page::open();
    page.keys("Line one");
    page.chord(SHIFT, ENTER);
    page.keys("line two");
    // Enter that chooses characters of an input method sends nothing.
    page.run(
        "const key = { key: 'Enter', isComposing: true, bubbles: true, cancelable: true };
        document.querySelector('#question').dispatchEvent(new KeyboardEvent('keydown', key))",
    );
    assert_eq!(page.count(".message"), 0);
    page.script_texts(&["Yes."]);
    page.keys(ENTER);
    page.answered();
    assert_eq!(page.texts(".bubble"), ["Line one\nline two"]);
    filled(&page);
    page.run("document.querySelector('.thought').open = true");

    // All that can be used with the pointer, against what Tab reaches from the top.
    let all = "const all = [...document.querySelectorAll('a[href], button, input, textarea, select, summary')];
        window.usable = all.filter((one) => one.checkVisibility({ visibilityProperty: true }) && !one.disabled); return usable.length";
    let all = page.run(all).as_u64().unwrap();
    assert!(all > 15, "{all}");
    page.run("window.reached = new Set(); window.unmarked = []; document.activeElement.blur()");
    for _ in 0..all + 20 {
        page.keys(TAB);
        page.run(
            "const one = document.activeElement; reached.add(one);
            const marked = one.closest('#composer') ?? one;
            const style = getComputedStyle(marked);
            if (one !== document.body && style.outlineStyle === 'none' && style.boxShadow === 'none') unmarked.push(one.outerHTML.slice(0, 100))",
        );
    }
    assert_eq!(page.run("return usable.filter((one) => !reached.has(one)).map((one) => one.outerHTML.slice(0, 100))"), json!([]));
    assert_eq!(page.run("return unmarked"), json!([]));

    // The first one leads past the sidebar.
    page.run("document.activeElement.blur(); getSelection().removeAllRanges()");
    page.run("document.querySelector('#skip').focus()");
    page.keys(ENTER);
    assert_eq!(page.run("return document.activeElement.id"), json!("question"));

    // In a narrow window the hidden sidebar is not in the way, and gives the focus back.
    page.resize(400, 700);
    page.run("document.querySelector('#open-sidebar').focus()");
    page.keys(ENTER);
    page.wait("document.activeElement.id === 'close-sidebar'");
    page.keys("\u{e00c}");
    page.wait("document.activeElement.id === 'open-sidebar'");
    page.keys(TAB);
    assert_eq!(page.run("return document.activeElement.closest('#sidebar')"), Value::Null);
    page.finish();
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn screen_readers_get_names_roles_and_answers() {
    let page = Page::open();
    filled(&page);
    let controls = "return [...document.querySelectorAll('a[href], button, input, textarea, select, summary, meter, [role], [tabindex], dialog, nav')]
        .filter((one) => one.checkVisibility({ visibilityProperty: true }))";
    let named = |place: &str| {
        let controls = page.run(controls);
        assert!(controls.as_array().unwrap().len() > 5);
        for control in controls.as_array().unwrap() {
            let (name, role) = page.name_and_role(control);
            let needs_no_name = ["status", "generic", "none"].contains(&role.as_str());
            let html =
                || page.run_with("return arguments[0].outerHTML.slice(0, 120)", &json!([control]));
            assert!(needs_no_name || !name.trim().is_empty(), "{place}: {role} {}", html());
        }
    };
    named("conversation");
    page.click("#open-settings");
    named("settings");
    page.click("#settings [data-close]");
    // Each message has a heading; answers are announced once, when they are whole.
    assert_eq!(page.texts("article > h2"), ["You", "Model", "You", "Model"]);
    page.run("window.announced = []; new MutationObserver(() => announced.push(document.querySelector('#announcer').textContent))
        .observe(document.querySelector('#announcer'), { childList: true })");
    page.script_texts(&["One ", "two ", "three."]);
    page.ask("Count");
    page.wait("announced.length >= 2");
    assert_eq!(
        page.run("return announced"),
        json!(["The model is answering", "Answer: One two three."])
    );
    page.click("#to-fill");
    page.wait("!document.querySelector('#fill').hidden");
    named("fill");
    let ids = "const ids = [...document.querySelectorAll('[id]')].map((one) => one.id); return ids.length - new Set(ids).size";
    assert_eq!(page.run(ids), json!(0));
    page.finish();
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn nothing_moves_for_those_who_do_not_want_it() {
    let page = Page::open();
    page.script(&json!({ "chunks": [], "end": "open" }));
    page.send("Wait");
    page.wait("document.querySelector('.waiting')");
    let moving =
        "return document.getAnimations().filter((one) => one.playState === 'running').length";
    assert_ne!(page.run(moving), json!(0));
    let features = json!([{ "name": "prefers-reduced-motion", "value": "reduce" }]);
    page.devtools("Emulation.setEmulatedMedia", &json!({ "features": features }));
    assert_eq!(page.run(moving), json!(0));
    page.click("#stop");
    page.wait("document.querySelector('.trouble')");
    page.finish();
}
