"""Where the chunks of a session stand: what is to be asked now, and what an answer changes.

A chunk is begun when all that it depends on are done. Each has its own phases and its own rounds, whatever becomes of
the others; one that has failed for good holds up those that depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from operators.coders import graphs

#: What a phase is called as a node, where its result lies, and what a person is asked after it: by the
#: chunk's name, for several questions of one session may be open at a time.
NODES = {"coding": "code", "testing": "check", "review": "review"}
MADE = {"coding": "coded", "testing": "tested", "review": "reviewed"}
QUESTIONS = {
    "coding": "Coding of {} is complete. Go on?",
    "testing": "Testing of {} is complete. Go on?",
    "review": "The review of {} is complete. Is it done?",
}
GATE = "gate"
#: What stands where in the name of an ask: the chunk, the phase, the round, and whether it is a gate.
_SEPARATOR = "/"

Chunk = Mapping[str, Any]
#: A chunk's place: `todo` (the phases that are left), `round`, `made` (phase → result), `asked` (whether a person is
#: asked about the phase at hand), `feedback`, and `failed`, why it never will be done.
Place = dict[str, Any]


def fresh(chunk: Chunk, *, round: int = 1, feedback: str = "") -> Place:
    """Return the place of a chunk that begins a round."""
    todo = [phase for phase in graphs.PHASES if phase in chunk["phases"]]
    return {"todo": todo, "round": round, "made": {}, "asked": False, "feedback": feedback, "failed": ""}


def asks(state: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return all that is to be asked now, by name: work for agents, and questions to people."""
    return {name: ask for chunk in _begun(state) for name, ask in _ask(state, chunk).items()}


def taken(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the board and the results after the answers that are there."""
    chunks = {chunk["id"]: chunk for chunk in state["plan"]}
    board, results = dict(state["board"]), dict(state["results"])
    for name, answer in state["answers"].items():
        chunk, phase, _, *gate = name.split(_SEPARATOR)
        place = _after(chunks[chunk], board[chunk], phase, answer, gate=bool(gate), rounds=state["max_rounds"])
        if place["todo"]:
            board[chunk] = place
        else:
            del board[chunk]
            results[chunk] = {"rounds": place["round"], **{kind: place["made"].get(kind, {}) for kind in graphs.PHASES}}
    return {"board": board, "results": results, "answers": {}}


def failure(state: Mapping[str, Any]) -> str:
    """Return why not all chunks are done, once nothing is left to be asked; an empty text if all are."""
    failed = [place["failed"] for place in state["board"].values() if place["failed"]]
    held = [name for name, place in state["board"].items() if not place["failed"]]
    return "; ".join([*failed, *([f"not begun for that reason: {', '.join(held)}"] if held else [])])


def _begun(state: Mapping[str, Any]) -> Iterator[Chunk]:
    for chunk in state["plan"]:
        place = state["board"].get(chunk["id"])
        if place and not place["failed"] and all(name in state["results"] for name in chunk["depends_on"]):
            yield chunk


def _ask(state: Mapping[str, Any], chunk: Chunk) -> dict[str, dict[str, Any]]:
    place = state["board"][chunk["id"]]
    phase = place["todo"][0]
    name = _SEPARATOR.join([chunk["id"], phase, str(place["round"])])
    if not place["asked"]:
        context = {"repo_path": state["repo"], "branch": f"agent/{chunk['id']}"}
        task = {"chunk_id": chunk["id"], **_TASKS[phase](chunk, place), "context": context, "round": place["round"]}
        return {name: {"node": NODES[phase], "role": phase, "task": task}}
    return {
        f"{name}{_SEPARATOR}{GATE}": {
            "node": f"post_{phase}",
            "prompt": QUESTIONS[phase].format(chunk["name"] or chunk["id"]),
            "payload": _shown(chunk["id"], phase, place),
        }
    }


def _coding(chunk: Chunk, place: Place) -> dict[str, Any]:
    again = {"feedback": place["feedback"]} if place["feedback"] else {}
    return {"description": chunk["description"], "requirements": chunk["requirements"], **again}


def _testing(chunk: Chunk, place: Place) -> dict[str, Any]:
    wanted = chunk["test_requirements"] or chunk["requirements"]
    files = ", ".join(_files(place, "coding"))
    return {"target_code": files, "test_requirements": wanted, "description": chunk["description"]}


def _review(chunk: Chunk, place: Place) -> dict[str, Any]:
    files = dict.fromkeys([*_files(place, "coding"), *_files(place, "testing")])
    return {"files": list(files), "criteria": chunk["criteria"], "description": chunk["description"]}


_TASKS = {"coding": _coding, "testing": _testing, "review": _review}


def _files(place: Place, phase: str) -> Sequence[str]:
    return (place["made"].get(phase) or {}).get("files_changed") or []


def _shown(chunk_id: str, phase: str, place: Place) -> dict[str, Any]:
    """Return what a person sees at the gate after a phase."""
    result = place["made"].get(phase) or {}
    changed = result.get("files_changed") or []
    changes = {kind: result.get(kind) or [] for kind in ("files_added", "files_modified", "files_deleted")}
    # Most agents only say which files they touched.
    changes["files_modified"] = changes["files_modified"] or (changed if not any(changes.values()) else [])
    told = {name: result[name] for name in ("summary", "commit_sha") if result.get(name)}
    return {"chunk_id": chunk_id, "phase": f"post-{phase}", "round": place["round"], "changes": changes, **told}


def _after(chunk: Chunk, place: Place, phase: str, answer: Mapping[str, Any], *, gate: bool, rounds: int) -> Place:
    """Return a chunk's place after one answer."""
    if gate and answer["decision"] == "approve":
        return {**place, "todo": place["todo"][1:], "asked": False}
    if not gate and not answer["error"]:
        return {**place, "made": {**place["made"], phase: answer["result"] or {}}, "asked": True}
    reason = (answer["notes"] if gate else answer["error"]) or "rejected without a reason"
    spent = place["round"]
    if spent >= rounds:
        told = f"Chunk {chunk['id']!r} has failed in round {spent} of {spent}, at {phase}: {reason}"
        return {**place, "failed": told}
    return fresh(chunk, round=spent + 1, feedback=f"{phase}: {reason}")
