"""`configure`: the defaults of what a process makes afterwards."""

import pytest

from openvibe import OperatorRuntime, SetupError, configuration, configure, llm_node, operator, workflow
from openvibe.llm import LLMResponse, aliases
from openvibe.llm.scripted import ScriptedProvider


@pytest.fixture(autouse=True)
def _as_it_was():
    before = configuration.current()
    yield
    configuration.restore(before)


@operator(id="desk")
class Desk:
    letter: str = ""

    @workflow(id="write")
    class Write:
        @llm_node(model="sonnet")
        def speak(self, state):
            return {"user": "me", "output_key": "letter"}

        @llm_node(model="exactly-this")
        def again(self, state):
            return {"user": "me", "output_key": "letter"}


class Named(ScriptedProvider):
    """A scripted model under a vendor's name."""

    def __init__(self, name):
        super().__init__([LLMResponse("x", 1, 1, "m", 0)] * 2, name=name)


def asked(model):
    with OperatorRuntime() as runtime:
        runtime.register(Desk)
        assert runtime.activate("desk", "write").status == "completed"
    return [call.model for call in model.calls]


def test_nothing_is_configured_at_first():
    assert configuration.current() == configuration.Configuration()
    assert configuration.current().llm == "simulated"


def test_what_is_not_given_stays_as_it_is():
    configure(tracing="langsmith", tracing_project="my-ops")
    configure(llm="openai", api_key="sk-1")
    now = configuration.current()
    assert (now.llm, now.api_key, now.tracing, now.tracing_project) == ("openai", "sk-1", "langsmith", "my-ops")


def test_another_provider_forgets_the_key_and_the_address_of_the_last_one():
    configure(llm="openai", api_key="sk-1", base_url="http://localhost:1")
    configure(llm="ollama", base_url="http://localhost:11434")
    now = configuration.current()
    assert (now.api_key, now.base_url) == ("", "http://localhost:11434")


def test_a_key_is_not_shown():
    configure(llm="openai", api_key="sk-secret")
    assert "sk-secret" not in repr(configuration.current())


def test_the_configured_provider_is_made_with_its_key_and_address():
    configure(llm="openai", api_key="sk-1", base_url="http://localhost:1/v1")
    assert configuration.current().provider().name == "openai"


def test_a_runtimes_own_provider_gets_none_of_the_configured_ones_options():
    configure(llm="ollama", base_url="http://localhost:11434")
    assert configuration.current().provider("simulated").name == "simulated"


@pytest.mark.parametrize("name", ["openai", "anthropic", "ollama"])
def test_aliases_follow_the_provider(name):
    model = Named(name)
    configure(llm=model)
    assert asked(model) == [aliases.ALIASES[name]["sonnet"], "exactly-this"]


def test_configured_models_go_before_the_providers_aliases():
    model = Named("openai")
    configure(llm=model, models={"sonnet": "my-own-model"})
    assert asked(model) == ["my-own-model", "exactly-this"]


def test_a_runtime_that_was_made_before_stays_as_it_was():
    first = Named("openai")
    configure(llm=first)
    with OperatorRuntime() as runtime:
        configure(llm=Named("anthropic"))
        runtime.register(Desk)
        runtime.activate("desk", "write")
    assert len(first.calls) == 2


def test_a_runtime_keeps_its_runs_where_it_was_configured(tmp_path):
    configure(checkpointer=f"sqlite:///{tmp_path}/runs.db", llm=Named("openai"))
    with OperatorRuntime() as runtime:
        runtime.register(Desk)
        run = runtime.activate("desk", "write")
    with OperatorRuntime() as runtime:
        assert runtime.runs() == [run]


@pytest.mark.parametrize("option", ["llm", "bus", "scheduler", "tracing"])
def test_a_name_that_is_not_known_is_refused_with_those_that_are(option):
    before = configuration.current()
    with pytest.raises(SetupError, match=f"configure\\({option}='parrot'\\): use one of: .+, .+"):
        configure(**{option: "parrot"})
    assert configuration.current() is before
