-- Called by every run if candles have a retention. Dropping needs the whole table for a moment: it gives up rather than
-- make ingest wait, and the next run tries again. Candles that a task has not aggregated yet stay, of assets that are
-- aggregated in the environment; without one, also those of DEV and TEST.
create or replace function ohlcv.drop_candle_partitions(p_before timestamptz, p_env_name text default 'DEV')
returns text[]
language plpgsql
volatile
set search_path = ''
set datestyle = 'ISO, MDY'
set timezone = 'UTC'
set lock_timeout = '200ms'
as $$
declare
    old record;
    dropped text[] := '{}';
begin
    for old in select * from ohlcv.candle_partitions() where ends_at <= p_before
    loop
        exit when exists (
            select
            from ohlcv.assets as asset
            left join ohlcv.tasks as task
                on asset.symbol = task.symbol and asset.base_timeframe = task.source_timeframe
            inner join ohlcv.timeframes as base on
                base.is_base
                and (
                    base.timeframe = asset.base_timeframe
                    or asset.symbol in (select former.symbol from ohlcv.former_base_timeframes as former)
                )
            inner join ohlcv.candles as candle on
                candle.symbol = asset.symbol
                and candle.timeframe = base.timeframe
                and candle.ts >= coalesce(task.cursor, '-infinity')
                and candle.ts < old.ends_at
            where
                (asset.active or (asset.test_active and upper(p_env_name) in ('DEV', 'TEST')))
                and (task.symbol is null or (task.enabled and task.status in ('idle', 'running')))
        );
        begin
            execute format('drop table ohlcv.%I', old.partition_name);
            dropped := dropped || old.partition_name;
        exception when lock_not_available then
            exit;
        end;
    end loop;
    return dropped;
end
$$;

comment on function ohlcv.drop_candle_partitions(timestamptz, text) is
'Drops the partitions of months that ended before a moment; their bars stay. Returns their names';
revoke all on function ohlcv.drop_candle_partitions(timestamptz, text) from public;
