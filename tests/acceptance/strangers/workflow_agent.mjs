// An agent of an external workflow runtime, on `workflow.…` alone; it speaks the other shape of body, in camel case.

import { randomUUID } from "node:crypto";
import { jetstream } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";

const { UID_OF_RUN: UID, AGENT_ID: AGENT, NATS_URL } = process.env;
const client = await connect({ servers: NATS_URL });
const stream = jetstream(client);
const run = `workflow.lab.fix-issue.${UID}.agent.${AGENT}`;
console.log(`${AGENT} is ready`);

await tell(`${run}.message`, { role: "assistant", text: "I **read** the issue", workflowStage: "plan" });
await tell(`${run}.tool-call`, { role: "tool", toolName: "grep", attrs: { pattern: "TODO" } });
await tell("workflow.general.status", { role: "system", status: `${AGENT} works on ${UID}` });
await tell(`${run}.run-complete`, { role: "system", status: "succeeded", exitCode: 0 });
await client.drain();

async function tell(subject, body) {
  const whose = { workflowUid: UID, workflowName: "fix-issue", workflowNamespace: "lab", agentId: AGENT };
  const message = { messageId: randomUUID(), createdAt: new Date().toISOString(), ...whose, ...body };
  await stream.publish(subject, JSON.stringify({ message }));
}
