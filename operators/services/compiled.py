"""Workflows as this process can play them: compiled when first needed. Who needs none does not load LangGraph."""

from __future__ import annotations

import logging
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from openvibe import late
from operators import definitions
from operators.models import Node, Run
from operators.models.lookup import listed
from operators.services import sources

if TYPE_CHECKING:
    from openvibe.compiler import CompiledWorkflow

logger = logging.getLogger(__name__)


@lru_cache(maxsize=512)
def workflow(operator_id: str, workflow_id: str, source: str = "") -> CompiledWorkflow | None:
    """Return a workflow that can be played, or None if this process does not know it.

    `source` is the hash of the text behind its operator, so that a changed one is compiled anew.
    """
    _look_at_langgraph()
    definition = definitions.registry.workflow(operator_id, workflow_id)
    return late.compiler.compile_workflow(definition) if definition else None


def of(run: Run) -> CompiledWorkflow | None:
    """Return the workflow of a run as the database describes its operator now; None if this process cannot know it."""
    sources.ready(run.operator)
    return workflow(run.operator.slug, run.workflow.slug, run.operator.source)


def models(run: Run, workflow: CompiledWorkflow) -> dict[str, str]:
    """Return the models that an administrator has chosen for single nodes."""
    if not any(node.model for node in workflow.definition.spec.nodes):
        return {}
    nodes = listed(Node, order=["pk"], workflow_id=run.workflow_id)
    return {node.slug: node.model for node in nodes if node.model}


@cache
def _look_at_langgraph() -> None:
    if not late.engine.strict_resume_works():
        logger.warning("This LangGraph takes answers to gates that are not open; only OpenVibe's own check is left")
