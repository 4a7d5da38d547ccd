//! Templates that would take all time or memory.

use super::*;
use proptest::prelude::*;
use std::time::{Duration, Instant};

/// What rendering may take, on a slow machine and without optimizations.
const LONGEST: Duration = Duration::from_secs(30);

fn in_time(source: &str) -> Result<String> {
    let start = Instant::now();
    let rendered = render(source, &[Message::new(Role::User, "hi")]);
    let taken = start.elapsed();
    let beginning: String = source.chars().take(200).collect();
    assert!(taken < LONGEST, "{taken:?} for {beginning}");
    rendered
}

/// The ways in which a whole value is looked at. `a` and `b` are equal.
const LOOKS: [&str; 46] = [
    "{{ a }}",
    "{{ a|string|length }}",
    "{{ a|tojson|length }}",
    "{{ a|tojson(indent=2, sort_keys=true)|length }}",
    "{{ (a ~ '')|length }}",
    "{{ ('' ~ a)|length }}",
    "{{ a|safe }}",
    "{{ a|e }}",
    "{{ a|attr(b) }}",
    "{{ {'k': a} == {'k': b} }}",
    "{% autoescape true %}{{ a ~ '<' }}{% endautoescape %}",
    "{% filter replace(a, b) %}x{% endfilter %}",
    "{{ a == b }}",
    "{{ a != b }}",
    "{{ a < b }}",
    "{{ a >= b }}",
    "{{ 1 < a < b }}",
    "{{ a in [b] }}",
    "{{ a not in [b] }}",
    "{{ a in 'text' }}",
    "{{ [a, b]|sort|length }}",
    "{{ [a, b]|unique|list|length }}",
    "{{ [a, b]|max|length }}",
    "{{ [{'k': a}, {'k': b}]|groupby('k')|length }}",
    "{{ [a]|join }}",
    "{{ [a]|map('string')|list|length }}",
    "{{ [a]|select('eq', b)|list|length }}",
    "{{ [{'k': a}]|selectattr('k', 'equalto', b)|list|length }}",
    "{{ a is eq b }}",
    "{{ a is in [b] }}",
    "{{ a is startingwith 'x' }}",
    "{{ [a].count(b) }}",
    "{{ ''.join([a]) }}",
    "{{ '{}'.format(a) }}",
    "{{ '%s' % a }}",
    "{{ '%r' % (a,) }}",
    "{{ '%(k)s' % {'k': a} }}",
    "{{ '%s'|format(a) }}",
    "{{ a|pprint }}",
    "{{ a|replace('x', 'y') }}",
    "{{ {'k': 1}[a] }}",
    "{{ {'k': 1}.get(a) }}",
    "{{ {(a, 1): 1} }}",
    "{{ raise_exception(a) }}",
    "{% set n = namespace() %}{% set n.a = a %}",
    "{% for x in [a]|batch(1) %}{{ x }}{% endfor %}",
];

/// The text with `value` for the names `a` and `b`.
fn with(text: &str, value: &str) -> String {
    let mut out = String::new();
    for word in text.split_inclusive(|c: char| !c.is_alphanumeric()) {
        let name = word.trim_end_matches(|c: char| !c.is_alphanumeric());
        match name {
            "a" | "b" if !out.ends_with(['.', '%']) => out.extend([value, &word[1..]]),
            _ => out.push_str(word),
        }
    }
    out
}

#[test]
fn what_is_shared_costs_as_often_as_it_is_looked_at() {
    for value in [
        "[[[1] * 900] * 900] * 900",
        "([[[1] * 900] * 900] * 900, 1)",
        "{'k': [[[1] * 900] * 900] * 900}",
    ] {
        for look in LOOKS {
            assert!(in_time(&with(look, &format!("({value})"))).is_err(), "{look} {value}");
        }
    }
    for step in ["[a, a]", "(a, a)", "{'k': a, 'l': a}", "[[a] * 9]", "[a]|batch(1)|list + [a]"] {
        let lines = format!("{{% set a = {step} %}}").repeat(34);
        let error = problem(&format!("{{% set a = [1] %}}{lines}"));
        assert!(error.contains("fuel"), "{step}: {error}");
    }
}

