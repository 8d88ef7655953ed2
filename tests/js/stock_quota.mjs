// Unmodified clients of `effect` 4.1 whose keys and store have a quota. Exits with an error at the first failure.
//
//   node stock_quota.mjs HOST:PORT ADMIN_TOKEN
//
// Two keys may authenticate, and three after a restart. Each may have 2 subscriptions, and 2 writes and 20,000 bytes a second (those
// of one second may come at once). The store may hold a million bytes. When this prints `restart`, the caller kills the server, starts
// it at the same address with the same data and a limit of two million bytes for the store, and writes a line.

import assert from "node:assert/strict"

import { Browser, makeIdentity, pause, restarter, step, until } from "./stock.mjs"

const [address, token] = process.argv.slice(2)
assert.ok(token, "usage: node stock_quota.mjs HOST:PORT ADMIN_TOKEN")
const url = `ws://${address}/rpc`
const restart = restarter()

// The sum over all labels, or over those that contain this one.
const metric = async (name, label = "") => {
  const text = await (await fetch(`http://${address}/metrics`)).text()
  const lines = text.matchAll(new RegExp(`^eventlog_${name}(?:_total)?({.*})? (\\d+)`, "gm"))
  return [...lines].filter(([, labels = ""]) => labels.includes(label)).reduce((sum, line) => sum + Number(line[2]), 0)
}
// A client that was refused several times pauses for ten seconds, and needs five more until it is connected again.
const shows = (browser, key, text) =>
  until(`${key} arrives`, () => browser.state().some((note) => note.key === key && note.text === text), 60_000)

const [ann, bob] = [await makeIdentity(), await makeIdentity()]
const anns = [await Browser.open(url, ann), await Browser.open(url, ann)]
const bobs = await Browser.open(url, bob)

await step("a client that writes faster than its share is slowed down, and notices nothing", async () => {
  for (let n = 0; n < 40; n++) {
    await anns[0].set(`k${n}`, `text ${n}`)
    await pause(50)
  }
  await shows(bobs, "k39", "text 39")
  assert.ok((await metric("quota_held")) > 0)
  assert.equal(await metric("requests_refused"), 0)
  assert.equal(await metric("connections_accepted"), 3)
})

await step("a backlog above its burst is taken, and what follows comes when it is made up for", async () => {
  await anns[0].set("large", "x".repeat(200_000))
  await shows(bobs, "large", "x".repeat(200_000))
  const from = Date.now()
  await anns[0].set("small", "behind it")
  await shows(bobs, "small", "behind it")
  console.log(`${await metric("quota_refused")} refusals in ${(Date.now() - from) / 1000} s`)
  assert.ok((await metric("quota_refused")) > 0)
  assert.ok((await metric("quota_refused")) < 20)
  assert.equal(await metric("connections_accepted"), 3)
})

await step("a device above the number of subscriptions writes, and is served when another one goes", async () => {
  await bobs.set("before", "the third device")
  const third = await Browser.open(url, ann)
  await third.set("third", "from the third device")
  await shows(bobs, "third", "from the third device")
  assert.deepEqual(third.state().map(({ key }) => key), ["third"])
  await anns.pop().close()
  anns.push(third)
  await shows(third, "before", "the third device")
})

await step("where the store is full its readers go on, and who writes tries again every few seconds", async () => {
  await anns[0].set("too large", "y".repeat(900_000))
  await until("a refusal", async () => (await metric("quota_refused", "store")) > 0)
  await bobs.set("fits", "still some room")
  await shows(anns[0], "fits", "still some room")
  // Its pauses are longer by then.
  await pause(8_000)
  const before = await metric("quota_refused", "store")
  await pause(6_000)
  const refused = (await metric("quota_refused", "store")) - before
  console.log(`${refused} refusals in 6 s`)
  assert.ok(refused <= 3)
})

let carols
await step("somebody new who is one too many tries again every few seconds", async () => {
  carols = await Browser.open(url, await makeIdentity())
  await carols.set("new", "from somebody new")
  await until("a refusal", async () => (await metric("identities_refused")) > 0)
  await pause(3_000)
  console.log(`${await metric("identities_refused")} refusals in 3 s`)
  assert.ok((await metric("identities_refused")) < 25)
  assert.deepEqual(carols.state().map(({ key }) => key), ["new"])
})

await step("and what they have goes on once the store may hold more, and there may be more keys", async () => {
  await restart()
  await shows(bobs, "new", "from somebody new")
  await shows(carols, "k39", "text 39")
  await shows(bobs, "too large", "y".repeat(900_000))
  await shows(anns[1], "too large", "y".repeat(900_000))
})

process.exit(0)
