//! The chat page: what a model or a user writes stays text.
#![cfg(all(unix, feature = "serve", feature = "demo"))]

mod common;

use std::time::{Duration, Instant};

use common::page::Page;
use serde_json::json;

/// Texts that would run a script or load something, if they were more than text.
const HOSTILE: &[&str] = &[
    "<script>window.owned = 1</script>",
    "<img src=x onerror=\"window.owned = 1\">",
    "<svg onload=window.owned=1></svg>",
    "<iframe src=\"https://example.com\"></iframe><style>body { display: none }</style>",
    "[click](javascript:window.owned=1) [click](JaVaScRiPt:alert(1)) [click](data:text/html,<script>1</script>)",
    "![picture](https://example.com/picture.png) [a](vbscript:x) [b](//example.com) [c](file:///etc/passwd)",
    "<a href=\"javascript:window.owned=1\">link</a> <https://example.com> <javascript:alert(1)>",
    "```<img src=x onerror=alert(1)>\n</code></pre><script>window.owned = 1</script>\n```",
    "| <b onclick=x>a</b> | [b](javascript:alert(1)) |\n|---|---|\n| <script>1</script> | `</td><script>` |",
    "# <img src=x>\n> <script>1</script>\n- <object data=x></object>",
    "[x](https://example.com/\"onmouseover=\"window.owned=1) [y](https://example.com/ \"title\" onclick=x)",
];

/// Elements of what is shown that text must not become.
const RUNNING: &str = "script, img, iframe, object, embed, style, link, form, input, video, audio, base, meta, foreignObject";

