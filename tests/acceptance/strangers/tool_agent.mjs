// A tool of somebody else's for agents of the dialect `cg`. As tool_agent.py, but its body is an envelope.

import { randomUUID } from "node:crypto";
import { AckPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect, headers as newHeaders, nanos } from "@nats-io/transport-node";

const { AGENT_ID: AGENT, TOOL, NATS_URL, REST_URL, REST_TOKEN } = process.env;
const QUOTED = ["tool_call_id", "agent_turn_id", "turn_epoch", "agent_id", "after_execution"];
const PASSED_ON = ["traceparent", "tracestate", "CG-Recursion-Depth", "CG-User-ID", "CG-Channel-ID", "CG-Context-ID"];

const client = await connect({ servers: NATS_URL });
const stream = jetstream(client);
await (await jetstreamManager(client)).consumers.add("cg_cmd_v1", {
  durable_name: `${TOOL}-calls`,
  filter_subject: `cg.v1.*.*.cmd.tool.${TOOL}.call`,
  ack_policy: AckPolicy.Explicit,
  ack_wait: nanos(60_000),
});
const calls = await stream.consumers.get("cg_cmd_v1", `${TOOL}-calls`);
console.log(`${AGENT} is ready`);

for (const again of [false, true]) {
  const message = await calls.next({ expires: 60_000 });
  await answer(message.subject, message.json().payload, message.headers);
  if (again) await message.ackAck();
  else message.nak();
}
await client.drain();

// Who answers the same call again says the same, so that it is one answer.
async function answer(called, call, received) {
  const given = await rest(`/v1/cards/${call.tool_call_card_id}`);
  const weight = given.content.grams.reduce((sum, each) => sum + each, 0);
  const kept = await rest("/v1/cards", { content: { result: `${AGENT}: ${weight} g` } });
  const quoted = Object.fromEntries(QUOTED.map((name) => [name, call[name]]));
  const payload = { ...quoted, status: "success", tool_result_card_id: kept.card };
  const headers = newHeaders();
  for (const name of PASSED_ON) if (received.has(name)) headers.set(name, received.get(name));
  headers.set("CG-Sender", AGENT);
  const place = called.split(".").slice(0, 4).join(".");
  const body = { version: "1", id: randomUUID(), type: "tool_result", timestamp: new Date().toISOString(), payload };
  await stream.publish(`${place}.cmd.agent.${call.agent_id}.tool_result`, JSON.stringify(body), { headers });
  console.log(`answered ${call.tool_call_id}: ${weight}`);
}

async function rest(path, body) {
  const headers = { Authorization: `Bearer ${REST_TOKEN}`, "Content-Type": "application/json" };
  const answered = await fetch(REST_URL + path, { method: body ? "POST" : "GET", headers, body: JSON.stringify(body) });
  if (!answered.ok) throw new Error(`${path}: ${answered.status} ${await answered.text()}`);
  return answered.json();
}
