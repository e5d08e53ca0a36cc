"""The tables: fields, constraints, small derived properties, and transitions as conditional updates."""

from operators.models.agent import Agent, Stint
from operators.models.artifact import Artifact
from operators.models.box import Box
from operators.models.card import Card
from operators.models.checkpoint import Checkpoint, CheckpointWrite
from operators.models.context import ContextEntry, ContextRevision
from operators.models.deadletter import DeadLetter
from operators.models.effect import Effect
from operators.models.emission import Emission
from operators.models.errand import Errand
from operators.models.event import Channel, Event
from operators.models.inbox import InboxItem
from operators.models.notice import Notice
from operators.models.operator import Node, Operator, OperatorSource, Workflow
from operators.models.process import Process
from operators.models.project import ApiToken, Membership, Project
from operators.models.run import Run
from operators.models.server import Inquiry, Server
from operators.models.subscription import Delivery, Subscription
from operators.models.suspect import Suspect
from operators.models.wait import Wait

__all__ = [
    "Agent",
    "ApiToken",
    "Artifact",
    "Box",
    "Card",
    "Channel",
    "Checkpoint",
    "CheckpointWrite",
    "ContextEntry",
    "ContextRevision",
    "DeadLetter",
    "Delivery",
    "Effect",
    "Emission",
    "Errand",
    "Event",
    "InboxItem",
    "Inquiry",
    "Membership",
    "Node",
    "Notice",
    "Operator",
    "OperatorSource",
    "Process",
    "Project",
    "Run",
    "Server",
    "Stint",
    "Subscription",
    "Suspect",
    "Wait",
    "Workflow",
]
