-- Called by every run before it claims tasks. Creates and updates tasks so that they match the asset registry.
create or replace function ohlcv.sync_tasks() returns integer
language plpgsql
volatile
as $$
declare
    corrected integer;
    added integer;
    changed ohlcv.tasks[];
begin
    -- Locks rows in the same order as ohlcv.aggregate, to avoid a deadlock.
    with different as (
        select
            task.symbol,
            task.timeframe,
            coalesce(frame.source_timeframe, asset.base_timeframe) as source_timeframe,
            asset.mandatory,
            asset.priority,
            asset.starts_at,
            task as former
        from ohlcv.tasks as task
        inner join ohlcv.assets as asset on task.symbol = asset.symbol
        inner join ohlcv.timeframes as frame on task.timeframe = frame.timeframe
        where
            (task.source_timeframe, task.mandatory, task.priority, task.starts_at) is distinct from (
                coalesce(frame.source_timeframe, asset.base_timeframe), asset.mandatory, asset.priority, asset.starts_at
            )
        order by task.size, task.symbol
        for no key update of task
    ),

    updated as (
        update ohlcv.tasks as task
        set
            source_timeframe = different.source_timeframe,
            mandatory = different.mandatory,
            priority = different.priority,
            starts_at = different.starts_at
        from different
        where task.symbol = different.symbol and task.timeframe = different.timeframe
        returning different.former
    )

    select count(*), array_agg(updated.former) filter (where (updated.former).timeframe = '15m')
    into corrected, changed
    from updated;
    if changed is not null then
        perform ohlcv.follow_changes(changed);
    end if;

    insert into ohlcv.tasks (symbol, timeframe, source_timeframe, size, mandatory, priority, starts_at)
    select
        asset.symbol,
        frame.timeframe,
        coalesce(frame.source_timeframe, asset.base_timeframe),
        frame.size,
        asset.mandatory,
        asset.priority,
        asset.starts_at
    from ohlcv.assets as asset
    inner join ohlcv.timeframes as frame on not frame.is_base
    where
        -- In nearly every run no task is missing, and counting is all the work.
        (select count(*) from ohlcv.tasks)
        < (select count(*) from ohlcv.assets) * (select count(*) from ohlcv.timeframes where not is_base)
    order by asset.symbol, frame.timeframe
    on conflict (symbol, timeframe) do nothing;
    get diagnostics added = row_count;
    return corrected + added;
end
$$;

comment on function ohlcv.sync_tasks is
'Creates and updates the tasks that the asset registry requires; returns how many changed';
