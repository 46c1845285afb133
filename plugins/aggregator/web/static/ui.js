/** The building blocks of every view. */

import {
  ApiError,
  Link,
  React,
  classes,
  count,
  dateTime,
  h,
  plural,
  relative,
  useApi,
  useNow,
  useSettled,
  useZone,
} from "./lib.js";

const { ChakraUI } = globalThis;
const { useCallback, useEffect, useId, useLayoutEffect, useMemo, useRef, useState } = React;

// ------------------------------------------------------------------------------------------------------------ tooltip

const GAP = 8;

/**
 * A tooltip for every element below it that has `data-tip`, on hover and on focus. Escape hides it.
 * @param {{children: any, className?: string}} props
 */
export const Tips = ({ children, className }) => {
  const [tip, setTip] = useState(/** @type {{text: string, box: DOMRect} | null} */ (null));
  const ref = useRef(null);

  const show = useCallback((event) => {
    const target = event.target instanceof Element ? event.target.closest("[data-tip]") : null;
    const text = target?.getAttribute("data-tip");
    setTip(text ? { text, box: target.getBoundingClientRect() } : null);
  }, []);
  const hide = useCallback(() => setTip(null), []);
  const onKeyDown = useCallback((event) => event.key === "Escape" && setTip(null), []);

  useEffect(() => {
    if (!tip) return undefined;
    globalThis.addEventListener("scroll", hide, { capture: true, passive: true });
    return () => globalThis.removeEventListener("scroll", hide, { capture: true });
  }, [tip, hide]);

  useLayoutEffect(() => {
    if (!tip || !ref.current) return;
    const { width, height } = ref.current.getBoundingClientRect();
    const left = Math.min(Math.max(GAP, tip.box.left + tip.box.width / 2 - width / 2), innerWidth - width - GAP);
    const above = tip.box.top - height - GAP;
    ref.current.style.left = `${left}px`;
    ref.current.style.top = `${above > GAP ? above : tip.box.bottom + GAP}px`;
    ref.current.style.opacity = "1";
  }, [tip]);

  return h(
    "div",
    { className, onMouseOver: show, onMouseLeave: hide, onFocus: show, onBlur: hide, onKeyDown },
    children,
    // What it says is in the element's label, too.
    tip && h("div", { ref, className: "ops-tip", "aria-hidden": true, key: tip.text }, tip.text),
  );
};

// -------------------------------------------------------------------------------------------------------- small parts

/** A time in Airflow's zone; UTC on hover. @param {{at: string | null, ago?: boolean, none?: string}} props */
export const Time = ({ at, ago = false, none = "–" }) => {
  const zone = useZone();
  const now = useNow();
  if (!at) return h("span", { className: "ops-muted" }, none);
  const local = dateTime(at, zone);
  const utc = `${dateTime(at, "UTC", { seconds: true })} UTC`;
  const tip = ago && zone !== "UTC" ? `${local} ${zone}\n${utc}` : utc;
  return h("time", { className: "ops-number", dateTime: at, "data-tip": tip }, ago ? relative(at, now) : local);
};

/** A colored dot with a word. @param {{tone: string, children: any, tip?: string}} props */
export const State = ({ tone, children, tip }) =>
  h("span", { className: `ops-state ops-tone-${tone}`, "data-tip": tip }, h("i", { "aria-hidden": true }), children);

/** A section with a heading. @param {{title: any, note?: any, tools?: any, children: any, id?: string}} props */
export const Section = ({ title, note, tools, children }) => {
  const id = useId();
  return h(
    "section",
    { className: "ops-section", "aria-labelledby": id },
    h(
      "header",
      null,
      h("div", null, h("h2", { id }, title), note && h("p", { className: "ops-note" }, note)),
      tools && h("div", { className: "ops-tools" }, tools),
    ),
    children,
  );
};

/** A number with its name. @param {{label: string, value: any, note?: any, tone?: string}} props */
export const Figure = ({ label, value, note, tone }) =>
  h(
    "div",
    { className: classes("ops-figure", tone && `ops-tone-${tone}`) },
    h("dt", null, label),
    h("dd", null, value, note && h("small", null, note)),
  );

