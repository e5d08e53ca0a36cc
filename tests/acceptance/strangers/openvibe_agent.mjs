// An operator of somebody else's, by the subjects `operators.…` and the buckets of NATS alone. As openvibe_agent.py.

import { randomUUID } from "node:crypto";
import { jetstream } from "@nats-io/jetstream";
import { connect, headers as newHeaders } from "@nats-io/transport-node";

const { GUEST, AGENT_ID: SERVER, OPERATOR, NATS_URL } = process.env;
const client = await connect({ servers: NATS_URL });
const stream = jetstream(client);

const asked = new Promise((resolve) => {
  client.subscribe(`operators.${OPERATOR}.request.greeting`, {
    callback: (_, message) => {
      message.respond(JSON.stringify({ greeting: `Welcome, ${message.json().payload.guest}` }));
      resolve();
    },
  });
});
const entry = {
  server: SERVER, version: "9", operators: [OPERATOR], capabilities: { [OPERATOR]: ["greeting"] }, load: 2,
  last_heartbeat: new Date().toISOString(), heartbeat_seconds: 10,
};
// A bucket is a stream, and a key its last subject.
await stream.publish(`$KV.registry.servers/${SERVER}`, JSON.stringify(entry));
client.publish(`operators.${OPERATOR}.heartbeat`, JSON.stringify(entry));
console.log(`${SERVER} is ready`);

const id = randomUUID();
const event = { id, type: "arrived", payload: { guest: GUEST } };
await stream.publish(`operators.${OPERATOR}.events.arrived`, JSON.stringify(event), { headers: entryHeaders(id) });
await asked;

await stream.publish(`$KV.context-leads.${GUEST}/score`, "84");
const question = JSON.stringify({ payload: { guest: GUEST } });
const options = { timeout: 60_000, headers: entryHeaders(randomUUID()) };
const told = (await client.request("operators.hosts.request.rating", question, options)).json();
console.log(`${told.status}: ${told.result.verdict}`);
await client.drain();

function entryHeaders(id) {
  const headers = newHeaders();
  headers.set("CG-Recursion-Depth", "0");
  headers.set("Nats-Msg-Id", id);
  return headers;
}
