"""Renders templates with Jinja2, set up as transformers does it, and records the texts: python3 record.py > golden.json

Needs Jinja2 3.1 and nothing else. The cases are fixed ones, and ones that are put together at random from pieces.
"""

import json
import random
from datetime import datetime

from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime(2024, 2, 29, 7, 5, 9)


class Generation(Extension):
    """A block that is its content."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("content"), [], [], body).set_lineno(line)

    def content(self, caller):
        return caller()


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
environment.filters["tojson"] = tojson
environment.globals["strftime_now"] = NOW.strftime

CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": "北京", "days": 3}}}
TALKS = [
    [{"role": "user", "content": "hi"}],
    [
        {"role": "system", "content": "Be brief.\n"},
        {"role": "user", "content": "你好 <b>\"x\"</b> é😀"},
        {"role": "assistant", "content": "fine", "reasoning_content": "hm\nwell"},
        {"role": "user", "content": "and   you?"},
    ],
    [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "sunny", "tool_call_id": "c1", "name": "weather"},
        {"role": "user", "content": "thanks"},
    ],
]

FIXED = [
    "{% for m in messages %}{{ loop.previtem.role if loop.previtem is defined else 'none' }}>{{ loop.nextitem.role if not loop.last else '.' }};{% endfor %}",
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}\n{{ m.role }}!\n{% endgeneration %}\n{% else %}{{ m.role }}{% endif %}{% endfor %}",
    "{%- set x = 1 -%}{%- generation -%}{% set x = 2 %}  {{ x }}{%- endgeneration -%}{{ x }}",
    "{{ strftime_now('%d %b %Y, %H:%M:%S %A %B %j %y %p %-d') }}",
    "{{ strftime_now(\"%Y-%m-%d\") }}",
    "{{ {'b': [1, 2.5, none], 'a': {'z': true, 'c': '中\\n😀\\x7f'}} | tojson }}",
    "{{ {'b': [1, {}], 'a': []} | tojson(indent=2) }}",
    "{{ {'b': [1, 2], 'a': {'c': 1}} | tojson(separators=(',', ':')) }}",
    "{{ {'b': [1, 2], 'a': {'c': 1}} | tojson(separators=[', ', '='], indent=1) }}",
    "{{ {'b': {'z': 1, 'y': 2}, 'a': '中😀\\x7f'} | tojson(sort_keys=true, ensure_ascii=true) }}",
    "{{ {'b': [1, [2, []], {'k': {}}], 'a': 'é'} | tojson(true, 4) }}",
    "{{ [1, [2, {'a': []}]] | tojson(indent='--') }}",
    "{{ '%s-%d' % ('a', 7) }}|{{ '%s' % 'x' }}|{{ '%5.2f|%-4s|%04d|%x' % (3.14159, 'ab', 42, 255) }}",
    "{{ 'a%%b %s' % (messages[0].role,) ~ '!' }}{{ ('%s' % 3) | length }}",
    "{{ '%s' % messages[0]['role'].upper() }} {{ 7 % 4 }}",
    "{{ true }} {{ none }} {{ 1.0 }} {{ 1e20 }} {{ [1, 'a', none, true] }} {{ {'k': 'v'} }} {{ 3 // 2 }} {{ 3 / 2 }}",
    "{{ messages[0].nothing }}|{{ messages[0].content is defined }}|{{ [1.5, 'it\\'s'] | string }}",
    "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% elif m.content is none %}-{% else %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %};{% endfor %}",
    "{% for m in messages %}{% if m.tool_calls %}{% for c in m.tool_calls %}{{ c.id }} {{ c.function.name }} {{ c.function.arguments | tojson }}{% endfor %}{% endif %}{{ m.tool_call_id }}{{ m.name }}{% if m.reasoning_content is defined %}{{ m.reasoning_content }}{% endif %}{% endfor %}",
    "{% set ns = namespace(last=0, text='', list=[]) %}{% for m in messages %}{% set ns.last = loop.index0 %}{% set ns.text = ns.text + m.role %}{% set ns.list = ns.list + [m.role] %}{% endfor %}{{ ns.last }}{{ ns.text }}{{ ns.list | join(',') }}",
    "a\r\n{% if true %}\r\n  b\r\n{% endif %}\r\nc\rd\r\n",
    "{% macro f(x, y=2) %}<{{ x }}{{ y }}>{% endmacro %}{{ f('a') }}{{ f('b', y='c') }}",
    "{% for m in messages[1:] if m.role != 'tool' %}{{ loop.index }}{{ m.role }}{{ loop.length }}{% else %}nobody{% endfor %}",
    "{% for k, v in messages[-1].items() %}{{ k }}={{ v }};{% endfor %}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
    "{% for m in messages %}{% for n in messages[:loop.index0] %}{{ n.role[0] }}{% endfor %}/{% endfor %}",
]

EXPRESSIONS = [
    "m.role", "m['role'].upper()", "loop.index", "loop.first", "loop.last", "'%s/%d' % (m.role, loop.index)",
    "loop.nextitem.role", "loop.previtem.role", "m.content is none", "m.get('name', 'nobody')", "m.role | tojson",
    "(m.tool_calls | tojson(sort_keys=true) if m.tool_calls else 0)", "(m.role ~ '\\n').strip().title()", "m.role.split('s')[-1]", "messages | length",
    "m.role in ['user', 'tool']", "loop.index0 * 1.5", "[m.role, loop.index]", "m.role[::-1]", "ns.n", "x is defined",
    "m.content is string", "m.role.startswith('a')", "m.role | replace('s', 'Z') | upper", "('a' if loop.index is odd else none)",
    "m.role == messages[0].role", "not loop.first and loop.index > 2", "{'role': m.role}", "m.tool_calls is defined",
]


def piece(rng, depth):
    kind = rng.randrange(9 if depth < 3 else 4)
    expression = rng.choice(EXPRESSIONS)
    dash = lambda: rng.choice(["", "", "-"])
    inner = lambda: "".join(piece(rng, depth + 1) for _ in range(rng.randint(1, 2)))
    if kind < 3:
        return "{{%s %s %s}}%s" % (dash(), expression, dash(), rng.choice(["", " ", "\n", "; "]))
    if kind == 3:
        return rng.choice([" text ", "\n", "\n\n  ", "x", "{# note #}\n", "\t"])
    if kind in (4, 5):
        return "  {%%%s if %s %%}\n%s{%% else %%}%s{%%%s endif %s%%}\n" % (dash(), expression, inner(), inner(), dash(), dash())
    if kind == 6:
        return "{%% set ns.n = ns.n + 1 %%}{%% set x = %s %%}%s" % (expression, inner())
    if kind == 7:
        return "{%%- generation %s%%}%s{%% endgeneration %%}\n" % (dash(), inner())
    return "{%% for q in [1, 2, 3] %%}{%% if q == 2 %%}{%% continue %%}{%% endif %%}{{ q }}%s{%% endfor %%}\n" % inner()


def sources():
    yield from FIXED
    for seed in range(120):
        rng = random.Random(seed)
        body = "".join(piece(rng, 0) for _ in range(rng.randint(2, 4)))
        yield "{% set ns = namespace(n=0) %}\n{% for m in messages %}\n" + body + "{% endfor %}\n"


def main():
    cases = []
    for source in sources():
        template = environment.from_string(source)
        for talk, messages in enumerate(TALKS):
            try:
                text = template.render(messages=messages, tools=None, add_generation_prompt=True)
            except Exception:
                text = None
            if text is None or len(text) < 700:
                cases.append([source, talk, text])
    random.Random(1).shuffle(cases)
    fixed = [case for case in cases if case[0] in FIXED]
    others = [case for case in cases if case[0] not in FIXED][:60]
    table = sorted(dict.fromkeys(case[0] for case in fixed + others))
    listed = [[table.index(source), talk, text] for source, talk, text in fixed + others]
    print(json.dumps({"talks": TALKS, "sources": table, "cases": listed}, ensure_ascii=False, separators=(",", ":")))


main()
