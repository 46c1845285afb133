-- Called by aggregator.ohlcv reset, and from psql.
create or replace function ohlcv.reset_tasks(p_symbols text[] default null, p_timeframes text[] default null)
returns table (symbol text, timeframe text, was text)
language sql
volatile
as $$
    with refused as (
        select task.symbol, task.timeframe, task.status
        from ohlcv.tasks as task
        where
            task.status in ('disabled', 'hard_failed')
            and (p_symbols is null or task.symbol = any(p_symbols))
            and (p_timeframes is null or task.timeframe = any(p_timeframes))
        order by task.symbol, task.timeframe
        for no key update
    )

    update ohlcv.tasks as task
    set status = 'idle', hard_fails = 0, next_run_at = null
    from refused
    where task.symbol = refused.symbol and task.timeframe = refused.timeframe
    returning task.symbol, task.timeframe, refused.status
$$;

comment on function ohlcv.reset_tasks is
'Makes disabled and hard_failed tasks idle again, of all symbols and timeframes if none are given; returns them '
'with their former status';
