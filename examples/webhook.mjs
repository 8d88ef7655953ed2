// A receiver of webhooks. It verifies the sender of each request and processes every entry once, in order.
//
//     npm install standardwebhooks
//     WEBHOOK_SECRET=whsec_… node webhook.mjs
//
// Configure the server with the same secret:
//
//     [[webhook]]
//     name = "todos"
//     url = "http://127.0.0.1:8081/"
//     secret = "whsec_…"
//     from = "start"
//     events = ["Todo*"]

import { readFileSync, renameSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import { Webhook } from "standardwebhooks"

const webhook = new Webhook(process.env.WEBHOOK_SECRET)
const file = process.env.STATE ?? "todos.json"

// The position in each store. Keep it together with the results: repeated entries are recognized by it.
let state = { sequences: {}, titles: {} }
try {
  state = JSON.parse(readFileSync(file, "utf8"))
} catch (error) {
  if (error.code !== "ENOENT") throw error
}

const take = (store, entry) => {
  if (entry.sequence <= (state.sequences[store] ?? 0)) return
  // `payloadBase64` replaces it if JSON cannot express the payload.
  if (entry.event === "TodoAdded") state.titles[`${store}/${entry.primaryKey}`] = entry.payload.title
  state.sequences[store] = entry.sequence
  console.log(`${store} ${entry.sequence} ${entry.event} ${entry.primaryKey}`)
}

const read = async (request) => {
  const parts = []
  for await (const part of request) parts.push(part)
  return Buffer.concat(parts)
}

const server = createServer(async (request, response) => {
  const body = await read(request)
  let message
  try {
    // Also throws if the request is more than five minutes old.
    message = webhook.verify(body, request.headers)
  } catch {
    // Not one of the 4xx codes that reject the entries: the request is repeated until the secret is correct.
    return response.writeHead(401).end()
  }
  for (const entry of message.entries) take(message.store, entry)
  // Before the answer: an entry is not sent again after it was answered.
  writeFileSync(`${file}.new`, JSON.stringify(state))
  renameSync(`${file}.new`, file)
  response.writeHead(204).end()
})

server.listen(process.env.PORT ?? 8081, "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}/`)
})
