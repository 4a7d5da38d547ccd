//! No chat template makes its reader or its rendering panic, or takes more than it may: neither any text, nor one that makes values of
//! values and looks at them. `GLM_TOKENIZER` is the folder of a tokenizer of GLM-4.

#![no_main]

use glm_model::{Message, Role, Template, Tokenizer};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(glm_fuzz::tokenizer);

/// Values made of two others, `X` and `Y`.
const VALUES: [&str; 24] = [
    "[X, Y]",
    "(X, Y)",
    "{'k': X, 'l': Y}",
    "{X: Y}",
    "X + Y",
    "X ~ Y",
    "X * 9",
    "X % Y",
    "X == Y",
    "X < Y",
    "X in Y",
    "(X)[::-1]",
    "(X)[Y]",
    "(X)|list",
    "(X)|string",
    "(X)|tojson",
    "[X, Y]|sort",
    "[X]|batch(2)",
    "[X]|zip(Y)",
    "[X, Y]|map('string')",
    "'%s%r' % (X, Y)",
    "'{}{}'.format(X, Y)",
    "namespace(a=X)",
    "f(X)",
];

/// The values to begin with.
const NAMES: [&str; 8] = ["a", "b", "n.a", "n", "messages", "1.5", "'x'", "none"];

/// What is done with a value `X`.
const STEPS: [&str; 7] = [
    "{% set a = X %}",
    "{% set b = X %}",
    "{% set n.a = X %}",
    "{{ X }}",
    "{% for a in X %}{% set n.a = [a, n.a] %}{% endfor %}",
    "{% set a %}{{ X }}{% endset %}",
    "{% for i in range(40) %}{% set n.a = X %}{% endfor %}",
];

fn built(steps: &[[u8; 5]]) -> String {
    let begin = "{% macro f(x) %}{{ x }}{% endmacro %}{% set n = namespace(a=[1]) %}{% set a = [1] %}{% set b = 'x' %}";
    let pick = |from: &[&'static str], by: u8| from[usize::from(by) % from.len()];
    let lines = steps.iter().map(|&[step, value, x, y, times]| {
        let value =
            pick(&VALUES, value).replace('X', pick(&NAMES, x)).replace('Y', pick(&NAMES, y));
        pick(&STEPS, step).replace('X', &value).repeat(usize::from(times % 40) + 1)
    });
    begin.to_owned() + &lines.collect::<String>()
}

fn render(source: &[u8]) {
    if let Ok(template) = Template::from_files(&[("chat_template.jinja", source)], &TOKENIZER) {
        let messages =
            [Role::System, Role::User].map(|role| Message::new(role, " Hello, 'world'\n"));
        let _ = template.prompt_ids(&TOKENIZER, &messages);
    }
}

fuzz_target!(|input: (Vec<[u8; 5]>, &[u8])| {
    let (steps, source) = input;
    render(source);
    render(built(&steps).as_bytes());
});
