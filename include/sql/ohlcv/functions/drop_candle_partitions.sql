-- Called by every run if candles have a retention, and from psql. A drop locks the whole table of candles. After 200 ms
-- the function gives up, so that ingest does not wait behind it, and the next run tries again.
-- Keeps candles that a task has not aggregated yet, of assets that are active in the environment.
create or replace function ohlcv.drop_candle_partitions(p_before timestamptz, p_env_name text default 'DEV')
returns text[]
language plpgsql
volatile
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
            where
                (asset.active or (asset.test_active and upper(p_env_name) in ('DEV', 'TEST')))
                and (task.symbol is null or (task.enabled and task.status in ('idle', 'running')))
                and ohlcv.next_source_row(
                    asset.symbol, asset.base_timeframe, coalesce(task.cursor, '-infinity')
                ) < old.ends_at
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

comment on function ohlcv.drop_candle_partitions is
'Drops the monthly partitions that end before p_before and returns their names; their bars stay. Without an '
'environment, also keeps candles of assets that are active in DEV and TEST only';
