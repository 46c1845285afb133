-- Called by every run: the asset registry decides which tasks there are, and what they are like.
create or replace function ohlcv.sync_tasks() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
    changed integer;
begin
    insert into ohlcv.tasks as task (
        symbol, timeframe, source_timeframe, size, mandatory, priority, starts_at
    )
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
    left join ohlcv.tasks as known on asset.symbol = known.symbol and frame.timeframe = known.timeframe
    where
        known.symbol is null
        or (known.source_timeframe, known.mandatory, known.priority, known.starts_at) is distinct from (
            coalesce(frame.source_timeframe, asset.base_timeframe), asset.mandatory, asset.priority, asset.starts_at
        )
    order by asset.symbol, frame.timeframe
    on conflict (symbol, timeframe) do update
        set
            source_timeframe = excluded.source_timeframe,
            mandatory = excluded.mandatory,
            priority = excluded.priority,
            starts_at = excluded.starts_at;
    get diagnostics changed = row_count;
    return changed;
end
$$;

comment on function ohlcv.sync_tasks() is 'Makes the tasks that the asset registry asks for; returns how many changed';
revoke all on function ohlcv.sync_tasks() from public;
