"""What must hold when the storm is over: every broken promise is a sentence."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from tests.acceptance.site import ENDED
from tests.faults import fates, mill
from tests.faults.callers import NOT_HAPPENED, Said
from tests.faults.plans import Plan
from tests.faults.records import Records, Row, by_run

#: What the general channel repeats of a run.
NEWS = frozenset(
    {"run.started", "gate.opened", "gate.decided", "gate.expired", "run.completed", "run.failed", "run.cancelled"}
)


def unrest(records: Records, said: Said) -> list[str]:
    """Return what is still on its way: with time it must all come to rest."""
    taken_in = {item["body"].get("id") for item in records.inbox}
    return [
        *(f"message {name} has not come in" for name in list(said.posted) if name not in taken_in),
        *(f"run {run['id']} is {run['status']}" for run in records.runs if run["status"] not in ENDED),
        *(f"run {run['id']} holds a lease" for run in records.runs if run["lease_until"] is not None),
        *(f"wait {wait['id']} ({wait['node']}) is open" for wait in records.waits if wait["status"] == "pending"),
        *(f"inbox item {item['id']} is {item['status']}" for item in records.inbox if item["status"] in _UNSETTLED),
        *(
            f"{item['name']} ({item['id']}) is undelivered"
            for item in records.emissions
            if item["delivered_at"] is None
        ),
        *(
            f"{item['name']} ({item['id']}) is unpublished"
            for item in records.emissions
            if item["published_at"] is None
        ),
        *(
            f"{item['name']} ({item['id']}) is not on the general page"
            for item in records.emissions
            if _unheard(item, records)
        ),
        *(_unannounced("run " + run["id"], run) for run in records.runs if run["announced_seq"] != run["last_seq"]),
        *(_unannounced(item["name"], item) for item in records.channels if item["announced_seq"] != item["last_seq"]),
    ]


_UNSETTLED = ("pending", "processing")


def _unheard(emission: Row, records: Records) -> bool:
    """Tell whether what the bus has taken has not yet come back from it, as an event that everybody may read."""
    return not any(
        event["message_id"] and event["message_id"].endswith(f":{emission['id']}") for event in records.events
    )


def _unannounced(name: str, row: Row) -> str:
    return f"{name} has announced {row['announced_seq']} of {row['last_seq']}"


def broken(records: Records, said: Said, planned: list[Plan], world: list[dict[str, Any]]) -> list[str]:
    """Return every promise that was not kept."""
    return [
        *said.strange,
        *_runs(records, said, planned),
        *_threads(records),
        *_public(records),
        *_waits(records, said),
        *_groups(records),
        *_forks(records, said),
        *_effects(records, world),
        *_children(records),
        *(
            f"inbox item {item['id']} is in error: {item['reason']}"
            for item in records.inbox
            if item["status"] == "error"
        ),
    ]


def _runs(records: Records, said: Said, planned: list[Plan]) -> Iterator[str]:
    runs = {run["id"]: run for run in records.runs}
    asked = [run["id"] for run in records.runs if run["parent_id"] is None and run["forked_from_id"] is None]
    if sorted(asked) != sorted(said.started.values()) or len(asked) != len(planned):
        yield f"{len(planned)} runs were planned, {len(said.started)} answered, {len(asked)} are there"
    for plan in planned:
        run = runs.get(said.started.get(plan.number, ""))
        if run is not None and run["input"] != plan.input:
            yield f"run {run['id']} was given {plan.input} and has {run['input']}"
    for run_id, status in said.cancelled.items():
        if status == 200 and runs[run_id]["status"] != "cancelled":
            yield f"run {run_id} was cancelled and is {runs[run_id]['status']}"
    threads, dues = records.threads(), _dues(records)
    for run in records.runs:
        events = threads.get(run["id"], [])
        yield from _as_due(run, dues[run["id"]], events, said, asker=runs.get(run["parent_id"] or ""))
        if run["status"] == "completed":
            yield from _turns(run, events)


def _dues(records: Records) -> dict[str, fates.Fate]:
    """Return what must become of each run; a fork goes on upon the answers that its source had by then."""
    waits, threads, workflows = by_run(records.waits), records.threads(), _workflows(records)
    dues = {}
    for run in records.runs:
        answers, passed = fates.answered(waits.get(run["id"], [])), list[str]()
        if source := run["forked_from_id"]:
            finished = [event for event in threads[source] if event["kind"] == "step.finished"]
            ids = [event["step_id"] for event in finished]
            passed = [event["node"] for event in finished[: ids.index(run["forked_at"]) + 1]]
            before = sum(node in fates.ASKING for node in passed)
            answers = [*fates.answered(waits.get(source, []))[:before], *answers]
        dues[run["id"]] = fates.fate(workflows[run["id"]], run["input"], answers).after(len(passed))
    return dues


def _turns(run: Row, events: list[Row]) -> Iterator[str]:
    """What the branches have put together is what each of their steps was told to have added, once."""
    finished = [event["data"]["update"] for event in events if event["kind"] == "step.finished"]
    told = sorted(turn for update in finished for turn in update.get("turns", []))
    if told != sorted(run["output"].get("turns", [])):
        yield f"run {run['id']} came to the turns {run['output'].get('turns')}, and tells of {told}"


def _as_due(run: Row, due: fates.Fate, events: list[Row], said: Said, *, asker: Row | None) -> Iterator[str]:
    nodes = [event["node"] for event in events if event["kind"] == "step.finished"]
    if run["status"] == "cancelled":
        # Whoever answers a run that has ended otherwise than it should is cancelled with it.
        if run["id"] not in said.cancelled and (asker is None or asker["status"] == "completed"):
            yield f"run {run['id']} is cancelled, and nobody did it"
        if not due.begins(nodes):
            yield f"run {run['id']} was cancelled after {nodes}, which does not begin {due.nodes}"
        return
    if run["status"] != due.status:
        yield f"run {run['id']} is {run['status']} ({run['error']}), but should be {due.status}"
        return
    if len(nodes) != len(due.nodes) or not due.begins(nodes):
        yield f"run {run['id']} went through {nodes} instead of {due.nodes}"
    told = {name: (run["output"] or {}).get(name) for name in due.output}
    if told != due.output:
        yield f"run {run['id']} came to {told} instead of {due.output}"
    if due.failed_at and (run["error"]["kind"], run["error"]["node"]) != ("GateRejected", due.failed_at):
        yield f"run {run['id']} failed by {run['error']}"


def _threads(records: Records) -> Iterator[str]:
    threads = records.threads()
    for run in records.runs:
        events = threads.get(run["id"], [])
        numbers = [event["seq"] for event in events]
        if numbers != list(range(1, run["last_seq"] + 1)):
            yield f"run {run['id']} has the numbers {numbers}, but last_seq {run['last_seq']}"
        for kind in ("step.started", "step.finished"):
            told = Counter(event["step_id"] for event in events if event["kind"] == kind)
            yield from (f"run {run['id']} tells {kind} of {step} {n} times" for step, n in told.items() if n > 1)
        endings = [event["kind"] for event in events if event["kind"] in _ENDINGS]
        if endings != [f"run.{run['status']}"]:
            yield f"run {run['id']} is {run['status']} and tells of {endings}"
        if run["nodes_executed"] != sum(event["kind"] == "step.finished" for event in events):
            yield f"run {run['id']} counts {run['nodes_executed']} steps"
        if sum(event["kind"] == "run.started" for event in events) != min(run["epoch"], 1):
            yield f"run {run['id']} was claimed {run['epoch']} times and does not tell of one start"


_ENDINGS = ("run.completed", "run.failed", "run.cancelled")


def _public(records: Records) -> Iterator[str]:
    for channel in records.channels:
        told = sorted(event["seq"] for event in records.events if event["channel"] == channel["name"])
        if told != list(range(1, channel["last_seq"] + 1)):
            yield f"channel {channel['name']} has {len(told)} events, but last_seq {channel['last_seq']}"
    repeated = Counter(event["message_id"] for event in records.events if event["channel"] == "public")
    news = {
        f"{run_id}:{event['seq']}" for run_id, events in records.threads().items() for event in events if _new(event)
    }
    if missing := news - repeated.keys():
        yield f"the general channel does not tell {sorted(missing)}"
    yield from (f"the general channel tells {name} {n} times" for name, n in repeated.items() if n > 1)


def _new(event: Row) -> bool:
    return event["kind"] in NEWS


def _waits(records: Records, said: Said) -> Iterator[str]:
    closed = Counter(
        event["data"]["wait_id"]
        for events in records.threads().values()
        for event in events
        if event["kind"].endswith((".decided", ".expired", ".fired", ".answered"))
    )
    for wait in records.waits:
        want = 0 if wait["status"] == "cancelled" else 1
        if closed[wait["id"]] != want:
            yield f"wait {wait['id']} ({wait['node']}, {wait['status']}) was told closed {closed[wait['id']]} times"
    words = {wait["id"]: wait["result"] if wait["kind"] == "work" else wait["decision"] for wait in records.waits}
    for answer in said.answers:
        if answer.status == 200 and words.get(answer.wait_id) != answer.word:
            yield f"{answer} was accepted, but {words.get(answer.wait_id)!r} counted"
    for wait in records.waits:
        if wait["kind"] == "work" and wait["result"] and wait["result"] not in said.results[wait["id"]]:
            yield f"wait {wait['id']} has the result {wait['result']}, which nobody gave"


def _groups(records: Records) -> Iterator[str]:
    """Whoever is asked together says one thing each, as long as it counts; the others are asked no longer."""
    groups: dict[tuple[str, str], dict[str, Row]] = defaultdict(dict)
    for wait in records.waits:
        if wait["rule"]:
            groups[wait["run_id"], wait["interrupt_id"]][wait["id"]] = wait
    status, threads = {run["id"]: run["status"] for run in records.runs}, records.threads()
    for (run_id, _), seats in groups.items():
        told = [event for event in threads[run_id] if event["data"].get("wait_id") in seats]
        votes = [event for event in told if event["kind"] == "gate.decided"]
        words = [event["data"]["decision"] for event in votes]
        came_to = [fates.agreed(words[:count]) for count in range(1, len(words) + 1)]
        where = f"the group of run {run_id} was told {words}"
        if sorted(seat["approver"] for seat in seats.values()) != sorted(mill.ELDERS):
            yield f"{where}, and was {[seat['approver'] for seat in seats.values()]}"
        if len({event["actor"] for event in votes}) != len(votes):
            yield f"{where} by {[event['actor'] for event in votes]}"
        if any(came_to[:-1]) or not (any(came_to) or status[run_id] == "cancelled"):
            yield f"{where}, and its run is {status[run_id]}"
        if [event["data"]["group"]["decision"] or "" for event in votes] != came_to:
            yield f"{where}, and said to have come to {[event['data']['group'] for event in votes]}"
        voted = {event["data"]["wait_id"] for event in votes}
        for seat in seats.values():
            if seat["status"] != ("resolved" if seat["id"] in voted else "cancelled"):
                yield f"{where}, and the seat of {seat['approver']} is {seat['status']}"


def _forks(records: Records, said: Said) -> Iterator[str]:
    """Whoever forked twice by one key has one more run, and both threads tell of it once."""
    runs = {run["id"]: run for run in records.runs}
    forks = {run["id"]: run["forked_from_id"] for run in records.runs if run["forked_from_id"]}
    if forks != said.forks:
        yield f"the forks are {forks}, and callers know of {said.forks}"
    told = Counter(
        (run_id, event["data"].get("from"), event["data"].get("to"))
        for run_id, events in records.threads().items()
        for event in events
        if event["kind"] == "run.forked"
    )
    due = [(fork, source, None) for fork, source in forks.items()]
    due += [(source, None, fork) for fork, source in forks.items()]
    if told != Counter(due):
        yield f"of the forks {forks} the threads tell {told}"
    for fork, source in forks.items():
        if runs[fork]["input"] != runs[source]["input"]:
            yield f"run {fork} has the input {runs[fork]['input']}, its source {runs[source]['input']}"


def _effects(records: Records, world: list[dict[str, Any]]) -> Iterator[str]:
    """An act is in the world once; once more for each time that somebody said that it was not."""
    status = {run["id"]: run["status"] for run in records.runs}
    done = Counter((item["run"], item["step"], item["name"]) for item in world)
    denied = _denials(records)
    known = {(row["run_id"], row["step_id"], row["key"]): row for row in records.effects}
    for place, row in known.items():
        if status[row["run_id"]] != "cancelled" and row["state"] != "confirmed":
            yield f"effect {place} of a run that is {status[row['run_id']]} is {row['state']}"
        if row["state"] == "confirmed" and not done[place]:
            yield f"effect {place} is confirmed, and the world knows nothing of it"
    for place, times in done.items():
        if place not in known:
            yield f"{place} happened, and no effect tells of it"
        if times > 1 + denied[place]:
            yield f"effect {place} happened {times} times, although it was denied {denied[place]} times"
    for place, times in Counter((run, name) for run, _, name in done).items():
        if times > 1:
            yield f"the act {place} happened in {times} steps"


def _denials(records: Records) -> Counter[tuple[str, str, str]]:
    people = [
        (wait["run_id"], wait["step_id"], wait["payload"]["effect"])
        for wait in records.waits
        if wait["form"] == "effect" and wait["decision"] == NOT_HAPPENED
    ]
    hooks = [
        (run_id, event["step_id"], event["data"]["key"])
        for run_id, events in records.threads().items()
        for event in events
        if event["kind"] == "effect.failed"
    ]
    return Counter([*people, *hooks])


def _children(records: Records) -> Iterator[str]:
    workflows = _workflows(records)
    children = Counter((run["parent_id"], workflows[run["id"]]) for run in records.runs if run["parent_id"])
    asked = Counter(wait["run_id"] for wait in records.waits if wait["kind"] == "reply")
    for run in records.runs:
        workflow = workflows[run["id"]]
        stores = 1 if (workflow, run["status"]) == ("grind", "completed") else 0
        if children[run["id"], "store"] != stores:
            yield f"run {run['id']} ({workflow}, {run['status']}) was heard {children[run['id'], 'store']} times"
        quotes = children[run["id"], "quote"]
        if quotes > asked[run["id"]] or (quotes < asked[run["id"]] and run["status"] != "cancelled"):
            yield f"run {run['id']} asked {asked[run['id']]} times and was heard {quotes} times"


def _workflows(records: Records) -> dict[str, str]:
    """Return each run's workflow."""
    slugs = {row["id"]: row["slug"] for row in records.workflows}
    return {run["id"]: slugs[run["workflow_id"]] for run in records.runs}
