"""External runs: known only from what agents of a foreign workflow runtime tell, never claimed and never played here.

Such a run is running from its first message until one says that it is over. It holds no lease, so that no clock takes
it for lost, and no slot.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from openvibe.events import Event as Fact
from openvibe.protocol.workflow import Ending, Identity, run_id
from openvibe.specs import TriggerSpec, WorkflowSpec
from operators.models import Artifact, Operator, Run, Workflow
from operators.models.operator import EXTERNAL
from operators.services import endings, timeline

#: The workflow that every external run belongs to.
WORKFLOW = "external"
#: How long after a run's end the file that its agents left is read.
AFTER_END = timedelta(seconds=2)


@transaction.atomic
def begin(
    project_id: str, told: Identity, *, traceparent: str = "", passed_on: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Know an external run from now on, if nobody does yet, and return its id."""
    known_as, now = run_id(project_id, told.uid), timezone.now()
    if Run.objects.filter(id=known_as).exists():
        return known_as
    workflow = _workflow(project_id)
    run = Run(
        id=known_as,
        project_id=project_id,
        operator=workflow.operator,
        workflow=workflow,
        workflow_version=workflow.version,
        trigger=WORKFLOW,
        traceparent=traceparent,
        passed_on=dict(passed_on),
        status=Run.Status.RUNNING,
        input=_named(told),
        created_at=now,
        started_at=now,
        updated_at=now,
    )
    Run.objects.bulk_create([run], ignore_conflicts=True)
    # Of two bridges that make it at the same time one tells of it.
    if Run.objects.filter(id=known_as, last_seq=0).change("last_seq", last_seq=1):
        fact = Fact("run.started", data=_described(workflow, told))
        timeline.record(
            project_id=project_id, run_id=known_as, last_seq=1, facts=[fact], now=now, actor=told.name[:200]
        )
    return known_as


def end(run_id: str, ending: Ending, *, reason: str, actor: str, turn: str = "") -> bool:
    """Let a running external run be over as its runtime says; part of the caller's transaction.

    `turn` is the turn that has ended, where a run has several: the one that began the run is its end.
    """
    now = timezone.now()
    # There are no checkpoints to go on from, so it can be neither retried nor forked.
    changes: dict[str, Any] = {"pruned_at": now, "status": Run.Status(ending)}
    fact = Fact("run.completed", data={"output": {"content": reason}})
    if ending == "completed":
        changes["output"] = {"content": reason}
    elif ending == "failed":
        error = {"message": reason, "kind": "ExternalFailure", "node": "", "step_id": "", "traceback": ""}
        changes["error"] = error
        fact = Fact("run.failed", data=error)
    else:
        fact = Fact("run.cancelled", data={"reason": reason})
    runs = Run.objects.filter(id=run_id, status=Run.Status.RUNNING, operator__slug=EXTERNAL)
    if turn:
        runs = runs.filter(input__run_id=turn)
    ended = endings.end(runs, fact, now=now, actor=actor[:200], **changes)
    if ended and settings.OPENVIBE.artifacts:
        # Other agents of the run may still have something to say; then its file tells what nobody heard.
        Artifact.objects.update_or_create(run_id=run_id, defaults={"due_at": now + AFTER_END, "tries": 0})
    return ended


def _workflow(project_id: str) -> Workflow:
    operator, _ = Operator.objects.get_or_create(
        project_id=project_id,
        slug=EXTERNAL,
        defaults={"name": "External agents", "enabled": False, "retired": True},
    )
    spec = WorkflowSpec(
        id=WORKFLOW,
        name="External run",
        trigger=TriggerSpec(id=WORKFLOW, kind="on_demand"),
        nodes=(),
        inputs=(),
        input_schema={"type": "object", "properties": {}},
    )
    workflow, _ = Workflow.objects.get_or_create(
        operator=operator,
        slug=WORKFLOW,
        defaults={
            "name": spec.name, "trigger_id": WORKFLOW, "trigger": spec.trigger.text, "version": spec.version,
            "spec": spec.model_dump(mode="json"), "retired": True,
        },
    )  # fmt: skip
    return workflow


def _named(told: Identity) -> dict[str, str]:
    return {name: value for name, value in (told.names | {"run_id": told.run_id}).items() if value}


def _described(workflow: Workflow, told: Identity) -> dict[str, Any]:
    return {
        "operator": EXTERNAL,
        "operator_name": workflow.operator.name,
        "workflow": WORKFLOW,
        "workflow_name": told.name or workflow.name,
        "external": _named(told),
    }
