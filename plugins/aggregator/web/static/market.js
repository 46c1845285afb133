/** Market data: bars, coverage, tasks and runs of `ohlcv_aggregation`. */

import {
  Link,
  React,
  count,
  dayName,
  duration,
  h,
  lastDays,
  operations,
  percent,
  plural,
  useApi,
  useNow,
  useParam,
  useSettled,
} from "./lib.js";
import {
  Choice,
  Empty,
  Figure,
  Figures,
  Legend,
  Loaded,
  Matrix,
  PagedList,
  Section,
  Select,
  State,
  Table,
  Time,
  dayColumns,
} from "./ui.js";
import { Candles } from "./candles.js";

const { useEffect, useId, useMemo, useState } = React;

const DAG = "ohlcv_aggregation";
const WINDOWS = 500;
const SIZES = { "15m": 900, "1h": 3_600, "4h": 14_400, "1d": 86_400 };
const TIMEFRAMES = /** @type {[string, string][]} */ (Object.keys(SIZES).map((name) => [name, name]));

const NO_SYMBOLS = h(
  Empty,
  { title: "No symbols yet" },
  "Add rows to ohlcv.assets and load candles. The next run of ohlcv_aggregation builds the bars.",
);

/** Choose one of many symbols: the list follows what is typed. @param {{symbol: string, onChange: (symbol: string) => void}} props */
const SymbolPicker = ({ symbol, onChange }) => {
  const id = useId();
  const [text, setText] = useState(symbol);
  const settled = useSettled(text, 150);
  useEffect(() => setText(symbol), [symbol]);
  const { data } = useApi(operations("ohlcv/symbols", { search: settled === symbol ? "" : settled, limit: 50 }), {
    every: 0,
  });
  const names = data?.items.map((item) => item.symbol) ?? [];
  const choose = (value) => {
    setText(value);
    if (names.includes(value)) onChange(value);
  };
  return h(
    React.Fragment,
    null,
    h(globalThis.ChakraUI.Input, {
      size: "sm",
      width: "12rem",
      list: id,
      maxLength: 200,
      "aria-label": "Symbol",
      value: text,
      onChange: (event) => choose(event.currentTarget.value),
      onFocus: (event) => event.currentTarget.select(),
      onBlur: () => setText(symbol),
      onKeyDown: (event) => event.key === "Enter" && names.length > 0 && choose(names.includes(text) ? text : names[0]),
    }),
    h(
      "datalist",
      { id },
      names.map((name) => h("option", { key: name, value: name })),
    ),
  );
};

const Bars = () => {
  const [chosen, setSymbol] = useParam("symbol", "");
  const [timeframe, setTimeframe] = useParam("timeframe", "15m");
  const [end, setEnd] = useState(/** @type {string | null} */ (null));
  const symbols = useApi(operations("ohlcv/symbols"), { every: 0 });
  const known = symbols.data?.items ?? [];
  const symbol = chosen || (known.find((each) => each.mandatory) ?? known[0])?.symbol || "";
  useEffect(() => setEnd(null), [symbol, timeframe]);
  const start = end && new Date(Date.parse(end) - WINDOWS * SIZES[timeframe] * 1000).toISOString();
  const response = useApi(symbol ? operations("ohlcv/bars", { symbol, timeframe, start, end }) : null);
  const { data } = response;
  const earlier = data?.first && Date.parse(data.first) < Date.parse(data.start);

  return h(
    Section,
    {
      title: "Bars",
      note: "Incomplete bars are pale on an amber ground, windows without a bar are gray. The open window is dashed.",
      tools: [
        h(SymbolPicker, { key: "symbol", symbol, onChange: setSymbol }),
        h(Choice, {
          key: "timeframe",
          label: "Timeframe",
          value: timeframe,
          options: TIMEFRAMES,
          onChange: setTimeframe,
        }),
        h(
          "button",
          {
            key: "earlier",
            type: "button",
            className: "ops-plain",
            disabled: !earlier,
            onClick: () => setEnd(data.start),
          },
          "Earlier",
        ),
        h(
          "button",
          {
            key: "latest",
            type: "button",
            className: "ops-plain",
            disabled: end === null,
            onClick: () => setEnd(null),
          },
          "Latest",
        ),
      ],
    },
    !symbol
      ? h(Loaded, { response: symbols, height: 460 }, () => NO_SYMBOLS)
      : h(Loaded, { response, height: 460 }, (bars) =>
          bars.bars.length === 0 && !bars.open
            ? h(
                Empty,
                { title: `No ${bars.timeframe} bars of ${bars.symbol} in this time` },
                bars.last && ["The newest bar starts ", h(Time, { key: "t", at: bars.last }), "."],
              )
            : h(React.Fragment, null, h(Candles, { data: bars }), h(Attribution)),
        ),
  );
};

