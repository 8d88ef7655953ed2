// The messages of docs/PROTOCOL.md as schemas, on the codec that clients use: `Msgpack.schema` of `effect`.
//
// Where the package has a class, that class is used. A write, the changes and the error of unencrypted stores are defined
// here, as the clients of the package define them.

import { Schema } from "effect"
import * as Msgpack from "effect/unstable/encoding/Msgpack"
import { Entry, RemoteEntry } from "effect/unstable/eventlog/EventJournal"
import {
  Ack,
  ChunkedMessage,
  Hello,
  Ping,
  Pong,
  RequestChanges,
  StopChanges
} from "effect/unstable/eventlog/EventLogRemote"

export { Ack, ChunkedMessage, Entry, Hello, Ping, Pong, RemoteEntry, RequestChanges, StopChanges }

export class WriteEntries extends Schema.Class("WriteEntries")({
  _tag: Schema.tag("WriteEntries"),
  publicKey: Schema.String,
  id: Schema.Number,
  entries: Schema.Array(Entry)
}) {}

export class Changes extends Schema.Class("Changes")({
  _tag: Schema.tag("Changes"),
  publicKey: Schema.String,
  entries: Schema.Array(RemoteEntry)
}) {}

export class ErrorResponse extends Schema.Class("Error")({
  _tag: Schema.tag("Error"),
  requestTag: Schema.String,
  id: Schema.optional(Schema.Number),
  publicKey: Schema.optional(Schema.String),
  code: Schema.Literals(["Unauthorized", "InvalidRequest", "InternalServerError"]),
  message: Schema.String
}) {}

const Request = Msgpack.schema(
  Schema.Union([WriteEntries, RequestChanges, StopChanges, ChunkedMessage, Ping])
)
const Response = Msgpack.schema(
  Schema.Union([Hello, Ack, Changes, ChunkedMessage, Pong, ErrorResponse])
)

export const encodeRequest = Schema.encodeUnknownSync(Request)
export const decodeRequest = Schema.decodeUnknownSync(Request)
export const encodeResponse = Schema.encodeUnknownSync(Response)
export const decodeResponse = Schema.decodeUnknownSync(Response)

// A message above this size is sent as chunks. Each chunk but the last has this size.
export const CHUNK_BYTES = 512_000

// The frames of a request: one frame, or as many chunks as its encoding needs.
export const requestFrames = (request, chunkId) => {
  const whole = encodeRequest(request)
  if (whole.byteLength <= CHUNK_BYTES) {
    return [whole]
  }
  return ChunkedMessage.split(chunkId, whole).map((part) => encodeRequest(part))
}

const fromHex = (hex) => new Uint8Array(Buffer.from(hex, "hex"))
export const toHex = (bytes) => Buffer.from(bytes).toString("hex")

const entry = (value) =>
  new Entry({
    id: fromHex(value.id),
    event: value.event,
    primaryKey: value.primaryKey,
    payload: fromHex(value.payload)
  })

// Converts a plain value to a message. Bytes are hex in a plain value.
export const fromPlain = (value) => {
  const { _tag, ...fields } = value
  switch (_tag) {
    case "WriteEntries":
      return new WriteEntries({ ...fields, entries: fields.entries.map(entry) })
    case "RequestChanges":
      return new RequestChanges(fields)
    case "StopChanges":
      return new StopChanges(fields)
    case "ChunkedMessage":
      return new ChunkedMessage({ ...fields, data: fromHex(fields.data) })
    case "Ping":
      return new Ping(fields)
    case "Hello":
      return new Hello({ remoteId: fromHex(fields.remoteId) })
    case "Ack":
      return new Ack(fields)
    case "Changes":
      return new Changes({
        ...fields,
        entries: fields.entries.map((element) =>
          new RemoteEntry({ remoteSequence: element.remoteSequence, entry: entry(element.entry) })
        )
      })
    case "Pong":
      return new Pong(fields)
    case "Error":
      return new ErrorResponse(fields)
    default:
      throw new Error(`no message has the tag ${_tag}`)
  }
}

// Converts a message to a plain value, with bytes as hex.
export const toPlain = (message) =>
  JSON.parse(JSON.stringify(message, function(key, value) {
    // `value` is no Buffer any more: a Buffer converts itself to an object before this call. Its holder still has it.
    const original = this[key]
    return original instanceof Uint8Array ? toHex(original) : value
  }))
