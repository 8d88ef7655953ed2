// Writes event_payloads.json: event payloads as the npm package `effect` 4.1.0 encodes them. Also checks that the package
// decodes what this crate writes for the same values (`ours`, taken from the existing file).
//
//   npm install effect@4.1.0
//   node event_payloads.mjs          rewrites event_payloads.json beside it
//
// An element is {schema, value, hex, ours}. The Rust types that stand for the schemas are in
// src/protocol/rpc/payload/tests.rs.
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { pathToFileURL } from "node:url"
import { isDeepStrictEqual } from "node:util"

const require = createRequire(process.cwd() + "/")
const load = (name) => import(pathToFileURL(require.resolve(name)).href)
const { Schema } = await load("effect")
const { SchemaBinary } = await load("effect/encoding")

const Kind = Schema.Literals(["small", "large"])
const Item = Schema.Struct({
  name: Schema.String,
  size: Schema.Int,
  kind: Kind,
  labels: Schema.Array(Schema.String),
  note: Schema.optional(Schema.String),
  attributes: Schema.Record(Schema.String, Schema.Int)
})
const Circle = Schema.TaggedStruct("Circle", { radius: Schema.Number })
const Rectangle = Schema.TaggedStruct("Rectangle", { width: Schema.Number, height: Schema.Number })
const Point = Schema.TaggedStruct("Point", {})
const Shape = Schema.Union([Circle, Rectangle, Point])
const Leaf = Schema.Struct({
  text: Schema.String,
  yes: Schema.Boolean,
  int: Schema.Int,
  number: Schema.Number,
  bytes: Schema.Uint8Array,
  date: Schema.Date,
  kind: Kind,
  nothing: Schema.Void
})
const Maybe = Schema.Struct({
  text: Schema.optional(Schema.String),
  yes: Schema.optional(Schema.Boolean),
  int: Schema.optional(Schema.Int),
  number: Schema.optional(Schema.Number),
  item: Schema.optional(Item),
  shape: Schema.optional(Shape),
  kind: Schema.optional(Kind),
  labels: Schema.optional(Schema.Array(Schema.String)),
  keyText: Schema.optionalKey(Schema.String),
  keyInt: Schema.optionalKey(Schema.Int),
  orNull: Schema.NullOr(Schema.String),
  orUndefined: Schema.UndefinedOr(Schema.Int)
})
const Many = Schema.Struct({
  texts: Schema.Array(Schema.String),
  ints: Schema.Array(Schema.Int),
  numbers: Schema.Array(Schema.Number),
  booleans: Schema.Array(Schema.Boolean),
  kinds: Schema.Array(Kind),
  items: Schema.Array(Item),
  shapes: Schema.Array(Shape),
  maybes: Schema.Array(Schema.NullOr(Schema.String)),
  matrix: Schema.Array(Schema.Array(Schema.Int)),
  pair: Schema.Tuple([Schema.String, Schema.Int, Schema.Boolean, Schema.Number]),
  record: Schema.Record(Schema.String, Schema.Number),
  records: Schema.Array(Schema.Record(Schema.String, Schema.String)),
  item: Item
})
const schemas = {
  Void: Schema.Void,
  String: Schema.String,
  Number: Schema.Number,
  Shape,
  Kind,
  Items: Schema.Array(Item),
  Leaf,
  Maybe,
  Many
}

