// Unmodified clients of `effect` 4.1 that write an entry which is too large to be stored. Exits with an error at the first failure.
// `docs/QUARANTINE.md` says what they must see.
//
//   node stock_quarantine.mjs HOST:PORT ADMIN_TOKEN
//
// An entry may have 300,000 bytes, and 2,000,000 after the first restart. When this prints `restart`, the caller kills the server, starts
// it at the same address with the same data, and writes a line.

import assert from "node:assert/strict"

import { Browser, makeIdentity, pause, restarter, step, until } from "./stock.mjs"

const [address, token] = process.argv.slice(2)
assert.ok(token, "usage: node stock_quarantine.mjs HOST:PORT ADMIN_TOKEN")
const url = `ws://${address}/rpc`
const restart = restarter()

const admin = async (method, path) => {
  const headers = { authorization: `Bearer ${token}` }
  const response = await fetch(`http://${address}/admin/quarantine${path}`, { method, headers })
  assert.equal(response.status, 200, await response.clone().text())
  return response
}
const listed = async () => (await (await admin("GET", "")).json()).quarantine
const metric = async (name) => {
  const text = await (await fetch(`http://${address}/metrics`)).text()
  return Number(text.match(new RegExp(`^eventlog_${name}(?:_total)? (\\d+)`, "m"))[1])
}
const keys = (browser) => browser.state().map(({ key }) => key)
const shows = (browser, key) => until(`${key} arrives`, () => keys(browser).includes(key), 60_000)

const [ann, bob] = [await makeIdentity(), await makeIdentity()]
const [writer, reader] = [await Browser.open(url, ann), await Browser.open(url, bob)]
const text = "x".repeat(400_000)

await step("what is written behind an entry that is too large arrives, and nobody is refused", async () => {
  await writer.set("before", "small")
  await writer.set("large", text)
  await writer.set("after", "small")
  await shows(reader, "after")
  assert.deepEqual(keys(reader), ["after", "before"])
  assert.deepEqual(keys(writer), ["after", "before", "large"])
  assert.equal(await metric("requests_refused"), 0)
  const [entry, ...others] = await listed()
  assert.deepEqual(others, [])
  assert.deepEqual([entry.publicKey, entry.event, entry.primaryKey], [ann.publicKey, "NoteSet", "large"])
})

await step("the client does not send it again: not as long as it runs, not when it is opened anew", async () => {
  const before = await metric("writes_acked")
  await pause(3_000)
  assert.equal(await metric("writes_acked"), before)
  await writer.reload(url)
  await writer.set("later", "small")
  await shows(reader, "later")
  assert.equal(await metric("entries_duplicate"), 0)
  assert.equal((await listed()).length, 1)
})

await step("a whole backlog with one in the middle arrives but for that one", async () => {
  const offline = await Browser.offline(await makeIdentity())
  const notes = Array.from({ length: 200 }, (_, n) => ({ key: `note ${n}`, text: n === 100 ? text : "y".repeat(9_000) }))
  await offline.setAll(notes)
  await offline.connect(url)
  await offline.set("behind the backlog", "small")
  await shows(reader, "behind the backlog")
  assert.equal(keys(reader).filter((key) => key.startsWith("note ")).length, 199)
  assert.equal((await listed()).length, 2)
  await offline.close()
})

await step("released once the limit is raised, it comes to every device, and changes nothing where it is known", async () => {
  const ids = await writer.ids()
  await restart()
  for (const { number } of await listed()) await admin("POST", `/${number}/release`)
  assert.deepEqual(await listed(), [])
  await shows(reader, "large")
  await shows(reader, "note 100")
  assert.equal(reader.state().find(({ key }) => key === "large").text, text)
  await writer.set("at last", "small")
  await shows(reader, "at last")
  await until("the writer has it all", async () => (await writer.ids()).length === (await reader.ids()).length, 60_000)
  const now = new Set(await writer.ids())
  assert.ok(ids.every((id) => now.has(id)))
  assert.deepEqual(await writer.ids(), await reader.ids())
  assert.deepEqual(writer.state(), reader.state())
})

process.exit(0)
