// The to-do application of `examples/browser` in Chromium, on two devices of two people. Exits with an error at the first
// failure.
//
//   node browser.mjs HOST:PORT ADMIN_TOKEN CHROMIUM LOGIN_HOST:PORT SECRET BACKEND_HOST:PORT
//
// The application was built before. The server lets everyone in, maps unknown keys to the store `default`, and accepts any
// origin. The server at LOGIN_HOST requires a token that is signed with SECRET. The one at BACKEND_HOST
// is the backend of the example, with an empty list. The script prints requests to its caller:
// `stop` (kill the server), `start` (start it at the same address with the same data), `copy` (make a backup), `restore`
// (the data is lost: continue with that backup). The caller does it, then writes a line.

import assert from "node:assert/strict"
import { createHmac } from "node:crypto"
import { readFile } from "node:fs/promises"
import { createServer } from "node:http"
import { extname, join } from "node:path"
import { createInterface } from "node:readline"
import { Schema } from "effect-4.1"
import { EventGroup, EventLog } from "effect-4.1/eventlog"
import { chromium } from "playwright-core"

import { PATIENCE_MILLIS, pause, step, until } from "./stock.mjs"

const [address, token, executablePath, login, secret, backend] = process.argv.slice(2)
assert.ok(backend, "usage: node browser.mjs HOST:PORT ADMIN_TOKEN CHROMIUM LOGIN_HOST:PORT SECRET BACKEND_HOST:PORT")

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const ask = async (what) => {
  console.log(what)
  await answers.next()
}
const metric = async (name) => {
  const text = await (await fetch(`http://${address}/metrics`)).text()
  return Number(text.match(new RegExp(`^\\w*${name}(?:_total)? (\\d+)`, "m"))[1])
}

const admin = (method, path, body) =>
  fetch(`http://${address}/admin/${path}`, {
    method,
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: body && JSON.stringify(body)
  })

// The built pages, on their own port, as a developer's Vite serves them.
const built = new URL("../../examples/browser/dist", import.meta.url).pathname
const types = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" }
const pages = createServer(async ({ url }, response) => {
  const path = new URL(url, "http://localhost").pathname
  const file = path === "/" ? "/index.html" : path
  const body = await readFile(join(built, file)).catch(() => undefined)
  if (body === undefined) return response.writeHead(404).end()
  response.writeHead(200, { "content-type": types[extname(file)] ?? "application/octet-stream" }).end(body)
})
await new Promise((resolve) => pages.listen(0, "127.0.0.1", resolve))
const pageOf = (server) => `http://127.0.0.1:${pages.address().port}/?server=${encodeURIComponent(server)}`
const page = pageOf(`ws://${address}/rpc`)

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] })
// A profile is the browser of one person, with its own identity and journal.
const newProfile = async () => {
  const profile = await browser.newContext()
  profile.setDefaultTimeout(PATIENCE_MILLIS)
  return profile
}
const open = async (profile, at = page) => {
  const tab = await profile.newPage()
  tab.on("pageerror", (error) => console.log(`error in the page: ${error}`))
  await tab.goto(at)
  return tab
}
const titles = (tab) => tab.locator("#todos .row input[type=text]").evaluateAll((fields) => fields.map((f) => f.value))
const shows = (tabs, expected) =>
  until(`all show ${expected}`, async () => {
    for (const tab of tabs) {
      if ((await titles(tab)).join() !== expected.join()) return false
    }
    return true
  })
const add = async (tab, title) => {
  await tab.fill("#title", title)
  await tab.click("#add button")
}
const rename = async (tab, from, to) => {
  const at = (await titles(tab)).indexOf(from)
  const field = tab.locator("#todos .row input[type=text]").nth(at)
  await field.fill(to)
  await field.press("Tab")
}
const is = (tab, status) => until(status, () => tab.evaluate((s) => document.body.dataset.status === s, status))

const [anns, bobs] = [await newProfile(), await newProfile()]
const [ann, bob] = [await open(anns), await open(bobs)]

await step("two people see the same list, live", async () => {
  await add(ann, "milk")
  await shows([ann, bob], ["milk"])
  await add(bob, "bread")
  await shows([ann, bob], ["milk", "bread"])
  await bob.locator("input[type=checkbox]").first().check()
  await until("a check", () => ann.locator("li.done").count())
})

