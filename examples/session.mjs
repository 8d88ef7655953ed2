// An application whose users have a session cookie: the sync server asks it who may do what. docs/AUTH.md explains it.
//
//   EVENTLOG_AUTH_HTTP_SECRET=whsec_… node examples/session.mjs [PORT [SECONDS]]
import { createServer } from "node:http"
import { text } from "node:stream/consumers"
import { isSigned } from "./signed.mjs"
import { logIn, logOut, owns, teamOf, userOf } from "./users.mjs"

const [port = 7421, seconds = 60] = process.argv.slice(2).map(Number)

const server = createServer(async (request, response) => {
  const [path, query] = request.url.split("?")
  if (path === "/login") return logIn(new URLSearchParams(query).get("user"), response)
  if (path === "/logout") return response.end(`${logOut(request.headers.cookie)}`)
  const question = await text(request)
  if (!isSigned(request.headers, question)) return response.writeHead(403).end()
  const { publicKey, headers } = JSON.parse(question)
  const user = userOf(headers.cookie)
  const allow = owns(user, publicKey)
  response.end(JSON.stringify({ allow, storeId: teamOf(user), sub: user, ttlSeconds: seconds }))
})
server.listen(port, "127.0.0.1", () => console.log(`application at http://127.0.0.1:${server.address().port}`))
