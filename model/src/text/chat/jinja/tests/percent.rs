//! `text % values`, and values as texts, with what Jinja2 3.1 makes of them.

use super::*;

#[test]
fn percent_is_that_of_python() {
    for (source, expected) in [
        (
            r"{{ '%r' % 'it\'s' }} {{ '%r' % [1, 'a', none, 1.5] }} {{ '%r' % ((1,),) }}",
            "\"it's\" [1, 'a', None, 1.5] (1,)",
        ),
        ("{% set t = '%s: %d' %}{{ t % ('a', 3) }}", "a: 3"),
        ("{% set t = '%(n)s is %(v)5.2f' %}{{ t % {'n': 'x', 'v': 2.5} }}", "x is  2.50"),
        ("{{ (messages[0].role ~ ' %s') % 'x' }}", "user x"),
        (
            "{{ '%s' % none }} {{ '%s' % true }} {{ '%s' % 1.0 }} {{ '%s' % [1, 'b'] }} {{ '%s' % {'a': 1} }}",
            "None True 1.0 [1, 'b'] {'a': 1}",
        ),
        (
            "{{ '%d|%i|%5d|%-5d|%05d|%+d|% d' % (3.9, 4, 5, 6, 7, 8, 9) }}",
            "3|4|    5|6    |00007|+8| 9",
        ),
        (
            "{{ '%x %X %o %#x' % (255, 255, 8, 255) }} {{ '%e %.2E %g' % (12345.678, 0.00012, 1e10) }}",
            "ff FF 10 0xff 1.234568e+04 1.20E-04 1e+10",
        ),
        ("{{ '%c%c' % ('a', 66) }} {{ '%%' % () }} {{ '100%% %s' % 'x' }}", "aB % 100% x"),
        ("{{ '%5s|%-5s|%.2s|%5.1s|' % ('ab', 'ab', 'abc', 'xyz') }}", "   ab|ab   |ab|    x|"),
        ("{{ 'plain' % {} }} {{ 'plain' % [1] }}", "plain plain"),
        ("{{ '%r' % nothing }}|{{ '%s' % nothing }}", "Undefined|"),
        ("{{ -7 % 3 }} {{ 7.5 % 2 }} {{ 7 % 4 }} {{ 7.5 % -2 }}", "2 1.5 3 -0.5"),
        ("{{ '%(a)s %(b)r' % {'a': 1, 'b': 'c', 'z': 0} }}", "1 'c'"),
        ("{{ '%s %r'|format('a', 'b') }} {{ '%(x)s'|format(x=3) }}", "a 'b' 3"),
        ("{{ '%d' % true }} {{ '%5.1f|%-8.3f|' % (1, 2) }}", "1   1.0|2.000   |"),
        (
            r"{{ '%s' % ('é中',) }} {{ '%4s|' % '中' }} {{ '%r' % 'é\n\t\\' }}",
            r"é中    中| 'é\n\t\\'",
        ),
    ] {
        assert_eq!(
            render(source, &[Message::new(Role::User, "hi")]).unwrap(),
            expected,
            "{source}"
        );
    }
    for source in [
        "{{ '%s %s' % ('a',) }}",
        "{{ '%s' % ('a', 'b') }}",
        "{{ '%d' % 'a' }}",
        "{{ 'plain' % 1 }}",
        "{{ messages[0].content % 1 }}",
        "{{ '%(zz)s' % {'a': 1} }}",
        "{{ 7 % 0 }}",
        "{{ 7 % 'a' }}",
    ] {
        assert!(problem(source).starts_with("t: chat_template"), "{source}");
    }
}

#[test]
fn values_are_texts_as_in_python() {
    for (source, expected) in [
        (
            "{{ [1.0, none, true] }} {{ {'a': (1, 2)} }} {{ {1: 2} }} {{ (1,) }} {{ [nothing] }}",
            "[1.0, None, True] {'a': (1, 2)} {1: 2} (1,) [Undefined]",
        ),
        ("{{ 1.0 ~ none ~ true ~ [1] }}", "1.0NoneTrue[1]"),
        (
            "{% set l = [0, 1, 2, 3, 4] %}{{ l[1:] }}{{ l[::-1] }}{{ l[3:0:-2] }}{{ l[-9:2] }}{{ l[2::-9] }}{{ l[4:-9:-1] }}",
            "[1, 2, 3, 4][4, 3, 2, 1, 0][3, 1][0, 1][2][4, 3, 2, 1, 0]",
        ),
        ("{{ (1, 2, 3)[1:] }}{{ 'abcé'[::-1] }}{{ 'abcd'[1:3] }}{{ 'ab'[-1] }}", "(2, 3)écbabcb"),
        (
            "{{ 1 < 2 < 3 }}{{ 1 in [1] }}{{ 'role' in messages[0] }}{{ 3 not in [1] }}",
            "TrueTrueTrueTrue",
        ),
    ] {
        assert_eq!(
            render(source, &[Message::new(Role::User, "hi")]).unwrap(),
            expected,
            "{source}"
        );
    }
}