const second = await open(anns)
await step("two tabs of one browser show the same", async () => {
  await shows([second], ["milk", "bread"])
  await add(second, "from a second tab")
  await shows([bob], ["milk", "bread", "from a second tab"])
})
await second.close()

await step("a reload shows everything, and fetches nothing again", async () => {
  // The tabs of one browser get each other's entries from the server.
  let before = -1
  await until("nothing more is sent", async () => {
    const sent = await metric("entries_sent")
    if (sent === before) return true
    before = sent
    await pause(1_000)
  })
  await bob.reload()
  await shows([bob], ["milk", "bread", "from a second tab"])
  await is(bob, "online")
  assert.equal(await metric("entries_sent"), before)
})

await step("what is done while the server is away is kept, and arrives once it is back", async () => {
  await ask("stop")
  await is(ann, "offline")
  await add(ann, "offline")
  // Once it is shown, it is in the journal.
  await shows([ann], ["milk", "bread", "from a second tab", "offline"])
  await ann.reload()
  await shows([ann], ["milk", "bread", "from a second tab", "offline"])
  await add(bob, "offline too")
  await ask("start")
  const all = ["milk", "bread", "from a second tab", "offline", "offline too"]
  await shows([ann, bob], all)
})

await step("two names at the same time: the later one counts, and the other one is shown", async () => {
  await ask("stop")
  const rest = ["bread", "from a second tab", "offline", "offline too"]
  const all = ["soy milk", ...rest]
  await rename(ann, "milk", "oat milk")
  await shows([ann], ["oat milk", ...rest])
  await rename(bob, "milk", "soy milk")
  await shows([bob], all)
  await ask("start")
  await shows([ann, bob], all)
  for (const tab of [ann, bob]) {
    await until("the conflict", async () => (await tab.locator(".conflict").innerText()).includes("oat milk"))
  }
  await ann.locator(".conflict button").click()
  await shows([ann, bob], ["oat milk", ...rest])
  await until("no conflict is left", async () => (await bob.locator(".conflict").count()) === 0)
})

await step("after a restore nothing is lost that a browser still has", async () => {
  const before = await titles(ann)
  await ask("copy")
  await add(ann, "behind the backup")
  await add(bob, "behind it as well")
  const all = [...before, "behind the backup", "behind it as well"]
  await shows([ann, bob], all)
  await ask("restore")
  // They kept running and miss nothing that is new. A new device has the content of the backup and the new events.
  await add(bob, "after the restore")
  await shows([ann, bob], [...all, "after the restore"])
  const dave = await open(await newProfile())
  await until("what is new", async () => (await titles(dave)).includes("after the restore"))
  assert.ok(!(await titles(dave)).includes("behind the backup"))
  // Each is opened again, and sends what the backup lacks.
  await ann.reload()
  await bob.reload()
  const expected = [...all, "after the restore"].sort().join()
  for (const tab of [ann, bob, dave]) await until("all of it", async () => (await titles(tab)).sort().join() === expected)
  await dave.close()
})

await step("markup in a title is text", async () => {
  await add(ann, "<img src=x onerror=alert(1)>")
  await until("it arrives", async () => (await titles(bob)).includes("<img src=x onerror=alert(1)>"))
  assert.equal(await bob.locator("img").count(), 0)
})

// Writes events as the application's own backend does.
const { TodoAdded, TodoRenamed } = EventGroup.empty
  .add({ tag: "TodoAdded", primaryKey: ({ id }) => id, payload: Schema.Struct({ id: Schema.String, title: Schema.String }) })
  .add({
    tag: "TodoRenamed",
    primaryKey: ({ id }) => id,
    payload: Schema.Struct({ id: Schema.String, from: Schema.String, title: Schema.String })
  }).events
const serverWrites = async (event, payloads) => {
  const entries = payloads.map((payload) => ({
    event: event.tag,
    primaryKey: event.primaryKey(payload),
    payload: Buffer.from(Schema.encodeSync(event.payloadSchemaBinary)(payload)).toString("base64")
  }))
  const response = await admin("POST", "stores/default/entries", { runHandlers: true, entries })
  assert.equal(response.status, 200, await response.text())
}

