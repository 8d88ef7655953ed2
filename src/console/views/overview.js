// The state of the server, and its latest events.

import { html, useEffect, useRef, useState } from "../vendor/preact-htm.js"
import { api, follow } from "../api.js"
import { Chart } from "../chart.js"
import { ago, bytes, count, micros, rate, several } from "../format.js"
import { Empty, Live, Loaded, Page, useData } from "../parts.js"
import { link } from "../route.js"

const ROWS_MAX = 1800

export const Overview = ({ session }) => {
  const data = useData(api.overview, [])
  return html`<${Loaded} data=${data}>${(first) => html`<${Shown} first=${first} session=${session} />`}<//>`
}

const Shown = ({ first, session }) => {
  const [now, setNow] = useState(first)
  const [rows, setRows] = useState(first.rows)
  const [live, setLive] = useState(true)
  const missed = useRef(false)
  useEffect(
    () =>
      follow(
        "overview",
        (event) => {
          setNow(event)
          if (event.row) setRows((rows) => [...rows.slice(rows.length >= ROWS_MAX ? 1 : 0), event.row])
        },
        (on) => {
          setLive(on)
          // Events that came in between are fetched with the rest.
          if (on && missed.current) api.overview().then(({ rows }) => setRows(rows), () => {})
          missed.current = true
        }
      ),
    []
  )
  const column = (name) => {
    const at = first.fields.indexOf(name)
    return rows.map((row) => row[at])
  }
  const last = (name) => column(name).at(-1)
  const times = column("unixMillis").map((at) => at / 1000)
  return html`
    <${Page} title="Overview" about=${html`Server <code>${session.remoteId}</code>, version ${now.version}`} actions=${html`<${Live} on=${live} />`}>
      <${Notes} notes=${now.notes} />
      <dl class="tiles">
        <${Tile} name="Entries/s" value=${rate(last("entries") ?? 0)} more=${`${bytes(last("bytes") ?? 0)}/s`} />
        <${Tile} name="Acknowledged in" value=${micros(last("ackP50Micros"))} more=${`99% within ${micros(last("ackP99Micros"))}`} />
        <${Tile} name="Connections" value=${count(last("connections") ?? 0)} more=${`of ${count(now.connectionsMax)}; ${several(last("subscriptions") ?? 0, "subscription")}`} />
        <${Tile} name="Handlers behind" value=${count(now.replayLag)} more=${now.deadLetters > 0 ? several(now.deadLetters, "dead letter") : "no dead letters"} href=${link(["processing"])} />
        <${Tile} name="Free on disk" value=${free(now.storage)} more=${now.storage.disk_is_low ? "little" : "enough"} />
        <${Tile} name="Nodes" value=${count(now.nodes.length)} more=${now.nodes.length === 1 ? "this server" : "on one database"} />
        <${Tile} name="Last backup" value=${backup(now.storage)} more=${now.storage.backup_bytes ? bytes(now.storage.backup_bytes) : "docs/DATA.md"} />
      </dl>
      ${now.nodes.length > 1 && html`<${Nodes} nodes=${now.nodes} />`}
      <h2>The last hour</h2>
      ${rows.length < 2
        ? html`<${Empty} title="The server has just started"><p>Charts appear in a few seconds.</p><//>`
        : html`<div class="charts">
            <${Chart} title="Entries committed, a second" times=${times} show=${rate} lines=${[{ name: "committed", stroke: "--blue", values: column("entries") }]} />
            <${Chart} title="Acknowledged in" times=${times} show=${micros} lines=${[
              { name: "median", stroke: "--green", values: column("ackP50Micros") },
              { name: "99%", stroke: "--orange", values: column("ackP99Micros") }
            ]} />
            <${Chart} title="Bytes committed, a second" times=${times} show=${bytes} lines=${[{ name: "bytes", stroke: "--violet", values: column("bytes") }]} />
            <${Chart} title="Entries sent, a second" times=${times} show=${rate} lines=${[{ name: "sent", stroke: "--blue", values: column("sent") }]} />
            <${Chart} title="Connections" times=${times} show=${count} lines=${[
              { name: "clients", stroke: "--green", values: column("connections") },
              { name: "strangers", stroke: "--orange", values: column("strangers") }
            ]} />
            <${Chart} title="Open stores" times=${times} show=${count} lines=${[{ name: "stores", stroke: "--violet", values: column("storesOpen") }]} />
          </div>`}
    <//>
  `
}

// The figures are of this node only.
const Nodes = ({ nodes }) => html`
  <p class="hint">
    The figures on this page are those of this server. It has heard of these nodes:${" "}
    ${nodes.map(({ name, isThis, heardMillisAgo }, at) => html`${at > 0 && ", "}<code>${name}</code> (${isThis ? "this server" : `${Math.round(heardMillisAgo / 1000)} s ago`})`)}.
  </p>
`

const free = (storage) => (storage.disk_free_bytes === undefined ? "–" : bytes(storage.disk_free_bytes))

const backup = (storage) => (storage.backup_made_seconds === undefined ? "none" : ago(storage.backup_made_seconds * 1000))

const Tile = ({ name, value, more, href }) => html`
  <div class="tile">
    <dt>${href ? html`<a href=${href}>${name}</a>` : name}</dt>
    <dd><b>${value}</b><span>${more}</span></dd>
  </div>
`

// Text between backticks is a command or a setting.
const withCode = (text) => text.split("`").map((part, at) => (at % 2 === 1 ? html`<code>${part}</code>` : part))

const WORDS = { bad: "Problem", warn: "Warning", info: "Note" }

const Notes = ({ notes }) => {
  const serious = notes.filter(({ level }) => level !== "info")
  return html`
    <section class="notes" aria-label="Problems">
      <p class="hidden" role="status">${serious.length === 0 ? "No problems" : several(serious.length, "problem")}</p>
      ${serious.length === 0 && html`<p class="note good"><b>All is well.</b> Problems appear here, with what to do about them.</p>`}
      ${notes.map(({ level, what, toDo }) => html`
        <div class="note ${level}" key=${what}>
          <p><b class="level">${WORDS[level]}</b> ${what}</p>
          <p class="todo">${withCode(toDo)}</p>
        </div>
      `)}
    </section>
  `
}
