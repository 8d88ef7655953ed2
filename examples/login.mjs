// The login of an application: a user with a session gets a token for the sync server. docs/AUTH.md explains it.
//
//   EVENTLOG_AUTH_JWT_SECRET=… node examples/login.mjs [PORT [SECONDS]]
import { createHmac } from "node:crypto"
import { createServer } from "node:http"
import { logIn, owns, teamOf, userOf } from "./users.mjs"

const [port = 7421, seconds = 600] = process.argv.slice(2).map(Number)
const base64 = (value) => Buffer.from(JSON.stringify(value)).toString("base64url")
const sign = (text) => createHmac("sha256", process.env.EVENTLOG_AUTH_JWT_SECRET).update(text).digest("base64url")

const server = createServer((request, response) => {
  const [path, query] = request.url.split("?")
  const given = new URLSearchParams(query)
  if (path === "/login") return logIn(given.get("user"), response)
  const user = userOf(request.headers.cookie)
  const key = given.get("key")
  // In a token, * stands for any text: "*" would be the keys of all users.
  if (!owns(user, key) || key.includes("*")) return response.writeHead(403).end()
  const exp = Math.floor(Date.now() / 1000) + seconds
  const claims = { sub: user, exp, public_keys: [key], store_id: teamOf(user) }
  const signed = `${base64({ alg: "HS256", typ: "JWT" })}.${base64(claims)}`
  response.end(`${signed}.${sign(signed)}`)
})
server.listen(port, "127.0.0.1", () => console.log(`login at http://127.0.0.1:${server.address().port}`))
