-- Called by include/sql/ohlcv/queries/claim_due_tasks.sql, and from psql. Claims nothing.
create or replace function ohlcv.agg_get_due_tasks(p_env_name text, p_as_of timestamptz, p_limit integer default 20)
returns table (
    symbol text,
    timeframe text,
    source_timeframe text,
    cursor timestamptz,
    mandatory boolean,
    priority integer,
    next_run_at timestamptz
)
language sql
stable
set work_mem = '64MB'
-- As in ohlcv.claim_tasks.
set enable_nestloop = off
set jit = off
as $$
    with stale as (
        select stale.symbol, min(frame.size) as size
        from ohlcv.stale_windows as stale
        inner join ohlcv.timeframes as frame on stale.timeframe = frame.timeframe
        group by stale.symbol
    )

    select
        task.symbol,
        task.timeframe,
        task.source_timeframe,
        task.cursor,
        task.mandatory,
        task.priority,
        task.next_run_at
    from ohlcv.tasks as task
    inner join ohlcv.assets as asset on task.symbol = asset.symbol
    left join stale on task.symbol = stale.symbol
    where
        task.status = 'idle'
        and task.enabled
        and (asset.active or (asset.test_active and upper(p_env_name) in ('DEV', 'TEST')))
        -- A stale window of a finer timeframe can make a window of this timeframe stale.
        and (coalesce(task.next_run_at <= p_as_of, true) or stale.size <= task.size)
    order by
        task.mandatory desc,
        task.size,
        task.priority,
        task.last_attempt_at nulls first
    limit p_limit
$$;

comment on function ohlcv.agg_get_due_tasks is
'Returns the due tasks: idle and enabled, of assets active in the environment, with an ended or stale window; the '
'most urgent first';
