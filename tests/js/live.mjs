// Talks to a running server as JavaScript clients do. Exits with an error at the first wrong answer.
//
//   node live.mjs URL KEY OTHER_KEY [UNMAPPED_KEY]
//
// Both keys map to the same store, which may contain entries. The unmapped key has no store.

import assert from "node:assert/strict"
import { randomBytes } from "node:crypto"
import { makeEntryIdUnsafe } from "effect/unstable/eventlog/EventJournal"

import { Client } from "./client.mjs"
import { encodeRequest, Entry, Ping, RequestChanges, StopChanges, WriteEntries } from "./messages.mjs"

const [url, key, otherKey, unmappedKey] = process.argv.slice(2)
assert.ok(otherKey, "usage: node live.mjs URL KEY OTHER_KEY [UNMAPPED_KEY]")

const entry = (event, payload, primaryKey = "todo-1") =>
  new Entry({ id: makeEntryIdUnsafe(), event, primaryKey, payload })

const step = async (name, run) => {
  await run()
  console.log(`ok: ${name}`)
}

const writer = await Client.connect(url, key)
const reader = await Client.connect(url, key)
const first = [
  entry("TodoAdded", new Uint8Array([1, 2, 3])),
  entry("TodoRenamed", new Uint8Array(0), "ключ-✓"),
  entry("TodoMoved", new Uint8Array(300).fill(7), "")
]
const twice = entry("Twice", new Uint8Array([9]))
let sequences

await step("both connections hear the same server", async () => {
  assert.equal(writer.remoteId, reader.remoteId)
})

await step("a write is acknowledged with consecutive sequences, and not echoed", async () => {
  const probe = await writer.write(0, [entry("Probe", new Uint8Array(1))])
  writer.subscribe(key, probe.sequences[0] + 1)
  reader.subscribe(otherKey, probe.sequences[0] + 1)
  await writer.ping(1)
  await reader.ping(1)
  sequences = (await writer.write(1, first)).sequences
  assert.deepEqual(sequences, [1, 2, 3].map((n) => probe.sequences[0] + n))
  await writer.ping(2)
})

await step("another key of the store reads what was written", () => reader.reads(first, sequences))

await step("a repeated write gets the sequences it has, and is not sent again", async () => {
  assert.deepEqual((await writer.write(2, first)).sequences, sequences)
  const again = (await writer.write(3, [first[1], twice, twice])).sequences
  const next = sequences[2] + 1
  assert.deepEqual(again, [sequences[1], next, next])
  await reader.reads([twice], [next])
})

await step("a late subscription starts where it asks to", async () => {
  const late = await Client.connect(url, key)
  late.subscribe(otherKey, sequences[1])
  await late.reads([first[1], first[2], twice], [1, 2, 3].map((n) => sequences[0] + n))
  late.close()
})

await step("a ping is answered with its id, however large", async () => {
  await writer.ping(300)
  await writer.ping(2 ** 40)
})

await step("a bad value is refused with the slot, and the connection stays", async () => {
  const bad = [entry("Good", new Uint8Array(1)), entry("", new Uint8Array(1))]
  writer.send(new WriteEntries({ publicKey: key, id: 4, entries: bad }))
  const refusal = await writer.next("Error")
  assert.equal(refusal.requestTag, "WriteEntries")
  assert.equal(refusal.id, 4)
  assert.equal(refusal.publicKey, key)
  assert.equal(refusal.code, "InvalidRequest")
  assert.match(refusal.message, /entry 1/)
  writer.send(new RequestChanges({ publicKey: key, startSequence: -1 }))
  const negative = await writer.next("Error")
  assert.deepEqual(
    [negative.requestTag, negative.publicKey, negative.code],
    ["RequestChanges", key, "InvalidRequest"]
  )
  await writer.ping(5)
})

if (unmappedKey) {
  await step("a key without a store is refused", async () => {
    const entries = [entry("Lost", new Uint8Array(1))]
    writer.send(new WriteEntries({ publicKey: unmappedKey, id: 5, entries }))
    const write = await writer.next("Error")
    assert.deepEqual([write.id, write.publicKey, write.code], [5, unmappedKey, "InvalidRequest"])
    writer.send(new RequestChanges({ publicKey: unmappedKey, startSequence: 0 }))
    const read = await writer.next("Error")
    assert.deepEqual([read.id, read.publicKey, read.code], [undefined, unmappedKey, "InvalidRequest"])
  })
}

await step("a large write arrives in chunks and is delivered in chunks", async () => {
  const large = [1, 2, 3].map((n) => entry("Large", new Uint8Array(randomBytes(400_000 + n))))
  const { frames, sequences } = await writer.write(6, large)
  assert.equal(frames, 3)
  await reader.reads(large, sequences)
  const huge = [entry("Huge", new Uint8Array(randomBytes(1_300_000)))]
  // Counted before the write: the reader may have the whole delivery when the writer gets its ack.
  const before = reader.chunkFrames
  const ack = await writer.write(7, huge)
  await reader.reads(huge, ack.sequences)
  assert.equal(reader.chunkFrames - before, 3)
})

await step("a stopped subscription is silent", async () => {
  reader.send(new StopChanges({ publicKey: otherKey }))
  await reader.ping(6)
  await writer.write(8, [entry("Unheard", new Uint8Array(1))])
  await reader.ping(7)
})

await step("bytes that are no message end the connection", async () => {
  const broken = await Client.connect(url, key)
  broken.socket.removeAllListeners("close")
  const closed = new Promise((resolve) => broken.socket.on("close", resolve))
  broken.socket.send(encodeRequest(new Ping({ id: 1 })).subarray(0, 5))
  const code = await closed
  assert.ok([1002, 1003, 1007].includes(code), `closed with ${code}`)
})

writer.close()
reader.close()