#[test]
#[ignore = "needs chromium and chromedriver"]
fn what_is_written_stays_text() {
    let page = Page::open();
    for text in HOSTILE {
        page.script_texts(&[text]);
        page.ask(text);
        // A question is shown as it was written, an answer without its Markdown at most.
        let bubble = "return [...document.querySelectorAll('.bubble')].at(-1).textContent";
        assert_eq!(page.run(bubble), json!(text));
    }
    let inside = |rest: &str| {
        page.run_with(
            "return [...document.querySelectorAll('#messages ' + arguments[0])].length",
            &json!([rest]),
        )
    };
    for element in RUNNING.split(", ") {
        assert_eq!(inside(element), json!(0), "{element}");
    }
    let links = "return [...document.querySelectorAll('#messages a')].map((a) => [a.protocol, a.rel, a.target])";
    let links = page.run(links);
    assert!(!links.as_array().unwrap().is_empty());
    for link in links.as_array().unwrap() {
        assert_eq!(link, &json!(["https:", "noopener noreferrer", "_blank"]));
    }
    let handlers = "return [...document.querySelectorAll('#messages *')].flatMap((one) => one.getAttributeNames())
        .filter((name) => name.startsWith('on') || name === 'style' || name === 'src' || name === 'srcdoc')";
    assert_eq!(page.run(handlers), json!([]));
    assert_eq!(page.run("return window.owned ?? null"), json!(null));
    for shown in
        ["<script>window.owned = 1</script>", "[click](javascript:window.owned=1)", "![picture]("]
    {
        assert!(page.text("#messages").contains(shown), "{shown}");
    }
    // The same after a reload, and as the title of a conversation.
    page.reload();
    page.wait("document.querySelectorAll('.answer').length > 5");
    assert_eq!(page.run("return window.owned ?? null"), json!(null));
    assert_eq!(page.text("#title"), HOSTILE[0]);
    page.finish();
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn the_policy_is_sent_and_holds() {
    let page = Page::open();
    let headers = "const response = await fetch('/', { method: 'GET' });
        return ['content-security-policy', 'x-content-type-options', 'referrer-policy'].map((name) => response.headers.get(name))";
    let headers = page.run(headers);
    let policy = headers[0].as_str().unwrap();
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!((&headers[1], &headers[2]), (&json!("nosniff"), &json!("no-referrer")));
    // Even a script that got into the page does not run.
    page.run(
        "const script = document.createElement('script'); script.textContent = 'window.owned = 1'; document.body.append(script);
        const image = document.createElement('img'); image.setAttribute('onerror', 'window.owned = 1'); image.src = 'x:'; document.body.append(image);
        await new Promise((resolve) => setTimeout(resolve, 300))",
    );
    assert_eq!(page.run("return window.owned ?? null"), json!(null));
    assert!(page.console().iter().any(|line| line.contains("Content Security Policy")));
}

/// Markdown, and the elements that it becomes.
const MARKDOWN: &[(&str, &str)] = &[
    ("# One\n## Two ##x", "<h3>One</h3><h4>Two ##x</h4>"),
    (
        "a **b** *c* ~~d~~ `e*f*` _g_",
        "<p>a <strong>b</strong> <em>c</em> <del>d</del> <code>e*f*</code> <em>g</em></p>",
    ),
    ("***both***", "<p><em><strong>both</strong></em></p>"),
    ("**注意：**后面", "<p><strong>注意：</strong>后面</p>"),
    ("snake_case_name 2 * 3 * 4 a*", "<p>snake_case_name 2 * 3 * 4 a*</p>"),
    ("**open and `open", "<p>**open and `open</p>"),
    (r"\*a\* \# b", "<p>*a* # b</p>"),
    ("``a ` b``", "<p><code>a ` b</code></p>"),
    ("line\nline\n\npart", "<p>line\nline</p><p>part</p>"),
    ("- a\n- b\n  - c\n- d", "<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>"),
    ("3. a\n\n4. b\n   more", "<ol start=\"3\"><li>a</li><li>b\nmore</li></ol>"),
    ("- a\n\n  b\n\nc", "<ul><li>a<p>b</p></li></ul><p>c</p>"),
    ("1. a\n- b", "<ol start=\"1\"><li>a</li></ol><ul><li>b</li></ul>"),
    ("In\n1984. It was", "<p>In\n1984. It was</p>"),
    ("> a\n> > b", "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote>"),
    ("a\n\n---\nb", "<p>a</p><hr><p>b</p>"),
    (
        "see https://example.com/a_b_(c).",
        "<p>see <a href=\"https://example.com/a_b_(c)\" target=\"_blank\" rel=\"noopener noreferrer\">https://example.com/a_b_(c)</a>.</p>",
    ),
    (
        "[*x*](https://example.com/a_(b))",
        "<p><a href=\"https://example.com/a_(b)\" target=\"_blank\" rel=\"noopener noreferrer\"><em>x</em></a></p>",
    ),
    (
        "|a|b|c|\n|:-|:-:|-:|\n|1|`x|y`|\\||",
        "<div class=\"table\" tabindex=\"0\"><table><thead><tr><th>a</th><th class=\"center\">b</th><th class=\"right\">c</th></tr></thead>\
         <tbody><tr><td>1</td><td class=\"center\"><code>x|y</code></td><td class=\"right\">|</td></tr></tbody></table></div>",
    ),
    ("a | b\nno table", "<p>a | b\nno table</p>"),
];

#[test]
#[ignore = "needs chromium and chromedriver"]
fn markdown_becomes_elements() {
    let page = Page::open();
    let draw = "const { show } = await import('/page/markdown.js');
        const at = document.createElement('div'); show(at, arguments[0]); return at.innerHTML";
    for (source, expected) in MARKDOWN {
        assert_eq!(page.run_with(draw, &json!([source])), json!(expected), "{source}");
    }
    let code = "const { show } = await import('/page/markdown.js');
        const at = document.createElement('div'); show(at, arguments[0]);
        return [...at.querySelectorAll('pre')].map((pre) => [pre.previousSibling.firstChild.textContent, pre.textContent])";
    let source = "```rust\nfn main() {}\n\n  `x` ~~~\n```\n~~~\n```\n~~~\n- a\n  ```\n  b\n\n\n    c\n  ```\n```open\nend";
    let expected = json!([
        ["rust", "fn main() {}\n\n  `x` ~~~"],
        ["Code", "```"],
        ["Code", "b\n\n\n  c"],
        ["open", "end"]
    ]);
    assert_eq!(page.run_with(code, &json!([source])), expected);
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn an_answer_that_grows_keeps_what_is_finished() {
    let page = Page::open();
    let grow = "const { show } = await import('/page/markdown.js');
        const [whole, at, once] = [arguments[0], document.createElement('div'), document.createElement('div')];
        show(at, whole.slice(0, 12));
        const first = at.firstChild;
        for (let end = 12; end <= whole.length; end++) show(at, whole.slice(0, end));
        show(once, whole);
        return [first === at.firstChild, at.innerHTML === once.innerHTML]";
    let source = "first one\n\n## second\n\n- a\n- b\n\n|a|b|\n|-|-|\n|1|2|\n\n```x\ncode\n```\n\n**end** `x`";
    assert_eq!(page.run_with(grow, &json!([source])), json!([true, true]));
}

/// What a faulty or hostile model may write must not stop the page.
#[test]
#[ignore = "needs chromium and chromedriver"]
fn no_markdown_is_slow() {
    let page = Page::open();
    let draw = "const { show } = await import('/page/markdown.js');
        show(document.createElement('div'), arguments[0].repeat(arguments[1]))";
    let parts = [
        "*",
        "**a ",
        "_",
        "_a ",
        "`",
        "`a ``",
        "[",
        "[a](http://",
        "[a](http://b(",
        "~~",
        "<",
        "|",
        "|a",
        "> ",
        ">",
        "- ",
        "-",
        "#",
        "\\",
        "h",
        "http://a",
        "* a\n",
        "1. a\n",
        "  - a\n",
        "> > ",
        "```\n",
        "|-|\n",
        "a\n",
        "***a***_",
        "\u{3000}",
        " ",
        "[[",
        "![",
        "é*",
    ];
    for part in parts {
        let start = Instant::now();
        page.run_with(draw, &json!([part, 60_000 / part.len()]));
        assert!(start.elapsed() < Duration::from_secs(5), "{part:?}: {:?}", start.elapsed());
    }
}
