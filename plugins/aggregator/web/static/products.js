/** Clicks, telemetry and analytics: what the daily DAGs wrote. */

import {
  React,
  compact,
  count,
  h,
  lastDays,
  operations,
  percent,
  plural,
  precise,
  useApi,
  useNow,
  useParam,
} from "./lib.js";
import { Choice, Empty, Figure, Figures, Loaded, PagedList, Section, Select, Table } from "./ui.js";
import { Chart, PALETTE } from "./charts.js";

const DAYS = /** @type {[string, string][]} */ ([
  ["14", "14 days"],
  ["30", "30 days"],
  ["90", "90 days"],
]);

/** The time that the charts cover, kept in the page's URL. */
const useRange = () => {
  const [chosen, setDays] = useParam("days", "30");
  const days = DAYS.some(([value]) => value === chosen) ? chosen : "30";
  const now = useNow();
  return {
    from: lastDays(Number(days), now)[0],
    tools: h(Choice, { label: "Time", value: days, options: DAYS, onChange: setDays }),
  };
};

const sum = (values) => values.reduce((all, value) => all + (value ?? 0), 0);

const known = (values) => values.some((value) => value !== null);

const last = (values) => values.findLast((value) => value !== null) ?? null;

const nothing = (what, dag) =>
  h(
    Empty,
    { title: `No ${what} in this time` },
    `${dag} writes them after each UTC day. A day without source data has no rows.`,
  );

const columns = (keys) =>
  keys.map(([key, title]) => ({ key, title, number: true, cell: (row) => row[key] !== null && count(row[key]) }));

/** Valid and invalid clicks, and the hires that they belong to. */
export const Clicks = () => {
  const { from, tools } = useRange();
  const days = useApi(operations("clicks/days", { from }));
  return h(
    React.Fragment,
    null,
    h(
      Section,
      {
        title: "Clicks",
        note: "Clicks per UTC day in public.click_rollups, which billing reads. A gray day has no rows.",
        tools,
      },
      h(Loaded, { response: days, height: 260 }, (data) =>
        !known(data.valid)
          ? nothing("clicks", "click_rollups")
          : h(
              React.Fragment,
              null,
              h(
                Figures,
                null,
                h(Figure, { label: "Valid", value: count(sum(data.valid)) }),
                h(Figure, {
                  label: "Invalid",
                  value: count(sum(data.invalid)),
                  note: percent(sum(data.invalid), sum(data.valid) + sum(data.invalid)),
                }),
                h(Figure, { label: "Hires, newest day", value: count(last(data.hires) ?? 0) }),
              ),
              h(Chart, {
                label: "Clicks per day",
                days: data.days,
                series: [
                  { name: "Valid", color: PALETTE[0], values: data.valid },
                  { name: "Invalid", color: PALETTE[3], values: data.invalid },
                ],
              }),
            ),
      ),
    ),
    h(
      Section,
      { title: "Hires", note: "By valid clicks. Clicks of unknown hires are not stored; the task's log names them." },
      h(
        PagedList,
        {
          url: (query) => operations("clicks/hires", { from, ...query }),
          one: "hire",
          searches: "Search hires",
          empty: nothing("clicks", "click_rollups"),
        },
        (data) =>
          h(Table, {
            label: "Hires",
            rows: data.items,
            rowKey: (row) => row.hireId,
            columns: [
              { key: "hireId", title: "Hire" },
              ...columns([["valid", "Valid"]]),
              { key: "share", title: "Share", number: true, cell: (row) => percent(row.valid, data.valid) },
              ...columns([
                ["invalid", "Invalid"],
                ["days", "Days"],
              ]),
            ],
          }),
      ),
    ),
  );
};

const top = (series, number) => series.slice(0, number);

