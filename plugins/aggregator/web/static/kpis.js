/** KPIs: the outcome of each on each day, jobs in detail, and the registry. */

import { Link, React, count, dayName, h, lastDays, operations, plural, useNow, useParam } from "./lib.js";
import {
  Choice,
  Empty,
  Failure,
  Figure,
  Figures,
  Legend,
  Matrix,
  PagedList,
  Section,
  Select,
  State,
  Table,
  Time,
  dayColumns,
} from "./ui.js";

const { useCallback, useMemo, useState } = React;

const DAG = "kpi_dispatch";

/** Status of a KPI → tone of its cell, tone of its dot, word. @type {Record<string, [string, string, string]>} */
const STATUS = {
  completed: ["good", "good", "Completed"],
  triggered: ["sent", "good", "Triggered"],
  pending: ["busy", "busy", "Pending"],
  sending: ["busy", "busy", "Sending"],
  unknown: ["unsure", "late", "Unknown"],
  timeout: ["late", "late", "Timed out"],
  failed: ["bad", "bad", "Failed"],
  partial: ["late", "late", "Partial"],
};

const TONES = /** @type {[string, string][]} */ ([
  ["good", "Completed"],
  ["sent", "Triggered, no report expected or none yet"],
  ["busy", "In progress"],
  ["unsure", "Unknown"],
  ["late", "Timed out"],
  ["bad", "Failed"],
  ["none", "Not sent"],
]);

const state = (status) => h(State, { tone: STATUS[status]?.[1] ?? "idle" }, STATUS[status]?.[2] ?? status);

const cellOf = (item, day, cell) => {
  const name = `${item.name}, ${dayName(day)}`;
  if (!cell) return { tone: "none", label: `${name}: not sent` };
  const [tone, , word] = STATUS[cell.status] ?? ["none", "idle", cell.status];
  const retries = cell.retryCount ? `, ${plural(cell.retryCount, "retry", "retries")}` : "";
  return { tone, label: `${name}: ${word.toLowerCase()}${retries}${cell.error ? `\n${cell.error}` : ""}` };
};

const NO_KPIS = h(
  Empty,
  { title: "No KPIs in this time" },
  "kpi_dispatch sends the KPIs of the Variable kpi-registry once a day, at 12:00 UTC.",
);

const GridMatrix = ({ data, selected, onSelect }) => {
  const columns = useMemo(() => dayColumns(data.days, dayName), [data]);
  const rows = useMemo(
    () =>
      data.items.map((item) => ({
        key: item.kpiId,
        head: h("span", { title: item.kpiId }, item.name),
        cells: data.days.map((day, index) => cellOf(item, day, item.cells[index])),
      })),
    [data],
  );
  const select = useCallback((_, column) => data.jobs[column] && onSelect(data.jobs[column]), [data, onSelect]);
  return h(Matrix, {
    label: "Outcome of each KPI on each day",
    corner: "KPI",
    columns,
    rows,
    onSelect: select,
    selected: data.jobs.indexOf(selected),
  });
};

const Grid = ({ selected, onSelect }) => {
  const [days, setDays] = useState("30");
  const now = useNow();
  const from = lastDays(Number(days), now)[0];
  return h(
    Section,
    {
      title: "Outcome by day",
      note: "The newest job of each UTC day. Choose a cell to open its job.",
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
        url: ({ search, limit, offset }) => operations("kpi/grid", { from, search, limit, offset }),
        one: "KPI",
        searches: "Search KPIs",
        // As many cells as a browser draws without a pause.
        limit: days === "90" ? 20 : 50,
        empty: NO_KPIS,
      },
      (data) => h(React.Fragment, null, h(GridMatrix, { data, selected, onSelect }), h(Legend, { tones: TONES })),
    ),
  );
};

const KPI_COLUMNS = [
  { key: "name", title: "KPI", cell: (row) => h("span", { title: row.kpiId }, row.name) },
  { key: "status", title: "State", cell: (row) => state(row.status) },
  { key: "requests", title: "Requests", number: true, cell: (row) => count(row.requests) },
  { key: "retryCount", title: "Retries", number: true, cell: (row) => count(row.retryCount) },
  { key: "sentAt", title: "Sent", cell: (row) => h(Time, { at: row.sentAt }) },
  {
    key: "report",
    title: "Report",
    cell: (row) => (row.reported ? h(Time, { at: row.completedAt }) : row.reportBack ? "Awaited" : "Not expected"),
  },
  { key: "error", title: "Error", cell: (row) => row.error && h("span", { className: "ops-error" }, row.error) },
];