/** Numbers side by side. @param {{children: any}} props */
export const Figures = ({ children }) => h("dl", { className: "ops-figures" }, children);

/** Nothing to show, and why. @param {{title: string, children?: any}} props */
export const Empty = ({ title, children }) =>
  h("div", { className: "ops-empty" }, h("strong", null, title), children && h("p", null, children));

const REASONS = {
  not_connected: "This product is not connected",
  not_migrated: "The tables do not exist yet",
  forbidden: "You may not see this",
  not_found: "Not found",
  timeout: "The database took too long",
  unavailable: "The database is not available",
  offline: "Airflow does not respond",
  history: "The run history is not available",
};

const NEUTRAL = new Set(["not_connected", "not_migrated", "forbidden", "not_found"]);

/** A request that failed: what failed, and what to do. @param {{error: ApiError, retry?: () => void}} props */
export const Failure = ({ error, retry }) => {
  const title = REASONS[error.reason] ?? "This could not be loaded";
  if (NEUTRAL.has(error.reason)) return h(Empty, { title }, error.message);
  return h(
    "div",
    { className: "ops-failure", role: "alert" },
    h("div", null, h("strong", null, title), h("p", null, error.message)),
    retry && h(ChakraUI.Button, { size: "xs", variant: "outline", onClick: retry }, "Try again"),
  );
};

/** Room for what loads. @param {{height?: number | string, label?: string}} props */
export const Loading = ({ height = 160, label = "Loading" }) =>
  h("div", { className: "ops-loading", style: { height }, role: "status", "aria-label": label });

/**
 * Show what a request returned, or why there is nothing.
 * @param {{response: ReturnType<typeof useApi>, height?: number, children: (data: any) => any}} props
 */
export const Loaded = ({ response, height, children }) => {
  const { data, error, loading, retry } = response;
  if (!data) return error ? h(Failure, { error, retry }) : h(Loading, { height });
  return h(
    "div",
    { className: classes(loading && "ops-stale"), "aria-busy": loading },
    error && h(Failure, { error, retry }),
    children(data),
  );
};

/** One of a few choices. @param {{label: string, value: string, options: [string, string][], onChange: (value: string) => void}} props */
export const Choice = ({ label, value, options, onChange }) => {
  const name = useId();
  return h(
    "fieldset",
    { className: "ops-choice" },
    h("legend", { className: "ops-hidden" }, label),
    options.map(([key, text]) =>
      h(
        "label",
        { key },
        h("input", { type: "radio", name, checked: key === value, onChange: () => onChange(key) }),
        h("span", null, text),
      ),
    ),
  );
};

/** One of many choices. @param {{label: string, value: string, options: [string, string][], onChange: (value: string) => void, width?: string}} props */
export const Select = ({ label, value, options, onChange, width = "auto" }) => {
  const { NativeSelect } = ChakraUI;
  return h(
    NativeSelect.Root,
    { size: "sm", width },
    h(
      NativeSelect.Field,
      { "aria-label": label, value, onChange: (event) => onChange(event.currentTarget.value) },
      options.map(([key, text]) => h("option", { key, value: key }, text)),
    ),
    h(NativeSelect.Indicator),
  );
};

/** A search field. @param {{label: string, value: string, onChange: (value: string) => void}} props */
export const Search = ({ label, value, onChange }) =>
  h(ChakraUI.Input, {
    type: "search",
    size: "sm",
    width: "13rem",
    maxLength: 200,
    placeholder: label,
    "aria-label": label,
    value,
    onChange: (event) => onChange(event.currentTarget.value),
  });

// --------------------------------------------------------------------------------------------------------------- cells

/** The element that an arrow key leads to in a row or a table of cells. */
const neighbor = (cell, key) => {
  const line = cell.closest("[data-cells]");
  if (!line) return null;
  const all = [...line.querySelectorAll("[data-cell]")];
  const across = Number(line.getAttribute("data-cells"));
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across };
  if (key === "Home") return all[0];
  if (key === "End") return all.at(-1);
  return key in steps ? all[all.indexOf(cell) + steps[key]] : null;
};

const onCellKey = (event) => {
  const cell = event.target instanceof Element ? event.target.closest("[data-cell]") : null;
  const next = cell && neighbor(cell, event.key);
  if (!next) return;
  event.preventDefault();
  cell.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
};

