/** Everything that has no look of its own: elements, hooks, requests, times and numbers. */

const { React, ReactRouterDOM } = globalThis;
const { startTransition, useCallback, useEffect, useRef, useState, useSyncExternalStore } = React;

export { React };
export const { Link, useSearchParams } = ReactRouterDOM;

/**
 * Create a React element. Strings become text, never HTML.
 * @param {string | Function | object} type
 * @param {object | null} [props]
 * @param {...import("react").ReactNode} children
 */
export const h = (type, props, ...children) => React.createElement(type, props ?? null, ...children);

/** Join the class names that are set. @param {...(string | false | null | undefined)} names */
export const classes = (...names) => names.filter(Boolean).join(" ");

/** The version in this module's own URL: that of the page as the browser loaded it. */
export const LOADED_VERSION = new URL(import.meta.url).pathname.split("/").at(-2);

// ---------------------------------------------------------------------------------------------------------- requests

/** A request that failed. `reason` is the API's, or "offline" without a response. */
export class ApiError extends Error {
  /** @param {number} status @param {string} reason @param {string} detail */
  constructor(status, reason, detail) {
    super(detail);
    this.status = status;
    this.reason = reason;
  }
}

/**
 * Build the URL of a path below Airflow's base URL.
 * @param {string} path
 * @param {Record<string, string | number | string[] | null | undefined>} [query] Empty values are left out.
 */
export const urlOf = (path, query = {}) => {
  const url = new URL(path, document.baseURI);
  for (const [name, value] of Object.entries(query)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== null && each !== undefined && each !== "") url.searchParams.append(name, String(each));
    }
  }
  return url.href;
};

/** The URL of the product's API. @param {string} path @param {object} [query] */
export const operations = (path, query) => urlOf(`api/operations/${path}`, query);

let leaving = false;

/** Go to the login page, and come back here after it. */
const login = () => {
  if (leaving) return;
  leaving = true;
  globalThis.location.replace(urlOf("api/v2/auth/login", { next: globalThis.location.href }));
};

/**
 * Fetch JSON.
 * @param {string} url
 * @param {AbortSignal} signal
 */
const fetchJson = async (url, signal) => {
  let response;
  try {
    response = await fetch(url, { signal, headers: { Accept: "application/json" } });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new ApiError(0, "offline", "Airflow does not respond. The page tries again by itself.");
  }
  if (response.ok) return response.json();
  if (response.status === 401) login();
  const body = await response.json().catch(() => ({}));
  const detail = typeof body?.detail === "string" ? body.detail : `The request failed with status ${response.status}.`;
  throw new ApiError(response.status, String(body?.reason ?? ""), detail);
};

/** URL → the last response, so that a view that opens again shows data at once. @type {Map<string, any>} */
const lastResponses = new Map();
const KEPT = 60;

const keep = (url, data) => {
  lastResponses.delete(url);
  lastResponses.set(url, data);
  if (lastResponses.size > KEPT) lastResponses.delete(lastResponses.keys().next().value);
};

/**
 * Load data and keep it fresh while the tab is visible.
 *
 * While the data of another key loads, `data` is still that of the last one, and `loading` is true.
 * @param {string | null} key What is loaded; null loads nothing.
 * @param {(signal: AbortSignal) => Promise<any>} load
 * @param {number} every Seconds between two requests; 0 for no polling.
 * @returns {{data: any, error: ApiError | null, loading: boolean, at: number | null, retry: () => void}}
 */
