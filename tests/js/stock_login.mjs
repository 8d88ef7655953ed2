// Unmodified clients of `effect` 4.1 of two users of two teams, who get their tokens from `examples/login.mjs`. Exits with an error
// at the first failure.
//
//   node stock_login.mjs HOST:PORT LOGIN_URL ADMIN_TOKEN
//
// The server accepts the tokens of that login, which expire after five seconds, and has no keys.

import assert from "node:assert/strict"
import { Effect } from "effect-4.1"

import { Browser, makeIdentity, pause, Remote, step, until } from "./stock.mjs"

const [address, login, adminToken] = process.argv.slice(2)
assert.ok(adminToken, "usage: node stock_login.mjs HOST:PORT LOGIN_URL ADMIN_TOKEN")

const session = async (user) => {
  const response = await fetch(`${login}/login?user=${user}`)
  return { cookie: response.headers.get("set-cookie").split(";")[0] }
}
const askFor = (headers, { publicKey }) =>
  fetch(`${login}/token?key=${encodeURIComponent(publicKey)}`, { headers })
// What an application passes to its WebSocket: a new token for each connection.
const url = (headers, identity, spoil = (token) => token) =>
  Effect.promise(async () => {
    const token = await (await askFor(headers, identity)).text()
    return `ws://${address}/rpc?access_token=${spoil(token)}`
  })
const metric = async (name) => {
  const text = await (await fetch(`http://${address}/metrics`)).text()
  return Number(text.match(new RegExp(`^\\w*${name}(?:_total)? (\\d+)`, "m"))[1])
}

const [ann, bob] = [await session("ann"), await session("bob")]
const [annKey, bobKey] = [await makeIdentity(), await makeIdentity()]
const texts = (browser) => browser.state().map(({ text }) => text).sort()
const shows = (browsers, expected) =>
  until(`all show ${expected}`, () => browsers.every((b) => texts(b).join() === [...expected].sort().join()))

const anns = [await Browser.open(url(ann, annKey), annKey), await Browser.open(url(ann, annKey), annKey)]
const bobs = await Browser.open(url(bob, bobKey), bobKey)

await step("two users of two teams sync, each with their own store alone", async () => {
  await anns[0].set("a", "from ann")
  await bobs.set("a", "from bob")
  await shows(anns, ["from ann"])
  await shows([bobs], ["from bob"])
})

await step("when a token ends, its client is back by itself with a new one", async () => {
  const before = await metric("connections_accepted")
  await until("six further connections", async () => (await metric("connections_accepted")) >= before + 6)
  await anns[1].set("b", "while it was away")
  await anns[0].set("c", "and back")
  await shows(anns, ["from ann", "while it was away", "and back"])
  await shows([bobs], ["from bob"])
})

await step("the login gives nobody a token with somebody else's key", async () => {
  const others = [annKey.publicKey, "*", `${annKey.publicKey.slice(0, 5)}*`]
  for (const publicKey of others) assert.equal((await askFor(bob, { publicKey })).status, 403, publicKey)
})

await step("a token of one user does not prove the key of another", async () => {
  const remote = await Remote.connect(url(bob, bobKey), annKey)
  assert.equal((await remote.refused(remote.writing([]))).code, "Unauthorized")
  await remote.close()
})

await step("a client that is refused at its first connect tells the application", async () => {
  const late = await makeIdentity()
  await assert.rejects(Browser.open(url(ann, late, (token) => `${token}A`), late), /EventLogRemoteError/)
})

await step("one that was connected asks again every few seconds, and goes on when it is let in", async () => {
  const late = await makeIdentity()
  let spoil = (token) => token
  const browser = await Browser.open(url(ann, late, (token) => spoil(token)), late)
  spoil = (token) => `${token}A`
  const before = await metric("connections_refused")
  await until("three refusals", async () => (await metric("connections_refused")) >= before + 3)
  await browser.set("d", "written while it was refused")
  const [refused, from] = [await metric("connections_refused"), Date.now()]
  await pause(6_000)
  const rate = ((await metric("connections_refused")) - refused) / ((Date.now() - from) / 1000)
  console.log(`${rate.toFixed(2)} handshakes a second`)
  assert.ok(rate < 3, `${rate} handshakes a second`)
  spoil = (token) => token
  await shows([...anns, browser], ["from ann", "while it was away", "and back", "written while it was refused"])
})

const admin = async (method, path, body) => {
  const headers = { authorization: `Bearer ${adminToken}` }
  const options = { method, headers, body: body && JSON.stringify(body) }
  assert.equal((await fetch(`http://${address}/admin/${path}`, options)).status, 200)
}
const perSecond = async (name, seconds) => {
  const [before, from] = [await metric(name), Date.now()]
  await pause(seconds * 1000)
  return ((await metric(name)) - before) / ((Date.now() - from) / 1000)
}

await step("a revoked user's clients are not let in, ask again every few seconds, and go on when they are", async () => {
  await admin("POST", "revocations", { subject: "bob", reason: "he left" })
  const before = await metric("connections_refused")
  await until("three refusals", async () => (await metric("connections_refused")) >= before + 3)
  await bobs.set("b", "written while he was out")
  const rate = await perSecond("connections_refused", 6)
  console.log(`${rate.toFixed(2)} handshakes a second`)
  assert.ok(rate < 3, `${rate} handshakes a second`)
  await admin("DELETE", "revocations/subject:bob")
  await shows([bobs], ["from bob", "written while he was out"])
})

await step("a client with a revoked key asks again every few seconds, and goes on when that is lifted", async () => {
  await admin("POST", "revocations", { publicKey: bobKey.publicKey })
  const before = await metric("requests_refused")
  await until("a refusal", async () => (await metric("requests_refused")) > before)
  await bobs.set("c", "and again")
  const rate = await perSecond("requests_refused", 12)
  console.log(`${rate.toFixed(2)} refused requests a second`)
  assert.ok(rate < 3, `${rate} refused requests a second`)
  await admin("DELETE", `revocations/key:${encodeURIComponent(bobKey.publicKey)}`)
  await shows([bobs], ["from bob", "written while he was out", "and again"])
})

process.exit(0)
