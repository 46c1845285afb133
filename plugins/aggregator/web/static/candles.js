/** The candlestick chart, drawn by the library in `vendor/`. */

import { React, count, dateTime, h, plural, precise, useDark, useZone } from "./lib.js";
import { Loading, Table } from "./ui.js";

const { useEffect, useMemo, useRef, useState } = React;

export const QUALITY = {
  2: "complete",
  1: "at least 80% of its candles",
  0: "at least 60% of its candles",
  "-1": "less than 60% of its candles",
};

/** The library does not read all colors of CSS; a canvas does. @param {string} token @param {number} alpha */
const rgba = (token, alpha = 1) => {
  const canvas = document.createElement("canvas");
  canvas.width = 1;
  canvas.height = 1;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(`--chakra-colors-${token}`).trim();
  context.fillRect(0, 0, 1, 1);
  const [red, green, blue] = context.getImageData(0, 0, 1, 1).data;
  return `rgba(${red}, ${green}, ${blue}, ${alpha})`;
};

/** Draws the bar of the window that is not over, with dashes. It is a primitive of the library. */
class OpenBar {
  constructor(bar, color) {
    this.bar = bar;
    this.color = color;
  }

  attached({ chart, series }) {
    this.chart = chart;
    this.series = series;
  }

  autoscaleInfo() {
    return { priceRange: { minValue: this.bar.low, maxValue: this.bar.high } };
  }

  paneViews() {
    return [{ renderer: () => this }];
  }

  draw(target) {
    const middle = this.chart.timeScale().timeToCoordinate(this.bar.time);
    if (middle === null) return;
    const [open, high, low, close] = ["open", "high", "low", "close"].map((key) =>
      this.series.priceToCoordinate(this.bar[key]),
    );
    const half = Math.max(2, this.chart.timeScale().options().barSpacing * 0.3);
    target.useMediaCoordinateSpace(({ context }) => {
      context.strokeStyle = this.color;
      context.lineWidth = 1.25;
      context.setLineDash([3, 2]);
      context.beginPath();
      context.moveTo(middle, high);
      context.lineTo(middle, Math.min(open, close));
      context.moveTo(middle, Math.max(open, close));
      context.lineTo(middle, low);
      context.rect(middle - half, Math.min(open, close), half * 2, Math.max(1, Math.abs(close - open)));
      context.stroke();
    });
  }
}

/** Every window of the chart, with and without a bar, as the library wants it: ascending, each once. */
const windowsOf = (data) => {
  const bars = new Map(data.bars.map((bar) => [bar.time, bar]));
  const first = data.bars[0]?.time ?? data.open?.time;
  const last = Math.max(data.bars.at(-1)?.time ?? 0, data.open?.time ?? 0);
  const all = [];
  for (let time = first; time <= last; time += data.sizeSeconds) all.push({ time, bar: bars.get(time) ?? null });
  return all;
};

const draw = (library, element, data, zone, onHover) => {
  const up = rgba("success-solid");
  const down = rgba("failed-solid");
  const text = rgba("fg-muted");
  const line = rgba("border", 0.6);
  const clock = (time) => dateTime(time * 1000, zone);
  const isDay = data.sizeSeconds >= 86_400;
  const chart = library.createChart(element, {
    autoSize: true,
    layout: {
      attributionLogo: false,
      background: { color: "transparent" },
      textColor: text,
      fontFamily: getComputedStyle(element).fontFamily,
      panes: { separatorColor: line, enableResize: false },
    },
    grid: { horzLines: { color: line }, vertLines: { visible: false } },
    rightPriceScale: { borderVisible: false },
    timeScale: {
      borderColor: line,
      timeVisible: !isDay,
      tickMarkFormatter: (time, type) => {
        const at = clock(time);
        return type >= 3 ? at.slice(11) : type === 0 ? at.slice(0, 4) : at.slice(5, 10);
      },
    },
    localization: { timeFormatter: (time) => `${clock(time)} ${zone}` },
    handleScroll: { mouseWheel: false, vertTouchDrag: false },
    handleScale: { mouseWheel: false },
  });
  const faded = (bar) => (bar.quality >= 2 ? 1 : 0.45);
  const windows = windowsOf(data);

  const shade = chart.addSeries(library.HistogramSeries, {
    priceScaleId: "shade",
    lastValueVisible: false,
    priceLineVisible: false,
  });
  chart.priceScale("shade").applyOptions({ scaleMargins: { top: 0, bottom: 0 }, visible: false });
  const poor = rgba("warning-solid", 0.16);
  const gap = rgba("fg-muted", 0.12);
  shade.setData(
    windows.map(({ time, bar }) => {
      const missing = !bar && time !== data.open?.time;
      return missing || (bar && bar.quality < 2) ? { time, value: 1, color: missing ? gap : poor } : { time };
    }),
  );

  const candles = chart.addSeries(library.CandlestickSeries, { borderVisible: false, priceLineVisible: false });
  candles.setData(
    windows.map(({ time, bar }) => {
      if (!bar) return { time };
      const color = bar.close >= bar.open ? rgbaOf(up, faded(bar)) : rgbaOf(down, faded(bar));
      return { time, open: bar.open, high: bar.high, low: bar.low, close: bar.close, color, wickColor: color };
    }),
  );
  if (data.open) candles.attachPrimitive(new OpenBar(data.open, data.open.close >= data.open.open ? up : down));

  const volume = chart.addSeries(
    library.HistogramSeries,
    { priceFormat: { type: "volume" }, priceLineVisible: false, lastValueVisible: false },
    1,
  );
  volume.setData(
    windows.map(({ time, bar }) => (bar ? { time, value: Number(bar.volume), color: rgbaOf(text, 0.35) } : { time })),
  );
  chart.panes()[1].setStretchFactor(0.22);
  chart.panes()[0].setStretchFactor(0.78);

  chart.timeScale().setVisibleLogicalRange({
    from: windows.length - Math.max(60, Math.floor(element.clientWidth / 7)),
    to: windows.length + 2,
  });
  const byTime = new Map(windows.map(({ time, bar }) => [time, bar]));
  chart.subscribeCrosshairMove(({ time }) =>
    onHover(time === undefined ? null : { time, bar: byTime.get(time) ?? null }),
  );
  return chart;
};

