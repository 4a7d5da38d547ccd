"""Calls of tools and answers that follow a schema, as the packages `openai` and `anthropic` read them."""

import enum
import json

import anthropic
import openai
import pydantic
import pytest

QUESTION = [{"role": "user", "content": "北京?"}]
PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": ["北京", "O'Hare"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
FUNCTION = {"name": "get_weather", "description": "Weather", "parameters": PARAMETERS}
TOOL = {"type": "function", "function": FUNCTION}
SAMPLING = {"seed": 1, "temperature": 1}
NO_THOUGHTS = {"chat_template_kwargs": {"enable_thinking": False}}


def check(arguments):
    assert arguments["city"] in ("北京", "O'Hare") and isinstance(arguments["days"], int), arguments
    assert len(arguments) == 2


@pytest.fixture(scope="module")
def address(caller):
    return caller


def test_a_call_and_its_result(client, model):
    fields = {"model": model, "tools": [TOOL], "parallel_tool_calls": False, **SAMPLING}
    fields["extra_body"] = NO_THOUGHTS
    reply = client.chat.completions.create(messages=QUESTION, tool_choice="required", **fields)
    choice = reply.choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    [call] = choice.message.tool_calls
    check(json.loads(call.function.arguments))
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    messages = [*QUESTION, choice.message.model_dump(exclude_none=True), result]
    second = client.chat.completions.create(messages=messages, max_tokens=8, **fields)
    assert second.usage.prompt_tokens > reply.usage.prompt_tokens
    # What is asked again is not computed again.
    third = client.chat.completions.create(messages=messages, max_tokens=8, **fields)
    assert third.usage.prompt_tokens_details.cached_tokens > 0
    assert third.choices[0].message.content == second.choices[0].message.content


def test_a_call_that_is_streamed(client, model):
    name = {"type": "function", "function": {"name": "get_weather"}}
    fields = {"model": model, "messages": QUESTION, "tools": [TOOL], "tool_choice": name, **SAMPLING}
    fields |= {"parallel_tool_calls": False, "extra_body": NO_THOUGHTS}
    with client.chat.completions.stream(**fields) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion().choices[0]
    assert "tool_calls.function.arguments.delta" in kinds and "tool_calls.function.arguments.done" in kinds
    [call] = final.message.tool_calls
    whole = client.chat.completions.create(**fields).choices[0].message.tool_calls[0]
    assert call.function.name == "get_weather" and call.function.arguments == whole.function.arguments
    check(json.loads(call.function.arguments))


class Color(str, enum.Enum):
    red = "red"
    green = "绿"


class Answer(pydantic.BaseModel):
    color: Color
    sure: bool


def test_an_answer_of_a_class(client, model):
    parsed = 0
    for seed in range(6):
        fields = {"model": model, "messages": QUESTION, "seed": seed, "temperature": 1, "max_tokens": 1000}
        try:
            reply = client.chat.completions.parse(response_format=Answer, **fields)
        except openai.LengthFinishReasonError:
            continue
        assert isinstance(reply.choices[0].message.parsed, Answer)
        parsed += 1
    assert parsed > 0


def test_responses(client, model):
    tool = {"type": "function", "strict": True, **FUNCTION}
    fields = {"model": model, "input": "北京?", "tools": [tool], "tool_choice": "required"}
    fields |= {"parallel_tool_calls": False, "temperature": 1, "extra_body": {"seed": 1}}
    fields["reasoning"] = {"effort": "none"}
    whole = client.responses.create(**fields)
    [item] = whole.output
    assert item.type == "function_call"
    check(json.loads(item.arguments))
    with client.responses.stream(**fields) as stream:
        pieces = "".join(e.delta for e in stream if e.type == "response.function_call_arguments.delta")
        final = stream.get_final_response()
    assert pieces == item.arguments == final.output[0].arguments
    output = {"type": "function_call_output", "call_id": item.call_id, "output": "sunny"}
    items = [{"role": "user", "content": "北京?"}, item.model_dump(), output]
    second = client.responses.create(**{**fields, "input": items, "tool_choice": "none"}, max_output_tokens=8)
    assert second.output[0].type in ("message", "reasoning")
    parsed = 0
    for seed in range(6):
        options = {"temperature": 1, "max_output_tokens": 1000, "extra_body": {"seed": seed}}
        try:
            reply = client.responses.parse(model=model, input="?", text_format=Answer, **options)
        except pydantic.ValidationError:
            # The answer was cut.
            continue
        parsed += isinstance(reply.output_parsed, Answer)
    assert parsed > 0


def test_messages(claude):
    tool = {"name": "get_weather", "input_schema": PARAMETERS}
    fields = {"model": "any", "messages": QUESTION, "max_tokens": 400, "tools": [tool]}
    fields["model"] = claude.models.list().data[0].id
    choice = {"type": "any", "disable_parallel_tool_use": True}
    fields |= {"tool_choice": choice, "extra_body": SAMPLING, "thinking": {"type": "disabled"}}
    whole = claude.messages.create(**fields)
    assert whole.stop_reason == "tool_use"
    [block] = whole.content
    assert block.type == "tool_use" and block.name == "get_weather"
    check(block.input)
    with claude.messages.stream(**fields) as stream:
        pieces = "".join(event.partial_json for event in stream if event.type == "input_json")
        final = stream.get_final_message()
    assert json.loads(pieces) == block.input == final.content[0].input
    assert final.stop_reason == "tool_use"
    result = {"type": "tool_result", "tool_use_id": block.id, "content": "none", "is_error": True}
    messages = [*QUESTION, {"role": "assistant", "content": whole.content}, {"role": "user", "content": [result]}]
    count = claude.messages.count_tokens(model=fields["model"], messages=messages, tools=[tool])
    second = claude.messages.create(
        model=fields["model"], messages=messages, tools=[tool], max_tokens=8, extra_body=SAMPLING
    )
    usage = second.usage
    assert count.input_tokens == usage.input_tokens + usage.cache_read_input_tokens


def test_what_is_wrong_is_told(client, model, claude):
    name = {"type": "function", "function": {"name": "nothing"}}
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model=model, messages=QUESTION, tools=[TOOL], tool_choice=name)
    assert error.value.param == "tool_choice"
    image = {"type": "image", "source": {"type": "url", "url": "http://localhost/x.png"}}
    with pytest.raises(anthropic.BadRequestError) as error:
        claude.messages.create(model=model, max_tokens=5, messages=[{"role": "user", "content": [image]}])
    assert "image" in str(error.value)
