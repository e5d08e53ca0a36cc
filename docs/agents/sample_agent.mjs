// An agent: takes coding, testing and review of OpenVibe's runs and answers.
//
//     cd docs/agents && npm ci && NATS_URL=$(cat ../../.openvibe/nats.url) AGENT_ROLES=coding node sample_agent.mjs

import { randomUUID } from "node:crypto";
import { AckPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect, headers as newHeaders, nanos } from "@nats-io/transport-node";

const AGENT = process.env.AGENT_ID || "sample-javascript";
const ROLES = (process.env.AGENT_ROLES || "coding,testing,review").split(",");
// What each kind of work needs, and which file this agent says that it has written. A real agent would think here.
const NEEDS = { coding: "description", testing: "target_code", review: "files" };
const WRITES = { coding: ["hello.js"], testing: ["hello.test.js"] };

const client = await connect({
  servers: process.env.NATS_URL || "nats://127.0.0.1:4222",
  maxReconnectAttempts: -1,
});
const stream = jetstream(client);
const durable = `sample-js-${ROLES.join("-")}`;
// Agents that share a durable share the work; what came while none of them ran is waiting for them.
await (await jetstreamManager(client)).consumers.add("sessions", {
  durable_name: durable,
  filter_subject: "sessions.*.work",
  ack_policy: AckPolicy.Explicit,
  ack_wait: nanos(60_000),
  max_deliver: 5,
});
const work = await (await stream.consumers.get("sessions", durable)).consume({ max_messages: 1 });
for (const signal of ["SIGTERM", "SIGINT"]) process.once(signal, () => work.stop());
beat();
const beating = setInterval(beat, 10_000);
console.log(`${AGENT} is ready`);

for await (const message of work) {
  const body = message.json();
  const role = body.type.replace(/\.v1$/, "").replace(/^work\./, "");
  if (ROLES.includes(role)) await take(role, body, message.headers);
  // Acknowledged after the answer is kept: an agent that dies before that leaves the work to the next one.
  message.ack();
}
clearInterval(beating);
await client.drain();

function beat() {
  const health = { agent_id: AGENT, status: "ok", interval_seconds: 10 };
  client.publish("system.health", JSON.stringify(written("", "system.health", health)));
}

async function take(role, { session_id: run, payload: task }, headers) {
  const answer = { work_id: task.work_id, chunk_id: task.chunk_id, work_type: role, context: { agent_id: AGENT } };
  const started = { agent_id: AGENT, role, content: `I take ${task.chunk_id || "the work"}` };
  await tell("events", written(run, "event.agent.started", started), headers);
  if (task[NEEDS[role]]?.length) {
    const done = { summary: `Done: ${task.description || role}`, files_changed: WRITES[role] || [] };
    await tell("results", written(run, "result.success", { ...answer, ...done }), headers);
  } else {
    const failed = { error: `The task has no ${NEEDS[role]}` };
    await tell("results", written(run, "result.failure", { ...answer, ...failed }), headers);
  }
  await tell("events", written(run, "event.agent.stopped", { agent_id: AGENT, reason: "done" }), headers);
}

function written(run, type, payload) {
  return { version: "1", id: randomUUID(), timestamp: new Date().toISOString(), session_id: run, type, payload };
}

async function tell(place, body, received) {
  const headers = newHeaders();
  for (const name of ["traceparent", "CG-Recursion-Depth"]) if (received?.has(name)) headers.set(name, received.get(name));
  const subject = `sessions.${body.session_id}.${place}`;
  await stream.publish(subject, JSON.stringify(body), { headers, msgID: body.id });
}
