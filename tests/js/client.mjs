// A client of the msgpack protocol. It shows every response, and fails at the first unexpected one.

import assert from "node:assert/strict"
import WebSocket from "ws"

import {
  CHUNK_BYTES,
  ChunkedMessage,
  decodeResponse,
  Ping,
  RequestChanges,
  requestFrames,
  toHex,
  WriteEntries
} from "./messages.mjs"

// Every answer comes sooner than this.
const PATIENCE_MILLIS = 20_000

export class Client {
  // `key` is the key it writes for, unless a write names another one.
  static async connect(url, key) {
    const client = new Client(url, key)
    const hello = await client.next("Hello")
    assert.equal(hello.remoteId.byteLength, 16)
    client.remoteId = toHex(hello.remoteId)
    return client
  }

  constructor(url, key) {
    this.key = key
    this.responses = []
    this.chunks = new Map()
    this.chunkFrames = 0
    this.wake = () => {}
    this.socket = new WebSocket(url)
    this.socket.on("message", (data, isBinary) => {
      assert.ok(isBinary, "a text frame")
      this.receive(decodeResponse(new Uint8Array(data)))
      this.wake()
    })
    this.socket.on("error", (error) => this.fail(error))
    this.socket.on("close", (code) => this.fail(new Error(`closed with ${code}`)))
  }

  receive(response) {
    if (response._tag !== "ChunkedMessage") {
      this.responses.push(response)
      return
    }
    this.chunkFrames++
    assert.ok(response.data.byteLength <= CHUNK_BYTES)
    const message = ChunkedMessage.join(this.chunks, response)
    if (message) {
      this.responses.push(decodeResponse(message))
    }
  }

  fail(error) {
    this.failure = error
    this.wake()
  }

  // The next response, which must have this tag.
  async next(tag) {
    const deadline = Date.now() + PATIENCE_MILLIS
    while (this.responses.length === 0) {
      if (this.failure) throw this.failure
      const left = deadline - Date.now()
      assert.ok(left > 0, `no ${tag} within ${PATIENCE_MILLIS} ms`)
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, left)
        this.wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
    const response = this.responses.shift()
    assert.equal(response._tag, tag, JSON.stringify(response))
    return response
  }

  send(request, chunkId) {
    const frames = requestFrames(request, chunkId)
    frames.forEach((frame) => this.socket.send(frame))
    return frames.length
  }

  async write(id, entries, publicKey = this.key) {
    const frames = this.send(new WriteEntries({ publicKey, id, entries }), id)
    const ack = await this.next("Ack")
    assert.equal(ack.id, id)
    assert.equal(ack.sequenceNumbers.length, entries.length)
    return { frames, sequences: ack.sequenceNumbers }
  }

  subscribe(publicKey, startSequence) {
    this.publicKey = publicKey
    this.cursor = startSequence
    this.send(new RequestChanges({ publicKey, startSequence }))
  }

  // Reads the feed until these entries came, in this order, with these sequences, and with nothing in between.
  async reads(entries, sequences) {
    const got = []
    while (got.length < entries.length) {
      const changes = await this.next("Changes")
      assert.equal(changes.publicKey, this.publicKey)
      assert.ok(changes.entries.length > 0, "an empty message")
      got.push(...changes.entries)
    }
    assert.deepEqual(got.map((element) => element.remoteSequence), sequences)
    const plain = (entry) => [toHex(entry.id), entry.event, entry.primaryKey, toHex(entry.payload)]
    assert.deepEqual(got.map((element) => plain(element.entry)), entries.map(plain))
  }

  async ping(id) {
    this.send(new Ping({ id }))
    assert.equal((await this.next("Pong")).id, id)
  }

  close() {
    this.socket.removeAllListeners("close")
    this.socket.close()
  }
}
