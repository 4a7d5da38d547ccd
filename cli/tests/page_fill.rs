//! The chat page: a text with blanks, filled in place.
#![cfg(all(unix, feature = "serve", feature = "demo"))]

mod common;

use common::browser::ENTER;
use common::json;
use common::page::Page;
use serde_json::json;

fn value(page: &Page) -> String {
    page.run("return document.querySelector('#fill-text').value").as_str().unwrap().to_owned()
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn blanks_are_filled_in_place_and_undone() {
    let page = Page::open();
    page.wait("!document.querySelector('#to-fill').hidden");
    page.click("#to-fill");
    page.wait("document.activeElement.id === 'fill-text'");
    page.keys("床前");
    assert_eq!(page.texts("#blanks button")[0], "[MASK]");
    page.click("#blanks button");
    page.keys("光，疑是地上");
    page.click("#blanks button");
    page.keys("。");
    let blanks = "床前[MASK]光，疑是地上[MASK]。";
    assert_eq!(value(&page), blanks);
    assert_eq!(page.texts("mark.blank"), ["[MASK]", "[MASK]"]);
    page.click("#fill-go");
    page.wait("document.querySelector('mark.filled')");
    let expected = json(&["fill", "--greedy", "--json", blanks]);
    assert_eq!(json!(value(&page)), expected["text"]);
    assert_eq!(json!(page.texts("mark.filled")), expected["spans"]);
    assert!(page.text("#fill-state").starts_with("Filled: "));

    // Marks move with the text around them; one that is changed is no longer the model's.
    let filled = page.texts("mark.filled");
    page.run("document.querySelector('#fill-text').setSelectionRange(0, 0)");
    page.keys("李白：");
    assert_eq!(page.texts("mark.filled"), filled);
    let start =
        page.run("return document.querySelector('#fill-text').value.lastIndexOf(arguments[0])");
    assert_ne!(start, json!(0));
    page.run_with("const field = document.querySelector('#fill-text'); const at = field.value.lastIndexOf(arguments[0]);
        field.setSelectionRange(at, at + arguments[0].length)", &json!([filled[1]]));
    page.keys("雪");
    assert_eq!(page.texts("mark.filled"), filled[..1]);

    // It is there after a reload; then every step is undone down to the blanks.
    page.reload();
    page.wait("document.querySelector('mark.filled')");
    assert!(value(&page).starts_with("李白："));
    assert_eq!(page.run("return document.querySelector('#fill-undo').disabled"), json!(true));
    page.finish();
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn every_step_is_undone() {
    let page = Page::open();
    page.go(&format!("{}/#fill", page.url));
    page.wait("document.activeElement.id === 'fill-text'");
    page.keys("a");
    page.click("#blanks button");
    page.script(&json!({ "status": 200, "body": { "text": "a b", "spans": [" b"] } }));
    page.click("#fill-go");
    page.wait("document.querySelector('mark.filled')");
    assert_eq!(value(&page), "a b");
    for expected in ["a[MASK]", "a", ""] {
        page.click("#fill-undo");
        assert_eq!(value(&page), expected);
    }
    assert_eq!(page.run("return document.querySelector('#fill-undo').disabled"), json!(true));
    page.finish();
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn filling_says_what_is_wrong() {
    let page = Page::open();
    page.wait("!document.querySelector('#to-fill').hidden");
    page.click("#to-fill");
    page.wait("document.activeElement.id === 'fill-text'");
    page.keys("No blank");
    page.chord('\u{e009}', ENTER);
    page.wait("document.querySelector('#fill-state.wrong')");
    assert!(page.text("#fill-state").contains("has no blank"));
    page.click("#blanks button");
    page.script(&json!({ "gone": true }));
    page.click("#fill-go");
    page.wait("document.querySelector('#fill-state').textContent.includes('glm serve')");
    assert_eq!(value(&page), "No blank[MASK]");
    page.finish();
}
