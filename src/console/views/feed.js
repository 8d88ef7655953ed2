// The feed of a store: live, or a page of it.

import { html, useEffect, useRef, useState } from "../vendor/preact-htm.js"
import { SHOWN_MAX, api, follow, livePath } from "../api.js"
import { bytes, count, rate, short, visible } from "../format.js"
import { Empty, Failed, Field, Live, Loaded, Name, Time, useData } from "../parts.js"
import { ask, link, whole } from "../route.js"
import { preview } from "./entry.js"

const PAGE = 50

// How many live entries are kept.
const KEPT = 100

export const Feed = ({ store, query, head }) => {
  const isLive = query.from === undefined
  if (!isLive && whole(query.from) === undefined) {
    return html`<${Empty} title="There is no such page"><p>“From sequence” is a whole number from 1 on. <a href=${link(["stores", store])}>The live feed</a></p><//>`
  }
  return html`
    <${Filter} query=${query} store=${store} head=${head} />
    ${isLive ? html`<${LiveFeed} key=${`${query.event} ${query.key}`} store=${store} event=${query.event} primaryKey=${query.key} />` : html`<${PageOf} store=${store} query=${query} head=${head} />`}
  `
}

const Filter = ({ query, store, head }) => {
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState()
  const [fields, setFields] = useState({ time: "" })
  const set = (more) => setFields((fields) => ({ ...fields, ...more }))
  // What is typed stays until the address says something else.
  useEffect(() => set({ event: query.event ?? "" }), [query.event])
  useEffect(() => set({ key: query.key ?? "" }), [query.key])
  useEffect(() => set({ from: query.from ?? "", time: "" }), [query.from])
  const typed = (name) => (event) => set({ [name]: event.target.value })
  const { event: name, key, from, time } = fields
  const submit = async (event) => {
    event.preventDefault()
    setError()
    if (time === "") return ask({ event: name, key, from: from === "" && (name || key) ? 1 : from })
    setBusy(true)
    try {
      ask({ event: name, key, from: await findTime(store, head, new Date(time).getTime()) })
    } catch (error) {
      setError(error)
    }
    setBusy(false)
  }
  return html`
    <form class="filter" onSubmit=${submit}>
      <${Field} label="Event" id="f-event"><input id="f-event" value=${name} onInput=${typed("event")} placeholder="any" spellcheck="false" autocomplete="off" /><//>
      <${Field} label="Primary key" id="f-key"><input id="f-key" value=${key} onInput=${typed("key")} placeholder="any" spellcheck="false" autocomplete="off" /><//>
      <${Field} label="From sequence" id="f-from"><input id="f-from" type="number" min="1" value=${from} onInput=${typed("from")} placeholder="live" /><//>
      <${Field} label="or from a time" id="f-time" kind="time"><input id="f-time" type="datetime-local" step="1" value=${time} onInput=${typed("time")} /><//>
      <div class="actions">
        <button disabled=${busy}>Show</button>
        <button type="button" class="quiet" onClick=${() => ask({ event: name, key, from: "" })}>Live</button>
      </div>
    </form>
    ${error && html`<${Failed} error=${error} />`}
  `
}

// The first entry that was made at this time or later, if entries are in the order of their times.
const findTime = async (store, head, millis) => {
  let [low, high] = [1, head + 1]
  while (low < high) {
    const middle = Math.floor((low + high) / 2)
    const { entries } = await api.entries(store, { from: middle, limit: 1, payloadMax: 0 })
    if (entries.length === 0 || entries[0].createdAt >= millis) high = middle
    else low = Math.max(middle, entries[0].sequence) + 1
  }
  return Math.min(low, head)
}

