-- Called wherever a window is the one that contains a time. Inlined: see ohlcv.watermark_horizon. Its name sorts before
-- those of the functions whose parsed bodies call it.
create or replace function ohlcv.align(p_ts timestamptz, p_size interval) returns timestamptz
language sql
immutable
return date_bin(p_size, p_ts, timestamptz '2000-01-01 00:00+00');

comment on function ohlcv.align is 'Returns the start of the window of p_size that contains p_ts, aligned to UTC';
