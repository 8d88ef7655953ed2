// Clients of `effect` 4.1 as an application has them: every part comes from the package, and nothing is patched.

import { generateKeyPairSync, sign } from "node:crypto"
import { createInterface } from "node:readline"
import { Cause, Context, Effect, Exit, Layer, Queue, Redacted, Schema, Scope } from "effect-4.1"
import {
  EventGroup,
  EventJournal,
  EventLog,
  EventLogEncryption,
  EventLogMessage,
  EventLogRemote,
  EventLogSessionAuth
} from "effect-4.1/eventlog"
import { RpcClient, RpcSerialization } from "effect-4.1/rpc"
import { Socket } from "effect-4.1/socket"
import WebSocket from "ws"

// Everything that happens at all happens sooner than this, also on a slow and busy machine.
export const PATIENCE_MILLIS = 60_000

export const DEFAULT_STORE = EventLogMessage.StoreId.make("default")
export const storeId = (name) => EventLogMessage.StoreId.make(name)

// `headers` are those that a browser adds to each handshake by itself: the current cookies.
const webSocket = (headers) =>
  Layer.succeed(Socket.WebSocketConstructor, (url) => new WebSocket(url, { headers: headers() }))

const protocol = (url, headers = () => ({})) =>
  RpcClient.layerProtocolSocket().pipe(
    Layer.provide(RpcSerialization.layerSchemaBinary()),
    Layer.provide(Layer.effect(Socket.Socket, Socket.makeWebSocket(url))),
    Layer.provide(webSocket(headers))
  )

export const makeIdentity = () =>
  Effect.runPromise(Effect.provide(EventLog.makeIdentity, EventLogEncryption.layerSubtle))

// The same public key with another secret, and therefore with another signing key.
export const impostorOf = async ({ publicKey }) => {
  const { privateKey } = await makeIdentity()
  return { publicKey, privateKey: Redacted.make(Redacted.value(privateKey)) }
}

// A payload as all clients of this kind write it: one frame. Here, it contains bytes.
export const payload = (bytes) => {
  const body = Buffer.concat([Buffer.from([0x20]), bytes])
  const length = []
  let rest = body.length
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) length.push((rest % 0x80) | 0x80)
  return new Uint8Array(Buffer.concat([Buffer.from([...length, rest]), body]))
}

export const entry = (event, primaryKey, bytes = Buffer.alloc(0)) =>
  new EventJournal.Entry({
    id: EventJournal.makeEntryIdUnsafe(),
    event,
    primaryKey,
    payload: payload(bytes)
  })

// A test case. Prints its name when it succeeds, and how long it took.
export const step = async (name, run) => {
  const began = performance.now()
  try {
    await run()
  } catch (error) {
    // Whoever runs the script shows what it printed.
    console.log(`failed: ${name}\n${error.stack}`)
    throw error
  }
  console.log(`ok: ${name} (${((performance.now() - began) / 1000).toFixed(1)} s)`)
}

// Asks the caller of the script to restart the server, and resolves when that is done.
export const restarter = () => {
  const restarted = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
  return async () => {
    console.log("restart")
    await restarted.next()
  }
}

export const pause = (millis) => new Promise((resolve) => setTimeout(resolve, millis))

export const until = async (what, holds, millis = PATIENCE_MILLIS) => {
  const deadline = Date.now() + millis
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`waited in vain: ${what}`)
    await pause(20)
  }
}

// The error with which an effect is refused: the package's protocol error.
const refusalOf = (exit) => {
  if (Exit.isSuccess(exit)) throw new Error("expected a refusal")
  let error = Cause.squash(exit.cause)
  while (error?._tag === "EventLogRemoteError") error = error.cause
  if (error?._tag !== "EventLogProtocolError") throw error
  return error
}

// Runs effects in their own scope, until it is closed.
class Scoped {
  static async with(layer) {
    const scope = Effect.runSync(Scope.make())
    const context = await Effect.runPromise(Layer.buildWithScope(Layer.fresh(layer), scope))
    return new this(scope, Context.add(context, Scope.Scope, scope))
  }

  constructor(scope, context) {
    this.scope = scope
    this.context = context
  }

  run(effect) {
    return Effect.runPromise(Effect.provide(effect, this.context))
  }

  async refused(effect) {
    return refusalOf(await this.run(Effect.exit(effect)))
  }

