// Unmodified clients of `effect` 4.1, with everything that clients can have written before they connect. Exits with an error at the
// first write that is not accepted.
//
//   node stock_bulk.mjs HOST:PORT

import assert from "node:assert/strict"

import { Browser, entry, makeIdentity, Remote, step, until } from "./stock.mjs"

const [address] = process.argv.slice(2)
assert.ok(address, "usage: node stock_bulk.mjs HOST:PORT")
const url = `ws://${address}/rpc`

// The primary keys of all entries from `from` on, once `key` is among them.
const reads = async (key, from) => {
  const reader = await Remote.connect(url)
  const feed = await reader.subscribe(from)
  const keys = () => feed.entries.map((element) => element.entry.primaryKey)
  await until(key, () => feed.entries.at(-1)?.entry.primaryKey === key, 60_000)
  await reader.close()
  return keys()
}

await step("whatever the primary keys are, what is written after them arrives", async () => {
  const keys = ["", "\u{1f600}".slice(0, 1), "\0", "k".repeat(4_096), "k".repeat(4_097), "k".repeat(1_000_000)]
  const writer = await Browser.open(url, await makeIdentity())
  for (const key of keys) await writer.set(key, "before")
  await writer.set("after", "after")
  // An encoder cannot encode half of a surrogate pair: it writes the replacement character.
  assert.deepEqual(await reads("after", 0), [...keys.with(1, "\ufffd"), "after"])
  await writer.close()
})

// A client sends everything that it wrote before its first connection in one write. It repeats that write, with everything that
// follows, until it is accepted.
const backlog = async (count, text) => {
  const from = (await (await Remote.connect(url)).write([entry("Mark", "mark")]))[0]
  const notes = Array.from({ length: count }, (_, n) => ({ key: `note ${n}`, text }))
  const writer = await Browser.offline(await makeIdentity())
  for (let at = 0; at < count; at += 10_000) await writer.setAll(notes.slice(at, at + 10_000))
  await writer.connect(url)
  await writer.set("after", "after")
  const keys = await reads("after", from)
  assert.deepEqual(keys.slice(1), [...notes.map(({ key }) => key), "after"])
  await writer.close()
}

await step("a backlog of 41 MiB arrives, and what is written after it", () => backlog(420, "x".repeat(102_400)))

await step("a backlog of 100,001 notes arrives, and what is written after it", () => backlog(100_001, "text"))

process.exit(0)
