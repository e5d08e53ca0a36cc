"""A tool of somebody else's for agents of the dialect `cg`: it weighs the goods that a call's card lists.

The call comes by NATS; its arguments and its result lie in cards, which are read and kept by REST. It gives its first
delivery back after the answer, as one that dies before it can acknowledge, and so answers the same call twice.
"""

import asyncio
import json
import os
import urllib.request

import nats
from nats.js.api import ConsumerConfig

AGENT, TOOL, NATS_URL = os.environ["AGENT_ID"], os.environ["TOOL"], os.environ["NATS_URL"]
REST_URL, REST_TOKEN = os.environ["REST_URL"], os.environ["REST_TOKEN"]
QUOTED = ("tool_call_id", "agent_turn_id", "turn_epoch", "agent_id", "after_execution")
PASSED_ON = ("traceparent", "tracestate", "CG-Recursion-Depth", "CG-User-ID", "CG-Channel-ID", "CG-Context-ID")


async def main():
    client = await nats.connect(NATS_URL)
    stream = client.jetstream()
    calls = await stream.pull_subscribe(
        f"cg.v1.*.*.cmd.tool.{TOOL}.call",
        durable=f"{TOOL}-calls",
        stream="cg_cmd_v1",
        config=ConsumerConfig(ack_wait=60),
    )
    print(f"{AGENT} is ready", flush=True)
    for again in (False, True):
        (message,) = await calls.fetch(1, timeout=60)
        await answer(stream, message)
        await (message.ack_sync() if again else message.nak())
    await client.drain()


async def answer(stream, message):
    """Do what is asked. Who answers the same call again says the same, so that it is one answer."""
    call = json.loads(message.data)
    given = await asyncio.to_thread(rest, f"/v1/cards/{call['tool_call_card_id']}")
    weight = sum(given["content"]["grams"])
    kept = await asyncio.to_thread(rest, "/v1/cards", {"content": {"result": f"{AGENT}: {weight} g"}})
    told = {**{name: call[name] for name in QUOTED}, "status": "success", "tool_result_card_id": kept["card"]}
    headers = {name: message.headers[name] for name in PASSED_ON if name in message.headers} | {"CG-Sender": AGENT}
    place = ".".join(message.subject.split(".")[:4])
    subject = f"{place}.cmd.agent.{call['agent_id']}.tool_result"
    await stream.publish(subject, json.dumps(told).encode(), headers=headers)
    print(f"answered {call['tool_call_id']}: {weight}", flush=True)


def rest(path, body=None):
    headers = {"Authorization": f"Bearer {REST_TOKEN}", "Content-Type": "application/json"}
    data = json.dumps(body).encode() if body else None
    with urllib.request.urlopen(urllib.request.Request(REST_URL + path, data, headers), timeout=15) as answered:
        return json.load(answered)


asyncio.run(main())
