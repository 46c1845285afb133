-- Called by ohlcv.aggregate. The horizon watermark: the end of the last window that can be built now.
--
--     as of        bars of              horizon
--     null         -                    null: only stale windows are built
--     a time       candles              start of the window that contains as of - delay
--     a time       finer bars           the same, but not after the built_until watermark of the finer task;
--                                       -infinity while the finer task has none
--
-- Without settings and with a body that is parsed here, so that PostgreSQL inlines it: one call per task would take
-- longer than the rest of a tick. All intervals are in hours or less, so the session's time zone has no influence.
create or replace function ohlcv.watermark_horizon(
    p_size interval, p_as_of timestamptz, p_delay interval, p_is_from_candles boolean, p_finer_built_until timestamptz
)
returns timestamptz
language sql
stable
return case
    when p_as_of is not null
        then least(
            ohlcv.align(p_as_of - p_delay, p_size),
            case when not p_is_from_candles then ohlcv.align(coalesce(p_finer_built_until, '-infinity'), p_size) end
        )
end;

comment on function ohlcv.watermark_horizon is
'Returns the end of the last window of a task that can be built at p_as_of; null without p_as_of';
