"""The package `openai` as a client."""

import openai
import pytest

QUESTION = [{"role": "user", "content": "你好"}]


def chat(client, model, **fields):
    return client.chat.completions.create(model=model, messages=QUESTION, temperature=0, **fields)


def test_a_stream_has_the_text_of_the_whole_answer(client, model):
    whole = chat(client, model).choices[0]
    assert whole.finish_reason == "stop" and "你好" in whole.message.content
    chunks = list(chat(client, model, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.message.content
    assert chunks[-1].usage.completion_tokens > 0


def test_several_answers_with_probabilities(client, model):
    reply = chat(client, model, n=2, logprobs=True, top_logprobs=2, max_tokens=3)
    assert len(reply.choices) == 2
    for choice in reply.choices:
        assert choice.logprobs.content[0].logprob <= 0
        assert len(choice.logprobs.content[0].top_logprobs) == 2


def test_errors_are_the_exceptions_of_the_client(client, model):
    with pytest.raises(openai.BadRequestError) as error:
        chat(client, model, top_p=5)
    assert error.value.param == "top_p"
    with pytest.raises(openai.NotFoundError):
        chat(client, "no-such-model")
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model=model, input="a", previous_response_id="resp-1")


def test_a_suffix_makes_a_blank(client, model):
    reply = client.completions.create(model=model, prompt="床前", suffix="光", temperature=0)
    assert reply.choices[0].finish_reason in ("stop", "length")
    assert reply.usage.completion_tokens > 0


def test_responses(client, model):
    whole = client.responses.create(model=model, input="你好", temperature=0)
    assert whole.status == "completed" and whole.store is False
    assert whole.output_text == chat(client, model).choices[0].message.content
    with client.responses.stream(model=model, input="你好", temperature=0) as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
        assert text == whole.output_text == stream.get_final_response().output_text
