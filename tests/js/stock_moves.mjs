// Unmodified clients of `effect` 4.1, and one of the msgpack protocol, whose key is moved to another store while they are
// online or offline. Exits with an error at the first failure.
//
//   node stock_moves.mjs HOST:PORT ADMIN_TOKEN
//
// The server lets everyone in and has no keys. When this prints `restart`, the caller kills the server, starts it at the
// same address with the same data, and writes a line.

import assert from "node:assert/strict"
import { createConnection, createServer } from "node:net"

import { Client } from "./client.mjs"
import { arrived, Browser, entry, makeIdentity, restarter, step, until } from "./stock.mjs"

const [address, token] = process.argv.slice(2)
assert.ok(token, "usage: node stock_moves.mjs HOST:PORT ADMIN_TOKEN")
const [host, port] = address.split(":")
const url = (at) => `ws://${at}/rpc`
const restart = restarter()

const admin = async (method, path, body) => {
  const headers = { authorization: `Bearer ${token}` }
  const response = await fetch(`http://${address}/admin${path}`, { method, headers, body })
  return { status: response.status, ...(await response.json()) }
}
const path = (key) => `/keys/${encodeURIComponent(key)}`
const assign = (key, storeId) => admin("PUT", path(key), JSON.stringify({ storeId }))
const remove = (key) => admin("DELETE", path(key))
const head = async (store) => (await admin("GET", `/stores/${store}`)).head

// The network path of one device to the server. It can be cut.
const wire = { open: true, sockets: new Set() }
const proxy = createServer((near) => {
  if (!wire.open) return near.destroy()
  const far = createConnection({ host, port: Number(port) })
  for (const [from, to] of [[near, far], [far, near]]) {
    wire.sockets.add(from)
    from.on("error", () => {}).on("close", () => to.destroy())
    from.pipe(to)
  }
})
await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve))
const cut = () => {
  wire.open = false
  wire.sockets.forEach((socket) => socket.destroy())
}
const mend = () => {
  wire.open = true
}

const texts = (browser) => browser.state().map(({ text }) => text).sort()
const shows = (browser, expected) =>
  until(`a device shows ${expected}`, () => texts(browser).join() === [...expected].sort().join())

const [alice, bob, carol, next] = await Promise.all([1, 2, 3, 4].map(makeIdentity))
for (const [identity, store] of [[alice, "red"], [bob, "red"], [carol, "blue"]]) {
  assert.equal((await assign(identity.publicKey, store)).status, 200)
}
// Alice has one device that stays online, and one that does not.
const online = await Browser.open(url(address), alice)
const offline = await Browser.open(url(`127.0.0.1:${proxy.address().port}`), alice)
const bobs = await Browser.open(url(address), bob)
const carols = await Browser.open(url(address), carol)
const red = ["red 1", "red 2", "red 3", "red 4", "red 5"]
const blue = ["blue 1", "blue 2", "blue 3"]
// The msgpack protocol has one of each kind too.
const old = await Client.connect(`ws://${address}/eventlog`, "old")
const away = await Client.connect(`ws://${address}/eventlog`, "old")

await step("a client drops what comes with a lower sequence than it asked for, so a new store cannot be served from its beginning", async () => {
  const entries = [1, 2, 3, 4, 5].map((remoteSequence) => ({ remoteSequence, entry: entry("Noted", "n") }))
  assert.deepEqual(await arrived(entries, 4), [4, 5])
})

await step("two stores have their devices, one of them more entries than the other", async () => {
  assert.equal((await assign("old", "red")).status, 200)
  for (const [n, text] of red.entries()) await [online, bobs, offline][n % 3].set(`r${n}`, text)
  for (const [n, text] of blue.entries()) await carols.set(`b${n}`, text)
  for (const browser of [online, offline, bobs]) await shows(browser, red)
  await until("the stores have it", async () => (await head("red")) === 5 && (await head("blue")) === 3)
  for (const client of [old, away]) {
    client.subscribe("old", 6)
    await client.ping(1)
  }
  away.close()
})

