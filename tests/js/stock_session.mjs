// Unmodified clients of `effect` 4.1 against a running server. Exits with an error at the first failure.
//
//   node stock_session.mjs HOST:PORT ADMIN_TOKEN
//
// The server lets everyone in and maps unknown keys to the store `default`, which must be empty. When this prints
// `restart`, the caller kills the server, starts it at the same address with the same data, and writes a line.

import assert from "node:assert/strict"
import { createHash, randomBytes } from "node:crypto"
import { Effect } from "effect-4.1"

import { Client } from "./client.mjs"
import { Entry } from "./messages.mjs"
import {
  Browser,
  Calls,
  claim,
  entry,
  impostorOf,
  makeIdentity,
  payload,
  Remote,
  restarter,
  signingKey,
  step,
  storeId,
  until
} from "./stock.mjs"

const [address, token] = process.argv.slice(2)
assert.ok(token, "usage: node stock_session.mjs HOST:PORT ADMIN_TOKEN")
const url = `ws://${address}/rpc`

const restart = restarter()

const headers = { authorization: `Bearer ${token}` }
const stores = async () => {
  const response = await fetch(`http://${address}/admin/stores`, { headers })
  assert.equal(response.status, 200)
  return response.text()
}
const metric = async (name) => {
  const text = await (await fetch(`http://${address}/metrics`)).text()
  return Number(text.match(new RegExp(`^\\w*${name}(?:_total)? (\\d+)`, "m"))[1])
}

const plain = ({ remoteSequence, entry }) => [
  remoteSequence,
  entry.idString,
  entry.event,
  entry.primaryKey,
  createHash("sha256").update(entry.payload).digest("hex")
]
const brings = (got, entries, sequences) =>
  assert.deepEqual(
    got.map(plain),
    entries.map((entry, at) => plain({ remoteSequence: sequences[at], entry }))
  )

// A feed that the server has begun to serve: entries that are written from here on are no backlog.
const subscribed = async (remote, startSequence) => {
  const before = await metric("subscriptions_open")
  const feed = await remote.subscribe(startSequence)
  await until("a subscription", async () => (await metric("subscriptions_open")) === before + 1)
  return feed
}
const unsubscribed = async (feed) => {
  const before = await metric("subscriptions_open")
  await feed.close()
  await until("its end", async () => (await metric("subscriptions_open")) === before - 1)
}

const alice = await Remote.connect(url)
const bob = await Remote.connect(url)
const first = [entry("Added", "n1", Buffer.from("one")), entry("Added", "ключ-✓"), entry("Moved", "n1")]
const large = [1, 2, 3].map((n) => entry("Large", `l${n}`, randomBytes(400_000 + n)))
let aliceFeed
let head

await step("it authenticates and writes, and is acknowledged in the order of its entries", async () => {
  const sequences = await alice.write(first)
  assert.deepEqual(sequences, [1, 2, 3])
  assert.deepEqual(await alice.write([]), [])
})

await step("a repeated write gets the sequences it has", async () => {
  const twice = entry("Twice", "t")
  assert.deepEqual(await alice.write([first[2], twice, first[0], twice]), [3, 4, 1, 4])
})

await step("a write above 512,000 bytes goes through in parts", async () => {
  assert.deepEqual(await alice.write(large), [5, 6, 7])
  head = 7
})

await step("another identity gets the backlog from where it asks", async () => {
  const feed = await subscribed(bob, 5)
  brings(await feed.next(3), large, [5, 6, 7])
  await unsubscribed(feed)
  const whole = await subscribed(bob, 0)
  const got = await whole.next(head)
  brings(got.slice(0, 3), first, [1, 2, 3])
  assert.deepEqual(got.map((element) => element.remoteSequence), [1, 2, 3, 4, 5, 6, 7])
  await unsubscribed(whole)
})

await step("live changes go both ways, and nobody gets an echo", async () => {
  aliceFeed = await subscribed(alice, head + 1)
  const bobFeed = await subscribed(bob, head + 1)
  const [one, two] = [entry("Live", "a"), entry("Live", "b", randomBytes(600_000))]
  assert.deepEqual(await alice.write([one]), [head + 1])
  brings(await bobFeed.next(1), [one], [head + 1])
  assert.deepEqual(await bob.write([two]), [head + 2])
  brings(await aliceFeed.next(1), [two], [head + 2])
  head += 2
  await unsubscribed(bobFeed)
  assert.deepEqual(bobFeed.entries, [])
})

await step("an interrupt ends the subscription and nothing else", async () => {
  const carol = await Remote.connect(url)
  const feed = await subscribed(carol, head + 1)
  await unsubscribed(feed)
  assert.deepEqual(await carol.write([entry("After", "c")]), [++head])
  await aliceFeed.next(1)
  await carol.close()
})

await step("a client of the msgpack protocol shares the store, both ways", async () => {
  const old = await Client.connect(`ws://${address}/eventlog`, "old")
  old.subscribe("old", head + 1)
  await old.ping(1)
  const modern = entry("Modern", "m", Buffer.from("hello"))
  assert.deepEqual(await alice.write([modern]), [++head])
  await old.reads([modern], [head])
  const fields = (bytes) => new Entry({ id: entry("", "").id, event: "Old", primaryKey: "o", payload: bytes })
  // Entries that no client of this kind can decode are skipped. The others are delivered.
  const [kept, sent] = [fields(new Uint8Array([0xc3])), fields(payload(Buffer.from("old")))]
  const { sequences } = await old.write(1, [kept, sent])
  brings(await aliceFeed.next(1), [entry("", "")].map((e) => Object.assign(e, sent)), [sequences[1]])
  head = sequences[1]
  old.close()
})