const rgbaOf = (color, alpha) => color.replace(/[\d.]+\)$/u, `${alpha})`);

/** What a bar says. @param {{bar: any, time: number, zone: string, isOpen: boolean}} props */
const Readout = ({ bar, time, zone, isOpen }) =>
  h(
    "ul",
    { className: "ops-keys ops-number" },
    h("li", null, dateTime(time * 1000, zone)),
    bar
      ? [
          ["O", precise(bar.open)],
          ["H", precise(bar.high)],
          ["L", precise(bar.low)],
          ["C", precise(bar.close)],
          ["Volume", precise(bar.volume)],
        ].map(([name, value]) => h("li", { key: name }, name, h("b", null, value)))
      : h("li", null, "No bar"),
    bar &&
      h(
        "li",
        null,
        `${count(bar.candles)} of ${plural(bar.expectedCandles, "candle")}${isOpen ? ", window still open" : ""}`,
      ),
  );

/**
 * Bars of a symbol.
 * @param {{data: any}} props As `/ohlcv/bars` returns them.
 */
export const Candles = ({ data }) => {
  const dark = useDark();
  const zone = useZone();
  const ref = useRef(null);
  const [library, setLibrary] = useState(/** @type {any} */ (null));
  const [hovered, setHovered] = useState(/** @type {any} */ (null));
  const [asTable, setAsTable] = useState(false);
  const range = useRef(/** @type {any} */ (null));

  useEffect(() => {
    import("./vendor/lightweight-charts.js").then(setLibrary);
  }, []);
  useEffect(() => {
    if (!library || !ref.current || asTable) return undefined;
    const chart = draw(library, ref.current, data, zone, setHovered);
    const same = range.current?.key === `${data.symbol} ${data.timeframe}` ? range.current.range : null;
    if (same) chart.timeScale().setVisibleRange(same);
    return () => {
      range.current = {
        key: `${data.symbol} ${data.timeframe}`,
        range: same ? chart.timeScale().getVisibleRange() : null,
      };
      chart.remove();
    };
  }, [library, data, zone, dark, asTable]);

  const last = data.open ?? data.bars.at(-1);
  const poor = useMemo(() => data.bars.filter((bar) => bar.quality < 2).length, [data]);
  const summary =
    `${data.symbol}, ${data.timeframe}: ${plural(data.bars.length, "bar")}, ${count(poor)} incomplete, ${plural(data.gaps.length, "gap")}. ` +
    `Last close ${precise(last.close)} at ${dateTime(last.time * 1000, zone)}.`;
  const shown = hovered ?? { time: last.time, bar: last };
  return h(
    "figure",
    { className: "ops-chart", "aria-label": `Bars of ${data.symbol}` },
    h(
      "div",
      { className: "ops-row" },
      h(Readout, {
        bar: shown.time === data.open?.time ? data.open : shown.bar,
        time: shown.time,
        zone,
        isOpen: shown.time === data.open?.time,
      }),
      h(
        "button",
        { type: "button", className: "ops-plain", "aria-pressed": asTable, onClick: () => setAsTable(!asTable) },
        asTable ? "Chart" : "Table",
      ),
    ),
    asTable
      ? h(Table, {
          label: summary,
          rows: data.bars.slice(-100).reverse(),
          rowKey: (bar) => String(bar.time),
          columns: [
            { key: "time", title: "Start", cell: (bar) => dateTime(bar.time * 1000, zone) },
            ...["open", "high", "low", "close", "volume"].map((key) => ({
              key,
              title: key[0].toUpperCase() + key.slice(1),
              number: true,
              cell: (bar) => precise(bar[key]),
            })),
            { key: "quality", title: "Quality", cell: (bar) => QUALITY[bar.quality] },
          ],
        })
      : library
        ? h("div", { ref, className: "ops-candles", role: "img", "aria-label": summary })
        : h(Loading, { height: 420 }),
  );
};
