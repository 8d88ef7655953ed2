// Who is connected, what they follow, and how far they are.

import { html, useState } from "../vendor/preact-htm.js"
import { api } from "../api.js"
import { bytes, count, several, visible } from "../format.js"
import { Dialog, Empty, Loaded, Name, Page, Search, StoreLink, Table, Time, say, sorted, useData, useSettled } from "../parts.js"
import { ask } from "../route.js"
import { Revoke } from "./keys.js"

// More rows than a table can show.
const MOST = 2_000
const SHOWN = 200
const FOLLOWED_SHOWN = 5

const LOOK_MS = 3_000

const lag = ({ subscriptions }) => Math.max(-1, ...subscriptions.map(({ lag }) => lag ?? 0))

export const Sessions = ({ route: { query }, may }) => {
  const search = useSettled(query.q ?? "")
  const data = useData(() => api.sessions(MOST, search), [search], LOOK_MS)
  const [doing, setDoing] = useState()
  const columns = [
    { name: "Client", sort: ({ address }) => address ?? "", show: (session) => html`<${Client} of=${session} />` },
    { name: "Follows", show: (session) => html`<${Follows} of=${session} may=${may} onDo=${(view, publicKey) => setDoing({ view, id: session.id, publicKey })} />` },
    { name: "Behind", number: true, sort: lag, show: (session) => (session.subscriptions.length === 0 ? "–" : count(lag(session))) },
    { name: "Sent", number: true, sort: ({ sentBytes }) => sentBytes, show: ({ sentBytes }) => bytes(sentBytes) },
    { name: "Received", number: true, sort: ({ receivedBytes }) => receivedBytes, show: ({ receivedBytes }) => bytes(receivedBytes) },
    { name: "Since", sort: ({ sinceMillis }) => sinceMillis, show: ({ sinceMillis }) => html`<${Time} at=${sinceMillis} />` },
    ...(may("admin") ? [{ name: "Do", show: ({ id }) => html`<button class="quiet" aria-label="Close ${id}" onClick=${() => setDoing({ view: Close, id })}>Close</button>` }] : [])
  ]
  const order = { by: query.sort ?? "Behind", down: query.up !== "1" }
  const Doing = doing?.view
  return html`
    <${Page} title="Sessions" about="Each connection, what it follows, and how much of that it was sent. Positions are as of its last activity.">
      <${Search} label="Find a client, a key or a store" query=${query}>${data.value && said(data.value)}<//>
      <${Loaded} data=${data}>${({ items, more }) => {
        if (items.length === 0 && search === "") return html`<${Empty} title="Nobody is connected"><p>Clients connect to <code>/rpc</code> or <code>/eventlog</code>. The server's log names the clients that it refused.</p><//>`
        if (items.length === 0) return html`<${Empty} title="Nothing matches"><p>${more ? "There are too many sessions to look at all of them here, and none of the first matches." : "No client, and nothing that one follows, contains this text."}</p><//>`
        const rows = sorted(items, columns, order).slice(0, SHOWN)
        return html`<${Table} caption="Sessions" columns=${columns} rows=${rows} id=${({ id }) => id} order=${order} onOrder=${({ by, down }) => ask({ sort: by, up: down ? "" : "1" })} />`
      }}<//>
      ${doing && html`<${Doing} of=${doing} onClose=${() => setDoing()} again=${data.again} />`}
    <//>
  `
}

const said = ({ items: { length }, more }) => `${more ? "the oldest " : ""}${several(length, "session")}${length > SHOWN ? `, ${count(SHOWN)} shown` : ""}${more ? "; there are more, so search" : ""}`

const Client = ({ of: { id, address, path, subject } }) => html`
  ${address ?? "–"} <span class="faint">${path} · ${id}</span>
  ${subject !== undefined && html`<br /><${Name} most=${40}>${subject}<//>`}
`

const Follows = ({ of: { subscriptions }, may, onDo }) => {
  if (subscriptions.length === 0) return html`<span class="faint">nothing</span>`
  const rest = subscriptions.length - FOLLOWED_SHOWN
  return html`
    <ul class="follows">
      ${subscriptions.slice(0, FOLLOWED_SHOWN).map((followed) => html`
        <li key=${followed.publicKey}>
          <span><${Name} most=${32}>${followed.publicKey}<//> in <${StoreLink} store=${followed.storeId} /></span>
          <${Progress} of=${followed} />
          ${may("admin") && html`
            <button class="quiet" aria-label="End ${visible(followed.publicKey)}" onClick=${() => onDo(End, followed.publicKey)}>End</button>
            <button class="quiet" aria-label="Revoke ${visible(followed.publicKey)}" onClick=${() => onDo(Revoke, followed.publicKey)}>Revoke</button>
          `}
        </li>
      `)}
    </ul>
    ${rest > 0 && html`<p class="hint">and ${count(rest)} more</p>`}
  `
}

// How much of the store was sent to a subscription.
const Progress = ({ of: { publicKey, cursor, lag } }) => {
  if (lag === undefined) return html`<span class="faint">at ${count(cursor)}</span>`
  const head = cursor - 1 + lag
  const said = lag === 0 ? "up to date" : `${count(lag)} behind`
  return html`<span class="bar"><progress aria-label="Sent to ${visible(publicKey)}" value=${cursor - 1} max=${Math.max(1, head)} /> ${said}</span>`
}

// Ignores an error about something that has already ended.
const unlessGone = (error) => {
  if (error.status !== 404) throw error
}

const End = ({ of: { id, publicKey }, onClose, again }) => html`
  <${Dialog} title="End this subscription?" act="End it" onClose=${onClose} onDo=${async () => {
    await api.closeSubscription(id, publicKey).catch(unlessGone)
    say("The subscription is closed.")
    again()
  }}>
    <p>The client is told, and soon subscribes with <b><${Name}>${publicKey}<//></b> again. Its connection stays open.</p>
  <//>
`

const Close = ({ of: { id }, onClose, again }) => html`
  <${Dialog} title="Close this connection?" act="Close it" onClose=${onClose} onDo=${async () => {
    await api.closeSession(id).catch(unlessGone)
    say("The connection is closed.")
    again()
  }}>
    <p>The server first answers what the client has sent. The client reconnects at once. To keep it out, revoke its key.</p>
  <//>
`
