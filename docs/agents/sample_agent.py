"""An agent: takes coding, testing and review of OpenVibe's runs and answers. Needs only `pip install nats-py`.

NATS_URL=$(cat .openvibe/nats.url) AGENT_ROLES=coding,testing python docs/agents/sample_agent.py"""

import asyncio
import json
import os
import signal
import uuid
from datetime import UTC, datetime

import nats
from nats.js.api import ConsumerConfig

AGENT = os.environ.get("AGENT_ID", "sample-python")
ROLES = os.environ.get("AGENT_ROLES", "coding,testing,review").split(",")
# What each kind of work needs, and the files that this agent says it has written. A real agent would think here.
KINDS = {"coding": ("description", ["hello.py"]), "testing": ("target_code", ["test.py"]), "review": ("files", [])}


async def main():
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    client = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"), max_reconnect_attempts=-1)
    stream = client.jetstream()
    # Agents that share a durable share the work; what came while none of them ran is waiting for them.
    config, durable = ConsumerConfig(ack_wait=60, max_deliver=5), "sample-" + "-".join(ROLES)
    work = await stream.pull_subscribe("sessions.*.work", durable=durable, stream="sessions", config=config)
    beating = asyncio.create_task(beat(client))
    print(f"{AGENT} is ready", flush=True)
    while not stopped.is_set():
        try:
            (message,) = await work.fetch(1, timeout=1)
        except nats.errors.TimeoutError:
            continue
        body = json.loads(message.data)
        if (role := body["type"].removesuffix(".v1").removeprefix("work.")) in ROLES:
            await take(stream, role, body, message.headers or {})
        # Acknowledged after the answer is kept: an agent that dies before that leaves the work to the next one.
        await message.ack()
    beating.cancel()
    await client.close()


async def beat(client):
    while True:
        told = {"agent_id": AGENT, "status": "ok", "interval_seconds": 10}
        await client.publish("system.health", json.dumps(written("", "system.health", told)).encode())
        await asyncio.sleep(10)


async def take(stream, role, body, headers):
    run, task, (needed, files) = body["session_id"], body["payload"], KINDS[role]
    answer = {name: task[name] for name in ("work_id", "chunk_id") if name in task}
    answer |= {"work_type": role, "context": {"agent_id": AGENT}}
    told = {"agent_id": AGENT, "role": role, "content": f"I take {task.get('chunk_id') or 'the work'}"}
    await tell(stream, "events", written(run, "event.agent.started", told), headers)
    if task.get(needed):
        answer |= {"summary": f"Done: {task.get('description') or role}", "files_changed": files}
        await tell(stream, "results", written(run, "result.success", answer), headers)
    else:
        answer |= {"error": f"The task has no {needed}"}
        await tell(stream, "results", written(run, "result.failure", answer), headers)
    await tell(stream, "events", written(run, "event.agent.stopped", {"agent_id": AGENT, "reason": "done"}), headers)


def written(run, kind, payload):
    now, name = datetime.now(UTC).isoformat(), str(uuid.uuid4())
    return {"version": "1", "id": name, "timestamp": now, "session_id": run, "type": kind, "payload": payload}


async def tell(stream, place, body, headers):
    kept = {name: headers[name] for name in ("traceparent", "CG-Recursion-Depth") if name in headers}
    subject, stamps = f"sessions.{body['session_id']}.{place}", {**kept, "Nats-Msg-Id": body["id"]}
    await stream.publish(subject, json.dumps(body).encode(), headers=stamps)


asyncio.run(main())
