// The login of an application, as small as it can be: who has a session gets a token for the sync server. docs/AUTH.md walks through it.
//
//   EVENTLOG_AUTH_JWT_SECRET=… node examples/login.mjs [PORT [SECONDS]]
//
// It believes every name, and forgets everything when it ends; yours has passwords and a database.
import { createHmac, randomUUID } from "node:crypto"
import { createServer } from "node:http"

const [port = 7421, seconds = 600] = process.argv.slice(2).map(Number)
const secret = process.env.EVENTLOG_AUTH_JWT_SECRET
const teams = { ann: "red", bob: "blue" }
const sessions = new Map() // session: user
const owners = new Map() // public key: user

const base64 = (value) => Buffer.from(JSON.stringify(value)).toString("base64url")
const sign = (claims) => {
  const signed = `${base64({ alg: "HS256", typ: "JWT" })}.${base64(claims)}`
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`
}

createServer((request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://localhost")
  if (pathname === "/login") {
    const session = randomUUID()
    sessions.set(session, searchParams.get("user"))
    return response.setHeader("set-cookie", `session=${session}; HttpOnly; SameSite=Lax`).end()
  }
  const user = sessions.get(request.headers.cookie?.match(/session=([^;]*)/)?.[1])
  const key = searchParams.get("key")
  // A key belongs to who came with it first. Without this everybody could ask for a token with everybody's key.
  if (!teams[user] || !key || (owners.get(key) ?? user) !== user) return response.writeHead(403).end()
  owners.set(key, user)
  const exp = Math.floor(Date.now() / 1000) + seconds
  response.end(sign({ sub: user, exp, public_keys: [key], store_id: teams[user] }))
}).listen(port, "127.0.0.1", function () {
  console.log(`login at http://127.0.0.1:${this.address().port}`)
})
