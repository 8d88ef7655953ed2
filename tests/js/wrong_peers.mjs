// Clients that use the wrong path or another format, each as an application has it. Checks that they fail, and how.
//
//   node wrong_peers.mjs ADDRESS UNMAPPED_KEY

import assert from "node:assert/strict"
import { Context, Effect, Exit, Layer, Scope } from "effect-4.1"
import { EventLog, EventLogEncryption, EventLogRemote } from "effect-4.1/eventlog"
import { RpcClient, RpcSerialization } from "effect-4.1/rpc"
import { Socket } from "effect-4.1/socket"
import * as Beta from "effect"
import * as BetaJournal from "effect/unstable/eventlog/EventJournal"
import * as BetaRemote from "effect/unstable/eventlog/EventLogRemote"
import * as BetaRpc from "effect/unstable/rpc"
import * as BetaSocket from "effect/unstable/socket/Socket"
import WebSocket from "ws"

import { Client } from "./client.mjs"
import { DEFAULT_STORE, entry, makeIdentity, step } from "./stock.mjs"

const [address, unmapped] = process.argv.slice(2)
assert.ok(unmapped, "usage: node wrong_peers.mjs ADDRESS UNMAPPED_KEY")
const at = (path) => `ws://${address}${path}`

const webSocket = Layer.succeed(Socket.WebSocketConstructor, (url) => new WebSocket(url))

const protocol = (path, serialization) =>
  RpcClient.layerProtocolSocket().pipe(
    Layer.provide(serialization),
    Layer.provide(Layer.effect(Socket.Socket, Socket.makeWebSocket(at(path)))),
    Layer.provide(webSocket)
  )

// All messages of an error, including its causes.
const said = (exit) => {
  assert.ok(Exit.isFailure(exit), "it has to fail")
  const texts = []
  const seen = new Set()
  const visit = (value) => {
    if (typeof value === "string") texts.push(value)
    if (typeof value !== "object" || value === null || seen.has(value)) return
    seen.add(value)
    Object.getOwnPropertyNames(value).forEach((name) => name !== "stack" && visit(value[name]))
  }
  visit(exit.cause)
  return texts.join("\n")
}

// How the first call of a client of Effect 4.1 fails. It never hangs.
const hello = async (path, serialization) => {
  const layer = EventLogRemote.EventLogRemoteClient.layer.pipe(Layer.provide(protocol(path, serialization)))
  const program = EventLogRemote.EventLogRemoteClient.pipe(
    Effect.flatMap((client) => client["EventLog.Hello"]()),
    Effect.timeout("15 seconds"),
    Effect.provide(layer)
  )
  return said(await Effect.runPromise(Effect.exit(program)))
}

await step("Effect 4.1 at the path of the msgpack protocol", async () => {
  assert.match(await hello("/eventlog", RpcSerialization.layerSchemaBinary()), /connect it to \/rpc/)
})

const serializations = {
  json: RpcSerialization.layerJson,
  ndjson: RpcSerialization.layerNdjson,
  jsonRpc: RpcSerialization.layerJsonRpc(),
  ndJsonRpc: RpcSerialization.layerNdJsonRpc()
}
for (const [name, serialization] of Object.entries(serializations)) {
  await step(`Effect 4.1 with ${name}`, async () => {
    assert.match(await hello("/rpc", serialization), /in JSON: .*RpcSerialization\.layerSchemaBinary\(\)/)
    // There, the server sends the first message, and such a client cannot read it.
    await hello("/eventlog", serialization)
  })
}

// An RPC client of Effect 4.0, whose serialization may be msgpack.
const Rpcs = BetaRpc.RpcGroup.make(BetaRpc.Rpc.make("EventLog.Hello", { success: Beta.Schema.String }))
const betaSocket = (path) =>
  Beta.Layer.effect(BetaSocket.Socket)(BetaSocket.makeWebSocket(at(path))).pipe(
    Beta.Layer.provide(Beta.Layer.succeed(BetaSocket.WebSocketConstructor)((url) => new WebSocket(url)))
  )

