// The page: it shows the list and turns clicks into events.

import { open, type Status } from "./sync.ts"
import type { Todo } from "./todos.ts"

const query = new URLSearchParams(location.search)
const url = query.get("server") ?? import.meta.env.VITE_EVENTLOG_URL ?? `ws://${location.hostname}:7420/rpc`
// Each name is a separate device: open `?device=two` in a second tab.
const name = query.get("device") ?? "todo"

const element = <T extends HTMLElement>(id: string) => document.getElementById(id) as T

const words: Record<Status, string> = {
  connecting: "connecting …",
  online: "online",
  offline: "offline: what you change is kept here and sent later",
  refused: "the server refuses this device; what you change is kept here"
}

const make = <K extends keyof HTMLElementTagNameMap>(tag: K, properties: object = {}): HTMLElementTagNameMap[K] =>
  Object.assign(document.createElement(tag), properties)

const item = (todo: Todo): HTMLElement => {
  const { id, title, done, other } = todo
  const check = make("input", { type: "checkbox", checked: done, ariaLabel: `done: ${title}` })
  check.onchange = () => write({ tag: "TodoChecked", payload: { id, done: check.checked } })
  const text = make("input", { type: "text", value: title, ariaLabel: "title" })
  text.onchange = () => write({ tag: "TodoRenamed", payload: { id, from: title, title: text.value } })
  const remove = make("button", { textContent: "Remove", ariaLabel: `remove: ${title}` })
  remove.onclick = () => write({ tag: "TodoRemoved", payload: { id } })
  const row = make("div", { className: "row" })
  row.append(check, text, remove)
  const entry = make("li", { className: done ? "done" : "" })
  entry.dataset.id = id
  entry.append(row)
  if (other !== undefined) {
    const take = make("button", { textContent: "Take it" })
    take.onclick = () => write({ tag: "TodoRenamed", payload: { id, from: title, title: other } })
    const conflict = make("div", { className: "conflict", textContent: `Somebody else called it “${other}”. ` })
    conflict.append(take)
    entry.append(conflict)
  }
  return entry
}

const list = element<HTMLUListElement>("todos")
let waiting: ReadonlyArray<Todo> | undefined
const show = (todos: ReadonlyArray<Todo>) => {
  // Keeps the text field while somebody types in it.
  if (list.contains(document.activeElement) && document.activeElement instanceof HTMLInputElement &&
    document.activeElement.type === "text") {
    waiting = todos
    return
  }
  waiting = undefined
  list.replaceChildren(...todos.map(item))
}
list.addEventListener("focusout", () => setTimeout(() => waiting && show(waiting)))

const write = open({
  url,
  name,
  onStatus: (status, why) => {
    element("status").textContent = why === undefined ? words[status] : `${words[status]}: ${why}`
    document.body.dataset.status = status
  }
}, show)

element<HTMLFormElement>("add").onsubmit = (event) => {
  event.preventDefault()
  const title = element<HTMLInputElement>("title")
  void write({ tag: "TodoAdded", payload: { id: crypto.randomUUID(), title: title.value } })
  title.value = ""
}
