// Effect's own unencrypted event log server on its own storage in memory. It lets everyone in.
//
//   node server.mjs PORT

import { createServer } from "node:http"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { Effect, Layer } from "effect"
import { EventGroup, EventLog, EventLogServerUnencrypted as EventLogServer } from "effect/eventlog"
import { HttpRouter } from "effect/http"
import { RpcSerialization, RpcServer } from "effect/rpc"

const port = Number(process.argv[2])

// The load generator writes none of these events, so its entries are stored as they are: no handler, no decoding.
const Events = EventGroup.empty.add({ tag: "Unused", primaryKey: () => "" })
const handlers = EventLog.group(Events, (handle) => handle.handle("Unused", () => Effect.void))

const everyone = Layer.succeed(EventLogServer.EventLogServerAuthorization, {
  authorizeWrite: () => Effect.void,
  authorizeRead: () => Effect.void,
  authorizeIdentity: () => Effect.void
})

const stores = Layer.succeed(EventLogServer.StoreMapping, {
  resolve: ({ storeId }) => Effect.succeed(storeId),
  hasStore: () => Effect.succeed(true)
})

const server = EventLogServer.layer(EventLog.schema(Events), handlers).pipe(
  Layer.provide(RpcServer.layerProtocolWebsocket({ path: "/rpc" })),
  Layer.provide(RpcSerialization.layerSchemaBinary()),
  Layer.provide(EventLogServer.layerStorageMemory),
  Layer.provide([everyone, stores])
)

const http = NodeHttpServer.layer(createServer, { port, host: "127.0.0.1" })
const announced = Layer.effectDiscard(Effect.sync(() => console.log(`listening on ws://127.0.0.1:${port}/rpc`)))

const app = HttpRouter.serve(server, { disableListenLog: true, disableLogger: true })
Effect.runFork(Layer.launch(announced.pipe(Layer.provideMerge(app), Layer.provide(http))))
