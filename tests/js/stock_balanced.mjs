// Unmodified clients of `effect` 4.1 that a load balancer moves between nodes. Exits with an error at the first failure.
//
//   node stock_balanced.mjs HOST:PORT
//
// The nodes let everyone in and map unknown keys to the store `default`, which must be empty. When this prints `restart`, the caller
// kills the nodes one after the other, starts each again, and writes a line.

import assert from "node:assert/strict"

import { Browser, makeIdentity, restarter, step, until } from "./stock.mjs"

const [address] = process.argv.slice(2)
assert.ok(address, "usage: node stock_balanced.mjs HOST:PORT")
const url = `ws://${address}/rpc`
const restart = restarter()

const users = [await makeIdentity(), await makeIdentity()]
// One user with two devices, and one with one device: as many as there are nodes.
const browsers = [
  await Browser.open(url, users[0]),
  await Browser.open(url, users[0]),
  await Browser.open(url, users[1])
]

const converged = async (count) => {
  await until(
    "all journals are equal",
    async () => {
      const [one, ...others] = await Promise.all(browsers.map((browser) => browser.ids()))
      return one.length === count && others.every((ids) => ids.join() === one.join())
    },
    60_000
  )
  const [one, ...others] = browsers.map((browser) => browser.state())
  others.forEach((state) => assert.deepEqual(state, one))
  return one
}

let count = 0
await step("clients at three nodes converge", async () => {
  for (; count < 60; count++) await browsers[count % 3].set(`k${count % 7}`, `text ${count}`)
  assert.equal((await converged(count)).length, 7)
})

for (let round = 1; round <= 3; round++) {
  await step(`clients go on at other nodes, round ${round}`, async () => {
    const unsent = browsers.map((browser, n) => browser.set(`${round} before ${n}`, "sent as it dies"))
    await restart()
    await Promise.all(unsent)
    await Promise.all(browsers.map((browser, n) => browser.set(`${round} after ${n}`, "sent again")))
    count += 6
    await converged(count)
  })
}

await step("one that comes later has it all", async () => {
  const state = await converged(count)
  browsers.push(await Browser.open(url, await makeIdentity()))
  assert.deepEqual(await converged(count), state)
})
process.exit(0)
