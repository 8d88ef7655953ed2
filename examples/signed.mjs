// Whether a request comes from the sync server, for session.mjs. The package `standardwebhooks` can check that too.
import { createHmac, timingSafeEqual } from "node:crypto"

const secret = Buffer.from(process.env.EVENTLOG_AUTH_HTTP_SECRET.replace("whsec_", ""), "base64")
if (secret.length < 24) throw new Error("EVENTLOG_AUTH_HTTP_SECRET is too short")

// `headers` and `body` are those of the request, which must be less than five minutes old.
export const isSigned = ({ "webhook-id": id, "webhook-timestamp": time, "webhook-signature": given = "" }, body) => {
  const own = createHmac("sha256", secret).update(`${id}.${time}.${body}`).digest()
  const hash = Buffer.from(given.replace("v1,", ""), "base64")
  return Math.abs(Date.now() / 1000 - time) < 300 && hash.length === own.length && timingSafeEqual(hash, own)
}
