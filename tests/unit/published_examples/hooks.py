"""Hooks on a runtime's events.

A fragment in the design: the runtime and `alert_slack`, which it takes for granted, are added; the hooks are word for
word.
"""
# ruff: noqa
# fmt: off

from openvibe import OperatorRuntime

runtime = OperatorRuntime()
alerts = []


def alert_slack(text):
    alerts.append(text)


@runtime.on("run.started")
def on_start(event): print(f"Started: {event.run_id}")

@runtime.on("run.completed")
def on_complete(event): print(f"Done: {event.run_id} in {event.duration}s")

@runtime.on("node.error")
def on_error(event): alert_slack(f"Node failed: {event.node_id}")
