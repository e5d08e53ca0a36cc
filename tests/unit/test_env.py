"""What the environment may say, and the sentence when it says something else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from openvibe.errors import SetupError
from openvibe_site import env


def test_an_empty_environment_gives_the_defaults() -> None:
    environment = env.read({"OPENVIBE_PORT": ""})
    assert environment.port == 8000
    assert environment.home == env.PROJECT_ROOT / ".openvibe"
    assert environment.llm == "simulated"
    assert environment.simulated_pace == 60
    assert environment.operator_modules == ("operators.catalog", "operators.coders")
    assert (environment.only, environment.reload) == ((), False)
    assert environment.allowed_hosts == ("localhost", "127.0.0.1", "[::1]")
    assert (environment.lease_seconds, environment.worker_threads, environment.worker_processes) == (15.0, 32, 1)
    assert (environment.time_zone, environment.log_level, environment.debug) == ("UTC", "INFO", False)


def test_what_is_set_is_read() -> None:
    given = {"OPENVIBE_PORT": " 8123 ", "OPENVIBE_DEBUG": "Yes", "OPENVIBE_LOG_LEVEL": "debug", "OPENVIBE_HOME": "/a/b"}
    environment = env.read({**given, "OPENVIBE_OPERATORS": "a.b, c", "OPENVIBE_SIMULATED_PACE": "0"})
    assert (environment.port, environment.debug, environment.log_level) == (8123, True, "DEBUG")
    assert (environment.home, environment.operator_modules) == (Path("/a/b"), ("a.b", "c"))
    assert environment.simulated_pace == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENVIBE_PORT", "eighty"),
        ("OPENVIBE_PORT", "65536"),
        ("OPENVIBE_LLM", "gpt"),
        ("OPENVIBE_SIMULATED_PACE", "-1"),
        ("OPENVIBE_SIMULATED_PACE", "nan"),
        ("OPENVIBE_LEASE_SECONDS", "0"),
        ("OPENVIBE_DEBUG", "maybe"),
        ("OPENVIBE_HOME", "~nobody-of-this-name/x"),
        ("OPENVIBE_OPERATORS", "a,,b"),
        ("OPENVIBE_OPERATORS", "a b"),
        ("OPENVIBE_ONLY", "a,"),
        ("OPENVIBE_RELOAD", "often"),
        ("OPENVIBE_MOST_LOSSES", "0"),
        ("OPENVIBE_MOST_STRAYS", "0"),
        ("OPENVIBE_DATABASE_CONNECTIONS", "1"),
        ("OPENVIBE_MASKED", "sk-\\w+ ("),
        ("OPENVIBE_MASKED", "x*"),
        ("OPENVIBE_WORKER_THREADS", "0"),
        ("OPENVIBE_TIME_ZONE", "Mars/Olympus"),
        ("OPENVIBE_TIME_ZONE", "../etc/passwd"),
        ("OPENVIBE_LOG_LEVEL", "LOUD"),
    ],
)
def test_a_wrong_value_is_one_sentence_with_the_variable_and_the_remedy(name: str, value: str) -> None:
    with pytest.raises(SetupError) as caught:
        env.read({name: value})
    assert str(caught.value).startswith(f"{name} is {value!r}: set it to ")
    assert "\n" not in str(caught.value)


def test_an_operators_file_may_lie_in_a_folder_with_spaces() -> None:
    given = {"OPENVIBE_OPERATORS": "/my code/hello.py, letters,other file.py", "OPENVIBE_ONLY": "hello"}
    environment = env.read(given)
    assert environment.operator_modules == ("/my code/hello.py", "letters", "other file.py")
    assert environment.only == ("hello",)


def test_secrets_do_not_show_in_the_repr() -> None:
    names = ("ANTHROPIC_API_KEY", "OPENVIBE_SECRET_KEY", "DATABASE_URL", "NATS_URL", "CELERY_BROKER_URL")
    assert "hush" not in repr(env.read(dict.fromkeys(names, "hush")))


def test_values_are_secrets_by_the_names_of_their_variables() -> None:
    given = {"SHOP_API_KEY": "sk-12345678", "db_password": "hush-hush-hush", "MY_TOKEN": "short", "HOME": "/home/me/x"}
    assert env.read({**given, "OPENVIBE_MASKED": r"\d{16} card-\w+"}).secrets == ("hush-hush-hush", "sk-12345678")
    assert env.read({"OPENVIBE_MASKED": r"\d{16} card-\w+"}).masked == (r"\d{16}", r"card-\w+")


def test_every_variable_is_documented() -> None:
    source = Path(env.__file__).read_text("utf-8")
    documented = (env.PROJECT_ROOT / "docs" / "settings.md").read_text("utf-8")
    names = re.findall(r'\(environ, "([A-Z_]+)"', source)
    assert len(names) > 20
    assert [name for name in names if f"| `{name}` |" not in documented] == []
