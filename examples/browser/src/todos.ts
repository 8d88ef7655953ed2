// The events of this application, and what the user sees. This file knows nothing about the server or the browser.

import { Schema } from "effect"
import { EventGroup, EventLog } from "effect/eventlog"

/** Everything that can happen. The server and other devices see these names, so they stay as they are. */
export const Todos = EventGroup.empty
  .add({
    tag: "TodoAdded",
    primaryKey: (todo) => todo.id,
    payload: Schema.Struct({ id: Schema.String, title: Schema.String })
  })
  .add({
    tag: "TodoRenamed",
    primaryKey: (todo) => todo.id,
    // `from` is the title that this user saw. It distinguishes one rename from two renames at the same time.
    payload: Schema.Struct({ id: Schema.String, from: Schema.String, title: Schema.String })
  })
  .add({
    tag: "TodoChecked",
    primaryKey: (todo) => todo.id,
    payload: Schema.Struct({ id: Schema.String, done: Schema.Boolean })
  })
  .add({
    tag: "TodoRemoved",
    primaryKey: (todo) => todo.id,
    payload: Schema.Struct({ id: Schema.String })
  })

export const schema = EventLog.schema(Todos)

export type TodoEvent =
  | { readonly tag: "TodoAdded"; readonly payload: { readonly id: string; readonly title: string } }
  | { readonly tag: "TodoRenamed"; readonly payload: { readonly id: string; readonly from: string; readonly title: string } }
  | { readonly tag: "TodoChecked"; readonly payload: { readonly id: string; readonly done: boolean } }
  | { readonly tag: "TodoRemoved"; readonly payload: { readonly id: string } }

export interface Todo {
  readonly id: string
  readonly title: string
  readonly done: boolean
  /** The title that somebody else gave it at the same time, and that lost. */
  readonly other?: string
}

/** The list that these events make, given in the order of their ids, which is the order of their time. */
export const fold = (events: Iterable<TodoEvent>): ReadonlyArray<Todo> => {
  const todos = new Map<string, Todo>()
  for (const { tag, payload } of events) {
    const todo = todos.get(payload.id)
    if (tag === "TodoAdded") {
      todos.set(payload.id, { id: payload.id, title: payload.title, done: false })
    } else if (todo === undefined) {
      // The item was removed, or a device whose clock is behind changed it before it was added.
    } else if (tag === "TodoRenamed") {
      const conflicts = payload.from !== todo.title && payload.from !== todo.other && payload.title !== todo.title
      const { other: _, ...rest } = todo
      todos.set(todo.id, { ...rest, title: payload.title, ...(conflicts ? { other: todo.title } : {}) })
    } else if (tag === "TodoChecked") {
      todos.set(todo.id, { ...todo, done: payload.done })
    } else {
      todos.delete(todo.id)
    }
  }
  return [...todos.values()]
}
