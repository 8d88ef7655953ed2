// One store: its feed, its keys, how far handlers are.

import { html } from "../vendor/preact-htm.js"
import { api, exportPath } from "../api.js"
import { bytes, count, several } from "../format.js"
import { Empty, Failed, Loading, Name, Page, Tabs, useData } from "../parts.js"
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
  if (part === "entry") return html`<${Entry} store=${store} sequence=${Number(sequence)} />`
  if (data.value === undefined) return html`<${Missing} store=${store} data=${data} />`
  const { head, entries, bytes: size, subscribers, replayPosition } = data.value
  const behind = replayPosition === undefined ? undefined : head - replayPosition
  const about = [
    several(entries, "entry", "entries"),
    `last sequence ${count(head)}`,
    bytes(size),
    several(subscribers, "subscriber"),
    ...(behind === undefined ? [] : [behind === 0 ? "handlers are done" : `handlers are ${count(behind)} behind`])
  ].join(" · ")
  const tabs = Object.entries(PARTS).map(([path, name]) => ({ name, href: link(["stores", store, path]) }))
  const actions = html`
    <a class="button quiet" href=${exportPath(store)} download="${store}.ndjson">Export</a>
    ${may("write") && html`<a class="button" href=${link(["write"], { store })}>Write an event</a>`}
  `
  return html`
    <${Page} title=${html`<${Name}>${store}<//>`} about=${about} actions=${actions}>
      <${Tabs} tabs=${tabs} now=${PARTS[part]} />
      ${part === "feed" && html`<${Feed} store=${store} query=${route.query} head=${head} />`}
      ${part === "keys" && html`<${KeysOf} store=${store} may=${may} />`}
      ${part === "processing" && html`<${GroupsOf} store=${store} head=${head} may=${may} />`}
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
