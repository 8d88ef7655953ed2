// Unmodified clients of `effect` 4.1, and one of the msgpack protocol, of a server whose data directory is replaced by an
// older copy and healed. Some keep running, some are opened again. Exits with an error at the first failure.
//
//   node stock_heal.mjs HOST:PORT ADMIN_TOKEN
//
// When this prints `copy`, the caller stops the server, copies its data and starts it again. When this prints `restore`, the caller
// puts that copy back, heals it, and starts the server at the same address. Then the caller writes a line.

import assert from "node:assert/strict"
import { createInterface } from "node:readline"

import { Client } from "./client.mjs"
import { Browser, entry, makeIdentity, step, until } from "./stock.mjs"

const [address, token] = process.argv.slice(2)
assert.ok(token, "usage: node stock_heal.mjs HOST:PORT ADMIN_TOKEN")
const url = `ws://${address}/rpc`
const JUMP = 1_000_000_000

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const ask = async (what) => {
  console.log(what)
  await lines.next()
}

const head = async () => {
  const headers = { authorization: `Bearer ${token}` }
  return (await (await fetch(`http://${address}/admin/stores/default`, { headers })).json()).head
}

const texts = (browser) => browser.state().map(({ text }) => text).sort()
const shows = (browser, expected) =>
  until(`a device shows ${expected}`, () => texts(browser).join() === [...expected].sort().join())

const [alice, bob, reader] = await Promise.all([1, 2, 3].map(makeIdentity))
const alices = await Browser.open(url, alice)
const bobs = await Browser.open(url, bob)
const watching = await Browser.open(url, reader)
const all = [alices, bobs, watching]
const old = await Client.connect(`ws://${address}/eventlog`, "old")

const write = async (browser, names) => {
  for (const name of names) await browser.set(name, name)
}

await step("before the copy, everybody has everything", async () => {
  await write(alices, ["a1", "a2"])
  await write(bobs, ["b1"])
  for (const browser of all) await shows(browser, ["a1", "a2", "b1"])
})

await ask("copy")

await step("what comes after the copy is acknowledged and seen by all", async () => {
  await write(alices, ["a3", "a4", "a5"])
  await write(bobs, ["b2"])
  for (const browser of all) await shows(browser, ["a1", "a2", "a3", "a4", "a5", "b1", "b2"])
  await until("all of it is stored", async () => (await head()) === 7)
})

await ask("restore")

await step("the directory has another remote id, and its stores go on far above", async () => {
  const again = await Client.connect(`ws://${address}/eventlog`, "old")
  assert.notEqual(again.remoteId, old.remoteId)
  assert.equal(await head(), 3 + JUMP)
  again.close()
})

const before = ["a1", "a2", "a3", "a4", "a5", "b1", "b2"]

await step("clients that kept running miss nothing that is written now", async () => {
  await write(bobs, ["b3", "b4"])
  await write(alices, ["a6"])
  const now = [...before, "a6", "b3", "b4"]
  for (const browser of all) await shows(browser, now)
})

await step("what the copy lacks is sent again by devices that still have it, once they are opened anew", async () => {
  // Alice's device is reloaded: it keeps its journal, and connects to a server that it does not know.
  await alices.reload(url)
  await until("her journal is there again", async () => (await head()) >= 3 + JUMP + 3 + 3)
  const fresh = await Browser.open(url, await makeIdentity())
  await shows(fresh, [...before, "a6", "b3", "b4"])
  await fresh.set("f1", "f1")
  for (const browser of [alices, bobs, watching, fresh]) await shows(browser, [...before, "a6", "b3", "b4", "f1"])
  const ids = await Promise.all([alices, bobs, watching, fresh].map((browser) => browser.ids()))
  for (const journal of ids) assert.deepEqual(journal, ids[0])
})

await step("a client of the msgpack protocol reads it all, in order, over the gap", async () => {
  const again = await Client.connect(`ws://${address}/eventlog`, "new")
  again.subscribe("new", 0)
  let sequences = []
  while (sequences.length < 11) {
    sequences = sequences.concat((await again.next("Changes")).entries.map(({ remoteSequence }) => remoteSequence))
  }
  assert.deepEqual(sequences.slice(0, 4), [1, 2, 3, 4 + JUMP])
  assert.ok(sequences.every((sequence, n) => n === 0 || sequence > sequences[n - 1]))
  const one = entry("Noted", "n")
  assert.deepEqual((await again.write(1, [one])).sequences, [sequences.at(-1) + 1])
  again.close()
})

process.exit(0)
