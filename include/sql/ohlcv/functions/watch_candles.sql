-- Called below for ohlcv.candles and its partitions, and by ohlcv.add_candle_partitions for each new partition: a
-- statement on a partition fires only the triggers of the partition. The triggers are enabled always, because bulk
-- loads and subscribers set session_replication_role = replica, and a change that is not logged is never built.
create or replace function ohlcv.watch_candles(p_table regclass) returns void
language plpgsql
volatile
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
        'for each statement execute function ohlcv.refuse_truncate();'
        'alter table %1$s '
        'enable always trigger log_inserts, enable always trigger log_updates, '
        'enable always trigger log_deletes, enable always trigger refuse_truncate;',
        p_table
    );
end
$$;

comment on function ohlcv.watch_candles is
'Creates the triggers on a table of candles that log its changes and refuse TRUNCATE';

-- Existing partitions have the triggers of an earlier version of this file.
select ohlcv.watch_candles(tree.relid) from pg_partition_tree('ohlcv.candles') as tree;

create or replace trigger refuse_candle_elsewhere before insert or update on ohlcv.candles_elsewhere
for each row execute function ohlcv.refuse_candle_elsewhere();

alter table ohlcv.candles_elsewhere enable always trigger refuse_candle_elsewhere;
