"""A reviewer of the dialect `cg`: whenever a turn of OpenVibe's ends, it takes a turn of its own about that.

NATS_URL=$(cat .openvibe/nats.url) python docs/agents/cg_agent.py

Needs only `pip install nats-py`.
"""

import asyncio
import json
import os
import signal
import uuid
from datetime import UTC, datetime

import nats
from nats.js.api import ConsumerConfig

AGENT = os.environ.get("AGENT_ID", "reviewer-python")


async def main():
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    client = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"), max_reconnect_attempts=-1)
    # Other systems read the same events by durables of their own; agents that share this one share the turns.
    tasks = await client.jetstream().pull_subscribe(
        "cg.v1.*.*.evt.agent.*.task",
        durable=f"{AGENT}-tasks",
        stream="cg_evt_v1",
        config=ConsumerConfig(ack_wait=60, max_deliver=5),
    )
    print(f"{AGENT} is ready", flush=True)
    while not stopped.is_set():
        try:
            (message,) = await tasks.fetch(1, timeout=1)
        except nats.errors.TimeoutError:
            continue
        headers = message.headers or {}
        if headers.get("CG-Sender") == "openvibe":
            await review(client, message.subject.split(".")[2], json.loads(message.data), headers)
        await message.ack()
    await client.flush()
    await client.close()


async def review(client, project, task, received):
    """Take a turn. The ids follow from what is reviewed: done again after a crash, it says the same again."""
    turn = f"{AGENT}-{task['agent_turn_id']}"
    place, step = f"cg.v1.{project}.t_{turn}", str(uuid.uuid5(uuid.NAMESPACE_URL, turn))
    kept = {name: received[name] for name in ("traceparent", "CG-Recursion-Depth") if name in received}

    async def tell(family, **fields):
        body = {"agent_id": AGENT, "agent_turn_id": turn, **fields}
        name = f"{turn}:{family}:{fields.get('phase') or fields['status']}"
        stamps = {**kept, "CG-Sender": AGENT, "CG-Msg-Type": f"agent.{family}", "Nats-Msg-Id": name}
        body["id"] = name
        subject = f"{place}.evt.agent.{AGENT}.{family}"
        await client.jetstream().publish(subject, json.dumps(body).encode(), headers=stamps)

    now = datetime.now(UTC).isoformat()
    await tell("state", status="running", turn_epoch=1, updated_at=now)
    await tell("step", step_id=step, phase="started", content=f"I look at {task['agent_turn_id']}")
    verdict = f"{task['agent_id']} ended with {task['status']}"
    for kind, text in (("start", ""), ("content", verdict), ("end", "")):
        chunk = {"agent_turn_id": turn, "step_id": step, "chunk_type": kind, "content": text}
        await client.publish(f"{place}.str.agent.{AGENT}.chunk", json.dumps(chunk).encode())
    await tell("step", step_id=step, phase="completed", content=verdict)
    await tell("task", status="success", content="Reviewed", deliverable_card_id=task.get("deliverable_card_id"))


if __name__ == "__main__":
    asyncio.run(main())