/** Events and users per type. */
export const Telemetry = () => {
  const { from, tools } = useRange();
  const response = useApi(operations("telemetry/days", { from }));
  return h(
    React.Fragment,
    null,
    h(
      Section,
      {
        title: "Events",
        note: "Events per UTC day in public.telemetry_daily, by type. A gray day has no rows.",
        tools,
      },
      h(Loaded, { response, height: 260 }, (data) =>
        !known(data.counts)
          ? nothing("events", "telemetry_daily")
          : h(
              "div",
              { className: "ops-columns" },
              h(
                "div",
                { className: "ops-wide" },
                h(
                  Figures,
                  null,
                  h(Figure, { label: "Events", value: count(sum(data.counts)) }),
                  h(Figure, { label: "Types", value: count(data.total) }),
                  h(Figure, { label: "Events, newest day", value: count(last(data.counts) ?? 0) }),
                ),
              ),
              h(
                "div",
                null,
                h("h3", null, "Events by type"),
                h(Chart, {
                  label: "Events per day",
                  days: data.days,
                  series: top(data.series, 6).map((each, index) => ({
                    name: each.event,
                    color: PALETTE[index],
                    values: each.count,
                  })),
                }),
              ),
              h(
                "div",
                null,
                h("h3", null, "Users by type, who may use several"),
                h(Chart, {
                  label: "Users per day",
                  kind: "lines",
                  days: data.days,
                  series: top(data.series, 6).map((each, index) => ({
                    name: each.event,
                    color: PALETTE[index],
                    values: each.users,
                  })),
                }),
              ),
            ),
      ),
    ),
    h(
      Section,
      { title: "Types of events" },
      h(
        PagedList,
        {
          url: (query) => operations("telemetry/events", { from, ...query }),
          one: "type",
          searches: "Search types",
          empty: nothing("events", "telemetry_daily"),
        },
        (data) =>
          h(Table, {
            label: "Types of events",
            rows: data.items,
            rowKey: (row) => row.event,
            columns: [
              { key: "event", title: "Type" },
              ...columns([
                ["count", "Events"],
                ["peakUsers", "Users, best day"],
                ["days", "Days"],
              ]),
              { key: "lastDay", title: "Last day", number: true },
            ],
          }),
      ),
    ),
  );
};

const MONTH = new Intl.DateTimeFormat("en-US", { month: "short", year: "numeric", timeZone: "UTC" });

const monthName = (day) => MONTH.format(Date.parse(day));

const FUNNEL = /** @type {[string, string][]} */ ([
  ["sent", "Sent"],
  ["delivered", "Delivered"],
  ["uniqueOpened", "Opened"],
  ["uniqueClicked", "Clicked"],
]);

const Funnel = ({ funnel }) =>
  h(
    "ul",
    { className: "ops-funnel" },
    FUNNEL.map(([key, title]) =>
      h(
        "li",
        { key },
        h("span", null, title),
        h(
          "span",
          { className: "ops-bar", "aria-hidden": true },
          h("i", { style: { width: percent(funnel[key], funnel.sent) } }),
        ),
        h(
          "span",
          { className: "ops-number" },
          `${count(funnel[key])} `,
          h("small", { className: "ops-muted" }, percent(funnel[key], funnel.sent)),
        ),
      ),
    ),
  );

const CAMPAIGNS = [
  { key: "campaignId", title: "Campaign", cell: (row) => h("code", null, row.campaignId) },
  ...columns([
    ["sent", "Sent"],
    ["delivered", "Delivered"],
    ["uniqueOpened", "Opened"],
    ["uniqueClicked", "Clicked"],
    ["bounced", "Bounced"],
    ["complained", "Complaints"],
    ["unsubscribed", "Unsubscribed"],
  ]),
];

const Scores = ({ query }) => {
  const response = useApi(operations("analytics/scores", query));
  return h(
    Section,
    { title: "Lead scores", note: "Median, with the area from the lowest score to the 95th percentile." },
    h(Loaded, { response, height: 220 }, (data) =>
      !known(data.p50)
        ? nothing("scores", "analytics_score_distribution")
        : h(Chart, {
            label: "Lead scores per day",
            kind: "lines",
            days: data.days,
            max: 100,
            band: data.min.every((value, index) => value !== null && data.p95[index] !== null)
              ? [data.min, data.p95]
              : undefined,
            series: [
              { name: "Median", color: PALETTE[0], values: data.p50 },
              { name: "90th percentile", color: PALETTE[1], values: data.p90 },
              { name: "95th percentile", color: PALETTE[2], values: data.p95 },
            ],
          }),
    ),
  );
};