/**
 * @typedef {object} Cell
 * @property {string} tone State, which decides color and sign.
 * @property {string} label What it says, on hover and to screen readers.
 * @property {number} [share] Height of the color, 0 to 1.
 * @property {string} [to] Where it leads, a path of Airflow's UI.
 */

/** What every cell has. @param {Cell} cell @param {boolean} first Whether the tab key leads to it. */
const cellProps = (cell, first) => ({
  className: `ops-cell ops-cell-${cell.tone}`,
  style: cell.share === undefined ? undefined : { "--share": `${Math.round(cell.share * 100)}%` },
  "aria-label": cell.label,
  "data-tip": cell.label,
  "data-cell": "",
  tabIndex: first ? 0 : -1,
});

/** A row of cells, one tab stop; arrow keys move. @param {{label: string, cells: Cell[]}} props */
export const Strip = ({ label, cells }) =>
  h(
    "div",
    { className: "ops-strip", role: "group", "aria-label": label, "data-cells": cells.length, onKeyDown: onCellKey },
    cells.map((cell, index) => {
      const props = { key: index, ...cellProps(cell, index === cells.length - 1) };
      return cell.to ? h(Link, { ...props, to: cell.to }) : h("span", { ...props, role: "img" });
    }),
  );

/**
 * A table of cells: rows × days, one tab stop.
 * @param {{label: string, corner: string, columns: {key: string, name: string, title: string}[], rows: {key: string, head: any,
 *   cells: Cell[]}[], onSelect?: (row: number, column: number) => void, selected?: number}} props
 */
export const Matrix = React.memo(({ label, corner, columns, rows, onSelect, selected }) => {
  // One handler for thousands of cells.
  const select = (event) => {
    const cell = event.target instanceof Element ? event.target.closest("[data-cell]") : null;
    if (onSelect && cell) onSelect(cell.parentElement.rowIndex - 1, cell.cellIndex - 1);
  };
  const onKeyDown = (event) => (event.key === "Enter" ? select(event) : onCellKey(event));
  return h(
    "div",
    { className: "ops-scroll" },
    h(
      "table",
      {
        className: classes("ops-matrix", onSelect && "ops-selects"),
        role: "grid",
        "aria-label": label,
        "data-cells": columns.length,
        onKeyDown,
        onClick: select,
      },
      h(
        "thead",
        null,
        h(
          "tr",
          null,
          h("th", { scope: "col" }, corner),
          columns.map((column, index) =>
            h(
              "th",
              { key: column.key, scope: "col", className: classes(index === selected && "ops-selected") },
              h("abbr", { title: column.title }, column.name),
            ),
          ),
        ),
      ),
      h(
        "tbody",
        null,
        rows.map((row, y) =>
          h(
            "tr",
            { key: row.key },
            h("th", { scope: "row" }, row.head),
            row.cells.map((cell, x) => h("td", { key: columns[x].key, ...cellProps(cell, x === 0 && y === 0) })),
          ),
        ),
      ),
    ),
  );
});

/** Heads of the days of a matrix: the day of the month, and the month where it begins. @param {string[]} days @param {(day: string) => string} title */
export const dayColumns = (days, title) =>
  days.map((day) => ({ key: day, name: String(Number(day.slice(8))), title: title(day) }));

/** What the colors mean. @param {{tones: [string, string][]}} props */
export const Legend = ({ tones }) =>
  h(
    "ul",
    { className: "ops-legend", "aria-label": "Legend" },
    tones.map(([tone, text]) =>
      h("li", { key: tone }, h("span", { className: `ops-cell ops-cell-${tone}`, "aria-hidden": true }), text),
    ),
  );

// --------------------------------------------------------------------------------------------------------------- table

/**
 * @typedef {object} Column
 * @property {string} key
 * @property {string} title
 * @property {(row: any) => any} [cell] What it shows; the property `key` of the row by default.
 * @property {boolean} [number] Right-aligned, with digits of one width.
 * @property {string} [sort] Name for the API, for a column that sorts.
 */

/** A table on a screen, cards on a telephone. @param {{label: string, columns: Column[], rows: any[], rowKey: (row: any) => string,
 *   sort?: {by: string, order: string, onSort: (by: string) => void}}} props */
