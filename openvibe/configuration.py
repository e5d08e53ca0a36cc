"""Defaults for everything that this process makes afterwards: which model, with which key, told to which tracer."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from openvibe.bus import BUSES
from openvibe.errors import SetupError
from openvibe.llm import PROVIDERS, LLMProvider, adapted
from openvibe.scheduler import SCHEDULERS

#: Where traces may go.
TRACING = ("none", "langsmith", "langfuse", "otel")


@dataclass(frozen=True)
class Configuration:
    """What `configure` was told so far. `models` maps aliases to exact ids and goes before the provider's own."""

    llm: Any = "simulated"
    api_key: str = field(default="", repr=False)
    base_url: str = ""
    models: Mapping[str, str] = field(default_factory=dict)
    bus: Any = "memory"
    scheduler: Any = "none"
    checkpointer: Any = "memory"
    tracing: str = "none"
    tracing_project: str = ""

    def provider(self, llm: Any = None) -> LLMProvider:
        """Return a model provider: the configured one or, when `llm` says so, another one.

        The key and the address belong to the configured provider and go to no other one.

        Raises:
            SetupError: no such provider, or it cannot be made.
        """
        chosen = self.llm if llm is None else llm
        if not isinstance(chosen, str) or chosen != self.llm:
            return adapted(chosen)
        given = {"api_key": self.api_key, "base_url": self.base_url}
        return adapted(chosen, **{name: value for name, value in given.items() if value})


_current = Configuration()
_lock = threading.Lock()


def current() -> Configuration:
    """Return the defaults that now hold."""
    return _current


def configure(
    *,
    llm: Any = None,
    api_key: str | None = None,
    base_url: str | None = None,
    models: Mapping[str, str] | None = None,
    bus: Any = None,
    scheduler: Any = None,
    checkpointer: Any = None,
    tracing: str | None = None,
    tracing_project: str | None = None,
) -> None:
    """Set defaults for the runtimes that this process makes from now on; what is not given stays as it is.

    `llm` is a provider's name (`anthropic`, `openai`, `ollama`, `simulated`) or a provider; the aliases of models
    follow it. `api_key` and `base_url` are its own: without them it reads its usual environment variables, and another
    `llm` forgets them. `models` maps aliases to exact ids. `bus`, `scheduler` and `checkpointer` are as
    `OperatorRuntime` takes them. `tracing` is `none`, `langsmith`, `langfuse` or `otel`.

    Example:
        >>> configure(llm="simulated", models={"sonnet": "my-own-model"})

    Raises:
        SetupError: a name is not known.
    """
    _check("llm", llm, PROVIDERS)
    _check("bus", bus, BUSES)
    _check("scheduler", scheduler, SCHEDULERS)
    _check("tracing", tracing, TRACING)
    given = {
        "llm": llm, "api_key": api_key, "base_url": base_url, "models": models, "bus": bus, "scheduler": scheduler,
        "checkpointer": checkpointer, "tracing": tracing, "tracing_project": tracing_project,
    }  # fmt: skip
    _change({name: value for name, value in given.items() if value is not None})


def restore(configuration: Configuration) -> None:
    """Put back what `current` returned before."""
    _change(vars(configuration))


def _change(given: Mapping[str, Any]) -> None:
    global _current
    with _lock:
        another = "llm" in given and given["llm"] != _current.llm
        forgotten = {"api_key": "", "base_url": ""} if another else {}
        _current = dataclasses.replace(_current, **{**forgotten, **given})


def _check(option: str, value: Any, known: Iterable[str]) -> None:
    if isinstance(value, str) and value not in known:
        raise SetupError(f"configure({option}={value!r}): use one of: {', '.join(known)}")
