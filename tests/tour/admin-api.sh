# Sets up what docs/ADMIN-API.md shows: keys and stores, a webhook whose receiver refuses its entries, a webhook that
# is no longer configured, two entries that were too large, and with `follow` a connected client.

await() { until eval "$1"; do sleep 0.1; done >/dev/null 2>&1; }

if [ "${1-}" = follow ]; then
    eventlog-server tail --key carol >/dev/null &
    export EVENTLOG_ADMIN_TOKEN=a-long-random-text
    await 'eventlog-server sessions | grep -q carol'
    return
fi

cat >receiver.mjs <<'END'
import { createServer } from "node:http"
import { existsSync } from "node:fs"
createServer((request, response) => {
  request.resume().on("end", () => response.writeHead(existsSync("mended") ? 204 : 422).end())
}).listen(7499, "127.0.0.1")
END
node receiver.mjs &

webhook() {
    printf '[[webhook]]\nname = "%s"\nurl = "http://127.0.0.1:7499/"\nfrom = "start"\nevents = ["%s"]\n' "$@"
    echo 'secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"'
}

cat >admin.toml <<'END'
[auth]
mode = "grants"
bind = "first-use"
[[auth.grant]]
public_key = "*"
read = true
write = true
[admin]
token = "a-long-random-text"
[quota.per_key]
bytes_stored = "1GiB"
END
webhook mail Mail >>admin.toml
chmod o= admin.toml
cp -p admin.toml before.toml
webhook old Never >>before.toml

export EVENTLOG_ADMIN_TOKEN=a-long-random-text
EVENTLOG_LIMITS_ENTRY_BYTES_MAX=2KiB eventlog-server serve --config before.toml &
server=$!
await 'eventlog-server health --config before.toml'
for key in bob carol dora; do eventlog-server keys assign $key team; done
for n in 1 2 3; do eventlog-server write --key bob --event Mail --payload '{}'; done
await '[ "$(eventlog-server groups dead-letters mail | grep -c 422)" = 3 ]'
for n in 1 2; do
    # It is not acknowledged, since nobody else gets it.
    eventlog-server write --key dora --protocol rpc --identity dora.json --event Photo --payload "\"$(printf %03000d 0)\"" || true
done
kill $server
wait $server