await step("Effect 4.0 with RpcSerialization.layerMsgPack", async () => {
  for (const path of ["/rpc", "/eventlog"]) {
    const layer = BetaRpc.RpcClient.layerProtocolSocket().pipe(
      Beta.Layer.provide(BetaRpc.RpcSerialization.layerMsgPack),
      Beta.Layer.provide(betaSocket(path))
    )
    const program = BetaRpc.RpcClient.make(Rpcs).pipe(
      Beta.Effect.flatMap((client) => client["EventLog.Hello"]()),
      Beta.Effect.timeout("15 seconds"),
      Beta.Effect.scoped,
      Beta.Effect.provide(layer)
    )
    const exit = await Beta.Effect.runPromise(Beta.Effect.exit(program))
    assert.match(said(exit), /in msgpack: .*RpcSerialization\.layerSchemaBinary\(\)/)
  }
})

// How a connection ends if the client sends this first.
const closed = (path, message) =>
  new Promise((resolve, reject) => {
    const socket = new WebSocket(at(path))
    socket.on("open", () => socket.send(message))
    socket.on("close", (code, reason) => resolve(`${code} ${reason}`))
    socket.on("error", reject)
    setTimeout(() => reject(new Error("it hangs")), 15_000)
  })

const encodedByBeta = (request) => Beta.Effect.runPromise(BetaRemote.encodeRequest(request))

// It sends nothing before it has received a hello, except a ping after ten seconds.
await step("an event log of Effect 4.0 beta at the path of RPC", async () => {
  const ping = await encodedByBeta(new BetaRemote.Ping({ id: 1 }))
  assert.match(await closed("/rpc", ping), /^1003 .*connect it to \/eventlog/)
})

// The error with which a write of an event log is refused.
const refused = async (make, identity) => {
  const scope = Effect.runSync(Scope.make())
  const layer = EventLogRemote.EventLogRemoteClient.layer.pipe(
    Layer.provide(protocol("/rpc", RpcSerialization.layerSchemaBinary())),
    Layer.merge(EventLog.layerRegistry),
    Layer.merge(EventLogEncryption.layerSubtle)
  )
  const context = Context.add(await Effect.runPromise(Layer.buildWithScope(layer, scope)), Scope.Scope, scope)
  const run = (effect) => Effect.runPromise(Effect.provide(effect, context))
  const remote = await run(make)
  const write = remote.write({ identity, storeId: DEFAULT_STORE, entries: [entry("E", "k")] })
  const first = said(await run(Effect.exit(write)))
  // It retries forever.
  assert.equal(said(await run(Effect.exit(write))), first)
  await Effect.runPromise(Scope.close(scope, Exit.void))
  return first
}

const identity = await makeIdentity()

await step("an event log of Effect 4.1 that encrypts its entries", async () => {
  const mapped = { ...identity, publicKey: "mapped" }
  assert.match(await refused(EventLogRemote.makeEncrypted, mapped), /encrypted: .*EventLogRemote\.layerUnencrypted/)
})

await step("a public key that nobody assigned", async () => {
  assert.match(await refused(EventLogRemote.makeUnencrypted, { ...identity, publicKey: unmapped }), /NotFound/)
})

await step("an event log of Effect 4.0 beta, which always encrypts", async () => {
  const client = await Client.connect(at("/eventlog"), "beta")
  const encryptedEntries = [{ entryId: BetaJournal.makeEntryIdUnsafe(), encryptedEntry: new Uint8Array(40) }]
  const write = { publicKey: "beta", id: 7, iv: new Uint8Array(12), encryptedEntries }
  for (const _ of [1, 2]) {
    client.socket.send(await encodedByBeta(new BetaRemote.WriteEntries(write)))
    const error = await client.next("Error")
    assert.deepEqual([error.id, error.publicKey, error.code], [7, "beta", "InvalidRequest"])
    assert.match(error.message, /^encrypted: /)
  }
  client.close()
})

process.exit(0)
