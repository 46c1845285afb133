-- Called below for ohlcv.candles, and by ohlcv.add_candle_partitions for each partition: a statement on a partition
-- fires the partition's triggers only.
create or replace function ohlcv.watch_candles(p_table regclass) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
    execute format(
        'create or replace trigger log_inserts after insert on %1$s referencing new table as new_candles '
        'for each statement execute function ohlcv.log_candle_changes();'
        'create or replace trigger log_updates after update on %1$s '
        'referencing old table as old_candles new table as new_candles '
        'for each statement execute function ohlcv.log_candle_changes();'
        'create or replace trigger log_deletes after delete on %1$s referencing old table as old_candles '
        'for each statement execute function ohlcv.log_candle_changes();'
        'create or replace trigger refuse_truncate before truncate on %1$s '
        'for each statement execute function ohlcv.refuse_truncate();',
        p_table
    );
end
$$;

comment on function ohlcv.watch_candles(regclass) is 'Gives a table of candles the triggers that note its changes';
revoke all on function ohlcv.watch_candles(regclass) from public;

select ohlcv.watch_candles('ohlcv.candles');

create or replace trigger refuse_candle_elsewhere before insert or update on ohlcv.candles_elsewhere
for each row execute function ohlcv.refuse_candle_elsewhere();
