// One entry: who wrote it and when, what its payload may be, and what else was said about the same key.

import { html, useState } from "../vendor/preact-htm.js"
import { SHOWN_MAX, api } from "../api.js"
import { asText, base64ToBytes, bytes, count, hexLines, short, time, visibleLines } from "../format.js"
import { Code, Empty, Loaded, Name, Page, Time, useData } from "../parts.js"
import { link } from "../route.js"
import { By, Entries } from "./feed.js"

const CODECS = { msgpack: "msgpack", "schema-binary": "SchemaBinary, guessed", json: "JSON", text: "text", hex: "bytes" }

// What the payload may be, each as a text: the first is the best.
const readings = (entry) => {
  const raw = base64ToBytes(entry.payloadBase64)
  const found = []
  if (entry.codec !== undefined) found.push([entry.codec, JSON.stringify(entry.payload, null, 2)])
  const text = raw.length > 0 ? asText(raw) : undefined
  if (text !== undefined) {
    const json = /^\s*[[{"]/.test(text) ? tryPretty(text) : undefined
    if (json !== undefined) found.unshift(["json", json])
    found.push(["text", text])
  }
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

// The payload in a line.
export const preview = (entry) => {
  if (entry.payloadBytes === 0) return "(empty)"
  if (entry.codec !== undefined) return JSON.stringify(entry.payload)
  const raw = base64ToBytes(short(entry.payloadBase64, 320).replace("…", ""))
  return asText(raw) ?? `0x${Array.from(raw.subarray(0, 60), (byte) => byte.toString(16).padStart(2, "0")).join("")}`
}

const SHOWN = 20_000

export const Entry = ({ store, sequence }) => {
  const load = async () => {
    const { entries } = await api.entries(store, { from: sequence, limit: 1, payloadMax: 2 ** 21 })
    return entries.find((entry) => entry.sequence === sequence) ?? null
  }
  const data = useData(load, [store, sequence])
  return html`
    <nav class="crumbs" aria-label="Where this is">
      <a href=${link(["stores"])}>Stores</a> / <a href=${link(["stores", store])}><${Name} most=${40}>${store}<//></a>
    </nav>
    <${Page} title=${`Entry ${count(sequence)}`}>
      <${Loaded} data=${data}>${(entry) =>
        entry === null
          ? html`<${Empty} title="There is no such entry"><p>The feed has no entry with this sequence: it is beyond the end, or in a gap that a restore left.</p><//>`
          : html`<${Shown} store=${store} entry=${entry} />`}<//>
    <//>
  `
}

const Shown = ({ store, entry }) => html`
  <dl class="facts">
    <div><dt>Event</dt><dd><${Name} most=${400}>${entry.event}<//></dd></div>
    <div><dt>Primary key</dt><dd><${Name} most=${400}>${entry.primaryKey}<//></dd></div>
    <div><dt>Id</dt><dd><code>${entry.id}</code></dd></div>
    <div><dt>Made</dt><dd><${Time} at=${entry.createdAt} /> <span class="faint">${time(entry.createdAt)}, by its writer's clock</span></dd></div>
    <div><dt>Written by</dt><dd><${By} entry=${entry} /></dd></div>
    <div><dt>Payload</dt><dd>${bytes(entry.payloadBytes)}</dd></div>
  </dl>
  <${Payload} entry=${entry} />
  <${History} store=${store} entry=${entry} />
  <nav class="pager" aria-label="Neighbours">
    <a class="button quiet" href=${link(["stores", store, "entry", Math.max(1, entry.sequence - 1)])}>Before</a>
    <a class="button quiet" href=${link(["stores", store], { from: Math.max(1, entry.sequence - 10) })}>In the feed</a>
    <a class="button quiet" href=${link(["stores", store, "entry", entry.sequence + 1])}>After</a>
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

const History = ({ store, entry }) => {
  const [compacted, setCompacted] = useState(false)
  const load = () => api.entries(store, { from: 1, limit: 50, primaryKey: entry.primaryKey, payloadMax: SHOWN_MAX, compacted })
  const data = useData(load, [store, entry.primaryKey, compacted])
  const choice = (value, name) => html`<button class="quiet" aria-pressed=${compacted === value} onClick=${() => setCompacted(value)}>${name}</button>`
  return html`
    <div class="tools">
      <h2 class="grow">Of the same primary key</h2>
      <div class="choice" role="group" aria-label="Which entries">${choice(false, "As stored")}${choice(true, "As a new reader gets them")}</div>
    </div>
    <${Loaded} data=${data}>${({ entries, next }) => html`
      ${entries.length === 0 ? html`<p class="hint">${compacted ? "None is sent." : "None among the first entries of this store."}</p>` : html`<${Entries} store=${store} entries=${entries} />`}
      ${next !== undefined && html`<p><a href=${link(["stores", store], { key: entry.primaryKey, from: next })}>Search on from ${count(next)}</a></p>`}
    `}<//>
  `
}
