// One store: its feed, its keys, and the progress of handlers.

import { html, useState } from "../vendor/preact-htm.js"
import { api, exportPath } from "../api.js"
import { bytes, count, several, short, visible } from "../format.js"
import { Dialog, Empty, Failed, Field, Loading, Name, NoView, Page, Tabs, say, useData } from "../parts.js"
import { link, whole } from "../route.js"
import { Entry } from "./entry.js"
import { Erase } from "./erase.js"
import { Feed } from "./feed.js"
import { GroupsOf } from "./groups.js"
import { KeysOf } from "./keys.js"

const LOOK_MS = 3_000

const PARTS = { feed: "Feed", keys: "Keys", processing: "Processing" }

export const Store = ({ route, may }) => {
  const [, store, part = "feed", sequence] = route.path
  const data = useData(() => api.store(store), [store], LOOK_MS)
  const [doing, setDoing] = useState()
  const isThere = part === "entry" ? whole(sequence) !== undefined && route.path.length === 4 : Object.hasOwn(PARTS, part) && route.path.length < 4
  if (!isThere) return html`<${NoView} />`
  if (part === "entry") return html`<${Entry} key=${sequence} store=${store} sequence=${whole(sequence)} may=${may} />`
  if (data.value === undefined) return html`<${Missing} store=${store} data=${data} may=${may} />`
  const { head, entries, bytes: size, subscribers, replayPosition, trimmed } = data.value
  const behind = replayPosition === undefined ? undefined : Math.max(0, head - replayPosition)
  const about = [
    several(entries, "entry", "entries"),
    `last sequence ${count(head)}`,
    ...(trimmed ? [`trimmed up to ${count(trimmed)}`] : []),
    bytes(size),
    several(subscribers, "subscriber"),
    ...(behind === undefined ? [] : [behind === 0 ? "handlers are done" : `handlers are ${count(behind)} behind`])
  ].join(" · ")
  const tabs = Object.entries(PARTS).map(([path, name]) => ({ name, href: link(["stores", store, path]) }))
  const actions = html`
    <a class="button quiet" href=${exportPath(store)} download="${store}.ndjson">Export</a>
    ${may("admin") && html`
      <button class="quiet" onClick=${() => setDoing("trim")}>Trim</button>
      <button class="quiet" onClick=${() => setDoing("erase")}>Erase</button>
    `}
    ${may("write") && html`<a class="button" href=${link(["write"], { store })}>Write an event</a>`}
  `
  return html`
    <${Page} title=${html`<${Name}>${store}<//>`} about=${about} actions=${actions}>
      <${Tabs} tabs=${tabs} now=${PARTS[part]} />
      ${part === "feed" && html`<${Feed} store=${store} query=${route.query} head=${head} />`}
      ${part === "keys" && html`<${KeysOf} store=${store} may=${may} />`}
      ${part === "processing" && html`<${GroupsOf} store=${store} head=${head} may=${may} />`}
      ${doing === "trim" && html`<${Trim} store=${store} head=${head} trimmed=${trimmed ?? 0} onClose=${() => setDoing()} again=${data.again} />`}
      ${doing === "erase" && html`<${Erase} store=${store} onClose=${() => setDoing()} again=${data.again} />`}
    <//>
  `
}

// A trim: how much is done, and what the rest waits for.
const told = ({ trimmed, wanted, behind }) => {
  if (trimmed >= wanted) return `Trimmed. The feed now begins after ${count(trimmed)}.`
  return `Trimmed up to ${count(trimmed)}. The rest waits for ${behind.map(({ name }) => visible(short(name, 40))).join(", ")}.`
}

const Trim = ({ store, head, trimmed, onClose, again }) => {
  const [first, setFirst] = useState("")
  const trim = async () => {
    say(told(await api.trim(store, Number(first))))
    again()
  }
  return html`
    <${Dialog} title="Trim this feed for good?" act="Trim" type=${store} onDo=${trim} onClose=${onClose}>
      <p>The server removes all earlier entries and keeps only their ids. Clients keep what they have. New clients, and clients that were away for long, do not get the removed entries. The server waits for handlers that are behind. Export the store first if you may need the entries again: backups and the archive keep them only as long as the configuration says (docs/DATA.md).</p>
      <${Field} label="First sequence to keep" hint=${`from ${count(trimmed + 1)} to ${count(head + 1)}`} id="t-first">
        <input id="t-first" type="number" required min=${trimmed + 1} max=${head + 1} value=${first} aria-describedby="t-first-hint" onInput=${(event) => setFirst(event.target.value)} />
      <//>
    <//>
  `
}

const Missing = ({ store, data: { error, again }, may }) => {
  if (error === undefined) return html`<${Loading} />`
  if (error.status !== 404) return html`<${Failed} error=${error} again=${again} />`
  return html`
    <${Empty} title="This store has no entries" alone>
      <p>Nothing was ever written to <b><${Name}>${store}<//></b>, or the name is wrong. A store exists once it has an entry.</p>
      <p><a href=${link(["stores"])}>All stores</a>${may("write") && html` · <a href=${link(["write"], { store })}>Write its first event</a>`}</p>
    <//>
  `
}
