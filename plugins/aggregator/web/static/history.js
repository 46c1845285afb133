/**
 * Whether the runs of each DAG were on time, from Airflow's own API, with the user's rights.
 *
 * The routes are those of Airflow's own UI. They may change with any release: tests/test_airflow_traps.py names what is read. The
 * stable API returns at most 100 runs at once, so that a month of runs would be 100 requests.
 *
 * A run of a DAG that runs once a day or less is judged by its own times. Of DAGs that run more often, Airflow counts the runs
 * of each day, and lists those that missed their deadline: a month of them would be thousands of runs.
 */

import { React, count, dateTime, dayName, lastDays, percent, plural, urlOf, useApis, utcDay } from "./lib.js";

const { useMemo } = React;

const DAY = 86_400;
const STRIP = 14;
const PERIOD = 30;

/** Enough for a month of daily runs, and some by hand. */
const RUNS = 45;

/** Airflow's `[api] maximum_page_limit`. */
const PAGE = 100;

const isFast = (dag) => dag.everySeconds < DAY;
const isMonthly = (dag) => dag.everySeconds > DAY;

const MONTH = new Intl.DateTimeFormat("en-GB", { month: "long", year: "numeric", timeZone: "UTC" });

/**
 * @typedef {object} History
 * @property {import("./ui.js").Cell[]} cells The last 14 days, or months of a monthly DAG.
 * @property {number} onTime Runs on time of the last 30 days, or months.
 * @property {number} judged Runs that were due in that time.
 * @property {string | null} lastSuccess
 * @property {string | null} nextRun
 * @property {boolean} paused
 */

/** When the run of a slot is due, in milliseconds. @param {any} dag @param {string} day First UTC day of its data interval. */
const dueAt = (dag, day) => {
  const start = new Date(`${day}T00:00:00Z`);
  if (dag.offsetSeconds === null) {
    const [minute, hour] = dag.cron.split(" ").map(Number);
    return start.getTime() + (hour * 60 + minute) * 60_000;
  }
  const end = isMonthly(dag) ? start.setUTCMonth(start.getUTCMonth() + 1) : start.getTime() + DAY * 1000;
  return end + dag.offsetSeconds * 1000;
};

const months = (number, now) => {
  const today = new Date(now);
  return Array.from({ length: number }, (_, index) =>
    utcDay(Date.UTC(today.getUTCFullYear(), today.getUTCMonth() - (number - 1 - index), 1)),
  );
};

const runPath = (dagId, runId) => `/dags/${encodeURIComponent(dagId)}/runs/${encodeURIComponent(runId)}`;

const time = (iso) => (iso ? Date.parse(iso) : Number.POSITIVE_INFINITY);

/** Judge a day, or a month, that has at most one scheduled run. */
const judgeSlot = (dag, slot, runs, missed, first, now, zone) => {
  const name = isMonthly(dag) ? MONTH.format(Date.parse(slot)) : dayName(slot);
  const due = dueAt(dag, slot);
  const deadline = due + dag.deadlineSeconds * 1000;
  const result = (tone, text, verdict, run) => ({
    verdict,
    cell: { tone, label: `${name}: ${text}`, to: run && runPath(dag.dagId, run.run_id) },
  });

  if (runs.length === 0) {
    if (now < due) return result("none", `due ${dateTime(due, zone)}`);
    if (first === null || slot < first) return result("none", "before the first run");
    if (now < deadline) return result("none", `due since ${dateTime(due, zone)}`);
    return result("missing", "missing, there is no run", "bad");
  }
  const scheduled = runs.find((run) => run.run_id.startsWith("scheduled__"));
  const done = runs.filter((run) => run.state === "success");
  if (done.length > 0) {
    const own = scheduled?.state === "success" ? scheduled : done[0];
    const at = `at ${dateTime(own.end_date, zone)}`;
    if (!scheduled) return result("good", `done by hand or by a backfill ${at}`, undefined, own);
    // A run that was cleared later started after its deadline, and Airflow did not record it as late.
    const ranOver = time(own.end_date) > deadline && time(own.start_date) <= deadline;
    const late = own !== scheduled || missed.has(own.run_id) || ranOver;
    return late ? result("late", `late, done ${at}`, "bad", own) : result("good", `on time, done ${at}`, "good", own);
  }
  const active = runs.find((run) => run.state !== "failed");
  if (active) {
    return now > deadline && active === scheduled
      ? result("late", `late, still ${active.state}`, "bad", active)
      : result("busy", active.state, undefined, active);
  }
  return result("bad", "failed", scheduled && "bad", runs[0]);
};

