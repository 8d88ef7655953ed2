// A chart of the last hour. uPlot draws it; it is loaded when there is something to draw.

import { html, useEffect, useRef } from "./vendor/preact-htm.js"
import { bytes } from "./format.js"

let loading
const load = () => (loading ??= import("./vendor/uPlot.js").then((module) => module.default))

const HEIGHT = 132

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim()

const axis = (more) => ({
  stroke: color("--faint"),
  grid: { stroke: color("--line"), width: 1 },
  ticks: { show: false },
  font: "11px system-ui, sans-serif",
  ...more
})

// Shows seconds if ticks are less than a minute apart.
const timeOf = (ticks) => (at) => new Date(at * 1000).toTimeString().slice(0, ticks[1] - ticks[0] < 60 ? 8 : 5)

// Ticks of bytes are powers of two.
const POWERS = Array.from({ length: 50 }, (_, at) => 2 ** at)

const options = (width, lines, show) => ({
  width,
  height: HEIGHT,
  legend: { show: false },
  cursor: { y: false, points: { size: 6 } },
  // Half of the last time is beside the plot.
  padding: [8, 26, 0, 0],
  scales: { x: { time: true }, y: { range: (_, __, max) => [0, max > 0 ? max * 1.15 : 1] } },
  axes: [
    axis({ size: 24, space: 64, values: (_, ticks) => ticks.map(timeOf(ticks)) }),
    axis({ size: 56, space: 36, values: (_, ticks) => ticks.map(show), ...(show === bytes ? { incrs: POWERS } : {}) })
  ],
  series: [
    {},
    ...lines.map(({ name, stroke }, at) => ({
      label: name,
      stroke: color(stroke),
      width: 1.5,
      fill: at === 0 && lines.length === 1 ? `${color(stroke)}1f` : undefined,
      spanGaps: false
    }))
  ]
})

// `times` are in seconds; each line has its numbers. `show` formats a number.
export const Chart = ({ title, lines, times, show }) => {
  const place = useRef()
  const plot = useRef()
  const data = [times, ...lines.map(({ values }) => values)]
  const latest = useRef(data)
  latest.current = data
  useEffect(() => {
    let gone = false
    const draw = async () => {
      const Plot = await load()
      if (gone || !place.current) return
      plot.current?.destroy()
      plot.current = new Plot(options(place.current.clientWidth, lines, show), latest.current, place.current)
    }
    const sized = new ResizeObserver(() => {
      const width = place.current?.clientWidth
      if (plot.current && width > 0 && width !== plot.current.width) plot.current.setSize({ width, height: HEIGHT })
    })
    const dark = matchMedia("(prefers-color-scheme: dark)")
    draw()
    sized.observe(place.current)
    dark.addEventListener("change", draw)
    return () => {
      gone = true
      sized.disconnect()
      dark.removeEventListener("change", draw)
      plot.current?.destroy()
      plot.current = undefined
    }
  }, [])
  useEffect(() => plot.current?.setData(data), [times])
  const last = (values) => values.findLast((value) => value !== null && value !== undefined)
  const said = lines.map(({ name, values }) => `${name} ${last(values) === undefined ? "–" : show(last(values))}`).join(", ")
  return html`
    <figure class="chart">
      <figcaption>
        <span>${title}</span>
        <span class="legend">
          ${lines.map(({ name, stroke, values }) => html`
            <span><i class=${stroke.slice(2)} aria-hidden="true"></i>${lines.length > 1 ? `${name} ` : ""}<b>${last(values) === undefined ? "–" : show(last(values))}</b></span>
          `)}
        </span>
      </figcaption>
      <div class="plot" ref=${place} role="img" aria-label="${title}, the last hour; now: ${said}"></div>
    </figure>
  `
}