export const Table = ({ label, columns, rows, rowKey, sort }) =>
  h(
    "div",
    { className: "ops-scroll" },
    h(
      "table",
      { className: "ops-table", "aria-label": label },
      h(
        "thead",
        null,
        h(
          "tr",
          null,
          columns.map((column) => {
            const active = sort && column.sort === sort.by;
            const order = sort?.order === "asc" ? "ascending" : "descending";
            return h(
              "th",
              {
                key: column.key,
                scope: "col",
                className: classes(column.number && "ops-right"),
                "aria-sort": active ? order : undefined,
              },
              sort && column.sort
                ? h("button", { type: "button", onClick: () => sort.onSort(column.sort) }, column.title)
                : column.title,
            );
          }),
        ),
      ),
      h(
        "tbody",
        null,
        rows.map((row) =>
          h(
            "tr",
            { key: rowKey(row) },
            columns.map((column) => {
              const content = column.cell ? column.cell(row) : row[column.key];
              const isVoid = content === null || content === undefined || content === false;
              return h(
                "td",
                {
                  key: column.key,
                  className: classes(column.number && "ops-right ops-number", isVoid && "ops-void"),
                  "data-title": column.title,
                },
                isVoid ? h("span", { className: "ops-muted" }, "–") : content,
              );
            }),
          ),
        ),
      ),
    ),
  );

/** Move between the pages of a list. @param {{total: number, limit: number, offset: number, onMove: (offset: number) => void, one: string}} props */
const Pages = ({ total, limit, offset, onMove, one, many }) => {
  const { Button } = ChakraUI;
  const last = Math.min(total, offset + limit);
  const shown =
    total > limit ? `${count(offset + 1)}–${count(last)} of ${plural(total, one, many)}` : plural(total, one, many);
  return h(
    "nav",
    { className: "ops-pages", "aria-label": `Pages of ${many}` },
    h("span", { className: "ops-number", role: "status" }, shown),
    total > limit &&
      h(
        "span",
        null,
        h(
          Button,
          { size: "xs", variant: "outline", disabled: offset === 0, onClick: () => onMove(offset - limit) },
          "Previous",
        ),
        h(
          Button,
          { size: "xs", variant: "outline", disabled: last >= total, onClick: () => onMove(offset + limit) },
          "Next",
        ),
      ),
  );
};

/**
 * Load a list page by page; the server searches and sorts.
 * @param {{url: (query: object) => string, one: string, many?: string, searches?: string, limit?: number, tools?: any, every?: number,
 *   before?: (data: any) => any, initialSort?: {by: string, order: string}, empty: any,
 *   children: (data: any, sort: any) => any}} props
 */
export const PagedList = ({
  url,
  one,
  many = `${one}s`,
  searches,
  limit = 10,
  tools,
  before,
  initialSort,
  empty,
  every,
  children,
}) => {
  const [search, setSearch] = useState("");
  const [offset, setOffset] = useState(0);
  const [sort, setSort] = useState(initialSort ?? null);
  const settled = useSettled(search);
  const base = url({ search: settled, limit, sort: sort?.by, order: sort?.order });
  useEffect(() => setOffset(0), [base]);
  const response = useApi(url({ search: settled, limit, offset, sort: sort?.by, order: sort?.order }), { every });
  const sorting = useMemo(
    () =>
      sort && {
        ...sort,
        onSort: (by) => setSort((old) => ({ by, order: old.by === by && old.order === "desc" ? "asc" : "desc" })),
      },
    [sort],
  );
  return h(
    React.Fragment,
    null,
    (searches || tools) &&
      h(
        "div",
        { className: "ops-tools" },
        searches && h(Search, { label: searches, value: search, onChange: setSearch }),
        tools,
      ),
    h(Loaded, { response, height: 240 }, (data) =>
      h(
        React.Fragment,
        null,
        before?.(data),
        data.total === 0
          ? settled
            ? h(Empty, { title: `No ${one} matches “${settled}”` })
            : empty
          : h(
              React.Fragment,
              null,
              children(data, sorting),
              h(Pages, { total: data.total, limit, offset, onMove: setOffset, one, many }),
            ),
      ),
    ),
  );
};
