// Unmodified clients of `effect` 4.1 of a store whose beginning is trimmed: some that keep running, one that is reloaded with its
// journal, one that was away, and new ones. Exits with an error at the first failure.
//
//   node stock_trim.mjs HOST:PORT ADMIN_TOKEN

import assert from "node:assert/strict"

import { Client } from "./client.mjs"
import { Browser, makeIdentity, step, until } from "./stock.mjs"

const [address, token] = process.argv.slice(2)
assert.ok(token, "usage: node stock_trim.mjs HOST:PORT ADMIN_TOKEN")
const url = `ws://${address}/rpc`
const headers = { authorization: `Bearer ${token}` }

const store = async () => (await fetch(`http://${address}/admin/stores/default`, { headers })).json()
const trim = async (before) => {
  const body = JSON.stringify({ before })
  const answer = await fetch(`http://${address}/admin/stores/default/trim`, { method: "POST", headers, body })
  assert.equal(answer.status, 200)
  return answer.json()
}

const texts = (browser) => browser.state().map(({ text }) => text).sort()
const shows = (browser, expected) =>
  until(`a device shows ${expected}`, () => texts(browser).join() === [...expected].sort().join())

const identities = await Promise.all([1, 2, 3].map(makeIdentity))
const [alices, bobs, away] = await Promise.all(identities.map((identity) => Browser.open(url, identity)))
const all = ["a1", "a2", "a3", "b1", "b2"]

await step("before the trim, everybody has everything", async () => {
  // One after the other, so that they are stored in this order.
  for (const [at, name] of all.entries()) {
    await (name.startsWith("a") ? alices : bobs).set(name, name)
    await until(`${name} is stored`, async () => (await store()).head === at + 1)
  }
  for (const browser of [alices, bobs, away]) await shows(browser, all)
})

await step("a trim leaves what running clients have, and they go on", async () => {
  assert.equal((await trim(5)).trimmed, 4)
  const { entries, head, trimmed } = await store()
  assert.deepEqual({ entries, head, trimmed }, { entries: 1, head: 5, trimmed: 4 })
  await alices.set("a4", "a4")
  for (const browser of [alices, bobs, away]) await shows(browser, [...all, "a4"])
})

await step("a new client is served from where the feed begins, and goes on from there", async () => {
  const fresh = await Browser.open(url, await makeIdentity())
  const kept = (await Client.connect(`ws://${address}/eventlog`, "new"))
  kept.subscribe("new", 0)
  const { entries } = await kept.next("Changes")
  assert.equal(entries[0].remoteSequence, 5)
  kept.close()
  await shows(fresh, ["b2", "a4"])
  await fresh.set("f1", "f1")
  for (const browser of [alices, bobs, away]) await shows(browser, [...all, "a4", "f1"])
  await shows(fresh, ["b2", "a4", "f1"])
})

await step("a client that is reloaded with its journal keeps it, and nothing is stored twice", async () => {
  const before = await store()
  await alices.reload(url)
  await alices.set("a5", "a5")
  for (const browser of [alices, bobs, away]) await shows(browser, [...all, "a4", "f1", "a5"])
  const after = await store()
  assert.equal(after.head, before.head + 1)
  assert.equal(after.trimmed, 4)
})

process.exit(0)
