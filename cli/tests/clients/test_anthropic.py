"""The package `anthropic` as a client."""

import anthropic
import pytest

QUESTION = [{"role": "user", "content": "你好"}]


@pytest.fixture(scope="module")
def client(url):
    return anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)


# The API has these fields; the package has them no more.
GREEDY = {"temperature": 0}


def ask(client, **fields):
    return client.messages.create(
        model="int4", messages=QUESTION, max_tokens=300, extra_body=fields
    )


def test_a_stream_has_the_text_of_the_whole_answer(client):
    whole = ask(client, **GREEDY)
    assert whole.stop_reason == "end_turn" and "你好" in whole.content[0].text
    with client.messages.stream(
        model="int4", messages=QUESTION, max_tokens=300, extra_body=GREEDY
    ) as stream:
        assert "".join(stream.text_stream) == whole.content[0].text
        assert stream.get_final_message().usage.output_tokens == whole.usage.output_tokens


def test_tokens_are_counted(client):
    count = client.messages.count_tokens(model="int4", messages=QUESTION)
    usage = ask(client, **GREEDY).usage
    assert count.input_tokens == usage.input_tokens + usage.cache_read_input_tokens


def test_errors_are_the_exceptions_of_the_client(client):
    with pytest.raises(anthropic.BadRequestError):
        ask(client, top_p=5)
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="no-such-model", messages=QUESTION, max_tokens=5)
