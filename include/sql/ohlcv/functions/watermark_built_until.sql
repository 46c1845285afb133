-- Called by ohlcv.aggregate. The built_until watermark after a build: coarser bars may use the bars before it.
--
--     the build                                      built_until
--     found a window with invalid candles            the cursor
--     reached the horizon, or had nothing to read    the horizon: windows without source rows after the cursor are
--                                                    final for coarser timeframes, and not for this one
--     stopped at the limit before the horizon        the cursor
--
-- Inlined: see ohlcv.watermark_horizon.
create or replace function ohlcv.watermark_built_until(
    p_cursor timestamptz, p_horizon timestamptz, p_builds_until timestamptz, p_bad_window timestamptz
)
returns timestamptz
language sql
stable
return case
    when p_bad_window is null and coalesce(p_builds_until = p_horizon, true) then p_horizon
    else p_cursor
end;

comment on function ohlcv.watermark_built_until is
'Returns up to which time coarser bars may use the bars of a task after a build';