const item = (n, more) => ({
  name: n % 2 ? "odd" : "even",
  size: n,
  kind: n % 3 ? "small" : "large",
  labels: n % 2 ? ["x", "y"] : ["y"],
  attributes: n % 2 ? { a: n, b: -n } : {},
  ...more
})
const leaf = {
  text: "h\u00e9llo \u{1F600}",
  yes: true,
  int: -42,
  number: 1.5,
  bytes: { hex: "00ff" },
  date: { date: 1700000000123 },
  kind: "large",
  nothing: { undefined: true }
}
const many = {
  texts: [],
  ints: [],
  numbers: [],
  booleans: [],
  kinds: [],
  items: [],
  shapes: [],
  maybes: [],
  matrix: [],
  pair: ["", 0, false, 0],
  record: {},
  records: [],
  item: item(0)
}
const numbers = [0, 1, -1, 63, 64, 300, 0.1, -2.75, 1e-9, 1e21, 2 ** 47, 2 ** 48 - 1, 2 ** 48, 2 ** 52 + 1, 123456.789]
const values = [
  ["Void", { undefined: true }],
  ["String", ""],
  ["String", "text"],
  ...numbers.map((n) => ["Number", n]),
  ["Shape", { _tag: "Circle", radius: 2 }],
  ["Shape", { _tag: "Rectangle", width: 0.5, height: 1e10 }],
  ["Shape", { _tag: "Point" }],
  ["Kind", "small"],
  ["Items", []],
  ["Items", [item(1)]],
  ["Items", [1, 2, 3, 4, 5, 6].map((n) => item(n, n % 3 ? {} : { note: "odd" }))],
  ["Leaf", leaf],
  ["Leaf", { ...leaf, text: "", yes: false, int: 2 ** 53 - 1, number: 1 / 3, bytes: { hex: "" }, date: { date: -1 } }],
  ["Leaf", { ...leaf, int: -(2 ** 50), number: -0.001, kind: "small" }],
  ["Maybe", { orNull: null, orUndefined: { undefined: true } }],
  ["Maybe", {
    text: "t",
    yes: false,
    int: 300,
    number: 0.1,
    item: item(3, { note: "n" }),
    shape: { _tag: "Circle", radius: 1 },
    kind: "small",
    labels: ["a", "a"],
    keyText: "\u0005k",
    keyInt: 7,
    orNull: "x",
    orUndefined: 5
  }],
  ["Maybe", { shape: { _tag: "Point" }, number: 4, labels: [], keyText: "", orNull: "", orUndefined: -1 }],
  ["Many", many],
  ["Many", {
    texts: ["a", "", "a"],
    ints: [1, -1, 300, 2 ** 53 - 1],
    numbers: [1, 2, 300],
    booleans: [true, false],
    kinds: ["small", "large"],
    items: [1, 2, 3, 4].map((n) => item(n)),
    shapes: [{ _tag: "Point" }, { _tag: "Circle", radius: 0.25 }],
    maybes: ["a", null],
    matrix: [[1, 2], [], [3]],
    pair: ["p", -5, true, 0.5],
    record: { one: 1, half: 0.5, tiny: 1e-300 },
    records: [{ k: "v" }, {}, { k: "w", l: "v" }],
    item: item(1, { note: "y" })
  }],
  ["Many", { ...many, numbers: [0.5, 1, -0.25] }],
  ["Many", { ...many, numbers: [Math.PI, 1] }],
  ["Many", { ...many, items: Array.from({ length: 40 }, (_, n) => item(n, { name: `name ${n % 7}` })) }]
]

const plain = (value) => {
  if (value === null || typeof value !== "object") return value
  if (Array.isArray(value)) return value.map(plain)
  const is = (name) => name in value && Object.keys(value).length === 1
  if (is("undefined")) return undefined
  if (is("date")) return new Date(value.date)
  if (is("hex")) return new Uint8Array(Buffer.from(value.hex, "hex"))
  return Object.fromEntries(Object.entries(value).map(([key, field]) => [key, plain(field)]))
}
// A field that is present and undefined means the same as an absent one.
const said = (value) => {
  if (value === null || typeof value !== "object" || value instanceof Date || value instanceof Uint8Array) return value
  if (Array.isArray(value)) return value.map(said)
  return Object.fromEntries(Object.entries(value).filter(([, field]) => field !== undefined)
    .map(([key, field]) => [key, said(field)]))
}
const hex = (schema, value) =>
  Buffer.from(Schema.encodeUnknownSync(SchemaBinary.toCodec(schemas[schema]))(value)).toString("hex")

const path = new URL("event_payloads.json", import.meta.url)
const before = existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : []
const ours = new Map(before.map((element) => [element.hex, element.ours]))
const lines = values.map(([schema, value]) => {
  const stock = hex(schema, plain(value))
  const element = { schema, value, hex: stock, ours: ours.get(stock) }
  if (element.ours !== undefined) {
    const decode = Schema.decodeUnknownSync(SchemaBinary.toCodec(schemas[schema]))
    const read = decode(new Uint8Array(Buffer.from(element.ours, "hex")))
    if (!isDeepStrictEqual(said(read), said(plain(value)))) throw new Error(`${schema} ${JSON.stringify(value)}: the package reads another value`)
  }
  return JSON.stringify(element)
})
writeFileSync(path, `[\n${lines.join(",\n")}\n]\n`)
console.log(`${lines.length} payloads, ${lines.filter((line) => line.includes("\"ours\"")).length} of ours read by the package`)
