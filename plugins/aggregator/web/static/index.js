/**
 * The Operations page: a React plugin of Airflow's UI, without a build step.
 *
 * Airflow imports this module and shows `globalThis[name]` for each of the plugin's `react_apps`. React, Chakra UI and the router
 * are Airflow's own, so theme, login and navigation are, too.
 */

import { LOADED_VERSION, Link, React, h, operations, useApi, useParam, useZone } from "./lib.js";
import { Empty, Tips } from "./ui.js";
import { Kpis } from "./kpis.js";
import { Market } from "./market.js";
import { Overview } from "./overview.js";
import { Analytics, Clicks, Telemetry } from "./products.js";
import { DagTab, HomeStrip, RunTab } from "./tabs.js";

const { Component } = React;

const STYLE = new URL("operations.css", import.meta.url).href;

const VIEWS = /** @type {[string, string, () => any][]} */ ([
  ["overview", "Overview", Overview],
  ["market", "Market data", Market],
  ["clicks", "Clicks", Clicks],
  ["telemetry", "Telemetry", Telemetry],
  ["analytics", "Analytics", Analytics],
  ["kpis", "KPIs", Kpis],
]);

/** Shows an error of the page instead of an empty page. */
class Guard extends Component {
  state = { error: null };

  static getDerivedStateFromError(error) {
    return { error };
  }

  render() {
    if (!this.state.error) return this.props.children;
    return h(
      Empty,
      { title: "This part of the page failed" },
      `${this.state.error.message}. Reload the page. If it fails again, report the message.`,
    );
  }
}

const Shell = ({ className, children }) =>
  h(
    React.Fragment,
    null,
    h("link", { rel: "stylesheet", href: STYLE, precedence: "default" }),
    h(Tips, { className: `ops ${className}` }, h(Guard, null, children)),
  );

const NewVersion = () => {
  const { data } = useApi(operations("overview"), { every: 300 });
  if (!data || data.pageVersion === LOADED_VERSION) return null;
  return h(
    "button",
    { type: "button", className: "ops-plain", onClick: () => globalThis.location.reload() },
    "A new version of this page is installed. Reload",
  );
};

const Page = () => {
  const [view] = useParam("view", "overview");
  const [key, title, View] = VIEWS.find(([name]) => name === view) ?? VIEWS[0];
  const zone = useZone();
  React.useEffect(() => {
    document.title = `${title} - Operations`;
    // On a phone, the names of the views are wider than the page.
    document.querySelector(".ops-tabs [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [title]);
  return h(
    "main",
    null,
    h(
      "div",
      { className: "ops-head" },
      h("h1", null, "Operations"),
      h("span", { className: "ops-note" }, h(NewVersion), ` Times in ${zone}`),
    ),
    h(
      "nav",
      { className: "ops-tabs", "aria-label": "Views" },
      VIEWS.map(([name, text]) =>
        h(
          Link,
          {
            key: name,
            to: name === "overview" ? "?" : `?view=${name}`,
            "aria-current": name === key ? "page" : undefined,
          },
          text,
        ),
      ),
    ),
    h(Guard, { key }, h(View)),
  );
};

/** The page, or the tab of a DAG or of one of its runs. @param {{dagId?: string, runId?: string}} props */
const Operations = ({ dagId, runId }) => {
  if (!dagId) return h(Shell, { className: "ops-page" }, h(Page));
  return h(Shell, { className: "ops-tab" }, runId ? h(RunTab, { dagId, runId }) : h(DagTab, { dagId }));
};

const Summary = () => h(Shell, { className: "ops-home" }, h(HomeStrip));

Object.assign(globalThis, { Operations, "Operations summary": Summary });