const Enrichment = ({ query }) => {
  const response = useApi(operations("analytics/enrichment", query));
  return h(
    Section,
    { title: "Enrichment", note: "Jobs per UTC day, their success rate and the average cost of one." },
    h(Loaded, { response, height: 220 }, (data) =>
      !known(data.enriched)
        ? nothing("jobs", "analytics_enrichment_metrics")
        : h(
            React.Fragment,
            null,
            h(
              Figures,
              null,
              h(Figure, { label: "Jobs", value: count(sum(data.enriched)) }),
              h(Figure, { label: "Success, newest day", value: percent(last(data.successRate) ?? 0) }),
              h(Figure, { label: "Cost of one, newest day", value: `$${precise(last(data.avgCost) ?? 0)}` }),
            ),
            h(Chart, {
              label: "Success rate per day",
              kind: "lines",
              days: data.days,
              max: 100,
              height: 140,
              format: (value) => `${precise(value)}%`,
              series: [{ name: "Success rate", color: PALETTE[6], values: data.successRate }],
            }),
            h(Chart, {
              label: "Average cost per day",
              kind: "lines",
              days: data.days,
              height: 120,
              format: (value) => `$${precise(Number(value.toFixed(4)))}`,
              series: [{ name: "Average cost", color: PALETTE[3], values: data.avgCost }],
            }),
          ),
    ),
  );
};

const Campaigns = ({ query }) =>
  h(
    Section,
    {
      title: "Campaigns",
      note: "Emails of analytics.campaign_daily_stats. Opens and clicks count each recipient once a day.",
    },
    h(
      PagedList,
      {
        url: ({ limit, offset }) => operations("analytics/campaigns", { ...query, limit, offset }),
        one: "campaign",
        limit: 10,
        before: (data) => data.total > 0 && h(Funnel, { funnel: data.funnel }),
        empty: nothing("emails", "analytics_daily_reports"),
      },
      (data) => h(Table, { label: "Campaigns", rows: data.items, rowKey: (row) => row.campaignId, columns: CAMPAIGNS }),
    ),
  );

const Events = ({ query, path, title, note, dag, dayKey = "days", ...chart }) => {
  const response = useApi(operations(path, query));
  return h(
    Section,
    { title, note },
    h(Loaded, { response, height: 220 }, (data) =>
      data.series.length === 0
        ? nothing("events", dag)
        : h(Chart, {
            label: title,
            days: data[dayKey],
            series: top(data.series, 6).map((each, index) => ({
              name: each.eventType,
              color: PALETTE[index],
              values: each.count,
            })),
            ...chart,
          }),
    ),
  );
};

const Warmup = ({ query }) => {
  const response = useApi(operations("analytics/warmup", { from: query.from }));
  return h(
    Section,
    { title: "Warm-up", note: "Emails that the domains in warm-up sent per UTC day." },
    h(Loaded, { response, height: 220 }, (data) =>
      !known(data.sent)
        ? nothing("emails of domains in warm-up", "The product")
        : h(
            React.Fragment,
            null,
            h(
              Figures,
              null,
              h(Figure, { label: "Domains, newest day", value: count(last(data.domains) ?? 0) }),
              h(Figure, { label: "Emails", value: compact(sum(data.sent)) }),
            ),
            h(Chart, {
              label: "Emails of domains in warm-up",
              days: data.days,
              series: [{ name: "Emails", color: PALETTE[4], values: data.sent }],
            }),
          ),
    ),
  );
};

/** The six tables of the analytics suite. */
export const Analytics = () => {
  const { from, tools } = useRange();
  const [organization, setOrganization] = useParam("organization", "");
  const organizations = useApi(operations("analytics/organizations", { limit: 200 }), { every: 0 });
  const items = organizations.data?.items ?? [];
  const query = { from, organization_id: organization };
  return h(
    React.Fragment,
    null,
    h(
      "div",
      { className: "ops-tools" },
      tools,
      h(Select, {
        label: "Organization",
        value: organization,
        onChange: setOrganization,
        options: [
          ["", organizations.data ? `All ${plural(organizations.data.total, "organization")}` : "All organizations"],
          ...items.map((item) => [item.organizationId, item.organizationId]),
        ],
      }),
    ),
    h(
      "div",
      { className: "ops-columns" },
      h(Scores, { query }),
      h(Enrichment, { query }),
      h("div", { className: "ops-wide" }, h(Campaigns, { query })),
      h(Events, {
        query,
        path: "analytics/events",
        title: "Events",
        note: "Events per UTC day, by type.",
        dag: "analytics_hourly_aggregation",
      }),
      h(Events, {
        query: { organization_id: organization },
        path: "analytics/usage",
        title: "Monthly usage",
        note: "Events per UTC month, by type.",
        dag: "analytics_monthly_usage",
        dayKey: "months",
        axis: monthName,
        dayTitle: monthName,
      }),
      h(Warmup, { query }),
    ),
  );
};