/// A long conversation has much fuel.
#[test]
fn nothing_nests_without_end() {
    let messages = [Message::new(Role::User, "x".repeat(1 << 20))];
    for step in ["[[[[[[[[[[x]]]]]]]]]]", "x|reverse", "{1: x}.items()", "namespace(a=x)", "(x, 1)"]
    {
        let lines = format!("{{% set x = {step} %}}").repeat(2000);
        let source = format!(
            "{{% macro f(x, n) %}}{lines}{{{{ f(x, n - 1) }}}}{{% endmacro %}}{{{{ f([1], 90) }}}}"
        );
        let start = Instant::now();
        assert!(render(&source, &messages).is_err(), "{step}");
        assert!(start.elapsed() < LONGEST, "{step}: {:?}", start.elapsed());
    }
}

#[test]
fn nothing_contains_itself() {
    for value in ["n", "[n]", "{'k': n}", "{'k': n}.values()", "(1, [n])", "n, 1", "namespace(k=n)"]
    {
        for look in ["{{ n }}", "{{ n|tojson }}", "{{ n == n.x }}", "{{ n ~ n.x }}", ""] {
            for hidden in ["", "{% raw %}endraw {# {% endraw %}"] {
                let set = format!("{{% set n = namespace() %}}{hidden}{{% set n.x = {value} %}}");
                let error = in_time(&format!("{set}{look}")).expect_err(value).to_string();
                assert!(error.contains("a namespace cannot hold another"), "{value}: {error}");
            }
        }
    }
    let both = "{% set n = namespace() %}{% set n.x, n.y = n, 1 %}";
    assert!(problem(both).contains("a namespace cannot hold another"));
}

#[test]
fn every_step_is_limited() {
    let long = "{% set s = 'x' * 3000000 %}{% for i in range(99999) %}";
    for source in [
        "{{ 'x' * 10**9 }}",
        "{{ [1] * 10**9 }}",
        "{{ [[[1] * 1000] * 1000] * 1000 }}",
        "{{ range(10**9)|length }}",
        "{{ 'x'|indent(10**9) }}",
        "{{ [1]|batch(10**9, 'x') }}",
        "{{ [1]|slice(10**9, 'x')|list }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ '%.1000000000f'|format(1) }}",
        "{% set s = '%(a)s' * 1000 %}{{ s % {'a': 'x' * 100000} }}",
        "{% set s = '{0}' * 1000 %}{{ s.format('x' * 100000) }}",
        "{% set s = 'y' * 500000 %}{{ s.strip('x' * 500000 + 'y') }}",
        "{% set s = 'y' * 500000 %}{{ s|trim('x' * 500000 + 'y') }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(x) %}{{ f([[[[[x]]]]]) }}{% endmacro %}{{ f(1) }}",
        "{% for i in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
        "{% for i in range(99999) %}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx{% endfor %}",
        "{% set n = namespace(a=[1]) %}{% for i in range(99) %}{% set n.a = [n.a, n.a] %}{% endfor %}",
        "{% for i in [1] %}{{ loop.changed(i) }}{% endfor %}",
    ] {
        assert!(in_time(source).is_err(), "{source}");
    }
    for step in [
        "{% set t = s[2999999] %}",
        "{% set t = s[5:2999999:2] %}",
        "{% for c in s %}{% break %}{% endfor %}",
        "{% set t = 'x'|replace(s, 'x') %}",
        "{% set t = {s: 1} %}",
        "{% set t = {'k': 1}[s] %}",
        "{% set t = s == s ~ '' %}",
        "{% set t = 'y' in s %}",
    ] {
        let error = problem(&format!("{long}{step}{{% endfor %}}"));
        assert!(error.contains("fuel"), "{step}: {error}");
    }
    for step in ["{% set a = a + a %}", "{% set a = a * 2 %}", "{% set a = a ~ a %}"] {
        for first in ["[1]", "'x'", "'xx'|list"] {
            let lines = format!("{{% set a = {first} %}}{}", step.repeat(40));
            let error = problem(&format!("{lines}{{% set x, y = a %}}"));
            assert!(error.contains("fuel") || error.contains("too"), "{error}");
        }
    }
}