const Attribution = () =>
  h(
    "p",
    { className: "ops-note" },
    "Chart by ",
    h("a", { href: "https://www.tradingview.com/", target: "_blank", rel: "noreferrer" }, "TradingView"),
    " Lightweight Charts, © TradingView, Inc.",
  );

const COVERAGE = /** @type {[string, string][]} */ ([
  ["full", "All candles"],
  ["most", "80% or more"],
  ["half", "60% or more"],
  ["few", "Less"],
  ["silent", "Silence"],
  ["none", "Not known"],
]);

const coverageCell = (symbol, day, seen, expected) => {
  const name = `${symbol}, ${dayName(day)}`;
  if (seen === null || !expected) return { tone: "none", label: `${name}: not known` };
  if (seen === 0) return { tone: "silent", label: `${name}: silence, none of ${plural(expected, "candle")}` };
  const share = seen / expected;
  const tone = share >= 1 ? "full" : share >= 0.8 ? "most" : share >= 0.6 ? "half" : "few";
  return { tone, label: `${name}: ${count(seen)} of ${plural(expected, "candle")}, ${percent(seen, expected)}` };
};

const Coverage = () => {
  const [days, setDays] = useState("30");
  const now = useNow();
  const from = lastDays(Number(days), now)[0];
  return h(
    Section,
    {
      title: "Coverage",
      note: "Base candles seen of those expected, per UTC day. Silence is a day without any candle; the rest is gaps.",
      tools: h(Choice, {
        label: "Days",
        value: days,
        options: [
          ["14", "14 days"],
          ["30", "30 days"],
          ["90", "90 days"],
        ],
        onChange: setDays,
      }),
    },
    h(
      PagedList,
      {
        url: ({ search, limit, offset }) => operations("ohlcv/coverage", { from, search, limit, offset }),
        one: "symbol",
        limit: 20,
        searches: "Search symbols",
        every: 60,
        empty: NO_SYMBOLS,
      },
      (data) => h(React.Fragment, null, h(CoverageMatrix, { data }), h(Legend, { tones: COVERAGE })),
    ),
  );
};

const CoverageMatrix = ({ data }) => {
  const columns = useMemo(() => dayColumns(data.days, dayName), [data]);
  const rows = useMemo(
    () =>
      data.items.map((item) => ({
        key: item.symbol,
        head: item.symbol,
        cells: data.days.map((day, index) => coverageCell(item.symbol, day, item.seen[index], item.expected[index])),
      })),
    [data],
  );
  return h(Matrix, { label: "Coverage", corner: "Symbol", columns, rows });
};

const STATUS = {
  idle: ["good", "Idle"],
  running: ["busy", "Running"],
  disabled: ["bad", "Disabled"],
  hard_failed: ["bad", "Failed"],
};

const taskState = (task) => {
  if (task.hardFails > 0 && task.status === "idle") return h(State, { tone: "late" }, "Retries");
  const [tone, word] = STATUS[task.status] ?? ["idle", task.status];
  return h(State, { tone }, word);
};

const TASK_COLUMNS = [
  { key: "symbol", title: "Symbol", sort: "symbol", cell: (task) => `${task.symbol} ${task.timeframe}` },
  { key: "status", title: "State", sort: "status", cell: taskState },
  {
    key: "age",
    title: "Age of data",
    sort: "age",
    number: true,
    cell: (task) => task.ageSeconds !== null && duration(task.ageSeconds),
  },
  {
    key: "lag",
    title: "Lag",
    number: true,
    cell: (task) => (task.lagSeconds === null ? null : task.lagSeconds === 0 ? "None" : duration(task.lagSeconds)),
  },
  { key: "streak", title: "Failures in a row", sort: "streak", number: true, cell: (task) => count(task.hardFails) },
  {
    key: "success",
    title: "Last success",
    cell: (task) => h(Time, { at: task.lastSuccessAt, ago: true, none: "Never" }),
  },
  {
    key: "error",
    title: "Last error",
    cell: (task) => task.lastError && h("span", { className: "ops-error" }, task.lastError),
  },
];

