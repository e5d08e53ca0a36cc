"""The plays of an `@agent_node`: one LangGraph node asks the model, another one makes its calls.

Calls of functions are made one at a time, a step each; calls of remote tools go out together and are waited for
together. The talk lives in a channel of the graph's state, as plain data, so that a crash repeats no finished call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langgraph.runtime import Runtime
from langgraph.types import Command, interrupt

from openvibe import canonical, tools
from openvibe.errors import ModelError, ToolError, WrongUpdate
from openvibe.fields import Fields
from openvibe.graph.nodes import Play, Way
from openvibe.graph.steps import Method, Step
from openvibe.llm import ToolCall, Turn, asking
from openvibe.outcomes import SEATS
from openvibe.session import Session
from openvibe.specs import NodeSpec
from openvibe.tools import ToolDefinition

Tools = Mapping[str, ToolDefinition]


@dataclass(frozen=True)
class Answer:
    """What a call came to: the text that the model reads, and whether it is the last word of the run."""

    text: str
    failed: bool = False
    ends: bool = False


def talk(node: str) -> str:
    """Return the name of the channel that keeps an agent's talk; no state field can bear it."""
    return f"{node}.talk"


def calls(node: str) -> str:
    """Return the id under which an agent's calls stand on the timeline."""
    return f"{node}.tools"


def model(node: NodeSpec, method: Method, fields: Fields, *, tools: Tools, after: str | None, way: Way) -> Play:
    """Return the play that asks the model: it calls tools, or answers."""
    spec, agent = node.model, node.agent
    assert spec is not None
    assert agent is not None

    def play(state: dict[str, Any], runtime: Runtime[Session]) -> Command[Any]:
        step = Step.of(node, runtime)
        told: dict[str, Any] = state.get(talk(node.id)) or _begun(node.id, step.call(method, fields.view(state)))
        turns = [Turn.from_json(turn) for turn in told["turns"]]
        spent = sum(turn.role == "tool" for turn in turns)
        response = asking.converse(
            system=told["system"],
            user=told["user"],
            history=turns,
            tools=[tool.spec for tool in tools.values()] if spent < agent.max_steps else [],
            node=node.id,
            spec=spec,
            model=step.model,
            provider=step.session.provider_for(step.id),
            listener=step.listener,
            tried=step.session.tries(step.id).model,
            patience=step.session.patience,
        )
        if response.tool_calls and spent < agent.max_steps:
            turn = Turn("assistant", response.content, calls=response.tool_calls)
            step.notes.shown = {"calls": [call.as_json() for call in response.tool_calls]}
            update = {talk(node.id): {**told, "turns": [*told["turns"], turn.as_json()]}}
            return Command(update=update, goto=way(calls(node.id)))
        if response.tool_calls and not response.content:
            raise ModelError(
                f"Node {node.id!r}: {response.model} calls on after max_steps={agent.max_steps} calls, "
                "though it was asked to answer; raise max_steps or ask for less"
            )
        update = fields.check_update(node.id, {told["output_key"]: response.content})
        return Command(update={**update, talk(node.id): None}, goto=way(after))

    return play


def tool(node: NodeSpec, fields: Fields, *, tools: Tools, way: Way) -> Play:
    """Return the play that makes the first call that has no answer yet, and with a remote one all other remote ones."""

    def play(state: dict[str, Any], runtime: Runtime[Session]) -> Command[Any]:
        step, told = Step.of(node, runtime), state[talk(node.id)]
        first, *others = _open(told["turns"])
        if _elsewhere(tools, first):
            made = [first, *(call for call in others if _elsewhere(tools, call))]
            answers = _sent(node.id, tools, made)
        else:
            made, answers = [first], [_made(node.id, step, tools, first)]
        turns = [
            Turn("tool", answer.text, call_id=call.id, error=answer.failed)
            for call, answer in zip(made, answers, strict=True)
        ]
        shown = [_shown(call, answer) for call, answer in zip(made, answers, strict=True)]
        step.notes.shown = shown[0] if len(shown) == 1 else {"made": shown}
        if last := [answer for answer in answers if answer.ends]:
            return Command(update=_last_word(node.id, fields, told, last[0]), goto=way(None))
        update = {talk(node.id): {**told, "turns": [*told["turns"], *(turn.as_json() for turn in turns)]}}
        return Command(update=update, goto=way(calls(node.id) if len(made) <= len(others) else node.id))

    return play


def _shown(call: ToolCall, answer: Answer) -> dict[str, Any]:
    return {"tool": call.name, "arguments": dict(call.arguments), "result": answer.text, "error": answer.failed}


def _last_word(node: str, fields: Fields, told: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
    """Return the update by which a tool's result stands for the agent's answer, and the run is over."""
    if answer.failed:
        raise ToolError(answer.text)
    return {**fields.check_update(node, {told["output_key"]: answer.text}), talk(node): None}


def _begun(node: str, returned: Any) -> dict[str, Any]:
    question = asking.Question.read(node, returned)
    if not question.output_key:
        raise WrongUpdate(f"Node {node!r} must return `output_key`: an agent's answer is one text")
    return {"system": question.system, "user": question.user, "output_key": question.output_key, "turns": []}


def _open(talked: list[dict[str, Any]]) -> list[ToolCall]:
    turns = [Turn.from_json(turn) for turn in talked]
    last = max(position for position, turn in enumerate(turns) if turn.role == "assistant")
    answered = {turn.call_id for turn in turns[last + 1 :]}
    return [call for call in turns[last].calls if call.id not in answered]


def _made(node: str, step: Step, known: Tools, call: ToolCall) -> Answer:
    """Make a call of a function."""
    found = known.get(call.name)
    if found is None:
        return Answer(f"There is no tool {call.name!r}; there are: {', '.join(known)}", failed=True)
    try:
        return Answer(step.tried(lambda attempt: attempt.made(lambda: found.call(call.arguments, attempt.ctx))))
    except ToolError as error:
        step.notes.forget()
        return Answer(str(error), failed=True)


def _elsewhere(known: Tools, call: ToolCall) -> bool:
    return call.name in known and known[call.name].remote is not None


def _sent(node: str, known: Tools, made: list[ToolCall]) -> list[Answer]:
    """Wait for what remote tools make of their calls."""
    asked = [_request(known[call.name], call) for call in made]
    if len(asked) == 1:
        return [_read(interrupt({"kind": "tool", "node": node, **asked[0]}))]
    together = interrupt({"kind": "tool", "node": node, "rule": "all", "needed": len(asked), SEATS: asked})
    return [_read(answer) for answer in together["answers"]]


def _request(tool: ToolDefinition, call: ToolCall) -> dict[str, Any]:
    assert tool.remote is not None
    arguments = canonical.jsonable(dict(call.arguments))
    return {
        "prompt": f"Tool {call.name}",
        "payload": {"tool": call.name, "tool_call_id": call.id, "arguments": arguments},
        "timeout_seconds": tool.remote.timeout.total_seconds() if tool.remote.timeout else None,
    }


def _read(answer: Mapping[str, Any]) -> Answer:
    ends = bool(answer.get("ends"))
    if answer.get("error"):
        return Answer(str(answer["error"]), failed=True, ends=ends)
    return Answer(tools.as_text(answer.get("result")), ends=ends)