const slotHistory = (dag, runs, missed, now, zone) => {
  const slots = isMonthly(dag) ? months(STRIP, now) : lastDays(PERIOD, now);
  const slotOf = (run) =>
    isMonthly(dag)
      ? `${(run.logical_date ?? run.run_after).slice(0, 7)}-01`
      : (run.logical_date ?? run.run_after).slice(0, 10);
  const bySlot = Map.groupBy(runs, slotOf);
  const first = runs.length > 0 ? [...bySlot.keys()].sort()[0] : null;
  const judged = slots.map((slot) => judgeSlot(dag, slot, bySlot.get(slot) ?? [], missed, first, now, zone));
  const verdicts = judged.map((slot) => slot.verdict).filter(Boolean);
  return {
    cells: judged.slice(-STRIP).map((slot) => slot.cell),
    onTime: verdicts.filter((verdict) => verdict === "good").length,
    judged: verdicts.length,
  };
};

/** Judge the days of a DAG that runs several times a day. A deadline is some time after the start of its data interval. */
const countHistory = (dag, calendar, missed, missedTotal, now) => {
  const days = lastDays(PERIOD, now);
  const perDay = DAY / dag.everySeconds;
  const today = utcDay(now);
  const states = Map.groupBy(calendar.dag_runs, (entry) => entry.date.slice(0, 10));
  const runsOf = (day) => Object.fromEntries((states.get(day) ?? []).map((entry) => [entry.state, entry.count]));
  const first = days.find((day) => Object.keys(runsOf(day)).some((state) => state !== "planned"));
  const ahead =
    (dag.deadlineSeconds + (dag.offsetSeconds ?? 0) + (dag.offsetSeconds === null ? 0 : dag.everySeconds)) * 1000;
  const missedOf = Map.groupBy(missed, (each) => utcDay(Date.parse(each.deadline_time) - ahead));
  const sum = { judged: 0, failed: 0, missing: 0 };

  const cells = days.map((day) => {
    const name = dayName(day);
    const { success = 0, failed = 0, running = 0, queued = 0 } = runsOf(day);
    const ran = success + failed + running + queued;
    if (!first || day < first) return { tone: "none", label: `${name}: before the first run` };
    const over = (now - Date.parse(day)) / 1000 - (dag.offsetSeconds ?? 0) - dag.deadlineSeconds;
    // The first day begins with the first run.
    const expected = day === first ? ran : Math.min(perDay, Math.max(0, Math.floor(over / dag.everySeconds)));
    const missing = Math.max(0, expected - ran);
    const late = Math.max(0, (missedOf.get(day)?.length ?? 0) - failed);
    const due = Math.max(expected, success + failed);
    sum.judged += due;
    sum.failed += failed;
    sum.missing += missing;
    const to = `/dags/${encodeURIComponent(dag.dagId)}/runs?logical_date_gte=${day}T00:00:00Z&logical_date_lte=${day}T23:59:59Z`;
    if (due === 0) return { tone: running + queued ? "busy" : "none", label: `${name}: no run due yet`, to };
    if (ran === 0) return { tone: "missing", label: `${name}: missing, there is no run`, to };
    const bad = failed + missing;
    const parts = [
      [late, "late"],
      [failed, "failed"],
      [missing, "missing"],
      [running + queued, "running"],
    ];
    const text = parts
      .filter(([number]) => number)
      .map(([number, word]) => `, ${number} ${word}`)
      .join("");
    return {
      tone: bad ? "bad" : late ? "late" : "good",
      share: bad + late ? Math.max(0.34, (bad + late) / due) : undefined,
      label: `${name}: ${count(Math.max(0, due - bad - late))} of ${plural(due, "run")}${day === today ? " so far" : ""} on time${text}`,
      to,
    };
  });
  const notOnTime = sum.missing + Math.max(sum.failed, missedTotal);
  return { cells: cells.slice(-STRIP), onTime: Math.max(0, sum.judged - notOnTime), judged: sum.judged };
};

