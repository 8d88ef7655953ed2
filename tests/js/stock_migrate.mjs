// Unmodified clients of `effect` 4.1 of a server that is moved from its data directory to PostgreSQL, and back. Exits with an error at the
// first failure.
//
//   node stock_migrate.mjs HOST:PORT ADMIN_TOKEN
//
// The server lets everyone in and maps unknown keys to the store `default`, which has to be empty. Where this prints `restart`, whoever runs
// it stops the server, moves it to the other storage, starts it at the same address, and writes a line.

import assert from "node:assert/strict"

import { Browser, entry, impostorOf, makeIdentity, Remote, restarter, step, until } from "./stock.mjs"

const [address, token] = process.argv.slice(2)
assert.ok(token, "usage: node stock_migrate.mjs HOST:PORT ADMIN_TOKEN")
const url = `ws://${address}/rpc`
const restart = restarter()
// Clients retry by themselves; they pause for at most ten seconds.
const PATIENCE_MILLIS = 60_000

const sent = async () => {
  const text = await (await fetch(`http://${address}/metrics`)).text()
  return Number(text.match(/^eventlog_entries_sent_total (\d+)/m)[1])
}
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

const [alice, bob, third] = [await makeIdentity(), await makeIdentity(), await makeIdentity()]
const one = await Browser.open(url, alice)
const other = await Browser.open(url, bob)
const has = (browser, count) =>
  until(`${count} notes`, async () => browser.notes.size === count, PATIENCE_MILLIS)
const writes = async (entries) => {
  const remote = await Remote.connect(url, third)
  try {
    return await remote.write(entries)
  } finally {
    await remote.close()
  }
}

const MANY = 300
const kept = entry("Kept", "k", Buffer.from("kept"))
let notes = 0
let keptAt

await step("before it is moved, both have all", async () => {
  const all = Array.from({ length: MANY }, (_, n) => ({ key: `m${n}`, text: "before" }))
  await one.setAll(all)
  notes += MANY
  for (const browser of [one, other]) await has(browser, notes)
  keptAt = await writes([kept])
})

for (const to of ["PostgreSQL", "its directory", "PostgreSQL again"]) {
  await restart()
  await step(`moved to ${to}: clients go on where they were, and fetch nothing again`, async () => {
    await one.set(`a ${to}`, to)
    await other.set(`b ${to}`, to)
    notes += 2
    for (const browser of [one, other]) await has(browser, notes)
    // Each gets the note of the other, and what else was written to the store; never what it already had.
    assert.ok((await sent()) < 20, `${await sent()} entries were sent`)
  })
  await step(`moved to ${to}: ids keep their sequences, keys their signing keys`, async () => {
    assert.deepEqual(await eventually(() => writes([kept])), keptAt)
    const impostor = await Remote.connect(url, await impostorOf(third))
    assert.equal((await impostor.refused(impostor.writing([entry("Forged", "f")]))).code, "Forbidden")
    await impostor.close()
  })
}

await step("a device that is new gets everything", async () => {
  const late = await Browser.open(url, await makeIdentity())
  await has(late, notes)
  await late.close()
})

for (const browser of [one, other]) await browser.close()
process.exit(0)
