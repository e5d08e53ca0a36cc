// A reviewer of the dialect `cg`: whenever a turn of OpenVibe's ends, it takes a turn of its own about that.
//
//     cd docs/agents && npm ci && NATS_URL=$(cat ../../.openvibe/nats.url) node cg_agent.mjs

import { AckPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect, headers as newHeaders, nanos } from "@nats-io/transport-node";

const AGENT = process.env.AGENT_ID || "reviewer-javascript";

const client = await connect({
  servers: process.env.NATS_URL || "nats://127.0.0.1:4222",
  maxReconnectAttempts: -1,
});
const stream = jetstream(client);
// Other systems read the same events by durables of their own; agents that share this one share the turns.
await (await jetstreamManager(client)).consumers.add("cg_evt_v1", {
  durable_name: `${AGENT}-tasks`,
  filter_subject: "cg.v1.*.*.evt.agent.*.task",
  ack_policy: AckPolicy.Explicit,
  ack_wait: nanos(60_000),
  max_deliver: 5,
});
const consumer = await stream.consumers.get("cg_evt_v1", `${AGENT}-tasks`);
const tasks = await consumer.consume({ max_messages: 1 });
for (const signal of ["SIGTERM", "SIGINT"]) process.once(signal, () => tasks.stop());
console.log(`${AGENT} is ready`);

for await (const message of tasks) {
  const ours = message.headers?.get("CG-Sender") === "openvibe";
  if (ours) await review(message.subject.split(".")[2], message.json(), message.headers);
  message.ack();
}
await client.drain();

// Take a turn. The ids follow from what is reviewed: done again after a crash, it says the same again.
async function review(project, task, received) {
  const turn = `${AGENT}-${task.agent_turn_id}`;
  const place = `cg.v1.${project}.t_${turn}`;
  const step = `${turn}-1`;

  async function tell(family, fields) {
    const id = `${turn}:${family}:${fields.phase || fields.status}`;
    const body = { id, agent_id: AGENT, agent_turn_id: turn, ...fields };
    const headers = newHeaders();
    for (const name of ["traceparent", "CG-Recursion-Depth"]) if (received.has(name)) headers.set(name, received.get(name));
    headers.set("CG-Sender", AGENT);
    headers.set("CG-Msg-Type", `agent.${family}`);
    headers.set("Nats-Msg-Id", id);
    await stream.publish(`${place}.evt.agent.${AGENT}.${family}`, JSON.stringify(body), { headers, msgID: id });
  }

  await tell("state", { status: "running", turn_epoch: 1, updated_at: new Date().toISOString() });
  await tell("step", { step_id: step, phase: "started", content: `I look at ${task.agent_turn_id}` });
  const verdict = `${task.agent_id} ended with ${task.status}`;
  for (const [chunk_type, content] of [["start", ""], ["content", verdict], ["end", ""]]) {
    const chunk = { agent_turn_id: turn, step_id: step, chunk_type, content };
    client.publish(`${place}.str.agent.${AGENT}.chunk`, JSON.stringify(chunk));
  }
  await tell("step", { step_id: step, phase: "completed", content: verdict });
  await tell("task", { status: "success", content: "Reviewed", deliverable_card_id: task.deliverable_card_id });
}
