"""Reads the environment, strictly: a wrong value is one sentence that names the variable and the remedy.

A variable that is set but empty counts as not set. `docs/settings.md` tells users what each one means.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar
from zoneinfo import ZoneInfo

from openvibe.errors import SetupError
from openvibe.protocol import subjects
from openvibe.protocol.streams import DEFAULT_SERVER

Tracing = Literal["none", "otel", "langfuse", "langsmith"]
Llm = Literal["simulated", "anthropic", "openai", "ollama"]
Scheduler = Literal["celery", "none"]
Web = Literal["daphne", "uvicorn"]
Bus = Literal["nats", "redis", "memory"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
Choice = TypeVar("Choice", bound=str)

PACKAGE = Path(__file__).resolve().parent
#: Where the packages lie: the checkout, or the folder into which a wheel was installed.
CODE_ROOT = PACKAGE.parent
#: A wheel carries `templates` and `static` inside this package; a checkout has them beside it.
INSTALLED = (PACKAGE / "templates").is_dir()
ASSETS = PACKAGE if INSTALLED else CODE_ROOT
#: The folder that is served: a checkout serves itself, what is installed the folder in which it is called.
PROJECT_ROOT = Path.cwd() if INSTALLED else CODE_ROOT
TRACINGS: tuple[Tracing, ...] = ("none", "otel", "langfuse", "langsmith")
LLMS: tuple[Llm, ...] = ("simulated", "anthropic", "openai", "ollama")
SCHEDULERS: tuple[Scheduler, ...] = ("celery", "none")
WEBS: tuple[Web, ...] = ("daphne", "uvicorn")
BUSES: tuple[Bus, ...] = ("nats", "redis", "memory")
LOG_LEVELS: tuple[LogLevel, ...] = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
#: What the name of a variable contains whose value is a secret, and how long such a value is at least.
SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD")
SHORTEST_SECRET = 8
SPELLED_BOOLEANS = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Everything that OpenVibe takes from environment variables; secrets stay out of its repr."""

    port: int
    web: Web
    home: Path
    database_url: str = field(repr=False)
    database_connections: int
    broker_url: str = field(repr=False)
    bus: Bus
    nats_url: str = field(repr=False)
    nats_credentials: str
    nats_certificates: str
    nats_replicas: int
    nats_patience: float
    pull_batch: int
    pull_inflight: int
    pull_seconds: float
    redis_url: str = field(repr=False)
    workflow_prefix: tuple[str, ...]
    artifacts: str
    turn_steps: bool
    llm: Llm
    simulated_pace: float
    anthropic_api_key: str = field(repr=False)
    anthropic_base_url: str
    openai_api_key: str = field(repr=False)
    openai_base_url: str
    ollama_host: str
    tracing: Tracing
    tracing_project: str
    operator_modules: tuple[str, ...]
    only: tuple[str, ...]
    server: str
    reload: bool
    secret_key: str = field(repr=False)
    debug: bool
    allowed_hosts: tuple[str, ...]
    lease_seconds: float
    most_losses: int
    most_strays: int
    worker_threads: int
    worker_processes: int
    time_zone: str
    scheduler: Scheduler
    hubspot_secret: str = field(repr=False)
    webhook_private: bool
    session_log: Path | None
    session_log_mib: int
    session_log_days: int
    masked: tuple[str, ...]
    secrets: tuple[str, ...] = field(repr=False)
    log_level: LogLevel
    log_wire: bool


