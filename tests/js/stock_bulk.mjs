// Unmodified clients of `effect` 4.1 with what clients can have written before they are connected: exits with an error at the first
// thing that is not taken.
//
//   node stock_bulk.mjs HOST:PORT

import assert from "node:assert/strict"

import { Browser, makeIdentity, step, until } from "./stock.mjs"

const [address] = process.argv.slice(2)
assert.ok(address, "usage: node stock_bulk.mjs HOST:PORT")
const url = `ws://${address}/rpc`

const reads = async (what, text) => {
  const reader = await Browser.open(url, await makeIdentity())
  await until(what, () => reader.state().some((note) => note.text === text))
  const { notes } = reader
  await reader.close()
  return notes
}

await step("whatever the primary keys are, what is written after them arrives", async () => {
  const keys = ["", "\u{1f600}".slice(0, 1), "\0", "k".repeat(4_096), "k".repeat(4_097), "k".repeat(1_000_000)]
  const writer = await Browser.open(url, await makeIdentity())
  for (const key of keys) await writer.set(key, "before")
  await writer.set("after", "after")
  const notes = await reads("after", "after")
  // An encoder has no bytes for half of a pair: it writes the replacement character.
  assert.deepEqual([...notes.keys()].sort(), [...keys.with(1, "\ufffd"), "after"].sort())
  await writer.close()
})

process.exit(0)
