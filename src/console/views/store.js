// One store: its feed, its keys, how far handlers are.

import { html, useState } from "../vendor/preact-htm.js"
import { api, exportPath } from "../api.js"
import { bytes, count, several, short, visible } from "../format.js"
import { Dialog, Empty, Failed, Field, Loading, Name, Page, Tabs, say, useData } from "../parts.js"
import { link } from "../route.js"
import { Entry } from "./entry.js"
import { Feed } from "./feed.js"
import { GroupsOf } from "./groups.js"
import { KeysOf } from "./keys.js"

const LOOK_MS = 3_000

const PARTS = { feed: "Feed", keys: "Keys", processing: "Processing" }

export const Store = ({ route, may }) => {
  const [, store, part = "feed", sequence] = route.path
  const data = useData(() => api.store(store), [store], LOOK_MS)
  const [doing, setDoing] = useState(false)
  if (part === "entry") return html`<${Entry} store=${store} sequence=${Number(sequence)} />`
  if (data.value === undefined) return html`<${Missing} store=${store} data=${data} />`
  const { head, entries, bytes: size, subscribers, replayPosition, trimmed } = data.value
  const behind = replayPosition === undefined ? undefined : head - replayPosition
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
    ${may("admin") && html`<button class="quiet" onClick=${() => setDoing(true)}>Trim</button>`}
    ${may("write") && html`<a class="button" href=${link(["write"], { store })}>Write an event</a>`}
  `
  return html`
    <${Page} title=${html`<${Name}>${store}<//>`} about=${about} actions=${actions}>
      <${Tabs} tabs=${tabs} now=${PARTS[part]} />
      ${part === "feed" && html`<${Feed} store=${store} query=${route.query} head=${head} />`}
      ${part === "keys" && html`<${KeysOf} store=${store} may=${may} />`}
      ${part === "processing" && html`<${GroupsOf} store=${store} head=${head} may=${may} />`}
      ${doing && html`<${Trim} store=${store} head=${head} trimmed=${trimmed ?? 0} onClose=${() => setDoing(false)} again=${data.again} />`}
    <//>
  `
}

// What is told of a trim: how far it is, and for whom the rest waits.
const told = ({ trimmed, wanted, behind }) => {
  if (trimmed >= wanted) return `Trimmed: the feed begins behind ${count(trimmed)}.`
  return `Trimmed up to ${count(trimmed)}; the rest waits for ${behind.map(({ name }) => visible(short(name, 40))).join(", ")}.`
}

const Trim = ({ store, head, trimmed, onClose, again }) => {
  const [first, setFirst] = useState("")
  const trim = async () => {
    say(told(await api.trim(store, Number(first))))
    again()
  }
  return html`
    <${Dialog} title="Have this feed begin further on, for good?" act="Trim" type=${store} onDo=${trim} onClose=${onClose}>
      <p>What is before is gone from the server, except for the ids. Clients keep what they have; one that is new, or was away for long, does not get it. Handlers that are behind are waited for. Export the store first if you may want it again: backups and the archive keep it only for as long as they are set to (docs/DATA.md).</p>
      <${Field} label="The first sequence that is kept" hint=${`from ${count(trimmed + 1)} to ${count(head + 1)}`} id="t-first">
        <input id="t-first" type="number" required min=${trimmed + 1} max=${head + 1} value=${first} aria-describedby="t-first-hint" onInput=${(event) => setFirst(event.target.value)} />
      <//>
    <//>
  `
}

const Missing = ({ store, data: { error, again } }) => {
  if (error === undefined) return html`<${Loading} />`
  if (error.status !== 404) return html`<${Failed} error=${error} again=${again} />`
  return html`
    <${Empty} title="This store has no entries">
      <p>Nothing was ever written to <b><${Name}>${store}<//></b>, or it has another name. It is there with its first entry.</p>
      <p><a href=${link(["stores"])}>All stores</a> · <a href=${link(["write"], { store })}>Write its first event</a></p>
    <//>
  `
}
