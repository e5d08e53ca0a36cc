// A coding agent: takes `work.coding` of OpenVibe's runs and answers it.
//
//     cd docs/agents && npm ci && NATS_URL=$(cat ../../.openvibe/nats.url) node sample_agent.mjs

import { randomUUID } from "node:crypto";
import { AckPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect, headers as newHeaders, nanos } from "@nats-io/transport-node";

const AGENT = process.env.AGENT_ID || "sample-javascript";

const client = await connect({
  servers: process.env.NATS_URL || "nats://127.0.0.1:4222",
  maxReconnectAttempts: -1,
});
const stream = jetstream(client);
// Agents that share a durable share the work; what came while none of them ran is waiting for them.
await (await jetstreamManager(client)).consumers.add("sessions", {
  durable_name: "sample-coders-js",
  filter_subject: "sessions.*.work",
  ack_policy: AckPolicy.Explicit,
  ack_wait: nanos(60_000),
  max_deliver: 5,
});
const consumer = await stream.consumers.get("sessions", "sample-coders-js");
const work = await consumer.consume({ max_messages: 1 });
for (const signal of ["SIGTERM", "SIGINT"]) process.once(signal, () => work.stop());
console.log(`${AGENT} is ready`);

for await (const message of work) {
  const body = message.json();
  if (body.type.replace(/\.v1$/, "") === "work.coding") await take(body, message.headers);
  // Acknowledged after the answer is kept: an agent that dies before that leaves the work to the next one.
  message.ack();
}
await client.drain();

async function take({ session_id: run, payload: task }, headers) {
  const started = { agent_id: AGENT, role: "coding", content: `I take ${task.chunk_id || "the work"}` };
  await tell(run, "events", "event.agent.started", started, headers);
  const asked = { work_id: task.work_id, chunk_id: task.chunk_id, work_type: "coding", context: { agent_id: AGENT } };
  try {
    await tell(run, "results", "result.success", { ...asked, summary: code(task), files_changed: ["hello.js"] }, headers);
  } catch (error) {
    await tell(run, "results", "result.failure", { ...asked, error: String(error.message) }, headers);
  }
  await tell(run, "events", "event.agent.stopped", { agent_id: AGENT, reason: "done" }, headers);
}

// Do the work; a real agent would think here.
function code(task) {
  if (!task.description) throw new Error("The task has no description");
  return `Done: ${task.description}`;
}

async function tell(run, subject, type, payload, received) {
  const id = randomUUID();
  const body = { version: "1", id, timestamp: new Date().toISOString(), session_id: run, type, payload };
  const headers = newHeaders();
  for (const name of ["traceparent", "CG-Recursion-Depth"]) if (received?.has(name)) headers.set(name, received.get(name));
  headers.set("Nats-Msg-Id", id);
  await stream.publish(`sessions.${run}.${subject}`, JSON.stringify(body), { headers, msgID: id });
}
