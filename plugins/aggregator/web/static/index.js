/**
 * The Operations page: a React plugin of Airflow's UI, without a build step.
 *
 * Airflow imports this module and shows `globalThis[name]` for each of the plugin's `react_apps`. React, Chakra UI and the router
 * are Airflow's own, so theme, login and navigation are, too.
 */

import { LOADED_VERSION, Link, React, h, operations, useApi, useParam, useZone } from "./lib.js";
import { Empty, Tips } from "./ui.js";
import { Overview } from "./overview.js";

const { Component } = React;

const STYLE = new URL("operations.css", import.meta.url).href;

const VIEWS = /** @type {[string, string, () => any][]} */ ([["overview", "Overview", Overview]]);

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
  const { data } = useApi(operations("overview"));
  if (!data || data.pageVersion === LOADED_VERSION) return null;
  return h(
    "button",
    { type: "button", className: "ops-plain", onClick: () => globalThis.location.reload() },
    "A new version of this page is installed. Reload",
  );
};

const Page = () => {
  const [view, setView] = useParam("view", "overview");
  const [key, title, View] = VIEWS.find(([name]) => name === view) ?? VIEWS[0];
  const zone = useZone();
  React.useEffect(() => {
    document.title = `${title} - Operations`;
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
const Operations = () => h(Shell, { className: "ops-page" }, h(Page));

Object.assign(globalThis, { Operations, "Operations summary": () => null });