def read(environ: Mapping[str, str]) -> Environment:  # long: one line for each variable
    """Raises `SetupError` at the first variable that does not say what it should."""
    return Environment(
        port=whole(environ, "OPENVIBE_PORT", 8000, least=1, most=65535),
        web=choice(environ, "OPENVIBE_WEB", "daphne", choices=WEBS),
        home=path(environ, "OPENVIBE_HOME", ".openvibe"),
        database_url=text(environ, "DATABASE_URL"),
        database_connections=whole(environ, "OPENVIBE_DATABASE_CONNECTIONS", 20, least=2, most=1000),
        broker_url=text(environ, "CELERY_BROKER_URL"),
        bus=choice(environ, "OPENVIBE_BUS", "nats", choices=BUSES),
        nats_url=text(environ, "NATS_URL"),
        nats_credentials=existing(environ, "NATS_CREDENTIALS"),
        nats_certificates=existing(environ, "NATS_CERT_DIR"),
        nats_replicas=whole(environ, "OPENVIBE_NATS_REPLICAS", 1, least=1, most=5),
        nats_patience=number(environ, "OPENVIBE_NATS_PATIENCE", 3.0, positive=True),
        pull_batch=whole(environ, "OPENVIBE_PULL_BATCH", 250, least=1, most=10_000),
        pull_inflight=whole(environ, "OPENVIBE_PULL_INFLIGHT", 1000, least=1, most=100_000),
        pull_seconds=number(environ, "OPENVIBE_PULL_SECONDS", 5.0, positive=True),
        redis_url=text(environ, "REDIS_URL", "redis://127.0.0.1:6379/0"),
        workflow_prefix=prefixes(environ, "OPENVIBE_WORKFLOW_PREFIX", "workflow"),
        artifacts=folders(environ, "OPENVIBE_ARTIFACTS"),
        turn_steps=boolean(environ, "OPENVIBE_TURN_STEPS", default=True),
        llm=choice(environ, "OPENVIBE_LLM", "simulated", choices=LLMS),
        simulated_pace=number(environ, "OPENVIBE_SIMULATED_PACE", 60.0),
        anthropic_api_key=text(environ, "ANTHROPIC_API_KEY"),
        anthropic_base_url=text(environ, "ANTHROPIC_BASE_URL"),
        openai_api_key=text(environ, "OPENAI_API_KEY"),
        openai_base_url=text(environ, "OPENAI_BASE_URL"),
        ollama_host=text(environ, "OLLAMA_HOST"),
        tracing=choice(environ, "OPENVIBE_TRACING", "none", choices=TRACINGS),
        tracing_project=text(environ, "OPENVIBE_TRACING_PROJECT", "openvibe"),
        operator_modules=sources(environ, "OPENVIBE_OPERATORS", "operators.catalog,operators.coders"),
        only=names(environ, "OPENVIBE_ONLY", ""),
        server=server(environ),
        reload=boolean(environ, "OPENVIBE_RELOAD", default=False),
        secret_key=text(environ, "OPENVIBE_SECRET_KEY"),
        debug=boolean(environ, "OPENVIBE_DEBUG", default=False),
        allowed_hosts=names(environ, "OPENVIBE_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]"),
        lease_seconds=number(environ, "OPENVIBE_LEASE_SECONDS", 15.0, positive=True),
        most_losses=whole(environ, "OPENVIBE_MOST_LOSSES", 5, least=1, most=1000),
        most_strays=whole(environ, "OPENVIBE_MOST_STRAYS", 5, least=1, most=1000),
        worker_threads=whole(environ, "OPENVIBE_WORKER_THREADS", 32, least=1, most=1000),
        worker_processes=whole(environ, "OPENVIBE_WORKER_PROCESSES", 1, least=1, most=100),
        time_zone=time_zone(environ, "OPENVIBE_TIME_ZONE", "UTC"),
        scheduler=choice(environ, "OPENVIBE_SCHEDULER", "celery", choices=SCHEDULERS),
        hubspot_secret=text(environ, "OPENVIBE_HUBSPOT_SECRET"),
        webhook_private=boolean(environ, "OPENVIBE_WEBHOOK_PRIVATE", default=False),
        session_log=folder(environ, "OPENVIBE_SESSION_LOG", "sessions"),
        session_log_mib=whole(environ, "OPENVIBE_SESSION_LOG_MIB", 16, least=1, most=100_000),
        session_log_days=whole(environ, "OPENVIBE_SESSION_LOG_DAYS", 30, least=1, most=10_000),
        masked=patterns(environ, "OPENVIBE_MASKED"),
        secrets=secrets(environ),
        log_level=choice(environ, "OPENVIBE_LOG_LEVEL", "INFO", choices=LOG_LEVELS),
        log_wire=boolean(environ, "OPENVIBE_LOG_WIRE", default=False),
    )


def text(environ: Mapping[str, str], name: str, default: str = "") -> str:
    return environ.get(name, "").strip() or default


def whole(environ: Mapping[str, str], name: str, default: int, *, least: int, most: int) -> int:
    given = text(environ, name, str(default))
    wanted = f"a whole number from {least} to {most}"
    try:
        value = int(given)
    except ValueError:
        raise _wrong(name, given, wanted) from None
    if not least <= value <= most:
        raise _wrong(name, given, wanted)
    return value


def number(environ: Mapping[str, str], name: str, default: float, *, positive: bool = False) -> float:
    given = text(environ, name, str(default))
    wanted = "a number greater than 0" if positive else "a number, 0 or greater"
    try:
        value = float(given)
    except ValueError:
        raise _wrong(name, given, wanted) from None
    if not math.isfinite(value) or value < 0 or (positive and value == 0):
        raise _wrong(name, given, wanted)
    return value


def boolean(environ: Mapping[str, str], name: str, *, default: bool) -> bool:
    given = text(environ, name, str(default))
    if given.lower() not in SPELLED_BOOLEANS:
        raise _wrong(name, given, "true or false")
    return SPELLED_BOOLEANS[given.lower()]