/// A list takes many times the memory of the text that it is made of.
#[test]
fn a_text_is_split_into_so_many_pieces_and_no_more() {
    let text = |pieces: usize| [Message::new(Role::User, "a\n".repeat(pieces - 1) + "a")];
    let split = [
        "c.split('\n')",
        "c.split()",
        "c.splitlines()",
        "c.splitlines(true)",
        "c|split('\n')",
        "c|split",
        "c|lines",
    ];
    let characters = [
        "(c|replace('\n', ''))|list",
        "(c|replace('\n', ''))|batch(1)",
        "c[::2]|map('upper')|list",
    ];
    for making in split.into_iter().chain(characters) {
        let source = format!("{{% set c = messages[0].content %}}{{{{ ({making})|length }}}}");
        assert_eq!(render(&source, &text(1 << 18)).unwrap(), "262144", "{making}");
        let error = render(&source, &text((1 << 18) + 1)).expect_err(making).to_string();
        assert!(error.contains("more than 262144 pieces"), "{making}: {error}");
    }
    for making in
        ["[c]|map('split')", "[c]|map('list')", "[c]|map('lines')", "[[c]]|map('map', 'split')"]
    {
        let source = format!("{{% set c = messages[0].content %}}{{{{ ({making})|length }}}}");
        let error = render(&source, &text((1 << 18) + 1)).expect_err(making).to_string();
        assert!(error.contains("more than 262144 pieces"), "{making}: {error}");
    }
    for few in ["c.split('\n', 3)", "c|split('\n', 3)", "c.split(none, 3)"] {
        let source = format!("{{% set c = messages[0].content %}}{{{{ ({few})|length }}}}");
        assert_eq!(render(&source, &text(1 << 19)).unwrap(), "4", "{few}");
    }
    let lists = "{{ (range(99999)|chain(range(99999), range(99999)))|list|length }}";
    let error = render(lists, &text(1 << 19)).unwrap_err().to_string();
    assert!(error.contains("more than 262144 values"), "{error}");
}

/// Once a template is compiled, the engine takes quadratic time for a chain of operators.
#[test]
fn long_tags_are_refused() {
    let chain = "+1".repeat(1100);
    let error = problem(&format!("\n{{{{ x{chain} }}}}"));
    assert!(error.ends_with("line 2 has more than 2000 words and signs"), "{error}");
    assert_eq!(
        render(&format!("{{{{ 1{} }}}}", "+1".repeat(900)), &[Message::new(Role::User, "")])
            .unwrap(),
        "901"
    );
}

/// A value from others, of which there are `a`, `b` and `n.a`.
fn value() -> impl Strategy<Value = String> {
    let leaf =
        prop::sample::select(vec!["a", "b", "n.a", "1", "1.5", "none", "'x'", "messages", "n"]);
    leaf.prop_map(str::to_owned).prop_recursive(3, 12, 3, |inner| {
        let pair = (inner.clone(), inner.clone());
        let forms = prop::sample::select(vec![
            "[X, Y]",
            "(X, Y)",
            "{'k': X, 'l': Y}",
            "[X] * 9",
            "X + Y",
            "X ~ Y",
            "X * 9",
            "(X)|list",
            "(X)|string",
            "(X)|tojson",
            "[X]|batch(2)",
            "[X, Y]|sort",
            "dict(k=X)",
            "namespace(a=X)",
            "[X, Y]|map('string')",
            "(X)[0]",
            "(X)[::-1]",
            "(X) % Y",
            "'%s%r' % (X, Y)",
            "(X).items()",
            "(X)|reverse",
            "[X]|zip(Y)",
            "X < Y",
            "X == Y",
            "X in Y",
            "{X: Y}",
            "[X, Y]|join(',')",
            "'{}{}'.format(X, Y)",
            "f(X)",
            "(X)|unique|list",
        ]);
        (forms, pair).prop_map(|(form, (x, y))| form.replace('X', &x).replace('Y', &y))
    })
}

fn statement() -> impl Strategy<Value = String> {
    let forms = prop::sample::select(vec![
        "{% set a = X %}",
        "{% set b = X %}",
        "{% set n.a = X %}",
        "{{ X }}",
        "{% for a in X %}{% set n.a = a %}{% endfor %}",
        "{% set a %}{{ X }}{% endset %}",
        "{% for i in range(40) %}{% set n.a = X %}{% endfor %}",
        "{% if X %}{{ X }}{% endif %}",
    ]);
    (forms, value()).prop_map(|(form, x)| form.replace('X', &x))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_values_are_written_in_bounded_time(statements in prop::collection::vec((statement(), 1usize..20), 1..12)) {
        let lines: String = statements.iter().map(|(line, times)| line.repeat(*times)).collect();
        let begin = "{% macro f(x) %}{{ x }}{% endmacro %}{% set n = namespace(a=[1]) %}{% set a = [1] %}{% set b = 'x' %}";
        if let Ok(text) = in_time(&format!("{begin}{lines}")) {
            prop_assert!(text.len() <= 16 << 20);
        }
    }
}