const useLoad = (key, load, every) => {
  const [state, setState] = useState(() => ({ key, data: lastResponses.get(key) ?? null, error: null, at: null }));
  const [attempt, setAttempt] = useState(0);
  const retry = useCallback(() => setAttempt((count) => count + 1), []);
  const current = useRef(load);
  current.current = load;

  useEffect(() => {
    if (key === null) return undefined;
    const controller = new AbortController();
    let timer = 0;
    let asked = 0;
    const known = lastResponses.get(key);
    if (known) setState((last) => (last.key === key ? last : { key, data: known, error: null, at: null }));

    const renew = async () => {
      globalThis.clearTimeout(timer);
      asked = Date.now();
      try {
        const data = await current.current(controller.signal);
        keep(key, data);
        // A transition renders in slices, so that a large table does not block the page.
        startTransition(() => setState({ key, data, error: null, at: Date.now() }));
      } catch (error) {
        if (controller.signal.aborted) return;
        const failure = error instanceof ApiError ? error : new ApiError(0, "invalid", "The response is not JSON.");
        setState((last) => ({ key, data: last.key === key ? last.data : null, error: failure, at: last.at }));
      }
      if (every && !document.hidden) timer = globalThis.setTimeout(renew, every * 1000);
    };
    const onVisible = () => {
      globalThis.clearTimeout(timer);
      if (!document.hidden && every)
        timer = globalThis.setTimeout(renew, Math.max(0, asked + every * 1000 - Date.now()));
    };

    renew();
    document.addEventListener("visibilitychange", onVisible);
    return () => {
      controller.abort();
      globalThis.clearTimeout(timer);
      document.removeEventListener("visibilitychange", onVisible);
    };
  }, [key, every, attempt]);

  return { ...state, loading: key !== null && (state.key !== key || (!state.data && !state.error)), retry };
};

/** Load a URL's JSON. @param {string | null} url @param {{every?: number}} [options] */
export const useApi = (url, { every = 30 } = {}) => useLoad(url, (signal) => fetchJson(url, signal), every);

/** Load the JSON of several URLs as one. @param {string[] | null} urls @param {{every?: number}} [options] */
export const useApis = (urls, { every = 60 } = {}) =>
  useLoad(urls?.join(" ") ?? null, (signal) => Promise.all((urls ?? []).map((url) => fetchJson(url, signal))), every);

/** A value that follows another one when that has not changed for a while. @param {T} value @template T */
export const useSettled = (value, milliseconds = 250) => {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = globalThis.setTimeout(() => setSettled(value), milliseconds);
    return () => globalThis.clearTimeout(timer);
  }, [value, milliseconds]);
  return settled;
};

/** State that is kept in the page's URL. @param {string} name @param {string} fallback */
export const useParam = (name, fallback) => {
  const [search, setSearch] = useSearchParams();
  const value = search.get(name) ?? fallback;
  const set = useCallback(
    (next) =>
      setSearch(
        (old) => {
          const changed = new URLSearchParams(old);
          if (next === fallback) changed.delete(name);
          else changed.set(name, next);
          return changed;
        },
        { replace: true },
      ),
    [name, fallback, setSearch],
  );
  return /** @type {[string, (next: string) => void]} */ ([value, set]);
};

/** The width of an element in pixels; 0 until it is known. */
export const useWidth = () => {
  const ref = useRef(null);
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry.contentRect.width)));
    if (ref.current) observer.observe(ref.current);
    return () => observer.disconnect();
  }, []);
  return /** @type {[import("react").RefObject<any>, number]} */ ([ref, width]);
};

/** Whether Airflow shows its dark theme. */
export const useDark = () =>
  useSyncExternalStore(
    (changed) => {
      const observer = new MutationObserver(changed);
      observer.observe(document.documentElement, { attributes: true, attributeFilter: ["class"] });
      return () => observer.disconnect();
    },
    () => document.documentElement.classList.contains("dark"),
  );

// ------------------------------------------------------------------------------------------------- times and numbers

const readZone = () => {
  try {
    const zone = JSON.parse(localStorage.getItem("timezone") ?? "null");
    new Intl.DateTimeFormat("en", { timeZone: zone });
    return zone ?? Intl.DateTimeFormat().resolvedOptions().timeZone;
  } catch {
    return Intl.DateTimeFormat().resolvedOptions().timeZone;
  }
};

/** The time zone that the user chose in Airflow. Airflow announces a change with an event of its own. */
export const useZone = () =>
  useSyncExternalStore((changed) => {
    globalThis.addEventListener("storage", changed);
    globalThis.addEventListener("local-storage", changed);
    return () => {
      globalThis.removeEventListener("storage", changed);
      globalThis.removeEventListener("local-storage", changed);
    };
  }, readZone);

/** The current time in milliseconds, renewed twice a minute. */
export const useNow = () => {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = globalThis.setInterval(() => setNow(Date.now()), 30_000);
    return () => globalThis.clearInterval(timer);
  }, []);
  return now;
};

