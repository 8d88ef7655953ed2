// Encodes JSON as msgpack, as clients of the msgpack protocol write payloads: objects keep the order of their fields, and
// integers of more than 32 bits become floats, which is all that JavaScript has for them.

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
