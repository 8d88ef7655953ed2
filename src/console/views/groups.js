// Groups of handlers and webhooks: their progress, and their dead letters.

import { html, useState } from "../vendor/preact-htm.js"
import { api } from "../api.js"
import { count, several } from "../format.js"
import { Dialog, Empty, Failed, Loaded, Name, Page, StoreLink, Time, say, useData } from "../parts.js"
import { link } from "../route.js"

const LOOK_MS = 4_000

export const Groups = ({ may }) => {
  const data = useData(api.groups, [], LOOK_MS)
  return html`
    <${Page} title="Processing" about="Groups of handlers, and webhooks, process each store in order. An entry that a group gives up on becomes a dead letter.">
      <${Loaded} data=${data}>${({ items }) =>
        items.length === 0
          ? html`<${Empty} title="This server runs no handlers">
              <p>Handlers are registered in code (docs/PROCESSING.md), webhooks in the configuration under <code>[[webhook]]</code> (docs/WEBHOOKS.md).</p>
            <//>`
          : items.map((group) => html`<${Group} key=${group.name} group=${group} may=${may} again=${data.again} />`)}<//>
    <//>
  `
}

// The same for one store.
export const GroupsOf = ({ store, head, may }) => {
  const data = useData(() => api.groupsIn(store), [store], LOOK_MS)
  return html`
    <${Loaded} data=${data}>${({ items }) =>
      items.length === 0
        ? html`<${Empty} title="No handlers run on this store"><p>See docs/PROCESSING.md and docs/WEBHOOKS.md.</p><//>`
        : items.map((group) => html`<${Group} key=${group.name} group=${group} store=${store} head=${head} may=${may} again=${data.again} />`)}<//>
  `
}

const state = ({ runs, paused, full }) => (full ? "full, paused" : paused ? "paused" : runs ? "runs" : "does not run here")

// The progress of a group, in one store or in all.
const progress = ({ lag, storesBehind, position }, head) => {
  if (position !== undefined) {
    const behind = Math.max(0, head - position)
    return `At sequence ${count(position)}: ${behind === 0 ? "done with everything here." : `${several(behind, "entry", "entries")} behind.`}`
  }
  return lag === 0 ? "Done with everything." : `${several(lag, "entry", "entries")} behind, in ${several(storesBehind, "store")}.`
}

const Group = ({ group, store, head, may, again }) => {
  const [failed, setFailed] = useState()
  const change = async () => {
    setFailed()
    try {
      await (group.paused ? api.resume(group.name) : api.pause(group.name))
      say(group.paused ? "The group is resumed." : "The group is paused.")
    } catch (error) {
      setFailed(error)
    }
    again()
  }
  return html`
    <section class="card group">
      <div class="tools">
        <h2 class="grow"><${Name}>${group.name}<//></h2>
        <span class="badge ${group.full || group.paused ? "warn" : group.runs ? "good" : ""}">${state(group)}</span>
        ${may("admin") && group.runs && html`<button class="quiet" onClick=${change}>${group.paused ? "Resume" : "Pause"}</button>`}
      </div>
      ${failed && html`<${Failed} error=${failed} />`}
      <p>${progress(group, head)}</p>
      ${group.refused.filter(({ storeId }) => store === undefined || storeId === store).map(({ storeId, error }) => html`
        <p class="note bad">Stuck in <${StoreLink} store=${storeId} />: ${error}</p>
      `)}
      ${group.deadLetters > 0 && html`<${Letters} group=${group} store=${store} may=${may} onChange=${again} />`}
    </section>
  `
}

// How many dead letters there are, here or in all stores.
const headline = ({ deadLetters }, store, shown, more) => {
  if (store === undefined) return `${several(deadLetters, "dead letter")}${shown < deadLetters && more ? `, ${count(shown)} shown` : ""}`
  if (shown === 0) return "No dead letters here"
  return more ? `More than ${several(shown, "dead letter")} here` : `${several(shown, "dead letter")} here`
}

// How many dead letters are listed at first, and how many more each time.
const LETTERS = 100

const Letters = ({ group, store, may, onChange }) => {
  const [most, setMost] = useState(LETTERS)
  const data = useData(() => api.deadLetters(group.name, store, most), [group.name, group.deadLetters, store, most])
  const [failed, setFailed] = useState()
  const [dismissed, setDismissed] = useState()
  const retry = async ({ storeId, sequence }) => {
    setFailed()
    try {
      await api.retry(group.name, storeId, sequence)
      say("The retry succeeded.")
    } catch (error) {
      setFailed({ error, storeId, sequence })
    }
    data.again()
    onChange()
  }
  return html`
    <${Loaded} data=${data}>${({ items, more }) => html`
      <h3>${headline(group, store, items.length, more)}</h3>
      <ul class="letters">
        ${items.map((letter) => html`
          <li key=${`${letter.sequence} ${letter.storeId}`}>
            <p>
              <a href=${link(["stores", letter.storeId, "entry", letter.sequence])}><${Name} most=${40}>${letter.storeId}<//> ${count(letter.sequence)}</a>
              ${" "}<b><${Name} most=${40}>${letter.event}<//></b>${" "}<span class="faint"><${Time} at=${letter.unixMillis} /></span>
            </p>
            <p class="error"><${Name} most=${300}>${letter.error}<//></p>
            ${may("admin") && html`
              <div class="actions">
                <button class="quiet" onClick=${() => retry(letter)}>Try again</button>
                <button class="quiet" onClick=${() => setDismissed(letter)}>Dismiss</button>
              </div>
            `}
            ${failed?.storeId === letter.storeId && failed.sequence === letter.sequence && html`<${Failed} error=${failed.error} />`}
          </li>
        `)}
      </ul>
      ${more && html`<p><button class="quiet" onClick=${() => setMost(most + LETTERS)}>More dead letters</button></p>`}
    `}<//>
    ${dismissed && html`
      <${Dialog} title="Dismiss this dead letter?" act="Dismiss" onClose=${() => setDismissed()} onDo=${async () => {
        await api.dismiss(group.name, dismissed.storeId, dismissed.sequence)
        say("Dismissed.")
        data.again()
        onChange()
      }}>
        <p>The group will never handle entry ${count(dismissed.sequence)} of <${Name}>${dismissed.storeId}<//>. The entry stays in the feed.</p>
      <//>
    `}
  `
}
