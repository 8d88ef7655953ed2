// The data for the tests of the console: stores of each kind, and hostile names and payloads.

import assert from "node:assert/strict"

export const MARKUP = `<img src=x onerror="window.harmed=1"><script>window.harmed=1</script>`
export const TURNED = "ann\u202egnp.exe"

const base64 = (bytes) => Buffer.from(bytes).toString("base64")
// What `Schema.Struct({ key, value })` of Effect writes for { key: "k1", value: "AA" }.
const FRAME = "1120d0bcda9721024141e086b9853402" + "6b31"

export const fill = async (write, admin) => {
  await write("team", [
    { event: "Added", primaryKey: "todo-1", payload: base64([0x81, 0xa4, ...Buffer.from("text"), 0xa4, ...Buffer.from("milk")]) },
    { event: "Renamed", primaryKey: "todo-1", payload: base64([0x81, 0xa4, ...Buffer.from("text"), 0xa8, ...Buffer.from("oat milk")]) },
    { event: "Framed", primaryKey: "k1", payload: base64(Buffer.from(FRAME, "hex")) },
    { event: "Json", primaryKey: "j1", payload: base64('{"a": [1, 2]}') },
    { event: "Said", primaryKey: "s1", payload: base64("plain words") },
    { event: "Bytes", primaryKey: "b1", payload: base64([0xc1, 0xff, 0x00, 0xfe]) },
    { event: "Doomed", primaryKey: "d1", payload: "" },
    { event: "Doomed", primaryKey: "d2", payload: "" }
  ])
  // The second was made before the first, and arrived after it.
  await write("late", [
    { id: "018bcfe5-6800-70e1-8101-010101010102", event: "Renamed", primaryKey: "c1", payload: base64("later") },
    { id: "018bcfe5-6800-70e1-8101-010101010101", event: "Renamed", primaryKey: "c1", payload: base64("earlier") },
    { id: "018bcfe5-6800-70e1-8101-010101010100", event: "Added", primaryKey: "c1", payload: base64("another event") }
  ])
  await write("gone", ["a", "b", "a", "c", "a", "d"].map((primaryKey) => ({ event: "Said", primaryKey, payload: base64(`a secret of ${primaryKey}`) })))
  await write("many", Array.from({ length: 1000 }, (_, n) => ({ event: "Counted", primaryKey: `n${n % 10}`, payload: base64([0x91, 0xcd, n >> 8, n & 255]) })))
  for (let n = 0; n < 20; n++) await write(`store-${n}`, [{ event: "Begun", primaryKey: "", payload: "gA==" }])
  await write("fast", [{ event: "Tick", primaryKey: "", payload: "gA==" }])
  await write(MARKUP, [
    { event: MARKUP, primaryKey: TURNED, payload: base64(`${TURNED} ${MARKUP}`) },
    { event: "Large", primaryKey: "l".repeat(10_000), payload: base64("x".repeat(1 << 20)) },
    { event: "\u0000\u001b[2J\u2066", primaryKey: "\ufeff", payload: base64([0xa1, 0x3c]) }
  ])
  for (const [key, storeId] of [["ann", "team"], ["bob", "team"], [TURNED, "team"], [MARKUP, "store-1"], ["guest", "gone"], ["loader", "busy"]]) {
    const response = await admin("PUT", `keys/${encodeURIComponent(key)}`, { storeId })
    assert.equal(response.status, 200, await response.text())
  }
}