  close() {
    return Effect.runPromise(Scope.close(this.scope, Exit.void))
  }
}

// One WebSocket with the calls of the protocol, for handshakes that no remote of the package would make.
export class Calls extends Scoped {
  static connect(url) {
    return Calls.with(EventLogRemote.EventLogRemoteClient.layer.pipe(Layer.provide(protocol(url))))
  }

  get client() {
    return Context.get(this.context, EventLogRemote.EventLogRemoteClient)
  }

  hello() {
    return this.run(this.client["EventLog.Hello"]())
  }

  authenticate(claim) {
    return this.client["EventLog.Authenticate"](claim)
  }
}

export const signingKey = () => {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519")
  const raw = publicKey.export({ format: "der", type: "spki" }).subarray(-32)
  return { privateKey, publicKey: new Uint8Array(raw) }
}

// The answer to `hello`. It is signed with `key`, and claims to be signed with `stated`.
export const claim = async (publicKey, hello, key, stated = key) => {
  const { challenge, remoteId } = hello
  const signingPublicKey = stated.publicKey
  const message = { remoteId, challenge, publicKey, signingPublicKey }
  const signed = await Effect.runPromise(EventLogSessionAuth.encodeSessionAuthPayload(message))
  return new EventLogMessage.Authenticate({
    publicKey,
    signingPublicKey,
    signature: new Uint8Array(sign(null, signed, key.privateKey)),
    algorithm: "Ed25519"
  })
}

// A remote: it says hello, authenticates if required, splits large writes, and joins large changes.
export class Remote extends Scoped {
  static async connect(url, identity, headers) {
    const layer = EventLogRemote.EventLogRemoteClient.layer.pipe(
      Layer.provide(protocol(url, headers)),
      Layer.merge(EventLog.layerRegistry),
      Layer.merge(EventLogEncryption.layerSubtle)
    )
    const remote = await this.with(layer)
    remote.identity = identity ?? (await makeIdentity())
    remote.remote = await remote.run(EventLogRemote.makeUnencrypted)
    return remote
  }

  writing(entries, store = DEFAULT_STORE) {
    return this.remote.write({ identity: this.identity, storeId: store, entries })
  }

  // The acknowledged sequences, which must be those of these entries in this order.
  async write(entries, store) {
    const acks = await this.run(this.writing(entries, store))
    const ids = (list) => list.map((id) => Buffer.from(id).toString("hex")).join()
    if (ids(acks.map((ack) => ack.entryId)) !== ids(entries.map((entry) => entry.id))) {
      throw new Error("acknowledgements of other entries, or in another order")
    }
    return acks.map((ack) => ack.sequence)
  }

  async subscribe(startSequence, store = DEFAULT_STORE) {
    const scope = Effect.runSync(Scope.make())
    const options = { identity: this.identity, storeId: store, startSequence }
    const queue = await this.run(Scope.provide(this.remote.changes(options), scope))
    return new Feed(queue, scope)
  }
}

// The sequences that the package's remote delivers if it asks for `startSequence` and the server sends all of these.
export const arrived = async (entries, startSequence) => {
  const identity = await makeIdentity()
  const remoteEntries = entries.map((one) => new EventJournal.RemoteEntry(one))
  const data = await Effect.runPromise(EventLogMessage.ChangesRpc.encodeUnencrypted(remoteEntries))
  const client = {
    "EventLog.Hello": () => Effect.succeed({ remoteId: new Uint8Array(16), challenge: new Uint8Array(32) }),
    "EventLog.Authenticate": () => Effect.void,
    "EventLog.Changes": () =>
      Effect.tap(Queue.unbounded(), (queue) => Queue.offer(queue, { _tag: "Single", data }))
  }
  const program = Effect.gen(function*() {
    const remote = yield* EventLogRemote.makeUnencrypted
    const changes = yield* remote.changes({ identity, storeId: DEFAULT_STORE, startSequence })
    return yield* Queue.takeAll(changes)
  })
  const got = await Effect.runPromise(program.pipe(
    Effect.scoped,
    Effect.provideService(EventLogRemote.EventLogRemoteClient, client),
    Effect.provide(EventLog.layerRegistry),
    Effect.provide(EventLogEncryption.layerSubtle)
  ))
  return got.map(({ remoteSequence }) => remoteSequence)
}

class Feed {
  constructor(queue, scope) {
    this.queue = queue
    this.scope = scope
    this.entries = []
    this.taking = this.take()
  }

