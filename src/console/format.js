// Formats numbers, times and texts for people.
//
// Texts come from clients, which may be hostile: they are shown as text. Characters that hide or reverse the text beside
// them are shown by their numbers.

// What Unicode calls control, format and default-ignorable characters, separators of lines, lone surrogates, and a letter
// without ink.
// An emoji may choose its colours.
const HIDDEN = /(?!(?<=\p{Extended_Pictographic})\ufe0f)[\p{Cc}\p{Cf}\p{Cs}\p{Default_Ignorable_Code_Point}\p{Zl}\p{Zp}\u2800]/gu

export const visible = (text) =>
  String(text).replace(HIDDEN, (c) => `⟨${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`)

// Like `visible`, but keeps line breaks.
export const visibleLines = (text) =>
  String(text).replace(HIDDEN, (c) => (c === "\n" || c === "\t" ? c : visible(c)))

export const short = (text, most = 120) => {
  const letters = text.length > most ? Array.from(text.slice(0, most * 2)).slice(0, most) : undefined
  return letters && letters.length < text.length ? `${letters.join("")}…` : text
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 })
export const count = (number) => whole.format(number)

export const several = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`

export const rate = (number) => {
  if (number >= 100 || number === 0) return whole.format(number)
  return new Intl.NumberFormat("en", { maximumSignificantDigits: 2 }).format(number)
}

// Three digits of a number below 1,000, two of one below 10: never with an exponent.
const digits = (number) => (number >= 100 ? whole.format(number) : String(Number(number.toPrecision(number >= 10 ? 3 : 2))))

export const bytes = (number) => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"]
  let at = 0
  for (; number >= 1024 && at < units.length - 1; at++) number /= 1024
  return `${at === 0 ? Math.round(number) : digits(number)} ${units[at]}`
}

export const micros = (number) => {
  if (number === null || number === undefined) return "–"
  if (number < 1000) return `${digits(number)} µs`
  if (number < 999_500) return `${digits(number / 1000)} ms`
  return `${digits(number / 1_000_000)} s`
}

export const ago = (millis, now = Date.now()) => {
  const seconds = (now - millis) / 1000
  if (seconds < -5) return "in the future"
  if (seconds < 5) return "just now"
  const steps = [[60, "s"], [60, "min"], [24, "h"], [365, "d"], [Infinity, "y"]]
  let amount = seconds
  for (const [size, unit] of steps) {
    if (amount < size) return `${Math.floor(amount)} ${unit} ago`
    amount /= size
  }
}

export const time = (millis) => {
  const date = new Date(millis)
  return Number.isNaN(date.getTime()) ? `${millis} ms since 1970` : date.toISOString().replace("T", " ").replace("Z", " UTC")
}

export const clock = (millis) => new Date(millis).toLocaleTimeString("en-GB")

export const base64ToBytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0))

export const bytesToBase64 = (bytes) => {
  let text = ""
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192))
  return btoa(text)
}

// Sixteen bytes a line, with their characters.
export const hexLines = (bytes, most = 4096) => {
  const lines = []
  for (let at = 0; at < Math.min(bytes.length, most); at += 16) {
    const row = Array.from(bytes.subarray(at, Math.min(at + 16, most)))
    const hex = row.map((byte) => byte.toString(16).padStart(2, "0")).join(" ")
    const letters = row.map((byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : "·")).join("")
    lines.push(`${at.toString(16).padStart(6, "0")}  ${hex.padEnd(47)}  ${letters}`)
  }
  return lines.join("\n")
}

// The bytes as text, if they are valid UTF-8. `isCut`: they are the beginning of more, and may end within a letter.
export const asText = (bytes, isCut = false) => {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: isCut })
    return /[\u0000-\u0008\u000e-\u001f]/.test(text) ? undefined : text
  } catch {
    return undefined
  }
}
