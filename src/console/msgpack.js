// Encodes JSON as msgpack, as clients of the msgpack protocol write payloads: objects keep the order of their fields, and
// integers of more than 32 bits become floats, which is all that JavaScript has for them. Reads the beginning of payloads
// that the server sends only in part, and so cannot decode for the page.

export const encode = (value) => {
  const out = []
  write(out, value)
  return Uint8Array.from(out)
}

const write = (out, value) => {
  if (value === null) out.push(0xc0)
  else if (value === false) out.push(0xc2)
  else if (value === true) out.push(0xc3)
  else if (typeof value === "number") writeNumber(out, value)
  else if (typeof value === "string") writeText(out, value)
  else if (Array.isArray(value)) {
    head(out, value.length, 0x90, 15, [undefined, 0xdc, 0xdd])
    value.forEach((item) => write(out, item))
  } else {
    const fields = Object.entries(value)
    head(out, fields.length, 0x80, 15, [undefined, 0xde, 0xdf])
    fields.forEach(([name, field]) => {
      writeText(out, name)
      write(out, field)
    })
  }
}

const writeText = (out, text) => {
  const bytes = new TextEncoder().encode(text)
  head(out, bytes.length, 0xa0, 31, [0xd9, 0xda, 0xdb])
  for (const byte of bytes) out.push(byte)
}

const head = (out, length, fixed, fixedMax, [one, two, four]) => {
  if (length <= fixedMax) out.push(fixed | length)
  else if (one !== undefined && length < 0x100) out.push(one, length)
  else if (length < 0x10000) out.push(two, ...big(length, 2))
  else out.push(four, ...big(length, 4))
}

const big = (number, size) => Array.from({ length: size }, (_, at) => (number >>> (8 * (size - 1 - at))) & 0xff)

const writeNumber = (out, number) => {
  if (!Number.isInteger(number) || number < -0x80000000 || number > 0xffffffff || Object.is(number, -0)) {
    const view = new DataView(new ArrayBuffer(8))
    view.setFloat64(0, number)
    out.push(0xcb, ...new Uint8Array(view.buffer))
  } else if (number >= 0) {
    if (number < 0x80) out.push(number)
    else if (number < 0x100) out.push(0xcc, number)
    else if (number < 0x10000) out.push(0xcd, ...big(number, 2))
    else out.push(0xce, ...big(number, 4))
  } else if (number >= -32) out.push(0x100 + number)
  else if (number >= -0x80) out.push(0xd0, number & 0xff)
  else if (number >= -0x8000) out.push(0xd1, ...big(number & 0xffff, 2))
  else out.push(0xd2, ...big(number >>> 0, 4))
}

const CUT = Symbol("the bytes end")

// How many bytes follow the first one of a number.
const NUMBERS = { 0xca: [4, "getFloat32"], 0xcb: [8, "getFloat64"], 0xcc: [1, "getUint8"], 0xcd: [2, "getUint16"], 0xce: [4, "getUint32"], 0xcf: [8, "getBigUint64"], 0xd0: [1, "getInt8"], 0xd1: [2, "getInt16"], 0xd2: [4, "getInt32"], 0xd3: [8, "getBigInt64"] }

const PLAIN = { 0xc0: "null", 0xc2: "false", 0xc3: "true" }

// The beginning of a map or list as JSON, as far as these bytes go; undefined if they are no msgpack.
export const beginning = (bytes) => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let [at, text] = [0, ""]
  const take = (count) => {
    if (at + count > bytes.length) throw CUT
    at += count
    return at - count
  }
  const number = (size) => view[`getUint${size * 8}`](take(size))
  const string = (length) => {
    const part = bytes.subarray(at, at + length)
    if (part.length > 0 || length === 0) text += JSON.stringify(new TextDecoder("utf-8", { fatal: true }).decode(part, { stream: part.length < length }))
    take(length)
  }
  const items = (count, open, close, item) => {
    text += open
    for (let n = 0; n < count; n++) {
      if (n > 0) text += ","
      item()
    }
    text += close
  }
  const list = (count) => items(count, "[", "]", value)
  const map = (count) => items(count, "{", "}", () => (value(), (text += ":"), value()))
  const value = () => {
    const first = bytes[take(1)]
    if (first < 0x80) text += first
    else if (first < 0x90) map(first & 15)
    else if (first < 0xa0) list(first & 15)
    else if (first < 0xc0) string(first & 31)
    else if (first >= 0xe0) text += first - 256
    else if (first in PLAIN) text += PLAIN[first]
    else if (first in NUMBERS) text += view[NUMBERS[first][1]](take(NUMBERS[first][0]))
    else if (first >= 0xd9 && first <= 0xdb) string(number(2 ** (first - 0xd9)))
    else if (first === 0xdc || first === 0xdd) list(number(first === 0xdc ? 2 : 4))
    else if (first === 0xde || first === 0xdf) map(number(first === 0xde ? 2 : 4))
    else throw new Error("not shown in one line")
  }
  const isMany = (bytes[0] >= 0x80 && bytes[0] < 0xa0) || (bytes[0] >= 0xdc && bytes[0] <= 0xdf)
  if (!isMany) return undefined
  try {
    value()
    // Bytes are left over, or all is here: the server would have read it.
    return undefined
  } catch (error) {
    return error === CUT ? `${text}…` : undefined
  }
}
