-- Called from psql for one task. The DAG calls ohlcv.aggregate for many tasks at once.
create or replace function ohlcv.catchup_aggregation_range(
    p_symbol text,
    p_timeframe text,
    p_owner text,
    p_as_of timestamptz,
    p_max_windows integer default 100,
    p_derivation_version integer default 1
)
returns setof ohlcv.task_result
language sql
volatile
as $$
    select *
    from ohlcv.aggregate(p_owner, p_timeframe, array[p_symbol], p_as_of, p_max_windows, p_derivation_version)
$$;

comment on function ohlcv.catchup_aggregation_range is
'Builds the windows of a claimed task that ended before p_as_of, and its stale windows; returns one row for '
'ohlcv.agg_finish, or no row if the owner has not claimed the task';
