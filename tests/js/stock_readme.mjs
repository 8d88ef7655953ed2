// The client of the README, as it stands there, twice: what one writes, the other is told of.

import { readFileSync } from "node:fs"
import * as effect from "effect-4.1"
import * as eventlog from "effect-4.1/eventlog"
import * as reactivity from "effect-4.1/reactivity"
import * as rpc from "effect-4.1/rpc"
import { Socket } from "effect-4.1/socket"
import WebSocket from "ws"
import { step, until } from "./stock.mjs"

const [address] = process.argv.slice(2)
globalThis.WebSocket = WebSocket

const { Effect, Layer, ManagedRuntime, Schema } = effect
const { EventGroup, EventJournal, EventLog, EventLogEncryption } = eventlog

const Todos = EventGroup.empty.add({
  tag: "TodoAdded",
  primaryKey: (todo) => todo.id,
  payload: Schema.Struct({ id: Schema.String, title: Schema.String })
})
const schema = EventLog.schema(Todos)
const identity = Layer.effect(EventLog.Identity, EventLog.makeIdentity).pipe(
  Layer.provide(EventLogEncryption.layerSubtle)
)

const readme = readFileSync(new URL("../../README.md", import.meta.url), "utf8")
const source = readme.match(/^```ts\n(.*?)^```/ms)[1]

const start = () => {
  const titles = []
  const names = {
    ...effect,
    ...eventlog,
    ...reactivity,
    ...rpc,
    // What only a browser has, and the address of this test.
    EventJournal: { ...EventJournal, layerIndexedDb: () => EventJournal.layerMemory },
    Socket: { ...Socket, layerWebSocket: (url) => Socket.layerWebSocket(url.replace("127.0.0.1:7420", address)) },
    handlers: EventLog.group(Todos, (on) =>
      on.handle("TodoAdded", ({ payload }) => Effect.sync(() => titles.push(payload.title)))),
    identity,
    schema
  }
  const make = new Function(...Object.keys(names), `${source}; return { client, program }`)
  const { client, program } = make(...Object.values(names))
  return { titles, program, runtime: ManagedRuntime.make(client) }
}

const [one, other] = [start(), start()]
await step("what one writes, the other is told of", async () => {
  await other.runtime.runPromise(Effect.void)
  await one.runtime.runPromise(one.program)
  await until("the other's handler", () => other.titles.length === 1)
  if (other.titles[0] !== "Buy milk") throw new Error(other.titles[0])
})
await Promise.all([one.runtime.dispose(), other.runtime.dispose()])
process.exit(0)
