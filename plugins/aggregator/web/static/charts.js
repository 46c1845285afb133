/** Charts of days: bars and lines in SVG, readable with a mouse, a keyboard and a screen reader. */

import { React, classes, compact, count, dayName, h, shortDay, useWidth } from "./lib.js";
import { Table } from "./ui.js";

const { useState } = React;

const NAMES = [
  "blue",
  "teal",
  "purple",
  "orange",
  "pink",
  "cyan",
  "green",
  "yellow",
  "indigo",
  "lime",
  "fuchsia",
  "stone",
];

/** Colors for series, far apart. */
export const PALETTE = NAMES.map(
  (name) => `color-mix(in oklab, var(--chakra-colors-${name}-solid) 78%, var(--chakra-colors-bg))`,
);

const LEFT = 44;
const BOTTOM = 20;
const TOP = 8;

/** The distance of a handful of round ticks. @param {number} range */
const stepOf = (range) => {
  const rough = range / 4 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough) ?? power;
};

/**
 * @typedef {object} Series
 * @property {string} name
 * @property {string} color
 * @property {(number | null)[]} values One for each day; null for no data.
 */

/**
 * A chart of days.
 * @param {{label: string, days: string[], series: Series[], kind?: "bars" | "lines", band?: [number[], number[]],
 *   format?: (value: number) => string, axis?: (day: string) => string, dayTitle?: (day: string) => string, height?: number,
 *   max?: number}} props `band`: the lower and the upper edge of a shaded area; `max`: the least upper end of the scale.
 */