def choice(environ: Mapping[str, str], name: str, default: Choice, *, choices: tuple[Choice, ...]) -> Choice:
    given = text(environ, name, default)
    for allowed in choices:
        if given.lower() == allowed.lower():
            return allowed
    raise _wrong(name, given, "one of " + ", ".join(choices))


def path(environ: Mapping[str, str], name: str, default: str) -> Path:
    """Absolute; a relative one counts from the project's folder, so that every process finds the same place."""
    given = text(environ, name, default)
    try:
        return (PROJECT_ROOT / Path(given).expanduser()).resolve()
    except (RuntimeError, ValueError, OSError):
        raise _wrong(name, given, "a path to a folder") from None


def folder(environ: Mapping[str, str], name: str, default: str) -> Path | None:
    """A folder, by default one in the home; `off` is none."""
    if text(environ, name) == "off":
        return None
    return path(environ, name, str(path(environ, "OPENVIBE_HOME", ".openvibe") / default))


def existing(environ: Mapping[str, str], name: str) -> str:
    """The absolute path of a file or a folder that must be there; empty when none is named."""
    if not text(environ, name):
        return ""
    found = path(environ, name, "")
    if not found.exists():
        raise _wrong(name, str(found), "the path of something that is there")
    return str(found)


def names(environ: Mapping[str, str], name: str, default: str) -> tuple[str, ...]:
    given = text(environ, name, default)
    listed = tuple(part.strip() for part in given.split(",")) if given else ()
    if not all(listed) or any(character.isspace() for part in listed for character in part):
        raise _wrong(name, given, "names separated by commas" + (f", such as {default}" if default else ""))
    return listed


def prefixes(environ: Mapping[str, str], name: str, default: str) -> tuple[str, ...]:
    """Beginnings of NATS subjects."""
    given = text(environ, name, default)
    listed = tuple(part.strip() for part in given.split(","))
    if not all(re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", part) for part in listed):
        raise _wrong(name, given, f"beginnings of subjects separated by commas, such as {default},argo.{default}")
    return listed


def folders(environ: Mapping[str, str], name: str) -> str:
    """Where each run has a folder of its own: an absolute path with `{uid}` in it, or nothing."""
    given = text(environ, name)
    marks = re.findall(r"\{(.*?)\}", given)
    known = "uid" in marks and set(marks) <= {"uid", "name", "namespace", "project"} and len(set(marks)) == len(marks)
    if given and not (known and Path(given).is_absolute()):
        raise _wrong(name, given, "an absolute path with {uid} in it, such as /srv/artifacts/{namespace}/{uid}")
    return given


def sources(environ: Mapping[str, str], name: str, default: str) -> tuple[str, ...]:
    """Modules, and files, whose paths may have spaces."""
    given = text(environ, name, default)
    listed = tuple(part.strip() for part in given.split(","))
    files = (".py", ".yaml", ".yml")
    if not all(os.sep in part or part.endswith(files) or (part and not set(part) & set(" \t\n")) for part in listed):
        raise _wrong(name, given, f"modules or files separated by commas, such as {default}")
    return listed


def server(environ: Mapping[str, str]) -> str:
    """The name by which others know this server: a token of NATS subjects; by default it says what is served."""
    only = sorted(names(environ, "OPENVIBE_ONLY", ""))
    given = text(environ, "OPENVIBE_SERVER", subjects.token("-".join(only)) if only else DEFAULT_SERVER)
    if subjects.token(given) != given:
        raise _wrong("OPENVIBE_SERVER", given, "at most 64 letters, digits, '-' and '_'")
    return given


def patterns(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Regular expressions, separated by blanks. One that fits the empty text would fit everywhere."""
    given = text(environ, name)
    for pattern in given.split():
        try:
            if not re.search(pattern, ""):
                continue
        except re.error:
            pass
        raise _wrong(name, given, r"regular expressions separated by blanks, such as sk-\w+")
    return tuple(given.split())


def secrets(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The values of all variables that by their names are secrets; short ones are too likely to be ordinary words."""
    found = {value for name, value in environ.items() if any(word in name.upper() for word in SECRET_WORDS)}
    return tuple(sorted((value for value in found if len(value) >= SHORTEST_SECRET), key=len, reverse=True))


def time_zone(environ: Mapping[str, str], name: str, default: str) -> str:
    given = text(environ, name, default)
    try:
        # The default needs no time zone database, which a slim image may lack.
        return given if given == default else ZoneInfo(given).key
    except (LookupError, ValueError, OSError):
        raise _wrong(name, given, "a time zone such as UTC or Europe/Berlin") from None


def _wrong(name: str, given: str, wanted: str) -> SetupError:
    return SetupError(f"{name} is {given!r}: set it to {wanted}, or leave it out for the default.")
