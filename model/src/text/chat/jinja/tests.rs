mod limits;
mod official;
mod percent;

use super::super::transformers::conversation;
use super::*;
use crate::generate::conversation::messages_from_json;
use crate::text::chat::{Message, PromptOptions, Role};
use chrono::NaiveDate;
use serde::Deserialize;
use serde_json::json;

fn rendered(jinja: &Jinja, messages: &[Message]) -> Result<String> {
    let variables = PromptOptions::default().variables();
    jinja.render(conversation(messages, jinja.wants(), None), &variables)
}

fn render(source: &str, messages: &[Message]) -> Result<String> {
    rendered(&Jinja::new(source.into(), Map::new(), Path::new("t"))?, messages)
}

fn problem(source: &str) -> String {
    render(source, &[Message::new(Role::User, "hi")]).expect_err(source).to_string()
}

#[test]
fn blocks_take_their_line_with_them() {
    let source = "{% for m in messages %}\n  {% if m.role == 'user' %}\n<{{ m['content'] }}>\n  {% endif %}\n{% endfor %}\n";
    let messages = [Message::new(Role::User, " a "), Message::new(Role::System, "b")];
    assert_eq!(render(source, &messages).unwrap(), "< a >\n");
}

#[test]
fn lines_may_end_as_on_windows() {
    let source = "{% for m in messages %}\r\n<{{ m.role }}>\r\n{% endfor %}\r\nend\rx\r\n";
    let messages = [Message::new(Role::User, "hi\r\n")];
    assert_eq!(render(source, &messages).unwrap(), "<user>\nend\nx");
    assert_eq!(render("{{ messages[0].content }}", &messages).unwrap(), "hi\r\n");
}

#[test]
fn python_is_spoken() {
    let source = "{{ messages[0].content.strip().startswith('h') }} {{ messages[0].metadata }}{{ messages[0].tools is defined }}{% for i in [1, 2, 3] %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfor %} {{ {'b': 1, 'a': [1.0]} | tojson }}{{ add_generation_prompt }}";
    // minijinja and Python print booleans differently.
    let text = render(source, &[Message::new(Role::User, " hi ")]).unwrap().to_lowercase();
    assert_eq!(text, "true false13 {\"b\": 1, \"a\": [1.0]}true");
}

#[test]
fn numbers_outside_of_widths_are_text() {
    let messages = [Message::new(Role::User, "hi")];
    assert_eq!(
        render("{{ 'since 2024: {:>3}'.format(7) }}", &messages).unwrap(),
        "since 2024:   7"
    );
}

#[test]
fn what_tools_answer_is_observed_where_nothing_else_is_known() {
    let messages = [Message::new(Role::Tool, "42")];
    for (source, expected) in [
        ("{{ messages[0].role }}", "observation"),
        ("{% if messages[0].role == 'tool' %}{{ messages[0].content }}{% endif %}", "42"),
    ] {
        let jinja = Jinja::new(source.into(), Map::new(), Path::new("t")).unwrap();
        assert_eq!(rendered(&jinja.clone().observing(true), &messages).unwrap(), expected);
        assert_ne!(rendered(&jinja.observing(false), &messages).unwrap(), "observation");
    }
}

#[test]
fn tools_keep_their_order_and_their_characters() {
    let tools = json!([{"z": "中", "a": {"<": "'"}}]);
    let message = Message { tools: Some(tools), ..Message::new(Role::System, "") };
    let text = render("{{ tools[0] | tojson(indent=4) }}", &[message]).unwrap();
    assert_eq!(text, "{\n    \"z\": \"中\",\n    \"a\": {\n        \"<\": \"'\"\n    }\n}");
}

#[test]
fn a_template_may_refuse() {
    let messages = [Message::new(Role::User, "hi")];
    let error = render("{{ raise_exception('no system') }}", &messages).unwrap_err();
    assert!(matches!(&error, Error::Prompt(p) if p.ends_with(": no system")), "{error}");
}

#[test]
fn values_may_be_nested_as_deep_as_python_prints_them() {
    let nest = |count: u32, end: &str| {
        let step = "{% set n.s = [n.s] %}";
        let range = format!("{{% for i in range({count}) %}}");
        ["{% set n = namespace(s=[]) %}", &range, step, "{% endfor %}", end].concat()
    };
    for end in ["{{ n.s }}", "{{ n.s | tojson }}"] {
        let text =
            render(&nest(150, end), &[Message::new(Role::User, "hi")]).expect("not too much");
        assert!(text.starts_with("[[[[") && text.len() >= 300, "{text}");
    }
    for step in [
        "[n.s]",
        "(n.s, n.s)",
        "{'a': n.s}",
        "n.s|map('string')|batch(1)",
        "dict(a=n.s)",
        "namespace(a=n.s)",
    ] {
        let source = format!(
            "{{% set n = namespace(s=[1]) %}}{{% for i in range(400) %}}{{% set n.s = {step} %}}{{% endfor %}}{{{{ n.s }}}}"
        );
        let _ = render(&source, &[Message::new(Role::User, "hi")]);
    }
    let error = problem(&nest(400, ""));
    assert!(error.contains("nested"), "{error}");
}

