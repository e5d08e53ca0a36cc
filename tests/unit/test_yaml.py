# long: a table of wrong files, and one of what each kind of node does
"""Operators from YAML: the same meaning as decorated classes, and every mistake told with its place."""

import json
import textwrap
from datetime import timedelta
from pathlib import Path

import jsonschema
import pytest
import yaml

from openvibe import Listen, OperatorRuntime, RunError, SetupError, config, expressions
from openvibe.errors import InputError
from openvibe.fields import check_input
from openvibe.llm import ToolCall
from openvibe.llm.scripted import ScriptedProvider
from openvibe.registry import Registry, define
from openvibe.testing import MemoryHost, play
from operators.catalog.company_intel import CompanyIntel

ROOT = Path(__file__).resolve().parents[2]
CATALOG = ROOT / "operators" / "catalog" / "company_intel.yaml"
SCHEMA = ROOT / "docs" / "schemas" / "operators.schema.json"

FULL = """
    operators:
      - id: desk
        name: The desk
        description: Writes letters.
        owner: alice
        fields:
          letter: str
          score: int
          tags: list[str]
          review: str
          way: str
          topic: {type: string, title: Topic, default: bread, maxLength: 20}
        workflows:
          - id: write
            trigger: cron:0 9 * * 1-5
            trigger_id: mornings
            inputs: [topic, score]
            sample_input: {topic: salt}
            listens: [shop.sold, {event: shop.lost, where: {big: true}, takes: {topic: reason}}]
            emits: [written]
            capability: writing
            timeout: 5m
            max_days: 14
            nodes:
              - {id: draft, type: llm, model: haiku, max_tokens: 100, temperature: 0.5, attempts: 2,
                 system: "You write.", user: "About {topic}, {{kindly}}", output_key: letter}
              - {id: judge, type: llm, output_keys: [score, tags], user: "Judge:\\n{letter}",
                 fallback: {score: 1, tags: ["{answer}"]}}
              - {id: route, type: conditional, routes: {fine: score >= 80, poor: true}, set: {way: "'checked'"}}
              - id: review
                type: gate
                prompt: Send it?
                shows: [score]
                edits: [letter]
                decisions: [approve, reject, hold]
                timeout: 24h
                on_timeout: approve
                on_reject: end
                escalate_to: owner
              - {id: count, type: logic, set: {score: score + len(tags)}}
"""
#: A file that is right, whose parts the wrong ones replace.
RIGHT = """\
operators:
  - id: desk
    fields: {letter: str, score: int}
    workflows:
      - id: write
        nodes:
          - id: draft
            type: llm
            user: Write
            output_key: letter
          - id: grade
            type: logic
            set: {score: 1}
"""


def parse(text, **options):
    return config.parse(textwrap.dedent(text)).definitions(**options)


