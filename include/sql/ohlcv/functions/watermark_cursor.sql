-- Called by ohlcv.aggregate. The cursor watermark after a build: windows that start before it are built.
-- ohlcv.finish_tasks never moves the stored cursor back.
--
--     the build                                                   cursor
--     found a window with invalid candles                         that window, or the stored cursor if it is later
--     had nothing to read (no window ended, or no source rows)    the stored cursor
--     read only windows after the horizon                         the horizon, if the task had a next window
--     has a bar in its last window, or later source rows exist    the end of the build: empty windows are skipped
--     has no later source rows                                    the end of its newest new bar, because candles of the
--                                                                 windows after it may still arrive; without a new bar
--                                                                 the next window as before
--
-- Inlined: see ohlcv.watermark_horizon. p_has_later_source occurs once, so that it is only evaluated where it counts.
create or replace function ohlcv.watermark_cursor(
    p_size interval,
    p_stored_cursor timestamptz,
    p_next_window timestamptz,
    p_horizon timestamptz,
    p_builds_from timestamptz,
    p_builds_until timestamptz,
    p_bad_window timestamptz,
    p_newest_new_bar timestamptz,
    p_has_later_source boolean
)
returns timestamptz
language sql
stable
return case
    when p_bad_window is not null then greatest(p_stored_cursor, p_bad_window)
    when p_builds_from is null then p_stored_cursor
    -- A start in the future is no cursor.
    when p_builds_from >= p_builds_until and p_next_window is null then null
    when p_builds_from >= p_builds_until then greatest(p_next_window, p_horizon)
    when p_newest_new_bar = p_builds_until - p_size or p_has_later_source then p_builds_until
    else coalesce(p_newest_new_bar + p_size, p_next_window)
end;

comment on function ohlcv.watermark_cursor is
'Returns the cursor of a task after a build: windows that start before it are built';
