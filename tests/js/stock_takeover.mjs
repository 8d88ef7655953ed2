// Unmodified clients of `effect` 4.1 on a database that Effect's own server and ours serve in turn, and then both at once. Exits with an
// error at the first failure.
//
//   node stock_takeover.mjs HOST:PORT
//
// At first, Effect's server answers there, on an empty database. When this prints `restart`, the caller lets the other server answer at
// the same address, and writes a line. When this prints `beside`, the caller also starts Effect's server, and the line names its port.

import assert from "node:assert/strict"
import { createInterface } from "node:readline"

import { Browser, entry, makeIdentity, Remote, step, until } from "./stock.mjs"

const [address] = process.argv.slice(2)
assert.ok(address, "usage: node stock_takeover.mjs HOST:PORT")
const url = `ws://${address}/rpc`

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const ask = async (what) => {
  console.log(what)
  return (await answers.next()).value
}

// Clients retry by themselves. The longest pause between two attempts is ten seconds.
const PATIENCE_MILLIS = 60_000
const eventually = async (run) => {
  const deadline = Date.now() + PATIENCE_MILLIS
  for (;;) {
    try {
      return await run()
    } catch (error) {
      if (Date.now() > deadline) throw error
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
  }
}
const same = (what, one, other) =>
  until(what, async () => JSON.stringify(one.state()) === JSON.stringify(other.state()), PATIENCE_MILLIS)

const alice = await makeIdentity()
const first = await Browser.open(url, alice)
const second = await Browser.open(url, await makeIdentity())
const third = await makeIdentity()
const written = []
let head = 0

// Writes through its own connection. The server that answers first binds the signing key.
const writes = async (to, entries) => {
  const remote = await Remote.connect(to, third)
  try {
    return await remote.write(entries)
  } finally {
    await remote.close()
  }
}

const round = async (name, number) => {
  await step(`${name}: clients that were there before go on, and see each other's events`, async () => {
    await first.set(`a${number}`, name)
    await second.set(`b${number}`, name)
    await until("both notes", async () => first.notes.has(`b${number}`) && second.notes.has(`a${number}`), PATIENCE_MILLIS)
    await same("the same at both", first, second)
  })
  await step(`${name}: ids keep their sequences, and new ones follow without a gap`, async () => {
    const fresh = [entry("Note", `n${number}`, Buffer.from(name)), entry("Note", "ключ-✓")]
    const sequences = await eventually(() => writes(url, fresh))
    assert.equal(sequences[1], sequences[0] + 1)
    for (const [one, sequence] of written) {
      assert.deepEqual(await eventually(() => writes(url, [one])), [sequence])
    }
    written.push(...fresh.map((one, at) => [one, sequences[at]]))
    head = sequences[1]
    const reader = await eventually(() => Remote.connect(url, third))
    const feed = await reader.subscribe(0)
    const got = await feed.next(head)
    assert.deepEqual(got.map(({ remoteSequence }) => remoteSequence), got.map((_, at) => at + 1))
    for (const [one, sequence] of written) {
      assert.equal(got[sequence - 1].entry.idString, one.idString)
      assert.equal(got[sequence - 1].entry.primaryKey, one.primaryKey)
    }
    await feed.close()
    await reader.close()
  })
}

await round("Effect's server", 1)
for (const [name, number] of [["ours", 2], ["Effect's again", 3], ["ours again", 4]]) {
  await ask("restart")
  await round(name, number)
}

const theirs = `ws://127.0.0.1:${await ask("beside")}/rpc`

await step("what is erased at ours is an entry without content at Effect's, and its id is known there", async () => {
  const [gone, at] = written[0]
  await ask(`erase ${gone.idString}`)
  const feedOf = async (to, count) => {
    const reader = await eventually(() => Remote.connect(to, third))
    const feed = await reader.subscribe(0)
    const got = await feed.next(count)
    await feed.close()
    await reader.close()
    return got
  }
  const ours = await feedOf(url, head - 1)
  assert.ok(ours.every(({ remoteSequence }) => remoteSequence !== at))
  const others = await feedOf(theirs, head)
  const { entry: left } = others[at - 1]
  assert.deepEqual([left.idString, left.event, left.primaryKey, left.payload.length], [gone.idString, "", "", 0])
  for (const to of [theirs, url]) assert.deepEqual(await eventually(() => writes(to, [gone])), [at])
  // A new client takes in everything around it.
  const fresh = await Browser.open(theirs, await makeIdentity())
  await until("the rest is there", async () => fresh.notes.has("b4"), PATIENCE_MILLIS)
  await fresh.close?.()
})

await step("both at once: whoever uses ours gets what is written at either", async () => {
  const here = Array.from({ length: 40 }, (_, n) => entry("Note", `h${n}`))
  const there = Array.from({ length: 40 }, (_, n) => entry("Note", `t${n}`))
  const each = async (to, entries) => {
    const remote = await eventually(() => Remote.connect(to))
    const sequences = []
    for (const one of entries) sequences.push(...(await eventually(() => remote.write([one]))))
    await remote.close()
    return sequences
  }
  const reader = await Remote.connect(url, third)
  const feed = await reader.subscribe(head + 1)
  // A new key must be assigned here, and Effect's server does not know about that.
  const hereWriter = async () => {
    const sequences = []
    for (const one of here) sequences.push(...(await eventually(() => writes(url, [one]))))
    return sequences
  }
  const [ours, others] = await Promise.all([hereWriter(), each(theirs, there)])
  const all = [...ours, ...others].sort((a, b) => a - b)
  assert.deepEqual(all, all.map((_, at) => head + 1 + at), "each sequence once, none left out")
  // An id that was written through one server is known to the other.
  assert.deepEqual(await eventually(() => writes(url, [there[7]])), [others[7]])
  const got = await feed.next(80)
  assert.deepEqual(got.map(({ remoteSequence }) => remoteSequence), all)
  await reader.close()
})

for (const browser of [first, second]) await browser.close()
process.exit(0)
