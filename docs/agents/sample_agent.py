"""A coding agent: takes `work.coding` of OpenVibe's runs and answers it. Needs only `pip install nats-py`.

NATS_URL=$(cat .openvibe/nats.url) python docs/agents/sample_agent.py
"""

import asyncio
import json
import os
import signal
import uuid
from datetime import UTC, datetime

import nats
from nats.js.api import ConsumerConfig

AGENT = os.environ.get("AGENT_ID", "sample-python")


async def main():
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    client = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"), max_reconnect_attempts=-1)
    stream = client.jetstream()
    # Agents that share a durable share the work; what came while none of them ran is waiting for them.
    config = ConsumerConfig(ack_wait=60, max_deliver=5)
    subjects = "sessions.*.work"
    work = await stream.pull_subscribe(subjects, durable="sample-coders", stream="sessions", config=config)
    print(f"{AGENT} is ready", flush=True)
    while not stopped.is_set():
        try:
            (message,) = await work.fetch(1, timeout=1)
        except nats.errors.TimeoutError:
            continue
        body = json.loads(message.data)
        if body["type"].removesuffix(".v1") == "work.coding":
            await take(stream, body, message.headers or {})
        # Acknowledged after the answer is kept: an agent that dies before that leaves the work to the next one.
        await message.ack()
    await client.flush()
    await client.close()


async def take(stream, body, headers):
    run, task = body["session_id"], body["payload"]
    started = {"agent_id": AGENT, "role": "coding", "content": f"I take {task.get('chunk_id') or 'the work'}"}
    await tell(stream, run, "events", "event.agent.started", started, headers)
    try:
        told = {"summary": code(task), "files_changed": ["hello.py"]}
        kind = "result.success"
    except Exception as error:
        told, kind = {"error": str(error) or type(error).__name__}, "result.failure"
    asked = {name: task[name] for name in ("work_id", "chunk_id") if name in task}
    context = {"work_type": "coding", "context": {"agent_id": AGENT}}
    await tell(stream, run, "results", kind, {**told, **asked, **context}, headers)
    await tell(stream, run, "events", "event.agent.stopped", {"agent_id": AGENT, "reason": "done"}, headers)


def code(task):
    """Do the work; a real agent would think here."""
    if not task.get("description"):
        raise ValueError("The task has no description")
    return f"Done: {task['description']}"


async def tell(stream, run, subject, kind, payload, headers):
    now = datetime.now(UTC).isoformat()
    message_id = str(uuid.uuid4())
    body = {"version": "1", "id": message_id, "timestamp": now, "session_id": run, "type": kind, "payload": payload}
    kept = {name: headers[name] for name in ("traceparent", "CG-Recursion-Depth") if name in headers}
    stamps = {**kept, "Nats-Msg-Id": message_id}
    await stream.publish(f"sessions.{run}.{subject}", json.dumps(body).encode(), headers=stamps)


if __name__ == "__main__":
    asyncio.run(main())
