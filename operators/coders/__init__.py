"""The operator that lets agents elsewhere write, test and review code, with a person's yes after each phase."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field

from openvibe import conditional, durable, human_in_the_loop, node, operator, remote_node, workflow
from openvibe.errors import RunError
from operators.coders import graphs

#: How long an agent may take for one phase, and how long a whole session may live.
PATIENCE = timedelta(days=2)
LONGEST_DAYS = 42

SAMPLE = {
    "name": "Users sign in",
    "repo": "/workspace",
    "chunks": [
        {"id": "auth", "description": "Implement user authentication", "requirements": ["Use bcrypt for passwords"]},
        {"id": "login_page", "description": "Build the page on which users sign in", "depends_on": ["auth"]},
    ],
}


def context(state):
    """Where a chunk's code lies."""
    return {"repo_path": state["repo"], "branch": f"agent/{state['chunk']['id']}"}


def question(state, phase, result):
    """What a person sees at the gate after a phase."""
    changed = result.get("files_changed") or []
    changes = {kind: result.get(kind) or [] for kind in ("files_added", "files_modified", "files_deleted")}
    # Most agents only say which files they touched.
    changes["files_modified"] = changes["files_modified"] or (changed if not any(changes.values()) else [])
    told = {name: result[name] for name in ("summary", "commit_sha") if result.get(name)}
    chunk = state["chunk"]["id"]
    return {"chunk_id": chunk, "phase": f"post-{phase}", "round": state["round"], "changes": changes, **told}


@operator(id="coders", name="Coders", description="Lets agents elsewhere write, test and review code.")
class Coders:
    name: Annotated[str, Field(max_length=200, description="What the session is called")] = ""
    repo: Annotated[str, Field(title="Repository", max_length=500, description="Where the code lies")] = ""
    chunks: Annotated[list[dict[str, Any]], Field(description="id, description, requirements, phases, depends_on")]
    max_rounds: Annotated[int, Field(title="Most rounds of a chunk", ge=1, le=20)] = 3
    plan: list[dict[str, Any]] = []
    chunk: dict[str, Any] = {}
    todo: list[str] = []
    round: int = 0
    coded: dict[str, Any] = {}
    tested: dict[str, Any] = {}
    reviewed: dict[str, Any] = {}
    failure: str = ""
    post_coding_notes: str = ""
    post_testing_notes: str = ""
    post_review_notes: str = ""
    feedback: str = ""
    results: dict[str, Any] = {}

    @workflow(id="code_session", inputs=("name", "repo", "chunks", "max_rounds"), sample_input=SAMPLE)
    @durable(max_days=LONGEST_DAYS)
    class CodeSession:
        """Work off chunks in the order of their dependencies: coding, testing, review, and a gate after each."""

        @node
        def order(self, state):
            chunks = graphs.read(state["chunks"])
            return {"plan": [chunk.model_dump() for chunk in chunks]}

        @node
        def pick(self, state):
            left = [chunk for chunk in state["plan"] if chunk["id"] not in state["results"]]
            chunk = left[0] if left else {}
            todo = [phase for phase in graphs.PHASES if phase in chunk.get("phases", ())]
            fresh = {"coded": {}, "tested": {}, "reviewed": {}, "failure": "", "feedback": ""}
            return {"chunk": chunk, "todo": todo, "round": 1, **fresh}

        @conditional(
            routes={
                "end": lambda s: not s["chunk"],
                "code": lambda s: s["todo"][:1] == ["coding"],
                "check": lambda s: s["todo"][:1] == ["testing"],
                "review": lambda s: s["todo"][:1] == ["review"],
                "finish": lambda _: True,
            }
        )
        def phase(self, state):
            return {}

        @remote_node(role="coding", timeout=PATIENCE, next="code_done")
        def code(self, state):
            chunk = state["chunk"]
            told = {"description": chunk["description"], "requirements": chunk["requirements"]}
            again = {"feedback": state["feedback"]} if state["feedback"] else {}
            task = {"chunk_id": chunk["id"], **told, "context": context(state), "round": state["round"], **again}
            return {"task": task, "output_key": "coded", "error_key": "failure"}

        @conditional(routes={"again": lambda s: s["failure"], "post_coding": lambda _: True})
        def code_done(self, state):
            return {}

        @human_in_the_loop(prompt="Coding is complete. Go on?", on_reject="again", next="advance")
        def post_coding(self, state):
            return question(state, "coding", state["coded"])

        @remote_node(role="testing", timeout=PATIENCE, next="check_done")
        def check(self, state):
            chunk, files = state["chunk"], state["coded"].get("files_changed") or []
            wanted = chunk["test_requirements"] or chunk["requirements"]
            told = {"target_code": ", ".join(files), "test_requirements": wanted, "description": chunk["description"]}
            task = {"chunk_id": chunk["id"], **told, "context": context(state), "round": state["round"]}
            return {"task": task, "output_key": "tested", "error_key": "failure"}

        @conditional(routes={"again": lambda s: s["failure"], "post_testing": lambda _: True})
        def check_done(self, state):
            return {}

        @human_in_the_loop(prompt="Testing is complete. Go on?", on_reject="again", next="advance")
        def post_testing(self, state):
            return question(state, "testing", state["tested"])

        @remote_node(role="review", timeout=PATIENCE, next="review_done")
        def review(self, state):
            files = [name for part in ("coded", "tested") for name in state[part].get("files_changed") or []]
            told = {"files": list(dict.fromkeys(files)), "criteria": state["chunk"]["criteria"]}
            told["description"] = state["chunk"]["description"]
            task = {"chunk_id": state["chunk"]["id"], **told, "context": context(state), "round": state["round"]}
            return {"task": task, "output_key": "reviewed", "error_key": "failure"}

        @conditional(routes={"again": lambda s: s["failure"], "post_review": lambda _: True})
        def review_done(self, state):
            return {}

        @human_in_the_loop(prompt="The review is complete. Is the chunk done?", on_reject="again", next="advance")
        def post_review(self, state):
            return question(state, "review", state["reviewed"])

        @node(next="phase")
        def advance(self, state):
            return {"todo": state["todo"][1:]}

        @node(next="phase")
        def again(self, state):
            """Begin the chunk's next round, with what went wrong in this one."""
            chunk, phase, spent = state["chunk"], state["todo"][0], state["round"]
            notes = state[f"post_{phase}_notes"]
            reason = state["failure"] or notes or "rejected without a reason"
            if spent >= state["max_rounds"]:
                raise RunError(f"Chunk {chunk['id']!r} has failed in round {spent} of {spent}, at {phase}: {reason}")
            todo = [name for name in graphs.PHASES if name in chunk["phases"]]
            return {"todo": todo, "round": spent + 1, "failure": "", "feedback": f"{phase}: {reason}"}

        @node(next="pick")
        def finish(self, state):
            done = {"rounds": state["round"], "coding": state["coded"], "testing": state["tested"]}
            return {"results": {**state["results"], state["chunk"]["id"]: {**done, "review": state["reviewed"]}}}


OPERATORS = [Coders]
