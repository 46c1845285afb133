/** The overview: whether all data is right and on time, DAG by DAG. */

import { Link, React, duration, h, operations, plural, useApi, useNow, useZone } from "./lib.js";
import { Empty, Failure, Legend, Loaded, Loading, Section, State, Strip, Time } from "./ui.js";
import { errorBudget, useHistory } from "./history.js";

const { useMemo } = React;

/** State of a table → its tone and its word. @type {Record<string, [string, string]>} */
export const FRESHNESS = {
  stale: ["bad", "Stale"],
  unknown: ["late", "Unknown"],
  fresh: ["good", "Fresh"],
  empty: ["idle", "No data"],
  paused: ["idle", "Paused"],
  unused: ["idle", "Not used"],
};

const SEVERITY = Object.keys(FRESHNESS);

/** The table of a DAG that is in the worst state. @param {any} dag */
export const worstOf = (dag) =>
  [...dag.freshness].sort((one, other) => SEVERITY.indexOf(one.state) - SEVERITY.indexOf(other.state))[0] ?? null;

const KINDS = {
  failed: ["bad", "Failed"],
  late: ["late", "Late"],
  stale: ["bad", "Stale"],
  dead_letters: ["late", "Dead letters"],
  task_disabled: ["late", "Task disabled"],
  kpi_registry: ["bad", "Invalid KPIs"],
};

export const STRIP_TONES = /** @type {[string, string][]} */ ([
  ["good", "On time"],
  ["late", "Late"],
  ["bad", "Failed"],
  ["missing", "Missing"],
  ["busy", "Running"],
  ["none", "Not due"],
]);

const names = (dags) => {
  const shown = dags.slice(0, 3).map((dag) => h(Link, { key: dag.dagId, to: `/dags/${dag.dagId}` }, dag.dagId));
  const rest = dags.length - shown.length;
  const all = rest ? [...shown, `${rest} more`] : shown;
  return all.flatMap((each, index) => (index === 0 ? [each] : [index === all.length - 1 ? " and " : ", ", each]));
};

/**
 * One sentence on the state of everything.
 * @param {{overview: any}} props
 */
export const Sentence = ({ overview }) => {
  const { dags, otherAlerts } = overview;
  const stale = dags.filter((dag) => dag.freshness.some((each) => each.state === "stale"));
  const unknown = dags.filter((dag) => dag.freshness.some((each) => each.state === "unknown"));
  const alerts = dags.flatMap((dag) => dag.openAlerts).length + otherAlerts.length;
  const fresh = dags.filter((dag) => dag.freshness.some((each) => each.state === "fresh"));
  const checked = dags.filter((dag) => dag.freshness.length > 0);
  const open = alerts > 0 && `${plural(alerts, "alert is", "alerts are")} open`;

  let tone = "good";
  let text = /** @type {any[]} */ (["All data is fresh."]);
  if (dags.length === 0) [tone, text] = ["idle", ["There is no DAG that you may read."]];
  else if (stale.length > 0) [tone, text] = ["bad", ["The data of ", ...names(stale), " is stale."]];
  else if (unknown.length > 0) [tone, text] = ["late", ["The freshness of ", ...names(unknown), " is unknown."]];
  else if (fresh.length === 0) [tone, text] = ["idle", ["There is no data yet."]];
  else if (open) [tone, text] = ["late", [`All data is fresh, and ${open}.`]];
  return h(
    "div",
    { className: `ops-sentence ops-tone-${tone}`, role: "status" },
    h("i", { "aria-hidden": true }),
    h(
      "div",
      null,
      h("p", null, text),
      h(
        "p",
        null,
        `${fresh.length} of ${plural(checked.length, "checked DAG")} ${fresh.length === 1 ? "has" : "have"} fresh data. `,
        stale.length + unknown.length > 0 && open ? `${open}. ` : "",
        "Checked ",
        h(Time, { at: overview.timestamp, ago: true }),
        ".",
      ),
    ),
  );
};

const DataCell = ({ dag }) => {
  const worst = worstOf(dag);
  if (!worst) return h("span", { className: "ops-muted" }, "Not checked");
  const [tone, word] = FRESHNESS[worst.state];
  const tip = dag.freshness
    .map((each) => {
      const allowed = each.maxAgeSeconds === null ? "" : `, late after ${duration(each.maxAgeSeconds)}`;
      const lag = each.lag?.behind
        ? `, ${plural(each.lag.behind, "symbol")} behind (${each.lag.worst.join(", ")})`
        : "";
      return `${each.table}: ${FRESHNESS[each.state][1].toLowerCase()}${allowed}${lag}`;
    })
    .join("\n");
  const since = worst.state === "stale" && worst.waitingSince;
  return h(
    "span",
    null,
    h(State, { tone, tip }, word),
    h(
      "small",
      null,
      since
        ? ["waits since ", h(Time, { key: "t", at: since, ago: true })]
        : worst.newest
          ? ["until ", h(Time, { key: "t", at: worst.newest, ago: true })]
          : "",
    ),
  );
};

/** On-time percentage of 30 days against the objective. @param {{dag: any, history: any}} props */
export const Budget = ({ dag, history }) => {
  const budget = errorBudget(history, dag.objectivePercent);
  if (!budget) return h("span", { className: "ops-muted" }, "–");
  return h(
    "span",
    { "data-tip": budget.label, role: "img", "aria-label": budget.label },
    budget.text,
    h(
      "span",
      { className: `ops-budget ops-tone-${budget.tone}`, style: { display: "block" } },
      h("i", { style: { width: `${Math.max(4, budget.left * 100)}%` } }),
    ),
  );
};

