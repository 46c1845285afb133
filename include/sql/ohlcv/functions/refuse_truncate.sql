-- Called by triggers on ohlcv.candles and its partitions, before TRUNCATE: it would take candles away from under their
-- bars without a word.
create or replace function ohlcv.refuse_truncate() returns trigger
language plpgsql
volatile
set search_path = ''
set datestyle = 'ISO, MDY'
set timezone = 'UTC'
as $$
begin
    raise exception 'Candles are not truncated: their bars would stay. DELETE makes the bars follow; '
        'ohlcv.drop_candle_partitions(before) takes old candles away and keeps their bars.'
        using errcode = 'feature_not_supported';
end
$$;

comment on function ohlcv.refuse_truncate() is 'Refuses TRUNCATE, and says what to do instead';
revoke all on function ohlcv.refuse_truncate() from public;
