// Unmodified clients of `effect` 4.1 of two users of two teams, who are identified by their cookie, with the application of
// `examples/session.mjs`. Exits with an error at the first failure.
//
//   node stock_callback.mjs HOST:PORT PORT APPLICATION_URL
//
// The server asks at PORT of this machine who may do what. There, this script passes the questions on to the application, or does
// something else with them. The answers of the application are valid for two seconds.

import assert from "node:assert/strict"
import { createServer } from "node:http"
import { text } from "node:stream/consumers"

import { Browser, makeIdentity, pause, Remote, step, until } from "./stock.mjs"

const [address, port, application] = process.argv.slice(2)
assert.ok(application, "usage: node stock_callback.mjs HOST:PORT PORT APPLICATION_URL")

// What happens to questions about this cookie instead of being passed on.
const failing = new Map()
// The number of questions.
const asked = new Map()
const fail = {
  hangs: () => {},
  "answers 500": (response) => response.writeHead(500).end(),
  "answers nonsense": (response) => response.end("<html>"),
  "breaks off": (response) => response.destroy()
}

const callback = createServer(async (request, response) => {
  const body = await text(request)
  const { cookie } = JSON.parse(body).headers
  asked.set(cookie, (asked.get(cookie) ?? 0) + 1)
  const how = failing.get(cookie)
  if (how) return fail[how](response)
  const { host: _, ...headers } = request.headers
  const answer = await fetch(`${application}/may`, { method: "POST", headers, body })
  response.writeHead(answer.status).end(await answer.text())
})
await new Promise((listening) => callback.listen(Number(port), "127.0.0.1", listening))

const url = `ws://${address}/rpc`
const login = async (user) => {
  const response = await fetch(`${application}/login?user=${user}`)
  return response.headers.get("set-cookie").split(";")[0]
}
const open = (cookie, identity) => Browser.open(url, identity, () => ({ cookie }))
const texts = (browser) => browser.state().map(({ text }) => text).sort()
const shows = (browsers, expected) =>
  until(`all show ${expected}`, () => browsers.every((b) => texts(b).join() === [...expected].sort().join()))

const [ann, bob] = [await login("ann"), await login("bob")]
const [annKey, bobKey] = [await makeIdentity(), await makeIdentity()]
const anns = [await open(ann, annKey), await open(ann, annKey)]
const bobs = await open(bob, bobKey)

await step("two users of two teams sync, each with their own store alone", async () => {
  await anns[0].set("a", "from ann")
  await bobs.set("a", "from bob")
  await shows(anns, ["from ann"])
  await shows([bobs], ["from bob"])
})

await step("nobody notices when an answer ends and another one says the same", async () => {
  const before = asked.get(ann)
  await until("further questions", () => asked.get(ann) >= before + 3)
  await anns[0].set("b", "later")
  await shows(anns, ["from ann", "later"])
})

await step("who has another's key and a cookie of their own proves nothing", async () => {
  const remote = await Remote.connect(url, annKey, () => ({ cookie: bob }))
  assert.equal((await remote.refused(remote.writing([]))).code, "Unauthorized")
  await remote.close()
})

await step("while there is no answer a client waits, and goes on by itself when there is one", async () => {
  const expected = ["from ann", "later"]
  const ways = []
  for (const how of Object.keys(fail)) {
    const cookie = await login("ann")
    ways.push({ how, cookie, browser: await open(cookie, annKey) })
  }
  for (const { how, cookie } of ways) failing.set(cookie, how)
  // One client that connects now, and one that the application does not know.
  const late = { how: "hangs", cookie: await login("ann") }
  failing.set(late.cookie, late.how)
  late.browser = await open(late.cookie, await makeIdentity())
  await late.browser.set("late", "written at first")
  expected.push("written at first")
  ways.push(late)
  const stranger = await open("session=made-up", await makeIdentity())
  await stranger.set("made-up", "never seen")
  const before = new Map(asked)
  const seen = ({ cookie }) => (asked.get(cookie) ?? 0) - (before.get(cookie) ?? 0)
  await until("each was asked about", () => ways.every((way) => seen(way) >= 1))
  for (const { how, browser } of ways.slice(0, -1)) {
    await browser.set(how, `written while it ${how}`)
    expected.push(`written while it ${how}`)
  }
  await anns[0].set("c", "written meanwhile")
  expected.push("written meanwhile")
  await pause(12_000)
  for (const way of ways) {
    console.log(`it ${way.how}: ${seen(way)} questions`)
    assert.ok(seen(way) < 60, `it ${way.how}: ${seen(way)} questions`)
  }
  assert.ok(seen({ cookie: "session=made-up" }) < 60)
  assert.deepEqual(texts(stranger), ["never seen"])
  failing.clear()
  await shows([...anns, ...ways.map(({ browser }) => browser)], expected)
  await shows([bobs], ["from bob"])
})

await step("who logs out gets nothing further", async () => {
  const cookie = await login("ann")
  const [stays, goes] = [anns[0], await open(cookie, annKey)]
  await shows([goes], texts(stays))
  await fetch(`${application}/logout`, { headers: { cookie } })
  const before = texts(goes)
  const questions = asked.get(cookie)
  await until("it is asked about again", () => asked.get(cookie) > questions)
  await pause(1_000)
  await stays.set("d", "after the logout")
  await shows([anns[1]], texts(stays))
  await pause(500)
  assert.deepEqual(texts(goes), before)
  const [last, from] = [asked.get(cookie), Date.now()]
  await pause(11_000)
  const rate = (asked.get(cookie) - last) / ((Date.now() - from) / 1000)
  console.log(`${rate.toFixed(2)} questions a second about who logged out`)
  assert.ok(rate < 1, `${rate}`)
  assert.deepEqual(texts(goes), before)
})

process.exit(0)