await step("an event that the server wrote is shown", async () => {
  await serverWrites(TodoAdded, [{ id: "welcome", title: "from the server" }])
  await until("it arrives", async () => (await titles(bob)).includes("from the server"))
})

await step("a key that was removed gets nothing, and goes on when it is assigned again", async () => {
  const identity = await bob.evaluate(() => localStorage.getItem("todo/identity"))
  const key = encodeURIComponent(EventLog.decodeIdentityString(identity).publicKey)
  assert.equal((await admin("DELETE", `keys/${key}`)).status, 200)
  await add(bob, "while removed")
  await add(ann, "not for bob")
  await until("why", async () => /the server refuses this device.*public key/.test(await bob.locator("#status").innerText()))
  await pause(2_000)
  assert.ok(!(await titles(ann)).includes("while removed"))
  assert.ok(!(await titles(bob)).includes("not for bob"))
  assert.equal((await admin("PUT", `keys/${key}`, { storeId: "default" })).status, 200)
  await until("bob's arrives", async () => (await titles(ann)).includes("while removed"))
  await until("ann's arrives", async () => (await titles(bob)).includes("not for bob"))
  await is(bob, "online")
})

// They would only write the same history into their journals.
await Promise.all([ann.close(), bob.close()])

await step("a new device gets 10,000 events of history", async () => {
  const ids = Array.from({ length: 100 }, (_, n) => `history-${n}`)
  await serverWrites(TodoAdded, ids.map((id) => ({ id, title: "name 0" })))
  const renames = Array.from({ length: 99 }, (_, n) => ids.map((id) => ({ id, from: `name ${n}`, title: `name ${n + 1}` })))
  await serverWrites(TodoRenamed, renames.flat())
  const carol = await open(await newProfile())
  const last = async () => (await titles(carol)).filter((title) => title === "name 99").length === ids.length
  // The browser writes each event into its journal, which takes a while on a busy machine.
  await until("the last names", last, 180_000)
  assert.equal(await carol.locator(".conflict").count(), 0)
  await carol.close()
})

// A token as the application's own login issues it: valid for an hour, for this key and this store.
const signed = (publicKey) => {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url")
  const claims = { sub: "dora", exp: Math.floor(Date.now() / 1000) + 3600, public_keys: [publicKey], store_id: "family" }
  const text = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`
  return `${text}.${createHmac("sha256", secret).update(text).digest("base64url")}`
}

const family = []
await step("who has a token of the login is let in, and nobody else", async () => {
  const server = `ws://${login}/rpc`
  for (let count = 0; count < 2; count++) family.push(await open(await newProfile(), pageOf(server)))
  const tabs = family
  await add(tabs[0], "before the login")
  for (const tab of tabs) await is(tab, "offline")
  for (const tab of tabs) {
    const identity = await tab.evaluate(() => localStorage.getItem("todo/identity"))
    const { publicKey } = EventLog.decodeIdentityString(identity)
    await tab.goto(pageOf(`${server}?access_token=${signed(publicKey)}`))
  }
  await shows(tabs, ["before the login"])
  await add(tabs[1], "and after it")
  await shows(tabs, ["before the login", "and after it"])
})

// This is the last thing that happens to these pages: they would read it again after each change.
await step("ten megabytes in one event arrive", async () => {
  const [from, to] = family
  await from.evaluate((length) => (document.getElementById("title").value = "x".repeat(length)), 10_000_000)
  await from.click("#add button")
  const is = (fields) => fields.some(({ value }) => value.length === 10_000_000 && /^x*$/.test(value))
  await until("it arrives", () => to.locator("#todos .row input[type=text]").evaluateAll(is))
  await Promise.all(family.map((tab) => tab.close()))
})

await step("what the backend of the application writes is shown to everybody", async () => {
  const at = pageOf(`ws://${backend}/rpc`)
  const [erin, frank] = [await open(await newProfile(), at), await open(await newProfile(), at)]
  await add(erin, "Trip to Rome")
  const all = ["Trip to Rome", "Pack: passport", "Pack: tickets", "Pack: toothbrush"]
  await shows([erin, frank], all)
  // What the backend wrote can be changed like anything else.
  await rename(frank, "Pack: tickets", "Pack: boarding passes")
  await shows([erin, frank], all.map((title) => title.replace("tickets", "boarding passes")))
})

await browser.close()
pages.close()
process.exit(0)