  async take() {
    for (;;) {
      const exit = await Effect.runPromise(Effect.exit(Queue.takeAll(this.queue)))
      if (Exit.isFailure(exit)) {
        this.end = exit
        return
      }
      this.entries.push(...exit.value)
    }
  }

  // All received entries, once there are this many.
  async next(count) {
    await until(`${count} entries`, () => this.entries.length >= count || this.end)
    return this.entries.splice(0)
  }

  async refused() {
    await until("the end of a feed", () => this.end)
    return refusalOf(this.end)
  }

  // The client needs it no longer, so it sends an `Interrupt`.
  close() {
    return Effect.runPromise(Scope.close(this.scope, Exit.void))
  }
}

const Notes = EventGroup.empty
  .add({
    tag: "NoteSet",
    primaryKey: (note) => note.key,
    payload: Schema.Struct({
      key: Schema.String,
      text: Schema.String,
      stars: Schema.optional(Schema.Int)
    })
  })
  .add({
    tag: "NoteRemoved",
    primaryKey: (note) => note.key,
    payload: Schema.Struct({ key: Schema.String })
  })

const schema = EventLog.schema(Notes)

// A browser with the application open: its journal, its handlers, and what they built from the events.
export class Browser extends Scoped {
  static async open(url, identity, headers) {
    const journal = await Effect.runPromise(EventJournal.makeMemory)
    return Browser.withJournal(url, identity, journal, headers)
  }

  // The same, with the data that a device has kept.
  static async withJournal(url, identity, journal, headers) {
    const browser = await this.offline(identity, journal)
    await browser.connect(url, headers)
    return browser
  }

  static async offline(identity, kept) {
    const journal = kept ?? (await Effect.runPromise(EventJournal.makeMemory))
    const notes = new Map()
    // The latest event wins, in whatever order they arrive: `conflicts` are newer events of the same key.
    const apply = (tag) => ({ entry, payload, conflicts }) =>
      Effect.sync(() => {
        if (conflicts.length === 0 && !(notes.get(payload.key)?.id > entry.idString)) {
          notes.set(payload.key, { id: entry.idString, tag, ...payload })
        }
      })
    const handlers = EventLog.group(Notes, (handle) =>
      handle.handle("NoteSet", apply("set")).handle("NoteRemoved", apply("removed")))
    const log = EventLog.layer(schema, handlers).pipe(
      Layer.provide(Layer.succeed(EventJournal.EventJournal, journal)),
      Layer.provide(Layer.succeed(EventLog.Identity, identity))
    )
    const app = log.pipe(
      Layer.provideMerge(EventLog.layerRegistry),
      Layer.provideMerge(EventLogEncryption.layerSubtle)
    )
    const browser = await this.with(app)
    browser.notes = notes
    Object.assign(browser, { identity, journal })
    browser.log = Context.get(browser.context, EventLog.EventLog)
    return browser
  }

  // The page is opened again: it loses what its handlers built, but keeps its journal.
  async reload(url) {
    await this.close()
    const notes = this.notes
    const again = await Browser.withJournal(url, this.identity, this.journal)
    Object.assign(this, again)
    for (const [key, note] of notes) if (!this.notes.has(key)) this.notes.set(key, note)
  }

  connect(url, headers) {
    const remote = EventLogRemote.layerUnencrypted.pipe(Layer.provide(protocol(url, headers)))
    return this.run(Layer.buildWithScope(Layer.fresh(remote), this.scope))
  }

  set(key, text, stars) {
    const payload = { key, text, ...(stars === undefined ? {} : { stars }) }
    return this.run(this.log.write({ schema, event: "NoteSet", payload }))
  }

  // Writes many events at once.
  setAll(notes) {
    return this.run(this.log.writeMany({ schema, events: notes.map((payload) => ({ event: "NoteSet", payload })) }))
  }

  remove(key) {
    return this.run(this.log.write({ schema, event: "NoteRemoved", payload: { key } }))
  }

  async ids() {
    const entries = await this.run(this.log.entries)
    return entries.map((entry) => entry.idString).sort()
  }

  // The state that the user sees.
  state() {
    const notes = [...this.notes.values()].sort((a, b) => (a.key < b.key ? -1 : 1))
    return notes.map(({ key, tag, text, stars }) => ({ key, tag, text, stars }))
  }
}