await step("a wrong signature is refused, and leaves the key to who signs right", async () => {
  const calls = await Calls.connect(url)
  const [own, other] = [signingKey(), signingKey()]
  const wrong = await claim("dora", await calls.hello(), other, own)
  assert.equal((await calls.refused(calls.authenticate(wrong))).code, "Forbidden")
  const write = calls.client["EventLog.WriteSingle"]({ data: new Uint8Array([1, 0x20]) })
  assert.equal((await calls.refused(write)).code, "Forbidden")
  // If the first attempt had bound `own`, this other key would be refused.
  await calls.run(calls.authenticate(await claim("dora", await calls.hello(), other)))
  await calls.close()
})

await step("a challenge is good for one attempt on one connection", async () => {
  const key = signingKey()
  const [calls, elsewhere] = [await Calls.connect(url), await Calls.connect(url)]
  const hello = await calls.hello()
  assert.deepEqual(await calls.hello(), hello)
  const answer = await claim("erin", hello, key)
  await elsewhere.hello()
  assert.equal((await elsewhere.refused(elsewhere.authenticate(answer))).code, "Forbidden")
  await calls.run(calls.authenticate(answer))
  assert.equal((await calls.refused(calls.authenticate(answer))).code, "Forbidden")
  assert.notDeepEqual(await calls.hello(), hello)
  assert.equal((await calls.refused(calls.authenticate(answer))).code, "Forbidden")
  await calls.close()
  await elsewhere.close()
})

const impostor = await Remote.connect(url, await impostorOf(bob.identity))
const refusesTheImpostor = async () => {
  assert.equal((await impostor.refused(impostor.writing([entry("Forged", "f")]))).code, "Forbidden")
  const feed = await impostor.subscribe(0)
  assert.equal((await feed.refused()).code, "Forbidden")
}
await step("another signing key for a public key is refused", refusesTheImpostor)

await step("another store than the key's own is not found, and not made", async () => {
  const before = await stores()
  const other = storeId("elsewhere")
  assert.equal((await bob.refused(bob.writing([entry("Lost", "l")], other))).code, "NotFound")
  assert.equal((await (await bob.subscribe(0, other)).refused()).code, "NotFound")
  assert.equal(await stores(), before)
})

await step("what can never be taken is said with its entry, and counted", async () => {
  const before = await metric("requests_refused")
  const nameless = entry("", "k")
  const refusal = await bob.refused(bob.writing([entry("Added", "good"), nameless]))
  assert.equal(refusal.code, "InvalidRequest")
  assert.ok(refusal.message.includes("entry 1") && refusal.message.includes(nameless.idString), refusal.message)
  assert.equal(await metric("requests_refused"), before + 1)
})

await step("a backlog of 24 MB arrives whole", async () => {
  const many = Array.from({ length: 24 }, (_, n) => entry("Big", `b${n}`, randomBytes(1_000_000)))
  const sequences = await bob.write(many)
  const feed = await (await Remote.connect(url)).subscribe(sequences[0])
  brings(await feed.next(many.length), many, sequences)
  head = sequences.at(-1)
  await aliceFeed.next(many.length)
})

const users = [await makeIdentity(), await makeIdentity()]
// One user with two devices, and one with one device.
const browsers = [
  await Browser.open(url, users[0]),
  await Browser.open(url, users[0]),
  await Browser.open(url, users[1])
]
const converged = async (count) => {
  const before = head
  await until("all journals are equal", async () => {
    const [one, ...others] = await Promise.all(browsers.map((browser) => browser.ids()))
    return one.length >= count && others.every((ids) => ids.join() === one.join())
  })
  const [one, ...others] = browsers.map((browser) => browser.state())
  others.forEach((state) => assert.deepEqual(state, one))
  assert.equal(head, before)
  return one
}

await step("an application in three browsers converges", async () => {
  for (let n = 0; n < 60; n++) {
    const browser = browsers[n % 3]
    await (n % 10 === 9 ? browser.remove(`k${n % 7}`) : browser.set(`k${n % 7}`, `text ${n}`, n % 2 ? n : undefined))
  }
  await browsers[2].set("big", "x".repeat(700_000))
  const state = await converged(61)
  assert.equal(state.length, 8)
})

await step("after a restart everything goes on, and nothing is lost", async () => {
  const before = (await browsers[0].ids()).length
  const unsent = browsers.map((browser, n) => browser.set(`before ${n}`, "sent as it dies"))
  await restart()
  await Promise.all(unsent)
  await Promise.all(browsers.map((browser, n) => browser.set(`after ${n}`, "sent again")))
  const state = await converged(before + 6)
  assert.equal(state.filter(({ key }) => /^(before|after) \d$/.test(key)).length, 6)
  const late = await Browser.open(url, await makeIdentity())
  browsers.push(late)
  assert.deepEqual(await converged(before + 6), state)
})

await step("a client that was idle meanwhile is sent to authenticate, and does so by itself", async () => {
  const again = entry("Again", "a")
  let sequences
  await until("it is connected again", async () => {
    const exit = await alice.run(Effect.exit(alice.writing([again])))
    sequences = exit._tag === "Success" ? exit.value.map((ack) => ack.sequence) : undefined
    return sequences
  })
  assert.deepEqual(await alice.write([again]), sequences)
  assert.deepEqual(await alice.write(first), [1, 2, 3])
})

await step("the binding of signing keys survived, too", async () => {
  await until("the impostor is connected again", async () => {
    const exit = await impostor.run(Effect.exit(impostor.writing([])))
    return exit._tag === "Failure" && /Forbidden/.test(JSON.stringify(exit.cause))
  })
  await refusesTheImpostor()
})

process.exit(0)