const JobHead = ({ job }) =>
  h(
    Figures,
    null,
    h(Figure, {
      label: "State",
      value: STATUS[job.status]?.[2] ?? job.status,
      tone: STATUS[job.status]?.[1] === "good" ? undefined : STATUS[job.status]?.[1],
    }),
    h(Figure, { label: "KPIs", value: count(job.kpis) }),
    h(Figure, { label: "Completed", value: count(job.completed) }),
    h(Figure, { label: "Failed", value: count(job.failed), tone: job.failed ? "bad" : undefined }),
    h(Figure, { label: "Started", value: h(Time, { at: job.createdAt }) }),
  );

const Job = ({ traceId, onClose }) =>
  h(
    Section,
    {
      title: h(React.Fragment, null, "Job ", h("code", null, traceId)),
      tools: h("button", { type: "button", className: "ops-plain", onClick: onClose }, "Close"),
    },
    h(
      PagedList,
      {
        url: ({ search, limit, offset }) =>
          operations(`kpi/jobs/${encodeURIComponent(traceId)}`, { search, limit, offset }),
        one: "KPI",
        searches: "Search KPIs",
        before: (job) =>
          h(
            React.Fragment,
            null,
            h(JobHead, { job }),
            h(
              "p",
              { className: "ops-tools" },
              h(Link, { to: `/dags/${DAG}/runs/${encodeURIComponent(job.runId)}` }, "Open or clear the run"),
            ),
          ),
        empty: h(Empty, { title: "This job has no KPIs" }),
      },
      (job) =>
        h(Table, { label: "KPIs of the job", columns: KPI_COLUMNS, rows: job.items, rowKey: (row) => row.kpiId }),
    ),
  );

const REGISTRY_COLUMNS = [
  { key: "name", title: "KPI", cell: (row) => row.name ?? row.id },
  { key: "id", title: "ID", cell: (row) => row.id && h("code", null, row.id) },
  { key: "type", title: "Type" },
  { key: "host", title: "n8n" },
  { key: "reportBack", title: "Reports", cell: (row) => (row.reportBack ? "Yes" : "No") },
  {
    key: "state",
    title: "Next dispatch",
    cell: (row) => (row.state === "sent" ? h(State, { tone: "good" }, "Sent") : h(State, { tone: "bad" }, "Dropped")),
  },
  { key: "reason", title: "Reason", cell: (row) => row.reason && h("span", { className: "ops-error" }, row.reason) },
];

const Registry = () => {
  const [shown, setShown] = useState("");
  return h(
    Section,
    { title: "Registry", note: "The Variable kpi-registry: what the next dispatch sends, and what it drops and why." },
    h(
      PagedList,
      {
        url: ({ search, limit, offset }) => operations("kpi/registry", { search, limit, offset, state: shown }),
        one: "entry",
        many: "entries",
        searches: "Search the registry",
        tools: h(Select, {
          label: "State",
          value: shown,
          onChange: setShown,
          options: [
            ["", "All"],
            ["sent", "Sent"],
            ["dropped", "Dropped"],
          ],
        }),
        before: (data) =>
          h(
            React.Fragment,
            null,
            data.problem && h(Failure, { error: /** @type {any} */ ({ reason: "", message: data.problem }) }),
            h(
              Figures,
              null,
              h(Figure, { label: "Sent", value: count(data.sent) }),
              h(Figure, { label: "Dropped", value: count(data.dropped), tone: data.dropped ? "bad" : undefined }),
            ),
          ),
        empty: h(
          Empty,
          { title: "The registry is empty" },
          "Set the Variable kpi-registry. `make kpi-registry` checks one before you do.",
        ),
      },
      (data) =>
        h(Table, {
          label: "Registry",
          columns: REGISTRY_COLUMNS,
          rows: data.items,
          rowKey: (row) => `${row.state} ${row.id} ${row.reason}`,
        }),
    ),
  );
};

/** Everything about KPIs. */
export const Kpis = () => {
  const [job, setJob] = useParam("job", "");
  const close = useCallback(() => setJob(""), [setJob]);
  return h(
    React.Fragment,
    null,
    h(Grid, { selected: job, onSelect: setJob }),
    job && h(Job, { key: job, traceId: job, onClose: close }),
    h(Registry),
  );
};
