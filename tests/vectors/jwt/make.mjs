// Writes `tokens.json` (a token for each algorithm) and `jwks.json` with node's own cryptography, from the keys beside this file. These keys
// are only for tests.  node make.mjs
import { createHmac, createPrivateKey, createPublicKey, sign } from "node:crypto"
import { readFileSync, writeFileSync } from "node:fs"

const secret = "a secret of more than 32 bytes, for tests"
const base64 = (value) => Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url")
const key = (name) => createPrivateKey(readFileSync(new URL(`${name}.pem`, import.meta.url)))
const signers = {
  HS256: (text) => createHmac("sha256", secret).update(text).digest(),
  RS256: (text) => sign("sha256", text, key("rsa")),
  ES256: (text) => sign("sha256", text, { key: key("p256"), dsaEncoding: "ieee-p1363" }),
  EdDSA: (text) => sign(undefined, text, key("ed25519"))
}
const payload = { sub: "node", exp: 4102444800, public_keys: ["alice"] }
const token = ([alg, signer]) => {
  const signed = `${base64({ alg, typ: "JWT" })}.${base64(payload)}`
  return [alg, `${signed}.${signer(Buffer.from(signed)).toString("base64url")}`]
}
const write = (name, value) => writeFileSync(new URL(name, import.meta.url), `${JSON.stringify(value, null, 2)}\n`)
write("tokens.json", Object.fromEntries(Object.entries(signers).map(token)))
const jwk = (name) => ({ kid: name, use: "sig", ...createPublicKey(key(name)).export({ format: "jwk" }) })
write("jwks.json", { keys: ["rsa", "p256", "ed25519"].map(jwk) })
