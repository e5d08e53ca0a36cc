"""An agent of an external workflow runtime: it tells of its run and of itself on `workflow.…`, and ends."""

import asyncio
import json
import os
import uuid
from datetime import UTC, datetime

import nats

UID, AGENT = os.environ["UID_OF_RUN"], os.environ["AGENT_ID"]


async def main():
    client = await nats.connect(os.environ["NATS_URL"])
    stream = client.jetstream()

    async def tell(subject, kind, **body):
        told = {
            "message_id": str(uuid.uuid4()),
            "workflow_uid": UID,
            "workflow_name": "fix-issue",
            "workflow_namespace": "lab",
            "agent_id": AGENT,
            "kind": kind,
            "timestamp": datetime.now(UTC).isoformat(),
            **body,
        }
        await stream.publish(subject, json.dumps(told).encode())

    run = f"workflow.lab.fix-issue.{UID}.agent.{AGENT}"
    print(f"{AGENT} is ready", flush=True)
    await tell(f"{run}.message", "message", role="assistant", content="I **read** the issue", stage="plan")
    await tell(f"{run}.tool-call", "tool-call", role="tool", tool="grep", attrs={"pattern": "TODO"})
    await tell("workflow.general.status", "status", role="system", status=f"{AGENT} works on {UID}")
    await tell(f"{run}.run-complete", "run-complete", role="system", status="succeeded", exit_code=0)
    await client.drain()


asyncio.run(main())