const Tasks = () => {
  const [status, setStatus] = useState("");
  const [timeframe, setTimeframe] = useState("");
  return h(
    Section,
    {
      title: "Tasks",
      note: "One task for each symbol and timeframe. The lag is source data that is not built yet; quiet markets have an age without a lag.",
    },
    h(
      PagedList,
      {
        url: (query) => operations("ohlcv/tasks", { ...query, status, timeframe }),
        one: "task",
        searches: "Search symbols",
        initialSort: { by: "attention" },
        tools: [
          h(Select, {
            key: "status",
            label: "State",
            value: status,
            onChange: setStatus,
            options: [
              ["", "All states"],
              ["idle", "Idle"],
              ["running", "Running"],
              ["disabled", "Disabled"],
              ["hard_failed", "Failed"],
            ],
          }),
          h(Select, {
            key: "timeframe",
            label: "Timeframe",
            value: timeframe,
            onChange: setTimeframe,
            options: [["", "All timeframes"], ...TIMEFRAMES],
          }),
        ],
        before: ({ statuses }) =>
          h(
            Figures,
            null,
            Object.entries(STATUS).map(([key, [tone, word]]) =>
              h(Figure, {
                key,
                label: word,
                value: count(statuses[key] ?? 0),
                tone: tone === "bad" && statuses[key] > 0 ? "bad" : undefined,
              }),
            ),
          ),
        empty: status || timeframe ? h(Empty, { title: "No task is in this state" }) : NO_SYMBOLS,
      },
      (data, sort) =>
        h(Table, {
          label: "Tasks",
          columns: TASK_COLUMNS,
          rows: data.items,
          rowKey: (task) => `${task.symbol} ${task.timeframe}`,
          sort,
        }),
    ),
  );
};

const RUN_STATES = { success: ["good", "Success"], running: ["busy", "Running"], failed: ["bad", "Failed"] };

const number = (key, title) => ({ key, title, number: true, cell: (run) => run[key] !== null && count(run[key]) });

const RUN_COLUMNS = [
  {
    key: "run",
    title: "Started",
    cell: (run) =>
      h(Link, { to: `/dags/${DAG}/runs/${encodeURIComponent(run.runId)}` }, h(Time, { at: run.startedAt })),
  },
  {
    key: "status",
    title: "State",
    cell: (run) => h(State, { tone: RUN_STATES[run.status]?.[0] ?? "idle" }, RUN_STATES[run.status]?.[1] ?? run.status),
  },
  { key: "kind", title: "Kind" },
  number("due", "Due"),
  number("claimed", "Claimed"),
  number("bars", "Built"),
  number("poorBars", "Poor"),
  { key: "seconds", title: "Seconds", number: true, cell: (run) => run.seconds?.toFixed(1) },
  { key: "error", title: "Error", cell: (run) => run.error && h("span", { className: "ops-error" }, run.error) },
];

const Runs = () =>
  h(
    Section,
    { title: "Recent runs", note: "What each run found due, claimed and built. Open a run to clear it." },
    h(
      PagedList,
      {
        url: ({ limit, offset }) => operations("ohlcv/runs", { limit, offset }),
        one: "run",
        limit: 10,
        empty: h(Empty, { title: "No runs yet" }, `${DAG} runs every five minutes. Check that it is not paused.`),
      },
      (data) =>
        h(Table, {
          label: "Recent runs",
          columns: RUN_COLUMNS,
          rows: data.items,
          rowKey: (run) => `${run.kind} ${run.runId}`,
        }),
    ),
  );

/** Everything about bars. */
export const Market = () => h(React.Fragment, null, h(Bars), h(Coverage), h(Tasks), h(Runs));
