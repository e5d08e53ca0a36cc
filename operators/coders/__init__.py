"""The operator that lets agents elsewhere write, test and review code, with a person's yes after each phase."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field

from openvibe import conditional, durable, node, operator, remote_node, workflow
from openvibe.errors import RunError
from operators.coders import board, graphs

#: How long an agent may take for one phase, and how long a whole session may live.
PATIENCE = timedelta(days=2)
LONGEST_DAYS = 42
#: The event that tells of a chunk that is done.
DONE = "chunk_done"

SAMPLE = {
    "name": "Users sign in",
    "repo": "/workspace",
    "chunks": [
        {"id": "auth", "description": "Implement user authentication", "requirements": ["Use bcrypt for passwords"]},
        {"id": "login_page", "description": "Build the page on which users sign in", "depends_on": ["auth"]},
    ],
}


@operator(id="coders", name="Coders", description="Lets agents elsewhere write, test and review code.")
class Coders:
    name: Annotated[str, Field(max_length=200, description="What the session is called")] = ""
    repo: Annotated[str, Field(title="Repository", max_length=500, description="Where the code lies")] = ""
    chunks: Annotated[list[dict[str, Any]], Field(description="id, description, requirements, phases, depends_on")]
    max_rounds: Annotated[int, Field(title="Most rounds of a chunk", ge=1, le=20)] = 3
    plan: list[dict[str, Any]] = []
    board: dict[str, Any] = {}
    answers: dict[str, Any] = {}
    results: dict[str, Any] = {}

    @workflow(id="code_session", inputs=("name", "repo", "chunks", "max_rounds"), sample_input=SAMPLE)
    @durable(max_days=LONGEST_DAYS)
    class CodeSession:
        """Work off chunks, side by side where none depends on another: coding, testing, review, a gate after each."""

        @node
        def order(self, state):
            plan = [chunk.model_dump() for chunk in graphs.read(state["chunks"])]
            return {"plan": plan, "board": {chunk["id"]: board.fresh(chunk) for chunk in plan}}

        @remote_node(roles=graphs.PHASES, timeout=PATIENCE)
        def work(self, state):
            return {"asks": board.asks(state), "output_key": "answers"}

        @node
        def take(self, state, ctx):
            update = board.taken(state)
            for chunk in [name for name in update["results"] if name not in state["results"]]:
                ctx.emit(DONE, {"chunk_id": chunk, "session": ctx.run_id})
            return update

        @conditional(routes={"work": lambda s: bool(board.asks(s)), "close": lambda _: True})
        def more(self, state):
            return {}

        @node
        def close(self, state):
            """End the session: as a failure, if a chunk is not done."""
            if failure := board.failure(state):
                raise RunError(failure)


OPERATORS = [Coders]