@pytest.fixture
def folder(tmp_path):
    """Writes files into a folder, and returns the path of operators.yaml there."""

    def write(text, **files):
        for name, content in files.items():
            path = tmp_path / name.replace("__", "/").replace("_md", ".md").replace("_py", ".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(content))
        (tmp_path / "operators.yaml").write_text(textwrap.dedent(text))
        return tmp_path / "operators.yaml"

    return write


def nodes(*lines, fields="{letter: str, score: int}"):
    """Return an operator `desk` with one workflow `write` of these nodes."""
    listed = "\n".join(f"              - {line}" for line in lines)
    return f"""
    operators:
      - id: desk
        fields: {fields}
        workflows:
          - id: write
            nodes:
{listed}
    """


def test_a_file_says_everything_that_decorators_say():
    [definition] = parse(FULL)
    spec = definition.spec
    assert (spec.name, spec.description, spec.owner) == ("The desk", "Writes letters.", "alice")
    flow = spec.workflow("write")
    assert (flow.trigger.text, flow.trigger.id) == ("cron:0 9 * * 1-5", "mornings")
    assert (flow.inputs, flow.sample_input) == (("topic", "score"), {"topic": "salt"})
    assert flow.listens == (Listen("shop.sold"), Listen("shop.lost", where={"big": True}, takes={"topic": "reason"}))
    assert (flow.emits, flow.capability) == (("desk.written",), "writing")
    assert (flow.timeout, flow.max_duration) == (timedelta(minutes=5), timedelta(days=14))
    draft, judge, route, review, count = flow.nodes
    assert (draft.model.model, draft.model.max_tokens, draft.model.temperature) == ("haiku", 100, 0.5)
    assert (draft.model.attempts, draft.model.output_format, judge.model.output_format) == (2, "text", "json")
    assert route.routes == ("fine", "poor")
    assert (review.gate.decisions, review.gate.edits) == (("approve", "reject", "hold"), ("letter",))
    assert (review.gate.timeout, review.gate.on_timeout) == (timedelta(hours=24), "approve")
    assert (review.gate.on_reject, review.gate.escalate_to) == ("end", "owner")
    assert count.kind == "logic"
    assert flow.input_schema["properties"]["topic"]["title"] == "Topic"
    assert flow.input_schema["properties"]["topic"]["maxLength"] == 20


def test_a_file_is_played_as_a_class_would_be():
    model = ScriptedProvider(["Dear all,", {"score": 90, "tags": ["warm", "short"]}])
    [definition] = parse(FULL)
    run = play(definition, "write", {"topic": "salt"}, answers=["approve"], provider=model)
    assert run.status == "completed", run.error
    assert run.output == {
        "topic": "salt", "letter": "Dear all,", "score": 92, "tags": ["warm", "short"], "review": "approve",
        "way": "checked",
    }  # fmt: skip
    assert (model.calls[0].system, model.calls[0].user) == ("You write.", "About salt, {kindly}")
    assert model.calls[1].user == "Judge:\nDear all,"
    assert run.waits[0].payload == {"score": 90, "letter": "Dear all,"}


def test_the_fallback_is_used_when_no_answer_fits():
    model = ScriptedProvider(["Dear all,", "bad", "worse", "worst"])
    [definition] = parse(FULL)
    run = play(definition, "write", provider=model)
    assert run.waits[0].payload["score"] == 1


@pytest.mark.parametrize("name", ["decide", "write_decide", "desk_write_decide"])
def test_code_stands_in_the_file_beside_it(folder, name):
    handlers = f"def {name}(state):\n    return {{'letter': state['letter'] + '!'}}\n"
    path = folder(nodes("{id: decide, type: logic}"), logic_handlers_py=handlers)
    assert play(config.load(path)[0], "write", {"letter": "x"}).output["letter"] == "x!"


def test_the_nearest_name_goes_first(folder):
    handlers = "def decide(state): return {'letter': 'far'}\ndef desk_write_decide(state): return {'letter': 'near'}\n"
    path = folder(nodes("{id: decide, type: logic}"), logic_handlers_py=handlers)
    assert play(config.load(path)[0], "write").output["letter"] == "near"


def test_a_handler_may_take_ctx_and_be_asynchronous(folder):
    handlers = (
        "async def decide(state, ctx):\n    ctx.context.put('content', 'x', 1)\n    return {'letter': ctx.node}\n"
    )
    path = folder(nodes("{id: decide, type: logic}"), logic_handlers_py=handlers)
    host = MemoryHost()
    assert play(config.load(path)[0], "write", host=host).output["letter"] == "decide"
    assert host.value("content", "x") == 1


def test_one_handler_may_serve_several_nodes(folder):
    handlers = "def add(state): return {'score': state['score'] + 1}\nfirst = second = add\n"
    path = folder(nodes("{id: first, type: logic}", "{id: second, type: logic}"), logic_handlers_py=handlers)
    assert play(config.load(path)[0], "write", {"score": 1}).output["score"] == 3


def test_a_gate_and_a_conditional_may_have_code_too(folder):
    handlers = "def review(state): return {'shown': 1}\ndef route(state): return {'score': 9}\n"
    gate, choice = "{id: review, type: gate, prompt: Go}", "{id: route, type: conditional, routes: {on: score == 9}}"
    run = play(config.load(folder(nodes(gate, choice), logic_handlers_py=handlers))[0], "write", answers=["approve"])
    assert (run.waits[0].payload, run.output["score"]) == ({"shown": 1}, 9)


def test_an_agent_uses_tools_by_their_dotted_names(folder):
    path = folder(nodes("{id: advise, type: agent, tools: [textwrap.dedent, price], user: Hi, output_key: letter}"),
                  logic_handlers_py="def price(product: str):\n    'Look a price up.'\n    return 9.99\n")  # fmt: skip
    model = ScriptedProvider([ToolCall("c1", "price", {"product": "book"}), "9.99 it is"])
    with pytest.raises(SetupError, match="has no type"):
        config.load(path)
    path.write_text(path.read_text().replace("textwrap.dedent, ", ""))
    run = play(config.load(path)[0], "write", provider=model)
    assert run.output["letter"] == "9.99 it is"
    assert model.calls[1].history[-1].content == "9.99"


def test_remote_work_is_filled_in_from_the_state():
    text = nodes("{id: code, type: remote, role: coding, timeout: 2h, output_key: letter, "
                 "task: {issue: '{score}', note: 'No. {score}', list: ['{letter}']}}")  # fmt: skip
    run = play(parse(text)[0], "write", {"score": 7, "letter": "x"}, answers=[{"result": "patch"}])
    assert run.waits[0].payload == {"role": "coding", "task": {"issue": 7, "note": "No. 7", "list": ["x"]}}
    assert run.waits[0].timeout_seconds == 7200
    assert run.output["letter"] == "patch"


def test_a_branch_runs_only_when_it_is_chosen():
    text = nodes("{id: route, type: conditional, routes: {low: score < 50, high: 50 <= score < 80}}",
                 "{id: low, type: logic, set: {letter: '\"low\"'}}",
                 "{id: high, type: logic, set: {letter: '\"high\"'}}")  # fmt: skip
    [definition] = parse(text)
    assert play(definition, "write", {"score": 10}).output["letter"] == "low"
    assert play(definition, "write", {"score": 60}).output["letter"] == "high"
    run = play(definition, "write", {"score": 90})
    assert (run.status, "score=90" in run.error) == ("failed", True)


def test_a_prompt_file_has_two_parts(folder):
    path = folder(nodes("{id: draft, type: llm, prompt_file: prompts/draft.md, output_key: letter}"),
                  prompts__draft_md="# System\n\nBe {kind}.\n\n## More\n\n# User\n\nScore {score}\n")  # fmt: skip
    model = ScriptedProvider(["x"])
    play(config.load(path)[0], "write", {"score": 3}, provider=model)
    assert (model.calls[0].system, model.calls[0].user) == ("Be {kind}.\n\n## More", "Score 3")


def test_a_node_without_a_question_shows_what_is_known(folder):
    path = folder(nodes("{id: draft, type: llm, prompt_file: draft.md, output_key: letter}",
                        "{id: again, type: llm, system: Again., output_key: letter}"),
                  draft_md="Be kind.\n")  # fmt: skip
    model = ScriptedProvider(["x", "y"])
    play(config.load(path)[0], "write", {"score": 3}, provider=model)
    assert [(call.system, call.user) for call in model.calls] == [
        ("Be kind.", "Score:\n3"),
        ("Again.", "Score:\n3\n\nLetter:\nx"),
    ]


def test_an_inline_prompt_may_have_both_parts():
    text = nodes("{id: draft, type: llm, output_key: letter, prompt: \"# System\\nBe kind.\\n# User\\nHi {score}\"}",
                 "{id: again, type: llm, output_key: letter, prompt: Again}")  # fmt: skip
    model = ScriptedProvider(["x", "y"])
    play(parse(text)[0], "write", {"score": 3}, provider=model)
    assert [(call.system, call.user) for call in model.calls] == [("Be kind.", "Hi 3"), ("", "Again")]


def test_anchors_and_merged_keys_may_be_used():
    text = """
    operators:
      - id: desk
        fields: {letter: str}
        workflows:
          - id: write
            nodes:
              - &one {id: one, type: llm, model: opus, user: Hi, output_key: letter}
              - {<<: *one, id: two}
    """
    [definition] = parse(text)
    assert [(node.id, node.model.model) for node in definition.spec.workflow("write").nodes] == [
        ("one", "opus"),
        ("two", "opus"),
    ]


WRONG = {
    "an unknown key": (
        ("output_key: letter", "ouput_key: letter"),
        "10:13: operators[0].workflows[0].nodes[0].ouput_key",
        "did you mean 'output_key'",
    ),
    "an unknown key of an operator": (
        ("    fields:", "    filds:"),
        "3:5: operators[0].filds",
        "did you mean 'fields'",
    ),
    "a missing key": (
        ("  - id: desk\n    fields", "  - fields"),
        "2:5: operators[0]",
        "needs 'id'",
    ),
    "a missing type": (
        ("            type: llm\n", ""),
        "7:13: operators[0].workflows[0].nodes[0]",
        "needs 'type'",
    ),
    "an unknown type": (
        ("type: llm", "type: llmm"),
        "8:19: operators[0].workflows[0].nodes[0].type",
        "'llmm' is no node type",
    ),
    "a wrong value": (
        ("user: Write", "user: Write\n            max_tokens: many"),
        "10:25: operators[0].workflows[0].nodes[0].max_tokens",
        "'many'",
    ),
    "a negative duration": (
        ("user: Write", "timeout: -1"),
        "9:22: operators[0].workflows[0].nodes[0].timeout",
        "write 90s, 5m",
    ),
    "a duration that never ends": (
        ("user: Write", "timeout: 1.0e+300"),
        "9:22: operators[0].workflows[0].nodes[0].timeout",
        "is longer than any",
    ),
    "a bad duration": (
        ("user: Write", "timeout: soon"),
        "9:22: operators[0].workflows[0].nodes[0].timeout",
        "write 90s, 5m",
    ),
    "a bad id": (
        ("id: write", "id: Write It"),
        "5:13: operators[0].workflows[0].id",
        "pattern",
    ),
    "a key twice": (
        ("user: Write", "user: Write\n            user: Again"),
        "10:13:",
        "'user' stands here for the second time; first in line 9",
    ),
    "no type of an answer": (
        ("output_key: letter", "output_keys: {letter: nope}"),
        "10:35: operators[0].workflows[0].nodes[0].output_keys.letter",
        "'nope' is no type",
    ),
    "a bound that does not fit a field's type": (
        ("letter: str", "letter: {type: string, minimum: 1}"),
        "3:22: operators[0].fields.letter",
        "minimum: 1.0 bounds no string",
    ),
    "a length that does not fit an answer's type": (
        ("output_key: letter", "output_keys: {letter: {type: integer, maxLength: 3}}"),
        "10:35: operators[0].workflows[0].nodes[0].output_keys.letter",
        "maxLength: 3 bounds no integer",
    ),
    "a length below nothing": (
        ("letter: str", "letter: {type: string, minLength: -1}"),
        "3:22: operators[0].fields.letter",
        "minLength: -1 bounds no string",
    ),
    "a bound between whole numbers": (
        ("score: int", "score: {type: integer, minimum: 1.5}"),
        "3:34: operators[0].fields.score",
        "minimum: 1.5 bounds no integer",
    ),
    "nothing or nothing": (
        ("letter: str", "letter: None | None"),
        "3:22: operators[0].fields.letter",
        "'None | None' is no type",
    ),
    "no YAML": (
        ("user: Write", "user: [Write"),
        "10:",
        "expected",
    ),
    "an object": (
        ("user: Write", "user: !!python/object/apply:os.getcwd []"),
        "9:19:",
        "python/object",
    ),
    "an undeclared output": (
        ("output_key: letter", "output_key: lettre"),
        "10:25: operators[0].workflows[0].nodes[0].output_key",
        "'lettre' is no state field; declare it under fields: letter, score",
    ),
    "an unknown placeholder": (
        ("user: Write", "user: Write {lettre}"),
        "9:19: operators[0].workflows[0].nodes[0].user",
        "'lettre' is no state field",
    ),
    "a bad expression": (
        ("score: 1", "score: __import__('os')"),
        "13:26: operators[0].workflows[0].nodes[1].set.score",
        "__import__",
    ),
    "an expression over no field": (
        ("score: 1", "score: scor + 1"),
        "operators[0].workflows[0].nodes[1].set.score",
        "'scor' is no state field",
    ),
    "an unknown field to set": (
        ("score: 1", "scor: 1"),
        "operators[0].workflows[0].nodes[1].set.scor",
        "'scor' is no state field",
    ),
    "a node id twice": (
        ("id: grade", "id: draft"),
        "11:17: operators[0].workflows[0].nodes[1].id",
        "used twice",
    ),
    "an unknown next": (
        ("user: Write", "user: Write\n            next: grad"),
        "10:19: operators[0].workflows[0].nodes[0].next",
        "'grad' is no node",
    ),
    "no code": (
        ("            set: {score: 1}\n", ""),
        "11:13: operators[0].workflows[0].nodes[1]",
        "def grade(state)",
    ),
    "a bad trigger": (
        ("      - id: write", "      - id: write\n        trigger: crom"),
        "5:9: operators[0].workflows[0]",
        "crom",
    ),
    "a bad cron": (
        ("      - id: write", "      - id: write\n        trigger: 'cron:0 25 * * *'"),
        "5:9: operators[0].workflows[0]",
        "'25' is no hour",
    ),
    "an unknown input": (
        ("      - id: write", "      - id: write\n        inputs: [lettre]"),
        "6:18: operators[0].workflows[0].inputs[0]",
        "letter, score",
    ),
    "a bad field type": (
        ("score: int", "score: integr"),
        "3:34: operators[0].fields.score",
        "'integr' is no type",
    ),
    "a field default of a wrong type": (
        ("score: int", "score: {type: int, default: many}"),
        "3:34: operators[0].fields.score",
        "'many' is no int",
    ),
    "a sample that does not fit": (
        ("      - id: write", "      - id: write\n        sample_input: {score: x}"),
        "5:9: operators[0].workflows[0]",
        "sample_input",
    ),
    "a prompt file without a folder": (
        ("user: Write", "prompt_file: x.md"),
        "9:26: operators[0].workflows[0].nodes[0].prompt_file",
        "lies beside no files",
    ),
    "an unknown fallback": (
        ("user: Write", "user: Write\n            fallback: gone"),
        "10:23: operators[0].workflows[0].nodes[0].fallback",
        "no handler",
    ),
    "no question": (
        ("            user: Write\n", ""),
        "7:13: operators[0].workflows[0].nodes[0]",
        "asks nothing",
    ),
    "nothing at all": (
        (RIGHT, ""),
        "1:1:",
        "is no mapping",
    ),
    "a list at the top": (
        (RIGHT, "- 1"),
        "1:1:",
        "is no mapping",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_told_with_its_place_and_remedy(name):
    (old, new), place, part = WRONG[name]
    assert old in RIGHT
    with pytest.raises(SetupError) as caught:
        config.parse(RIGHT.replace(old, new, 1), name="operators.yaml").definitions()
    assert place in str(caught.value)
    assert part in str(caught.value)
    assert str(caught.value).startswith("operators.yaml:")


def test_a_bound_leaves_alone_what_may_be_left_out():
    [definition] = parse(RIGHT.replace("letter: str", "letter: {type: str | None, minLength: 2, default: null}"))
    model = definition.workflows["write"].input_model
    assert check_input(model, {"letter": None, "score": 1})["letter"] is None
    with pytest.raises(InputError, match=r"letter: .* at least 2 characters"):
        check_input(model, {"letter": "x", "score": 1})


def test_what_the_wrong_files_are_made_of_is_right():
    assert [item.spec.id for item in config.parse(RIGHT).definitions()] == ["desk"]


def test_several_mistakes_are_told_at_once():
    text = RIGHT.replace("user:", "usr:").replace("output_key", "ouput_key")
    with pytest.raises(SetupError) as caught:
        config.parse(text)
    assert [line.split(": ")[1].rsplit(".", 1)[1] for line in str(caught.value).splitlines()] == ["usr", "ouput_key"]


GATE = "{id: review, type: gate, prompt: Go, %s}"


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ("edits: [lettre]", "nodes[0].edits[0]: 'lettre' is no state field"),
        ("shows: [lettre]", "nodes[0].shows[0]: 'lettre' is no state field"),
        ("on_timeout: later", "nodes[0]: @human_in_the_loop on review: on_timeout='later'"),
        ("timeout: 1h, decisions: [yes it is]", "nodes[0]: @human_in_the_loop on review: a timeout needs on_timeout="),
        ("on_reject: rewrite", "on_reject='rewrite'"),
    ],
)
def test_a_wrong_gate_is_told_as_a_decorator_tells_it(options, part):
    with pytest.raises(SetupError) as caught:
        parse(nodes(GATE % options))
    assert part in str(caught.value)


def test_an_alias_that_multiplies_is_refused():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(SetupError, match="more than 100000 values"):
        config.parse("\n".join(lines))


def test_an_alias_within_itself_is_refused():
    with pytest.raises(SetupError, match="within what it names"):
        config.parse("operators: &all\n  - *all\n")


@pytest.mark.parametrize(
    ("files", "part"),
    [
        ({}, "nowhere.md' cannot be read"),
        ({"nowhere_md": "Hello\n# User\nHi\n"}, "begins with `# System` or `# User`"),
        ({"nowhere_md": "# User\nHi {lettre}\n"}, "'lettre' is no state field"),
    ],
)
def test_a_wrong_prompt_file_is_told_where_it_is_named(folder, files, part):
    path = folder(nodes("{id: draft, type: llm, prompt_file: nowhere.md, output_key: letter}"), **files)
    with pytest.raises(SetupError) as caught:
        config.load(path)
    assert "operators[0].workflows[0].nodes[0].prompt_file" in str(caught.value)
    assert part in str(caught.value)


def test_handlers_that_cannot_be_imported_are_told(folder):
    path = folder(nodes("{id: decide, type: logic}"), logic_handlers_py="import nowhere_at_all\n")
    with pytest.raises(SetupError, match="nowhere_at_all"):
        config.load(path)


def test_a_file_that_is_not_there_is_told():
    with pytest.raises(SetupError, match=r"nowhere\.yaml cannot be read"):
        config.load("nowhere.yaml")


def test_a_strangers_text_reads_no_file_and_imports_nothing(folder):
    folder("x", logic_handlers_py="raise SystemExit\n", secret_md="secret")
    for line in (
        "{id: draft, type: llm, prompt_file: secret.md, output_key: letter}",
        "{id: draft, type: agent, user: x, tools: [os.getcwd], output_key: letter}",
    ):
        with pytest.raises(SetupError, match="cannot be used here"):
            parse(nodes(line))
    with pytest.raises(SetupError, match="no code"):
        parse(nodes("{id: decide, type: logic}"))


def test_a_registry_takes_all_operators_of_a_file_or_none():
    two = parse(nodes("{id: draft, type: logic, set: {score: 1}}"))
    registry = Registry()
    with pytest.raises(SetupError, match="'desk' is registered already"):
        registry.add_all([*two, *two])
    assert list(registry) == []
    assert registry.add_all(two) == two


# In a runtime


def test_a_runtime_loads_a_file_and_takes_handlers_for_it(folder):
    with OperatorRuntime() as runtime:
        runtime.load(folder(nodes("{id: decide, type: logic}")))
        assert "runtime.handler" in runtime.activate("desk", "write").error

        @runtime.handler("desk", "write", "decide")
        def decide(state, ctx):
            return {"letter": ctx.workflow_id}

        assert runtime.activate("desk", "write").output["letter"] == "write"
        assert decide({}, type("Ctx", (), {"workflow_id": "x"})) == {"letter": "x"}


@pytest.mark.parametrize(
    ("place", "part"),
    [(("shop", "write", "decide"), "load its file first"), (("desk", "write", "decid"), "desk.write.decide")],
)
def test_a_handler_for_nothing_is_refused(folder, place, part):
    with OperatorRuntime() as runtime:
        runtime.load(folder(nodes("{id: decide, type: logic}")))
        with pytest.raises(SetupError, match=part):
            runtime.handler(*place)(lambda state: None)


def test_a_handler_of_the_wrong_form_is_refused_and_changes_nothing(folder):
    path = folder(nodes("{id: decide, type: logic}"), logic_handlers_py="def decide(state): return {'score': 5}\n")
    with OperatorRuntime() as runtime:
        runtime.load(path)
        with pytest.raises(SetupError, match="must take"):
            runtime.handler("desk", "write", "decide")(lambda: None)
        assert runtime.activate("desk", "write").output["score"] == 5


def test_a_file_of_which_one_operator_is_taken_adds_none(folder):
    text = textwrap.dedent(nodes("{id: draft, type: logic, set: {score: 1}}"))
    both = text.rstrip() + textwrap.dedent(text).replace("operators:\n", "").replace("id: desk", "id: shop")
    with OperatorRuntime() as runtime:
        runtime.load(folder(text))
        with pytest.raises(SetupError, match="'desk' is registered already"):
            runtime.load(folder(both))
        assert [item["id"] for item in runtime.list_operators()] == ["desk"]


# The example of the catalogue


def test_the_catalogues_yaml_describes_what_its_class_describes():
    [twin], original = config.load(CATALOG), define(CompanyIntel)
    ours, theirs = twin.spec.model_dump(), original.spec.model_dump()
    assert {key: ours[key] for key in ("id", "name", "description", "owner")} == {
        key: theirs[key] for key in ("id", "name", "description", "owner")
    }
    for flow, other in zip(twin.spec.workflows, original.spec.workflows, strict=True):
        assert flow.model_dump(exclude={"nodes"}) == other.model_dump(exclude={"nodes"})
        shown = [node.model_dump(exclude={"description"}) for node in flow.nodes]
        assert shown == [node.model_dump(exclude={"description"}) for node in other.nodes]


@pytest.mark.parametrize("company", ["Stripe", "A bakery in Bern"])
def test_the_catalogues_yaml_behaves_as_its_class_does(company):
    [twin] = config.load(CATALOG)
    hosts = MemoryHost(), MemoryHost()
    runs = [play(item, "query", {"company_name": company}, host=host)
            for item, host in zip((twin, CompanyIntel), hosts, strict=True)]  # fmt: skip
    assert [run.status for run in runs] == ["completed", "completed"]
    assert runs[0].output == runs[1].output
    assert hosts[0].buckets == hosts[1].buckets != {}


def test_the_catalogues_yaml_bears_a_model_that_answers_badly_as_its_class_does():
    answers = ["Research.", "A high one.", "Still high.", "high!"]
    runs = [play(item, "query", {"company_name": "Stripe"}, provider=ScriptedProvider(answers))
            for item in (config.load(CATALOG)[0], CompanyIntel)]  # fmt: skip
    assert runs[0].output == runs[1].output
    assert runs[0].output["prospect_quality"] == "high"
    assert runs[0].output["analysis"] == {"text": "high!"}


# The schema for editors


def test_the_published_schema_is_the_one_that_is_made():
    assert json.loads(SCHEMA.read_text()) == config.schema(), "write config.schema() to docs/schemas again"


@pytest.mark.parametrize(
    "text", [RIGHT, textwrap.dedent(FULL), CATALOG.read_text()], ids=["small", "full", "catalogue"]
)
def test_the_schema_accepts_what_the_loader_accepts(text):
    jsonschema.Draft202012Validator(config.schema()).validate(yaml.safe_load(text))


@pytest.mark.parametrize(
    "name", ["an unknown key", "a missing key", "an unknown type", "a wrong value", "a bad duration"]
)
def test_the_schema_refuses_what_the_loader_refuses(name):
    (old, new), _, _ = WRONG[name]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(config.schema()).validate(yaml.safe_load(RIGHT.replace(old, new, 1)))


# Expressions


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("score >= 80", True),
        ("50 <= score < 80", False),
        ("score > 90 or 'warm' in tags and not cold", True),
        ("tags[0] == 'warm'", True),
        ("facts['size'] * 2", 8),
        ("len(tags) + min(1, 2)", 2),
        ("'big' if score > 1 else 'small'", "big"),
        ("lower(name) == 'ada'", True),
        ("-score + 1.5", -83.5),
        ("cold is None or cold == false", True),
        ("true", True),
        ("name and 'known' or 'unknown'", "known"),
        ("cold or 'warm'", "warm"),
    ],
)
def test_an_expression_is_worked_out_on_the_state(text, value):
    state = {"score": 85, "tags": ["warm"], "cold": False, "facts": {"size": 4}, "name": "Ada"}
    assert expressions.read(text)(state) == value


@pytest.mark.parametrize(
    "text",
    ["open('x')", "score.real", "[x for x in tags]", "lambda: 1", "(score := 1)", "9 ** 9 ** 9", "f'{score}'", "score;",
     "b'x'", "len(*tags)", "tags[0:1]", "1" * 501],
)  # fmt: skip
def test_an_expression_does_nothing_else(text):
    with pytest.raises(ValueError):  # noqa: PT011
        expressions.read(text)


@pytest.mark.parametrize("text", ["score / 0", "gone > 1", "score < name", "'x' * 1000000000", "tags[9]"])
def test_an_expression_that_cannot_be_worked_out_says_what_it_saw(text):
    with pytest.raises(RunError, match="cannot be worked out with"):
        expressions.read(text)({"score": 85, "name": "Ada", "tags": []})
