// One entry: who wrote it and when, its payload, and other entries with the same primary key.

import { html, useState } from "../vendor/preact-htm.js"
import { SHOWN_MAX, api } from "../api.js"
import { asText, base64ToBytes, bytes, count, hexLines, time, visibleLines } from "../format.js"
import { beginning } from "../msgpack.js"
import { Code, Empty, Loaded, Name, Page, Time, useData } from "../parts.js"
import { link } from "../route.js"
import { Erase } from "./erase.js"
import { By, Entries } from "./feed.js"

const CODECS = { msgpack: "msgpack", "schema-binary": "SchemaBinary, guessed", json: "JSON", text: "text", hex: "bytes" }

// The readings of a payload, as texts, with the best one first. Of a long one they have the beginning.
const readings = (entry) => {
  const raw = base64ToBytes(entry.payloadBase64)
  const isCut = raw.length < entry.payloadBytes
  const found = []
  if (entry.codec !== undefined) found.push([entry.codec, JSON.stringify(entry.payload, null, 2)])
  if (entry.payloadStart !== undefined) found.push(["schema-binary", `${entry.payloadStart}…`])
  const text = raw.length > 0 ? asText(raw, isCut) : undefined
  if (text !== undefined) {
    const json = /^\s*[[{"]/.test(text) ? tryPretty(text) : undefined
    if (json !== undefined) found.unshift(["json", json])
    found.push(["text", text])
  }
  const start = found.length === 0 && entry.payloadBytes > READ ? beginning(raw.subarray(0, READ)) : undefined
  if (start !== undefined) found.push(["msgpack", start])
  found.push(["hex", raw.length === 0 ? "(empty)" : hexLines(raw)])
  return found
}

const tryPretty = (json) => {
  try {
    return JSON.stringify(JSON.parse(json), null, 2)
  } catch {
    return undefined
  }
}

// How many bytes a line shows of bytes that mean nothing.
const HEX = 60

// The payload in one line; with `…` at the end, there is more of it.
export const preview = (entry) => {
  if (entry.payloadBytes === 0) return "(empty)"
  if (entry.codec !== undefined) return JSON.stringify(entry.payload)
  if (entry.payloadStart !== undefined) return `${entry.payloadStart}…`
  const raw = base64ToBytes(entry.payloadBase64.slice(0, 320))
  const isCut = raw.length < entry.payloadBytes
  const text = asText(raw, isCut)
  if (text !== undefined) return isCut ? `${text}…` : text
  const start = isCut ? beginning(raw) : undefined
  return start ?? `0x${Array.from(raw.subarray(0, HEX), (byte) => byte.toString(16).padStart(2, "0")).join("")}${entry.payloadBytes > HEX ? "…" : ""}`
}

const SHOWN = 20_000

// How many bytes are read to show the beginning of a long payload.
const READ = 2 * SHOWN

const ERASED = "erased"

export const Entry = ({ store, sequence, may }) => {
  const [doing, setDoing] = useState(false)
  const load = async () => {
    const { entries, erased = [] } = await api.entries(store, { from: sequence, limit: 1, payloadMax: 2 ** 21 })
    if (erased.some(({ first, last }) => first <= sequence && sequence <= last)) return ERASED
    return entries.find((entry) => entry.sequence === sequence) ?? null
  }
  const data = useData(load, [store, sequence])
  const actions = may("admin") && data.value?.id && html`<button class="quiet" onClick=${() => setDoing(true)}>Erase</button>`
  return html`
    <nav class="crumbs" aria-label="Where this is">
      <a href=${link(["stores"])}>Stores</a> / <a href=${link(["stores", store])}><${Name} most=${40}>${store}<//></a>
    </nav>
    <${Page} title=${`Entry ${count(sequence)}`} actions=${actions}>
      <${Loaded} data=${data}>${(entry) => {
        const shown = () => {
          if (entry === ERASED) return html`<${Empty} title="This entry was erased"><p>Its content was removed for good. Its id and its sequence stay, and readers skip it (docs/DATA.md).</p><//>`
          if (entry === null) return html`<${Empty} title="There is no such entry"><p>The feed has no entry with this sequence. It is beyond the end of the feed, trimmed, or in a gap that a restore left.</p><//>`
          return html`<${Shown} store=${store} entry=${entry} />`
        }
        return html`${shown()}<${Neighbours} store=${store} sequence=${sequence} />`
      }}<//>
      ${doing && html`<${Erase} store=${store} first=${data.value} onClose=${() => setDoing(false)} again=${data.again} />`}
    <//>
  `
}

const Shown = ({ store, entry }) => html`
  <dl class="facts">
    <div><dt>Event</dt><dd><${Name} most=${400}>${entry.event}<//></dd></div>
    <div><dt>Primary key</dt><dd><${Name} most=${400}>${entry.primaryKey}<//></dd></div>
    <div><dt>Id</dt><dd><code>${entry.id}</code></dd></div>
    <div><dt>Created</dt><dd><${Time} at=${entry.createdAt} /> <span class="faint">${time(entry.createdAt)}, by the writer's clock</span></dd></div>
    <div><dt>Written by</dt><dd><${By} entry=${entry} /></dd></div>
    <div><dt>Payload</dt><dd>${bytes(entry.payloadBytes)}</dd></div>
  </dl>
  <${Payload} entry=${entry} />
  <${History} store=${store} entry=${entry} />
`

const Neighbours = ({ store, sequence }) => html`
  <nav class="pager" aria-label="Neighbours">
    <a class="button quiet" href=${link(["stores", store, "entry", Math.max(1, sequence - 1)])}>Previous</a>
    <a class="button quiet" href=${link(["stores", store], { from: Math.max(1, sequence - 10) })}>In the feed</a>
    <a class="button quiet" href=${link(["stores", store, "entry", sequence + 1])}>Next</a>
  </nav>
`

const Payload = ({ entry }) => {
  const all = readings(entry)
  const [chosen, setChosen] = useState(0)
  const [codec, text] = all[Math.min(chosen, all.length - 1)]
  const shown = visibleLines(text.slice(0, SHOWN))
  return html`
    <div class="tools">
      <h2 class="grow">Payload</h2>
      <div class="choice" role="group" aria-label="Shown as">
        ${all.map(([name], at) => html`<button class="quiet" aria-pressed=${at === chosen} onClick=${() => setChosen(at)}>${CODECS[name]}</button>`)}
      </div>
    </div>
    <${Code}>${shown}<//>
    ${(text.length > SHOWN || entry.payloadBase64.length * 0.75 + 3 < entry.payloadBytes || (codec === "hex" && entry.payloadBytes > 4096)) &&
    html`<p class="hint">This is the beginning of ${bytes(entry.payloadBytes)}. <code>eventlog-server tail --json</code> prints all of it.</p>`}
  `
}

// Conflicts, as handlers see them: for each entry that arrived after a newer one with the same event and primary key, the newest of
// those. Ids begin with the time, so their order is that in which entries were made.
const conflicts = (entries) => {
  const [found, latest] = [new Map(), new Map()]
  for (const entry of entries) {
    const before = latest.get(entry.event)
    if (before !== undefined && entry.id < before.id) found.set(entry.sequence, before.sequence)
    else latest.set(entry.event, entry)
  }
  return found
}

const History = ({ store, entry }) => {
  const [compacted, setCompacted] = useState(false)
  const load = () => api.entries(store, { from: 1, limit: 50, primaryKey: entry.primaryKey, payloadMax: SHOWN_MAX, compacted })
  const data = useData(load, [store, entry.primaryKey, compacted])
  const choice = (value, name) => html`<button class="quiet" aria-pressed=${compacted === value} onClick=${() => setCompacted(value)}>${name}</button>`
  return html`
    <div class="tools">
      <h2 class="grow">Entries with the same primary key</h2>
      <div class="choice" role="group" aria-label="Which entries">${choice(false, "As stored")}${choice(true, "As a new reader gets them")}</div>
    </div>
    <${Loaded} data=${data}>${({ entries, next }) => html`
      ${entries.length === 0 ? html`<p class="hint">${compacted ? "A new reader gets none." : "None among the first entries of this store."}</p>` : html`<${Entries} store=${store} entries=${entries} conflicts=${compacted ? undefined : conflicts(entries)} />`}
      ${next !== undefined && html`<p><a href=${link(["stores", store], { key: entry.primaryKey, from: next })}>Continue the search at ${count(next)}</a></p>`}
    `}<//>
  `
}
