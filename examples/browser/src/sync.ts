// The event log of this browser: a journal on this machine, and a server that is shared with others.
//
// An application of this kind needs these six parts: identity, journal, handlers, socket, protocol, remote.

import { Cause, Effect, Layer, Logger, ManagedRuntime, Queue, Schedule, Schema } from "effect"
import { EventJournal, EventLog, EventLogEncryption, EventLogMessage, EventLogRemote } from "effect/eventlog"
import { Reactivity } from "effect/reactivity"
import { RpcClient, RpcSerialization } from "effect/rpc"
import { Socket } from "effect/socket"

import { fold, schema, type Todo, type TodoEvent, Todos } from "./todos.ts"

/** Where the application stands with the server. */
export type Status = "connecting" | "online" | "offline" | "refused"

export interface Options {
  /** `ws://…/rpc`, or an effect that makes it anew for each connection, with a token for example. */
  readonly url: string | Effect.Effect<string>
  /** Names identity and journal in this browser. */
  readonly name: string
  /** With `refused` comes the reason, in the server's words. */
  readonly onStatus: (status: Status, why?: string) => void
}

// 1. Identity: it tells the server who this device is. It is kept. To the server, a new identity is another user: the
//    server would send it this device's own entries, and it has no store until somebody assigns one.
const identity = (name: string) =>
  Layer.effect(
    EventLog.Identity,
    Effect.gen(function*() {
      const kept = localStorage.getItem(`${name}/identity`)
      if (kept !== null) return EventLog.decodeIdentityString(kept)
      const made = yield* EventLog.makeIdentity
      localStorage.setItem(`${name}/identity`, EventLog.encodeIdentityString(made))
      return made
    })
  ).pipe(Layer.provide(EventLogEncryption.layerSubtle))

// 2. Journal: every event is written here first. So the application works offline, and a reload fetches nothing again.
const journal = (name: string) => EventJournal.layerIndexedDb({ database: `${name}/journal` })

// 3. Handlers: what to do when something happens, here or elsewhere. This application builds its list from the journal
//    after each change, so its handlers only report that there was a change.
const handlers = EventLog.group(Todos, (handle) =>
  handle
    .handle("TodoAdded", () => Effect.void)
    .handle("TodoRenamed", () => Effect.void)
    .handle("TodoChecked", () => Effect.void)
    .handle("TodoRemoved", () => Effect.void)
).pipe(Layer.merge(EventLog.groupReactivity(Todos, ["todos"])))

const log = (name: string) =>
  EventLog.layer(schema, handlers).pipe(
    Layer.provideMerge(identity(name)),
    Layer.provide(journal(name)),
    Layer.provideMerge(Reactivity.layer)
  )

// 4. Socket: the browser's WebSocket. It also reports the state of the connection.
const webSocket = (onStatus: Options["onStatus"]) =>
  Layer.succeed(Socket.WebSocketConstructor, (url, options) => {
    onStatus("connecting")
    const socket = new WebSocket(url, options as string | Array<string> | undefined)
    socket.addEventListener("open", () => onStatus("online"))
    socket.addEventListener("close", ({ code, reason }) => {
      onStatus("offline")
      if (reason !== "") console.warn(`the server closed the connection: ${code} ${reason}`)
    })
    return socket
  })

// 5. Protocol: the one that the event log of effect 4.1 uses.
const protocol = ({ url, onStatus }: Options) =>
  RpcClient.layerProtocolSocket({ retryTransientErrors: true }).pipe(
    Layer.provide(RpcSerialization.layerSchemaBinary()),
    Layer.provide(Layer.effect(Socket.Socket, Socket.makeWebSocket(url))),
    Layer.provide(webSocket(onStatus))
  )

// 6. Remote: sends the server what it lacks, and fetches what the journal lacks. If the first connection fails, that is
//    an error. Here, it is tried again for as long as the page is open.
const remote = (options: Options) =>
  Layer.build(Layer.fresh(EventLogRemote.layerUnencrypted.pipe(Layer.provide(protocol(options))))).pipe(
    Effect.andThen(Effect.never),
    Effect.scoped,
    Effect.tapCause((cause) => Effect.logDebug("no connection yet", cause)),
    Effect.retry(Schedule.min([Schedule.exponential("500 millis"), Schedule.spaced("5 seconds")]))
  )

// What the server refuses while the connection is open, for example because this device has no store. The event log logs
// it, and tries again within ten seconds: if that goes well, nothing more is logged.
const refusals = (onStatus: Options["onStatus"]) => {
  let later: ReturnType<typeof setTimeout> | undefined
  const tell: Options["onStatus"] = (status, why) => {
    clearTimeout(later)
    onStatus(status, why)
  }
  const logger = Logger.make(({ cause }) => {
    const error = Cause.squash(cause)
    const refusal = EventLogRemote.EventLogRemoteError.is(error) ? error.cause : error
    if (!EventLogMessage.EventLogProtocolError.is(refusal)) return
    tell("refused", refusal.message)
    later = setTimeout(() => tell("online"), 15_000)
  })
  return { tell, layer: Logger.layer([logger], { mergeWithExisting: true }) }
}

const decoders = Object.values(Todos.events).map((event) =>
  [event.tag, Schema.decodeUnknownSync(event.payloadSchemaBinary as never)] as const
)
const decode = new Map<string, (payload: unknown) => unknown>(decoders)

// All events that this application knows, in the order of their ids. Entries that it cannot read are left out: a newer
// version or another application wrote them.
const events = Effect.gen(function*() {
  const entries = [...(yield* (yield* EventLog.EventLog).entries)]
  entries.sort((a, b) => (a.idString < b.idString ? -1 : 1))
  return entries.flatMap(({ event, payload }): Array<TodoEvent> => {
    try {
      return [{ tag: event, payload: decode.get(event)!(payload) } as TodoEvent]
    } catch {
      return []
    }
  })
})

// Runs `look` at the start and after changes, one at a time and at most every 50 ms: a device that was away gets
// thousands of events at once.
const whenever = <A, E, R>(reactivity: Reactivity.Reactivity, look: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const changed = yield* Queue.sliding<void>(1)
    yield* Effect.acquireRelease(
      Effect.sync(() => reactivity.registerUnsafe(["todos"], () => Queue.offerUnsafe(changed, undefined))),
      (unregister) => Effect.sync(unregister)
    )
    for (;;) {
      yield* look
      yield* Queue.take(changed)
      yield* Effect.sleep("50 millis")
    }
  }).pipe(Effect.scoped)

/** Opens the event log, shows the list whenever it changed, and gives back what writes an event. */
export const open = (options: Options, show: (todos: ReadonlyArray<Todo>) => void) => {
  const { tell, layer } = refusals(options.onStatus)
  const runtime = ManagedRuntime.make(Layer.provideMerge(log(options.name), layer))
  runtime.runFork(remote({ ...options, onStatus: tell }))
  const look = Effect.map(events, fold).pipe(Effect.tap((todos) => Effect.sync(() => show(todos))))
  runtime.runFork(Effect.flatMap(Reactivity.Reactivity, (reactivity) => whenever(reactivity, look)))
  return <E extends TodoEvent>({ tag, payload }: E) =>
    runtime.runPromise(Effect.flatMap(EventLog.EventLog, (log) =>
      log.write({ schema, event: tag, payload } as never)))
}
