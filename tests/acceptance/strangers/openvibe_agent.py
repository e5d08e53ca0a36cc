"""An operator of somebody else's, by the subjects `operators.…` and the buckets of NATS alone.

It says that it is there, tells that a guest has arrived, answers what it is asked, rates the guest in the shared
context, and asks in its turn. It ends when it has been asked and answered.
"""

import asyncio
import json
import os
import uuid
from datetime import UTC, datetime

import nats

GUEST, SERVER, OPERATOR = os.environ["GUEST"], os.environ["AGENT_ID"], os.environ["OPERATOR"]


async def main():
    client = await nats.connect(os.environ["NATS_URL"])
    stream, done = client.jetstream(), asyncio.Event()

    async def answer(message):
        asked = json.loads(message.data)
        await message.respond(json.dumps({"greeting": f"Welcome, {asked['payload']['guest']}"}).encode())
        done.set()

    await client.subscribe(f"operators.{OPERATOR}.request.greeting", cb=answer)
    entry = {
        "server": SERVER,
        "version": "9",
        "operators": [OPERATOR],
        "capabilities": {OPERATOR: ["greeting"]},
        "load": 2,
        "last_heartbeat": datetime.now(UTC).isoformat(),
        "heartbeat_seconds": 10,
    }
    registry = await stream.key_value("registry")
    await registry.put(f"servers/{SERVER}", json.dumps(entry).encode())
    await client.publish(f"operators.{OPERATOR}.heartbeat", json.dumps(entry).encode())
    print(f"{SERVER} is ready", flush=True)

    event = {"id": str(uuid.uuid4()), "type": "arrived", "payload": {"guest": GUEST}}
    headers = {"CG-Recursion-Depth": "0", "Nats-Msg-Id": event["id"]}
    await stream.publish(f"operators.{OPERATOR}.events.arrived", json.dumps(event).encode(), headers=headers)
    await asyncio.wait_for(done.wait(), 60)

    leads = await stream.key_value("context-leads")
    await leads.put(f"{GUEST}/score", b"84")
    question = json.dumps({"payload": {"guest": GUEST}}).encode()
    asked = {"CG-Recursion-Depth": "0", "Nats-Msg-Id": str(uuid.uuid4())}
    told = json.loads(
        (await client.request("operators.hosts.request.rating", question, timeout=60, headers=asked)).data
    )
    print(f"{told['status']}: {told['result']['verdict']}", flush=True)
    await client.drain()


asyncio.run(main())