/// The parser does not count chains as nesting, but dropping them is recursive.
#[test]
fn long_chains_are_read_and_dropped() {
    let messages = [Message::new(Role::User, "hi")];
    for (link, end) in [("-", "1"), ("1+", "1"), ("not ", "1")] {
        let chain = link.repeat((MAX_TEMPLATE - 10) / link.len());
        let _ = render(&format!("{{{{ {chain}{end} }}}}"), &messages);
    }
    let chain = "{% elif 0 %}".repeat(MAX_TEMPLATE / 13);
    let _ = render(&format!("{{% if 0 %}}{chain}{{% endif %}}"), &messages);
    let _ = render(&format!("{{{{ a{} }}}}", ".b".repeat(MAX_TEMPLATE / 2 - 10)), &messages);
}

#[test]
fn what_is_no_template_or_takes_too_much_is_an_error() {
    for source in [
        "{% for %}",
        "{{ nothing.at.all }}",
        "{{ open('/etc/passwd') }}",
        "{% include 'x' %}",
        "{{ 1 | tojson(default=1) }}",
        "{{ 1 | tojson(separators=',') }}",
        "{{ '%9999s' % 1 }}",
        "{{ '%(a)99999999999999s' % {'a': 1} }}",
        "{{ '%(a%b)99999999999999s' % {'a%b': 1} }}",
        "{{ strftime_now('%Q') }}",
        "{{ 'x' * 1000000000 }}",
        "{% for i in range(100000) %}{% for i in range(100000) %}{% endfor %}{% endfor %}",
        "{% set n = namespace(s='xxxxxxxx') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ '{:>99999999999}'.format(1) }}",
        "{{ '{:}>99999999999}'.format(1) }}",
        "{{ '{:{>99999999999}'.format(1) }}",
        "{{ '{0[}]:99999999999}'.format({'}': 1}) }}",
        "{% set n = namespace() %}{% set a = range(100000) %}{% for i in range(100000) %}{% set n.s = [a, a] %}{% endfor %}",
        "{% set n = namespace(s=1) %}{% for i in range(40) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s | tojson }}",
    ] {
        let error = problem(source);
        assert!(error.starts_with("t: chat_template"), "{source}: {error}");
    }
    assert!(problem(&" ".repeat(MAX_TEMPLATE + 1)).contains("bytes"));
}

/// Recorded by `record.py`.
#[derive(Deserialize)]
struct Golden {
    talks: Vec<Json>,
    sources: Vec<String>,
    /// A template, a conversation, and the text; none if Jinja2 fails.
    cases: Vec<(usize, usize, Option<String>)>,
}

#[test]
fn every_text_is_that_of_jinja2() {
    let golden = include_str!("golden.json");
    let golden: Golden = serde_json::from_str(golden).unwrap();
    let talks: Vec<_> =
        golden.talks.iter().map(|talk| messages_from_json(&talk.to_string()).unwrap()).collect();
    let mut wrong = Vec::new();
    for (source, talk, expected) in golden.cases {
        let source = &golden.sources[source];
        let text = Jinja::new(source.clone(), Map::new(), Path::new("t")).and_then(|mut jinja| {
            jinja.now =
                NaiveDate::from_ymd_opt(2024, 2, 29).and_then(|day| day.and_hms_opt(7, 5, 9));
            rendered(&jinja, &talks[talk])
        });
        if text.as_ref().ok() != expected.as_ref() {
            wrong.push(format!("{source:?} of {talk}:\n  {expected:?}\n  {text:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_template_may_look_at_all_messages_for_each_of_them() {
    let source = "{% set n = namespace(c=0, text='') %}{% for m in messages %}{% for o in messages %}\
        {% if o.role == 'user' and loop.index < 3 %}{% set n.c = n.c + 1 %}{% endif %}{% endfor %}\
        {% set n.text = n.text + m.content %}{% endfor %}{{ n.c }} {{ n.text | length }}";
    let roles = [Role::User, Role::Assistant].into_iter().cycle();
    let messages: Vec<_> =
        roles.take(400).map(|role| Message::new(role, "x".repeat(100))).collect();
    assert_eq!(render(source, &messages).unwrap(), "400 40000");
}

#[test]
fn the_clock_tells_the_date() {
    let text = render("{{ strftime_now('%Y-%m-%d') }}", &[Message::new(Role::User, "hi")]).unwrap();
    let today = chrono::Local::now().date_naive();
    assert!(
        [0, 1].iter().any(|days| (today - chrono::Days::new(*days)).to_string() == text),
        "{text}"
    );
}
