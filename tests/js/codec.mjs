// Encodes and decodes for the tests in Rust: one job per line on stdin, one result per line on stdout, both JSON.
//
//   {"do": "decodeResponse", "hex": "…"}          → {"value": {…}}
//   {"do": "decodeRequest", "hex": "…"}           → {"value": {…}}
//   {"do": "encodeRequest", "value": {…}}         → {"hex": "…"}
//   {"do": "encodeResponse", "value": {…}}        → {"hex": "…"}
//   {"do": "split", "id": 1, "value": {…}}        → {"frames": ["…", …]}   of a request
//   {"do": "join", "frames": ["…", …]}            → {"value": {…}}         of a response
//
// A job that fails results in {"error": "…"}.

import { createInterface } from "node:readline"

import {
  ChunkedMessage,
  decodeRequest,
  decodeResponse,
  encodeRequest,
  encodeResponse,
  fromPlain,
  requestFrames,
  toHex,
  toPlain
} from "./messages.mjs"

const bytes = (hex) => new Uint8Array(Buffer.from(hex, "hex"))

const jobs = {
  decodeRequest: ({ hex }) => ({ value: toPlain(decodeRequest(bytes(hex))) }),
  decodeResponse: ({ hex }) => ({ value: toPlain(decodeResponse(bytes(hex))) }),
  encodeRequest: ({ value }) => ({ hex: toHex(encodeRequest(fromPlain(value))) }),
  encodeResponse: ({ value }) => ({ hex: toHex(encodeResponse(fromPlain(value))) }),
  split: ({ id, value }) => ({ frames: requestFrames(fromPlain(value), id).map(toHex) }),
  join: ({ frames }) => {
    const sets = new Map()
    const joined = frames
      .map((frame) => ChunkedMessage.join(sets, decodeResponse(bytes(frame))))
      .filter((message) => message !== undefined)
    if (joined.length !== 1 || sets.size > 0) {
      throw new Error(`${joined.length} messages, ${sets.size} unfinished`)
    }
    return { value: toPlain(decodeResponse(joined[0])) }
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  let result
  try {
    const job = JSON.parse(line)
    result = jobs[job.do](job)
  } catch (error) {
    result = { error: String(error) }
  }
  console.log(JSON.stringify(result))
}