const formats = new Map();

const partsOf = (milliseconds, zone) => {
  if (!formats.has(zone)) {
    const parts = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit" };
    const options = /** @type {any} */ ({ ...parts, second: "2-digit", hourCycle: "h23", timeZone: zone });
    formats.set(zone, new Intl.DateTimeFormat("en-CA", options));
  }
  return Object.fromEntries(
    formats
      .get(zone)
      .formatToParts(milliseconds)
      .map(({ type, value }) => [type, value]),
  );
};

/** `2026-11-27 09:15`. @param {string | number} time ISO 8601 or milliseconds. @param {string} zone */
export const dateTime = (time, zone, { seconds = false } = {}) => {
  const part = partsOf(typeof time === "number" ? time : Date.parse(time), zone);
  const clock = `${part.hour}:${part.minute}${seconds ? `:${part.second}` : ""}`;
  return `${part.year}-${part.month}-${part.day} ${clock}`;
};

const DAY_FORMAT = new Intl.DateTimeFormat("en-GB", {
  weekday: "short",
  day: "numeric",
  month: "short",
  timeZone: "UTC",
});

/** `Fri, 27 Nov` of a UTC day. @param {string} day `YYYY-MM-DD` */
export const dayName = (day) => DAY_FORMAT.format(Date.parse(day));

/** `27 Nov` of a UTC day. @param {string} day `YYYY-MM-DD` */
export const shortDay = (day) => dayName(day).replace(/^\w+,? /u, "");

/** `YYYY-MM-DD` of the UTC day of a time. @param {number} milliseconds */
export const utcDay = (milliseconds) => new Date(milliseconds).toISOString().slice(0, 10);

/** The last UTC days, today included, oldest first. @param {number} count @param {number} now Milliseconds. */
export const lastDays = (count, now) =>
  Array.from({ length: count }, (_, index) => utcDay(now - (count - 1 - index) * 86_400_000));

const UNITS = /** @type {[string, number][]} */ ([
  ["d", 86_400],
  ["h", 3_600],
  ["min", 60],
]);

/** `3 h 20 min`: a duration in its two largest units, one from ten on. @param {number} seconds */
export const duration = (seconds) => {
  const whole = Math.max(0, Math.round(seconds));
  const place = UNITS.findIndex(([, size]) => whole >= size);
  if (place === -1) return `${whole} s`;
  const [unit, size] = UNITS[place];
  const count = Math.floor(whole / size);
  const next = UNITS[place + 1];
  const rest = next && count < 10 ? Math.floor((whole % size) / next[1]) : 0;
  return rest ? `${count} ${unit} ${rest} ${next[0]}` : `${count} ${unit}`;
};

/** `3 h ago` or `in 4 min`, in one unit. @param {string} time @param {number} now Milliseconds. */
export const relative = (time, now) => {
  const seconds = (now - Date.parse(time)) / 1000;
  const size = Math.abs(seconds);
  if (size < 45) return "just now";
  // 47 h says more than 1 d.
  const [unit, each] = size >= 172_800 ? UNITS[0] : size >= 7_200 ? UNITS[1] : UNITS[2];
  const text = `${Math.round(size / each)} ${unit}`;
  return seconds > 0 ? `${text} ago` : `in ${text}`;
};

const COUNT = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const PRECISE = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 7 });
const COMPACT = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 3 });

/** `12,345`. @param {number} value */
export const count = (value) => COUNT.format(value);

/** Up to seven digits. @param {number} value */
export const precise = (value) => PRECISE.format(value);

/** `12.3K`, for axes. @param {number} value */
export const compact = (value) => COMPACT.format(value);

/** `99.2%`; never 100% unless all are. @param {number} part @param {number} [total] */
export const percent = (part, total = 100) => {
  if (!total) return "–";
  const value = (100 * part) / total;
  return `${value >= 100 ? 100 : value > 99.9 ? 99.9 : value.toFixed(value < 10 || value > 95 ? 1 : 0)}%`;
};

/** `1 run`, `2 runs`. @param {number} number @param {string} one @param {string} [many] */
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;