/**
 * Load the run history of DAGs.
 * @param {any[]} dags As the API describes them.
 * @param {number} now Milliseconds.
 * @param {string} zone
 * @returns {{byDag: Map<string, History> | null, problem: any}} `problem`: why there is none, or no newer one.
 */
export const useHistory = (dags, now, zone) => {
  const fast = dags.filter(isFast);
  const since = `${lastDays(PERIOD, now)[0]}T00:00:00Z`;
  const until = `${utcDay(now)}T23:59:59Z`;
  const missedOf = (dagId, query) =>
    urlOf(`ui/dags/${dagId}/dagRuns/~/deadlines`, {
      missed: "true",
      limit: PAGE,
      order_by: "-deadline_time",
      ...query,
    });
  const urls = dags.length > 0 && [
    urlOf("ui/dags", { dag_ids: dags.map((dag) => dag.dagId), dag_runs_limit: RUNS, limit: PAGE }),
    missedOf("~", { deadline_time_gte: since }),
    ...fast.flatMap((dag) => [
      urlOf(`ui/calendar/${encodeURIComponent(dag.dagId)}`, {
        granularity: "daily",
        logical_date_gte: since,
        logical_date_lte: until,
      }),
      missedOf(encodeURIComponent(dag.dagId), { deadline_time_gte: since }),
    ]),
  ];
  const { data, error } = useApis(urls || null);

  return useMemo(() => {
    try {
      return { byDag: data && historiesOf(dags, fast, data, now, zone), problem: error && UNAVAILABLE };
    } catch {
      // Another Airflow, whose responses have another shape: freshness and alerts do not need them.
      return { byDag: null, problem: UNAVAILABLE };
    }
  }, [data, error, dags, now, zone]);
};

const UNAVAILABLE = {
  reason: "history",
  message:
    "Airflow did not return its runs, or this version returns them in another form. Freshness and alerts are up to date.",
};

const historiesOf = (dags, fast, [list, allMissed, ...more], now, zone) => {
  const missed = new Set(allMissed.deadlines.map((each) => each.dag_run_id));
  const known = new Map(list.dags.map((each) => [each.dag_id, each]));
  return new Map(
    dags.map((dag) => {
      const airflow = known.get(dag.dagId);
      const runs = airflow?.latest_dag_runs ?? [];
      const at = fast.indexOf(dag);
      const [calendar, own] = at === -1 ? [] : more.slice(2 * at, 2 * at + 2);
      const judged = calendar
        ? countHistory(dag, calendar, own.deadlines, own.total_entries, now)
        : slotHistory(dag, runs, missed, now, zone);
      const done = runs.filter((run) => run.state === "success").map((run) => run.end_date);
      return [
        dag.dagId,
        {
          ...judged,
          lastSuccess: done.sort().at(-1) ?? null,
          nextRun: airflow?.next_dagrun_run_after ?? null,
          paused: airflow?.is_paused ?? false,
        },
      ];
    }),
  );
};

/**
 * Compare the runs that were on time with the objective.
 * @param {History} history @param {number} objective Percent.
 * @returns {{text: string, left: number, tone: string, label: string} | null} `left`: share of the error budget that is left.
 */
export const errorBudget = (history, objective) => {
  if (history.judged === 0) return null;
  const bad = history.judged - history.onTime;
  const allowed = (history.judged * (100 - objective)) / 100;
  const left = bad === 0 ? 1 : Math.max(0, 1 - bad / allowed);
  return {
    text: percent(history.onTime, history.judged),
    left,
    tone: left === 0 ? "bad" : left < 0.5 ? "late" : "good",
    label:
      `${count(history.onTime)} of ${plural(history.judged, "run")} on time. ` +
      `The objective of ${objective}% allows ${count(Math.floor(allowed))} late, failed or missing.`,
  };
};