const LiveFeed = ({ store, event, primaryKey }) => {
  const [entries, setEntries] = useState([])
  const [passed, setPassed] = useState(0)
  const [held, setHeld] = useState(false)
  const [live, setLive] = useState(false)
  const [speed, setSpeed] = useState(0)
  const holding = useRef(false)
  holding.current = held
  useEffect(() => {
    let before
    const show = (event) => {
      const now = performance.now()
      if (before) setSpeed((speed) => smooth(speed, ((event.head - before.head) * 1000) / (now - before.at)))
      before = { head: event.head, at: now }
      if (holding.current) return
      setPassed(event.passedOver)
      setEntries((entries) => {
        const last = entries[0]?.sequence ?? 0
        const fresh = event.entries.filter(({ sequence }) => sequence > last).reverse()
        return [...fresh, ...entries].slice(0, KEPT)
      })
    }
    // Nothing arrives while nobody writes.
    const slower = setInterval(() => before && performance.now() - before.at > 1500 && setSpeed(0), 1000)
    const stop = follow(livePath(store, { event, primaryKey }), show, setLive)
    return () => {
      clearInterval(slower)
      stop()
    }
  }, [store, event, primaryKey])
  return html`
    <div class="tools">
      <p class="grow">
        <span role="status"><${Live} on=${live} held=${held} /> ${held ? "new entries are not shown" : passed > 0 && html`<b>sampled</b>: only the newest are shown`}</span>
        ${!held && ` ${speed > 0 ? `${rate(speed)} entries a second` : "waiting for the next entry"}`}
      </p>
      <button class="quiet" aria-pressed=${held} onClick=${() => setHeld(!held)}>${held ? "Continue" : "Hold"}</button>
    </div>
    ${entries.length > 0
      ? html`<${Entries} store=${store} entries=${entries} />`
      : (event || primaryKey) && html`<p class="hint">None of the newest entries matches. Those that match appear here when they arrive. “Show” searches from the beginning.</p>`}
  `
}

const smooth = (before, now) => (before === 0 ? now : before * 0.7 + now * 0.3)

const PageOf = ({ store, query, head }) => {
  const from = whole(query.from)
  const asked = { from, limit: PAGE, event: query.event, primaryKey: query.key, payloadMax: SHOWN_MAX }
  const data = useData(() => api.entries(store, asked), [store, from, query.event, query.key], undefined, true)
  return html`
    <${Loaded} data=${data}>${({ entries, next }) => html`
      ${entries.length > 0
        ? html`<${Entries} store=${store} entries=${entries} />`
        : next !== undefined
          ? html`<${Empty} title="No match so far"><p>No entry up to ${count(next - 1)} matches. “Later” continues the search.</p><//>`
          : html`<${Empty} title="No entry matches">
              <p>The last entry of this store is ${count(head)}. The filter compares the whole event and the whole primary key, with capitals. <code>*</code> stands for any text.</p>
            <//>`}
      <nav class="pager" aria-label="Pages of the feed">
        <button class="quiet" disabled=${from <= 1} onClick=${() => ask({ from: 1 })}>First</button>
        <button class="quiet" disabled=${from <= 1} onClick=${() => ask({ from: Math.max(1, from - PAGE) })}>Earlier</button>
        <span>${entries.length > 0 ? `${count(entries[0].sequence)} to ${count(entries.at(-1).sequence)} of ${count(head)}` : ""}</span>
        <button class="quiet" disabled=${next === undefined} onClick=${() => ask({ from: next })}>Later</button>
        <button class="quiet" onClick=${() => ask({ from: Math.max(1, head - PAGE + 1) })}>Last</button>
      </nav>
    `}<//>
  `
}

// `conflicts`: the entries that conflict with an earlier one of the feed.
export const Entries = ({ store, entries, conflicts }) => html`
  <ol class="feed" aria-label="Entries">
    ${entries.map((entry) => html`<${Line} key=${entry.sequence} store=${store} entry=${entry} conflict=${conflicts?.get(entry.sequence)} />`)}
  </ol>
`

// How much of a payload a line shows.
const LINE = 160

const Line = ({ store, entry, conflict }) => {
  const payload = preview(entry)
  const isCut = payload.endsWith("…") || payload.length > LINE
  return html`
    <li>
      <a href=${link(["stores", store, "entry", entry.sequence])}>
        <span class="at">${count(entry.sequence)}</span>
        <span class="event"><${Name} most=${60}>${entry.event}<//></span>
        <span class="key"><${Name} most=${60}>${entry.primaryKey}<//></span>
        <span class="payload"><bdi>${visible(short(payload, LINE))}</bdi></span>
        <span class="meta"><${By} entry=${entry} /> · ${isCut && "beginning of "}${bytes(entry.payloadBytes)} · <${Time} at=${entry.createdAt} /></span>
        ${conflict !== undefined && html`<span class="conflict"><span class="badge warn">conflict</span> made before entry ${count(conflict)}, arrived after it; handlers are told</span>`}
      </a>
    </li>
  `
}

// Compacted entries have no author.
export const By = ({ entry: { origin } }) => {
  if (origin.publicKey !== undefined) return html`<${Name} most=${24}>${origin.publicKey}<//>`
  return origin.runHandlers === undefined ? "compacted" : html`<i>server</i>`
}
