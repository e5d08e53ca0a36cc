"""Prompts, in files of their own so that whoever owns the words need not touch code."""

import json
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent


@cache
def text(name: str) -> str:
    """Return the prompt of that name, such as `company_intel/research`."""
    return (_HERE / f"{name}.md").read_text(encoding="utf-8").strip()


def of(operator: str) -> Callable[..., dict[str, Any]]:
    """Return the `question` of one operator's prompts."""
    return partial(question, operator)


def question(
    operator: str,
    name: str,
    output: str | Mapping[str, Any],
    state: Mapping[str, Any],
    /,
    *fields: str,
    task: str | None = None,
    fallback: Callable[[str], Mapping[str, Any]] | None = None,
    update: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return what an `@llm_node` asks: a prompt, the facts it is about, and where the answer goes.

    `output` is the state field that takes the text or, for JSON, maps state fields to types. The facts are a `task`
    (where nodes share a prompt), these `fields` of the state, and `more`. A fact that is None is left out; an empty one
    is shown as such, so that a model does not take silence for news.
    """
    facts = {"task": task, **{field: state[field] for field in fields}, **more}
    told = [_fact(label, value) for label, value in facts.items() if value is not None]
    asked: dict[str, Any] = {"system": text(f"{operator}/{name}"), "user": "\n\n".join(told)}
    asked["output_key" if isinstance(output, str) else "output_keys"] = output
    return asked | ({"fallback": fallback} if fallback else {}) | ({"update": update} if update else {})


def _fact(label: str, value: Any) -> str:
    title = label.replace("_", " ").capitalize()
    shown = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, default=str)
    if value in ("", [], {}):
        shown = "none given"
    return f"{title}:\n{shown}" if "\n" in shown or len(shown) > 80 else f"{title}: {shown}"