await step("a key that was used is not given to another store", async () => {
  cut()
  await offline.set("off", "written offline")
  for (const key of [alice.publicKey, "old"]) {
    assert.equal((await assign(key, "blue")).status, 409)
    assert.deepEqual(await remove(key), { status: 200, storeId: "red" })
    const refused = await assign(key, "blue")
    assert.deepEqual([refused.status, /red/.test(refused.detail)], [409, true])
  }
})

await step("nor is it after a restart", async () => {
  await restart()
  for (const key of [alice.publicKey, "old"]) assert.equal((await assign(key, "blue")).status, 409)
})

await step("without a store its devices get and give nothing, online or back from offline", async () => {
  mend()
  await online.set("on", "written without a store")
  const again = await Client.connect(`ws://${address}/eventlog`, "old")
  again.subscribe("old", 6)
  assert.equal((await again.next("Error")).code, "InvalidRequest")
  again.close()
  await bobs.set("r5", "red 6")
  await until("bob goes on", async () => (await head("red")) === 6)
  await shows(bobs, [...red, "red 6"])
  assert.deepEqual(texts(online), [...red, "written without a store"])
  assert.deepEqual(texts(offline), [...red, "written offline"])
  assert.equal(await head("blue"), 3)
})

await step("with a new key and an empty journal a device has all of the other store, and none of the first", async () => {
  for (const key of [next.publicKey, "new"]) assert.equal((await assign(key, "blue")).status, 200)
  const device = await Browser.open(url(address), next)
  await shows(device, blue)
  await device.set("b3", "blue 4")
  await shows(carols, [...blue, "blue 4"])
  await carols.set("b4", "blue 5")
  await shows(device, [...blue, "blue 4", "blue 5"])
  const fresh = await Client.connect(`ws://${address}/eventlog`, "new")
  fresh.subscribe("new", 0)
  let sequences = []
  while (sequences.length < 5) {
    sequences = sequences.concat((await fresh.next("Changes")).entries.map(({ remoteSequence }) => remoteSequence))
  }
  assert.deepEqual(sequences, [1, 2, 3, 4, 5])
  const one = entry("Noted", "n")
  assert.deepEqual((await fresh.write(1, [one])).sequences, [6])
  fresh.close()
})

await step("with their own store again all devices go on by themselves, and miss nothing", async () => {
  for (const key of [alice.publicKey, "old"]) assert.equal((await assign(key, "red")).status, 200)
  const all = [...red, "red 6", "written offline", "written without a store"]
  for (const browser of [online, offline, bobs]) await shows(browser, all)
  assert.equal(await head("red"), 8)
  const again = await Client.connect(`ws://${address}/eventlog`, "old")
  again.subscribe("old", 6)
  let sequences = []
  while (sequences.length < 3) {
    sequences = sequences.concat((await again.next("Changes")).entries.map(({ remoteSequence }) => remoteSequence))
  }
  assert.deepEqual(sequences, [6, 7, 8])
  again.close()
})

await step("a client that is moved all the same waits for sequences that never come, which is what the rule is for", async () => {
  assert.equal((await remove(alice.publicKey)).status, 200)
  assert.deepEqual(await admin("POST", `${path(alice.publicKey)}/release`), { status: 200, storeId: "red" })
  assert.equal((await assign(alice.publicKey, "blue")).status, 200)
  // It has 8 entries of its store, and the other store has 6. So it asks from 9 on, and sees only later entries.
  for (let n = 7; n <= 12; n++) await carols.set(`c${n}`, `late ${n}`)
  await until("they are stored", async () => (await head("blue")) === 12)
  await until("the last ones arrive", () => texts(online).includes("late 12"))
  const seen = texts(online).filter((text) => /^(blue|late)/.test(text))
  assert.deepEqual(seen, ["late 10", "late 11", "late 12", "late 9"])
})

process.exit(0)
