/** What the page adds to Airflow's own pages: a strip on Home, a tab for each DAG and each of its runs. */

import { Link, React, count, h, operations, precise, urlOf, useApi, useNow, useZone } from "./lib.js";
import { Empty, Failure, Figure, Figures, Legend, Loaded, Loading, Section, State, Time } from "./ui.js";
import { Alerts, Budget, DagStrip, FRESHNESS, STRIP_TONES, Sentence } from "./overview.js";
import { useHistory } from "./history.js";

const { useMemo } = React;

/** Which view of the page belongs to a product. */
const VIEW = {
  ohlcv: ["market", "Market data"],
  clicks: ["clicks", "Clicks"],
  telemetry: ["telemetry", "Telemetry"],
  analytics: ["analytics", "Analytics"],
  kpi: ["kpis", "KPIs"],
};

const textOf = ({ value, unit }) => {
  if (value === null) return "–";
  if (unit === "%") return `${precise(value)}%`;
  if (unit === "USD") return `$${precise(value)}`;
  if (unit === "s") return `${precise(value)} s`;
  return Number.isInteger(value) ? count(value) : precise(value);
};

const Numbers = ({ figures }) =>
  h(
    Figures,
    null,
    figures.map((figure) => h(Figure, { key: figure.label, label: figure.label, value: textOf(figure) })),
  );

/** On Home: the sentence, and the way to the page. */
export const HomeStrip = () => {
  const response = useApi(operations("overview"));
  return h(
    "div",
    { className: "ops-summary" },
    h(Loaded, { response, height: 44 }, (overview) => h(Sentence, { overview })),
    h(Link, { to: "/plugin/operations" }, "Operations"),
  );
};

const Tables = ({ dag }) =>
  h(
    "ul",
    { className: "ops-tables" },
    dag.freshness.map((each) => {
      const [tone, word] = FRESHNESS[each.state];
      return h(
        "li",
        { key: each.table },
        h("code", null, each.table),
        h(State, { tone }, word),
        h(
          "span",
          { className: "ops-muted" },
          each.newest ? ["until ", h(Time, { key: "t", at: each.newest })] : "no data",
        ),
      );
    }),
  );

/** The tab of a DAG. @param {{dagId: string}} props */
export const DagTab = ({ dagId }) => {
  const response = useApi(operations(`dags/${encodeURIComponent(dagId)}`));
  if (response.error?.reason === "not_found") {
    return h(
      Empty,
      { title: `${dagId} has no figures` },
      "This tab shows the DAGs of the catalog, plugins/aggregator/core/catalog.py.",
    );
  }
  return h(Loaded, { response, height: 320 }, (data) => h(DagFigures, { data }));
};

const DagFigures = ({ data }) => {
  const { dag, figures, problems } = data;
  const now = useNow();
  const zone = useZone();
  const dags = useMemo(() => [dag], [dag]);
  const { byDag, problem } = useHistory(dags, now, zone);
  const history = byDag?.get(dag.dagId);
  const [view, title] = VIEW[dag.product];
  return h(
    React.Fragment,
    null,
    problems.map((problem) =>
      h(Failure, { key: problem, error: /** @type {any} */ ({ reason: "", message: problem }) }),
    ),
    dag.openAlerts.length > 0 &&
      h(Section, { title: "Open alerts", note: dag.impact }, h(Alerts, { alerts: dag.openAlerts })),
    h(
      Section,
      { title: "Figures", tools: h(Link, { to: `/plugin/operations?view=${view}` }, `${title} in Operations`) },
      h(Numbers, { figures }),
    ),
    dag.freshness.length > 0 && h(Section, { title: "Tables" }, h(Tables, { dag })),
    h(
      Section,
      {
        title: dag.everySeconds > 86_400 ? "Last 14 months" : "Last 14 days",
        note: `A run is on time if it ends within ${textOf({ value: dag.deadlineSeconds / 60, unit: null })} min after it is due.`,
      },
      problem && h(Failure, { error: problem }),
      !history && !problem && h(Loading, { height: 44 }),
      history &&
        h("div", { className: "ops-row" }, h(DagStrip, { dag, history }), h("div", null, h(Budget, { dag, history }))),
      history && h(Legend, { tones: STRIP_TONES }),
    ),
  );
};

/** The tab of a run: its window, and what it wrote. @param {{dagId: string, runId: string}} props */
export const RunTab = ({ dagId, runId }) => {
  const run = useApi(urlOf(`api/v2/dags/${encodeURIComponent(dagId)}/dagRuns/${encodeURIComponent(runId)}`));
  const window = run.data && { start: run.data.data_interval_start, end: run.data.data_interval_end };
  const hasWindow = window?.start && window.start !== window.end;
  const response = useApi(
    run.data
      ? operations(`dags/${encodeURIComponent(dagId)}/run`, { run_id: runId, ...(hasWindow ? window : {}) })
      : null,
  );
  if (response.error?.reason === "not_found") {
    return h(
      Empty,
      { title: `${dagId} has no figures` },
      "This tab shows the DAGs of the catalog, plugins/aggregator/core/catalog.py.",
    );
  }
  return h(
    Loaded,
    { response: run.error ? run : { ...response, loading: response.loading || run.loading }, height: 240 },
    (data) =>
      h(
        React.Fragment,
        null,
        data.error && h(Failure, { error: /** @type {any} */ ({ reason: "", message: data.error }) }),
        h(
          Section,
          {
            title: "Window",
            tools:
              data.traceId &&
              h(Link, { to: `/plugin/operations?view=kpis&job=${encodeURIComponent(data.traceId)}` }, "Open the job"),
          },
          data.window
            ? h(
                "p",
                { className: "ops-number" },
                h(Time, { at: data.window.start }),
                " to ",
                h(Time, { at: data.window.end }),
              )
            : h("p", { className: "ops-muted" }, "This run has no data interval."),
        ),
        data.wrote.map((table) =>
          h(
            Section,
            { key: table.table, title: h("code", null, table.table), note: "What is stored for this window." },
            h(Numbers, { figures: table.figures }),
          ),
        ),
        data.alerts.length > 0 && h(Section, { title: "Alerts" }, h(Alerts, { alerts: data.alerts })),
      ),
  );
};
