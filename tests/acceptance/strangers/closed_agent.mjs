// An agent in an account of its own, known by a key: takes a piece of work that waits for it, and brings the result.

import { readFileSync } from "node:fs";
import { AckPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect, nkeyAuthenticator } from "@nats-io/transport-node";

const { NATS_URL, NATS_KEY, NATS_CA, WORK } = process.env;
const client = await connect({
  servers: NATS_URL,
  authenticator: nkeyAuthenticator(Buffer.from(readFileSync(NATS_KEY, "utf8").trim())),
  tls: { caFile: NATS_CA },
});
const options = { domain: "openvibe", checkAPI: false };
const stream = jetstream(client, options);
const manager = await jetstreamManager(client, options);
const name = await manager.streams.find(WORK);
const reader = { durable_name: "closed-js", filter_subject: WORK, ack_policy: AckPolicy.Explicit };
await manager.consumers.add(name, reader);
const work = await (await stream.consumers.get(name, "closed-js")).next({ expires: 60_000 });
const { session_id: session, timestamp, payload } = work.json();
const result = { work_id: payload.work_id, work_type: "coding", summary: `done for ${payload.description}` };
const body = { version: "1", id: `closed-${session}`, timestamp, session_id: session, type: "result.success", payload: result };
await stream.publish(`sessions.${session}.results`, JSON.stringify(body));
await work.ackAck();
await stream.publish(`$KV.context-leads.${session}`, JSON.stringify({ by: "closed-js" }));
console.log(`${name}: ${session}`);
await client.drain();
