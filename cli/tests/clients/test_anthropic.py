"""The package `anthropic` as a client."""

import anthropic
import pytest

QUESTION = [{"role": "user", "content": "你好"}]


# The API has these fields; the package has them no more.
GREEDY = {"temperature": 0}


def ask(claude, **fields):
    return claude.messages.create(
        model="int4", messages=QUESTION, max_tokens=300, extra_body=fields
    )


def test_a_stream_has_the_text_of_the_whole_answer(claude):
    whole = ask(claude, **GREEDY)
    assert whole.stop_reason == "end_turn" and "你好" in whole.content[0].text
    with claude.messages.stream(
        model="int4", messages=QUESTION, max_tokens=300, extra_body=GREEDY
    ) as stream:
        assert "".join(stream.text_stream) == whole.content[0].text
        assert stream.get_final_message().usage.output_tokens == whole.usage.output_tokens


def test_tokens_are_counted(claude):
    count = claude.messages.count_tokens(model="int4", messages=QUESTION)
    usage = ask(claude, **GREEDY).usage
    assert count.input_tokens == usage.input_tokens + usage.cache_read_input_tokens


def test_errors_are_the_exceptions_of_the_client(claude):
    with pytest.raises(anthropic.BadRequestError):
        ask(claude, top_p=5)
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.create(model="no-such-model", messages=QUESTION, max_tokens=5)