export const Chart = ({
  label,
  days,
  series,
  kind = "bars",
  band,
  format = count,
  axis = shortDay,
  dayTitle = dayName,
  height = 180,
  max = 0,
}) => {
  const [ref, width] = useWidth();
  const [at, setAt] = useState(/** @type {number | null} */ (null));
  const [asTable, setAsTable] = useState(false);

  const stacked = kind === "bars";
  const columns = days.map((_, index) => series.map((each) => each.values[index]));
  const peaks = columns.map((values) =>
    stacked ? values.reduce((sum, value) => sum + (value ?? 0), 0) : Math.max(0, ...values.map((value) => value ?? 0)),
  );
  const highest = Math.max(max, ...peaks, ...(band?.[1] ?? []).map((value) => value ?? 0), Number.MIN_VALUE);
  const step = stepOf(highest);
  const top = Math.ceil(highest / step) * step;
  const inner = Math.max(0, width - LEFT);
  const slot = inner / days.length;
  const bottom = height - BOTTOM;
  const x = (index) => LEFT + index * slot;
  const y = (value) => bottom - ((bottom - TOP) * value) / top;
  const ticks = Array.from({ length: Math.round(top / step) + 1 }, (_, index) => index * step);
  const every = Math.max(1, Math.ceil(60 / Math.max(slot, 1)));

  const onKeyDown = (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1 };
    if (!(event.key in steps)) return;
    event.preventDefault();
    setAt((old) => Math.min(days.length - 1, Math.max(0, (old ?? days.length) + steps[event.key])));
  };
  const onPointerMove = (event) => {
    const place = Math.floor((event.clientX - ref.current.getBoundingClientRect().left - LEFT) / slot);
    setAt(place >= 0 && place < days.length ? place : null);
  };

  const shown = at ?? columns.findLastIndex((values) => values.some((value) => value !== null));
  const text = (value) => (value === null || value === undefined ? "–" : format(value));
  const path = (values, edge = "M") => {
    let pen = edge;
    return values
      .map((value, index) => {
        if (value === null) {
          pen = "M";
          return "";
        }
        const point = `${pen}${x(index) + slot / 2},${y(value)}`;
        pen = "L";
        return point;
      })
      .join("");
  };

  return h(
    "figure",
    { className: "ops-chart", "aria-label": label },
    h(
      "ul",
      { className: "ops-keys" },
      shown >= 0 && h("li", { className: "ops-number" }, dayTitle(days[shown])),
      series.map((each) =>
        h(
          "li",
          { key: each.name },
          h("i", { style: { background: each.color }, "aria-hidden": true }),
          each.name,
          h("b", { className: "ops-number" }, shown >= 0 ? text(each.values[shown]) : "–"),
        ),
      ),
      h(
        "li",
        { className: "ops-end" },
        h(
          "button",
          { type: "button", className: "ops-plain", "aria-pressed": asTable, onClick: () => setAsTable(!asTable) },
          asTable ? "Chart" : "Table",
        ),
      ),
    ),
    asTable
      ? h(Table, {
          label,
          rowKey: (index) => days[index],
          rows: days.map((_, index) => index).reverse(),
          columns: [
            { key: "day", title: "Day", cell: (index) => days[index] },
            ...series.map((each) => ({
              key: each.name,
              title: each.name,
              number: true,
              cell: (index) => text(each.values[index]),
            })),
          ],
        })
      : h(
          "div",
          {
            ref,
            style: { height },
            tabIndex: 0,
            role: "img",
            "aria-label":
              shown >= 0
                ? `${label}. ${dayTitle(days[shown])}: ${series.map((each) => `${each.name} ${text(each.values[shown])}`).join(", ")}`
                : label,
            onKeyDown,
            onPointerMove,
            onPointerLeave: () => setAt(null),
            onBlur: () => setAt(null),
          },
          width > 0 &&
            h(
              "svg",
              { height, "aria-hidden": true },
              ticks.map((tick) =>
                h(
                  "g",
                  { key: tick },
                  h("line", { className: "ops-grid", x1: LEFT, x2: width, y1: y(tick), y2: y(tick) }),
                  h(
                    "text",
                    { x: LEFT - 8, y: y(tick) + 4, textAnchor: "end" },
                    format === count ? compact(tick) : format(tick),
                  ),
                ),
              ),
              days.map((day, index) => {
                const fits = index % every === 0 && x(index) + 44 < width;
                const hole = columns[index].every((value) => value === null);
                return h(
                  "g",
                  { key: day },
                  hole && h("rect", { className: "ops-hole", x: x(index), y: TOP, width: slot, height: bottom - TOP }),
                  at === index &&
                    h("rect", { className: "ops-cursor", x: x(index), y: TOP, width: slot, height: bottom - TOP }),
                  fits && h("text", { x: x(index), y: height - 5 }, axis(day)),
                );
              }),
              band &&
                h("path", {
                  d: `${path(band[1])}${[...band[0].keys()]
                    .reverse()
                    .map((index) => `L${x(index) + slot / 2},${y(band[0][index])}`)
                    .join("")}Z`,
                  fill: series[0].color,
                  opacity: 0.14,
                }),
              stacked
                ? columns.map((values, index) => {
                    let base = 0;
                    return values.map((value, place) => {
                      if (!value) return null;
                      const from = base;
                      base += value;
                      return h("rect", {
                        key: `${index} ${place}`,
                        x: x(index) + slot * 0.15,
                        width: Math.max(1, slot * 0.7),
                        y: y(base),
                        height: Math.max(0.5, y(from) - y(base)),
                        fill: series[place].color,
                      });
                    });
                  })
                : series.map((each) =>
                    h("path", {
                      key: each.name,
                      d: path(each.values),
                      fill: "none",
                      stroke: each.color,
                      strokeWidth: 2,
                      strokeLinejoin: "round",
                    }),
                  ),
              !stacked &&
                series.flatMap((each) =>
                  days.map((day, index) => {
                    // A day between two without data has no line.
                    const alone =
                      (each.values[index - 1] ?? null) === null && (each.values[index + 1] ?? null) === null;
                    if (each.values[index] === null || !(alone || index === at)) return null;
                    const center = { cx: x(index) + slot / 2, cy: y(each.values[index]) };
                    return h("circle", { key: `${each.name} ${day}`, ...center, r: 3.5, fill: each.color });
                  }),
                ),
            ),
        ),
    h(
      "span",
      { className: classes("ops-hidden"), role: "status" },
      at === null
        ? ""
        : `${dayTitle(days[at])}: ${series.map((each) => `${each.name} ${text(each.values[at])}`).join(", ")}`,
    ),
  );
};
