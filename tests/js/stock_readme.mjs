// Runs the client of docs/BROWSER.md twice, unchanged: each receives what the other writes. Most of it is in the README too.

import { readFileSync } from "node:fs"
import * as effect from "effect-4.1"
import * as eventlog from "effect-4.1/eventlog"
import * as reactivity from "effect-4.1/reactivity"
import * as rpc from "effect-4.1/rpc"
import { Socket } from "effect-4.1/socket"
import WebSocket from "ws"
import { step, until } from "./stock.mjs"

const [address] = process.argv.slice(2)

const fences = (page) =>
  [...readFileSync(new URL(`../../${page}`, import.meta.url), "utf8").matchAll(/^```ts\n(.*?)^```/gms)].map((it) => it[1])
const program = fences("docs/BROWSER.md").find((fence) => fence.startsWith("import"))
const [shown] = fences("README.md")

await step("the README shows what the page has", async () => {
  if (!program.includes(shown)) throw new Error(shown)
})

const imported = [...program.matchAll(/^import \{(.*)\}/gm)].flatMap(([, names]) => names.split(",").map((name) => name.trim()))
const packages = { ...effect, ...eventlog, ...reactivity, ...rpc, Socket }

// Replaces what only a browser has, and the address.
globalThis.WebSocket = WebSocket
const start = () => {
  const [titles, kept] = [[], new Map()]
  const names = {
    ...Object.fromEntries(imported.map((name) => [name, packages[name]])),
    EventJournal: { ...eventlog.EventJournal, layerIndexedDb: () => eventlog.EventJournal.layerMemory },
    Socket: { ...Socket, layerWebSocket: (url) => Socket.layerWebSocket(url.replace("127.0.0.1:7420", address)) },
    console: { log: (title) => titles.push(title) },
    localStorage: { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value) }
  }
  new Function(...Object.keys(names), program.replace(/^import .*$/gm, ""))(...Object.values(names))
  return { titles, kept }
}

const clients = [start(), start()]
await step("what one writes, the other is told of", async () => {
  for (const { titles, kept } of clients) {
    await until("both entries", () => titles.length === 2)
    if (titles.some((title) => title !== "Buy milk")) throw new Error(titles.join())
    if (kept.size !== 1) throw new Error("the identity is not kept")
  }
})
process.exit(0)
