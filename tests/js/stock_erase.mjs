// Unmodified clients of `effect` 4.1 of a store from which entries are erased: some that keep running, one that is reloaded with its
// journal, and new ones. Exits with an error at the first failure.
//
//   node stock_erase.mjs HOST:PORT ADMIN_TOKEN

import assert from "node:assert/strict"

import { Client } from "./client.mjs"
import { Browser, makeIdentity, step, until } from "./stock.mjs"

const [address, token] = process.argv.slice(2)
assert.ok(token, "usage: node stock_erase.mjs HOST:PORT ADMIN_TOKEN")
const url = `ws://${address}/rpc`
const headers = { authorization: `Bearer ${token}` }

const store = async () => (await fetch(`http://${address}/admin/stores/default`, { headers })).json()
const erase = async (what) => {
  const body = JSON.stringify(what)
  const answer = await fetch(`http://${address}/admin/stores/default/erase`, { method: "POST", headers, body })
  assert.equal(answer.status, 200)
  return answer.json()
}

const texts = (browser) => browser.state().map(({ text }) => text).sort()
const shows = (browser, expected) =>
  until(`a device shows ${expected}`, () => texts(browser).join() === [...expected].sort().join())

const identities = await Promise.all([1, 2].map(makeIdentity))
const [alices, bobs] = await Promise.all(identities.map((identity) => Browser.open(url, identity)))
const all = ["a1", "b1", "a2", "a3", "b2"]

await step("before it, everybody has everything", async () => {
  // One after the other, so that they are stored in this order.
  for (const [at, name] of all.entries()) {
    await (name.startsWith("a") ? alices : bobs).set(name, name)
    await until(`${name} is stored`, async () => (await store()).head === at + 1)
  }
  for (const browser of [alices, bobs]) await shows(browser, all)
})

await step("running clients keep what they have, and go on", async () => {
  // The first one, one in the middle, and the last one.
  for (const key of ["a1", "a2", "b2"]) assert.equal((await erase({ primaryKey: key })).erased, 1)
  await alices.set("a4", "a4")
  for (const browser of [alices, bobs]) await shows(browser, [...all, "a4"])
})

await step("a new client gets all else, from 0, and goes on live past what is erased then", async () => {
  const fresh = await Browser.open(url, await makeIdentity())
  await shows(fresh, ["b1", "a3", "a4"])
  const read = await Client.connect(`ws://${address}/eventlog`, "new")
  read.subscribe("new", 0)
  const { entries } = await read.next("Changes")
  assert.deepEqual(entries[0].remoteSequence, 2)
  read.close()
  await erase({ primaryKey: "a4" })
  await fresh.set("f1", "f1")
  for (const browser of [alices, bobs]) await shows(browser, [...all, "a4", "f1"])
  await shows(fresh, ["b1", "a3", "a4", "f1"])
  const next = await Browser.open(url, await makeIdentity())
  await shows(next, ["b1", "a3", "f1"])
})

await step("a client that is reloaded with its journal brings nothing of it back", async () => {
  const before = await store()
  await alices.reload(url)
  await alices.set("a5", "a5")
  for (const browser of [alices, bobs]) await shows(browser, [...all, "a4", "f1", "a5"])
  const after = await store()
  assert.equal(after.head, before.head + 1)
  const next = await Browser.open(url, await makeIdentity())
  await shows(next, ["b1", "a3", "f1", "a5"])
})

process.exit(0)
