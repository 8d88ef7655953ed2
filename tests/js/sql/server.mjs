// Effect's own server on PostgreSQL, as an application would run it. Every part comes from the package, except the twenty lines that
// pass WebSockets to it.
//
//   node server.mjs PORT DATABASE_URL STORE
//
// Lets everyone in, and maps every key to STORE. Prints `listening PORT`, and ends when its input is closed.

import { Effect, Layer, Redacted } from "effect"
import * as PgClient from "@effect/sql-pg/PgClient"
import { EventLogMessage, EventLogServerUnencrypted, SqlEventLogServerUnencrypted } from "effect/eventlog"
import { RpcSerialization, RpcServer } from "effect/rpc"
import { Socket, SocketServer } from "effect/socket"
import { EventLog } from "effect/eventlog"
import { WebSocketServer } from "ws"

const [port, url, store] = process.argv.slice(2)

const sockets = Layer.effect(
  SocketServer.SocketServer,
  Effect.gen(function*() {
    const server = new WebSocketServer({ port: Number(port), host: "127.0.0.1" })
    yield* Effect.promise(() => new Promise((resolve) => server.once("listening", resolve)))
    yield* Effect.addFinalizer(() => Effect.sync(() => server.close()))
    const address = server.address()
    return SocketServer.SocketServer.of({
      address: { _tag: "TcpAddress", hostname: "127.0.0.1", port: address.port },
      run: (handler) =>
        Effect.gen(function*() {
          const context = yield* Effect.context()
          server.on("connection", (ws) => {
            const socket = Socket.fromWebSocket(
              Effect.acquireRelease(Effect.succeed(ws), (ws) => Effect.sync(() => ws.close()))
            )
            Effect.runForkWith(context)(Effect.ignore(Effect.flatMap(socket, handler)))
          })
          console.log(`listening ${address.port}`)
          return yield* Effect.never
        })
    })
  })
)

const everybody = Layer.succeed(EventLogServerUnencrypted.EventLogServerAuthorization, {
  authorizeWrite: () => Effect.void,
  authorizeRead: () => Effect.void,
  authorizeIdentity: () => Effect.void
})

const server = RpcServer.layer(EventLogMessage.EventLogRemoteRpcs).pipe(
  Layer.provide(EventLogServerUnencrypted.layerRpcHandlers),
  Layer.provide(RpcServer.layerProtocolSocketServer),
  Layer.provide(sockets),
  Layer.provide(RpcSerialization.layerSchemaBinary()),
  Layer.provide(everybody),
  Layer.provide(
    EventLogServerUnencrypted.layerStoreMappingStatic({ storeId: EventLogMessage.StoreId.make(store) })
  ),
  Layer.provide(EventLog.layerRegistry),
  Layer.provide(SqlEventLogServerUnencrypted.layerStorage()),
  Layer.provide(PgClient.layer({ url: Redacted.make(url), maxConnections: 10 }))
)

process.stdin.on("end", () => process.exit(0)).resume()
Effect.runFork(Layer.launch(server).pipe(Effect.tapCause((cause) => Effect.sync(() => console.error(cause)))))