/** The strip of a DAG. @param {{dag: any, history: any}} props */
export const DagStrip = ({ dag, history }) =>
  h(Strip, {
    label: `${dag.dagId}, last 14 ${dag.everySeconds > 86_400 ? "months" : "days"}`,
    cells: history.cells,
  });

const AlertsCell = ({ dag }) => {
  const alerts = dag.openAlerts;
  if (alerts.length === 0) return h("span", { className: "ops-muted" }, "None");
  const oldest = Math.max(...alerts.map((alert) => alert.ageSeconds));
  const tone = alerts.some((alert) => KINDS[alert.kind]?.[0] === "bad") ? "bad" : "late";
  const word = alerts.length === 1 ? (KINDS[alerts[0].kind]?.[1] ?? alerts[0].kind) : `${alerts.length} open`;
  return h("span", null, h(State, { tone }, word), h("small", null, `for ${duration(oldest)}`));
};

const DagTable = ({ dags, histories, failed }) => {
  const waiting = failed ? h("span", { className: "ops-muted" }, "–") : h(Loading, { height: 22 });
  return h(
    "div",
    { className: "ops-scroll" },
    h(
      "table",
      { className: "ops-table ops-dags", "aria-label": "DAGs" },
      h(
        "thead",
        null,
        h(
          "tr",
          null,
          ["DAG", "Data", "Last success", "Next run", "Last 14 days", "On time, 30 days", "Alerts"].map((title) =>
            h("th", { key: title, scope: "col" }, title),
          ),
        ),
      ),
      h(
        "tbody",
        null,
        dags.map((dag) => {
          const history = histories?.get(dag.dagId);
          return h(
            "tr",
            { key: dag.dagId },
            h(
              "td",
              null,
              h(
                "span",
                null,
                h(Link, { to: `/dags/${encodeURIComponent(dag.dagId)}` }, dag.dagId),
                h("p", null, dag.description),
              ),
            ),
            h("td", { "data-title": "Data" }, h(DataCell, { dag })),
            h(
              "td",
              { "data-title": "Last success" },
              history ? h(Time, { at: history.lastSuccess, ago: true }) : waiting,
            ),
            h(
              "td",
              { "data-title": "Next run" },
              history
                ? history.paused
                  ? h("span", { className: "ops-muted" }, "Paused")
                  : h(Time, { at: history.nextRun, ago: true })
                : waiting,
            ),
            h(
              "td",
              { className: "ops-days", "data-title": dag.everySeconds > 86_400 ? "Last 14 months" : "Last 14 days" },
              history ? h(DagStrip, { dag, history }) : waiting,
              history && dag.everySeconds > 86_400 && h("small", null, "months"),
            ),
            h("td", { "data-title": "On time, 30 days" }, history ? h(Budget, { dag, history }) : waiting),
            h("td", { "data-title": "Alerts" }, h(AlertsCell, { dag })),
          );
        }),
      ),
    ),
  );
};

/** Open alerts with their text, their age and where to act. @param {{alerts: any[]}} props */
export const Alerts = ({ alerts }) =>
  h(
    "ul",
    { className: "ops-alerts" },
    alerts.map((alert) => {
      const [tone, word] = KINDS[alert.kind] ?? ["late", alert.kind];
      const [dagId] = alert.dagIds;
      const runs = alert.kind === "failed" || alert.kind === "late" ? alert.members : [];
      return h(
        "li",
        { key: alert.id },
        h("span", null, h(State, { tone }, word)),
        h("p", null, alert.text),
        h("span", { className: "ops-muted ops-number" }, duration(alert.ageSeconds)),
        dagId &&
          h(
            "span",
            { className: "ops-links" },
            runs
              .slice(0, 3)
              .map((run) =>
                h(
                  Link,
                  { key: run, to: `/dags/${encodeURIComponent(dagId)}/runs/${encodeURIComponent(run)}` },
                  `Open or clear ${run}`,
                ),
              ),
            h(Link, { to: `/dags/${encodeURIComponent(dagId)}` }, runs.length ? "DAG" : `Open or trigger ${dagId}`),
          ),
      );
    }),
  );

/** All DAGs. */
export const Overview = () => {
  const response = useApi(operations("overview"));
  return h(Loaded, { response, height: 480 }, (overview) => h(Everything, { overview }));
};

const Everything = ({ overview }) => {
  const now = useNow();
  const zone = useZone();
  const { byDag, problem } = useHistory(overview.dags, now, zone);
  const alerts = useMemo(
    () =>
      [...overview.dags.flatMap((dag) => dag.openAlerts), ...overview.otherAlerts].sort(
        (one, other) => one.ageSeconds - other.ageSeconds,
      ),
    [overview],
  );
  return h(
    React.Fragment,
    null,
    h(Sentence, { overview }),
    overview.problems.map((problem) =>
      h(Failure, { key: problem, error: /** @type {any} */ ({ reason: "", message: problem }) }),
    ),
    alerts.length > 0 && h(Section, { title: plural(alerts.length, "open alert") }, h(Alerts, { alerts })),
    overview.dags.length === 0
      ? h(Empty, { title: "No DAGs" }, "Ask an administrator for read access to the DAGs of this repository.")
      : h(
          Section,
          { title: "DAGs", note: "Each cell is a UTC day of data. A run is on time if it ends before its deadline." },
          problem && h(Failure, { error: problem }),
          h(DagTable, { dags: overview.dags, histories: byDag, failed: Boolean(problem) }),
          h(Legend, { tones: STRIP_TONES }),
        ),
  );
};
