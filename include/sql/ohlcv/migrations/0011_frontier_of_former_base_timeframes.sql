-- Bars are also built from candles of former base timeframes. Without them, the view said that a task waits for candles
-- of the new base timeframe, while candles of the former one were overdue.
create or replace view ohlcv.frontier as
select
    task.symbol,
    task.timeframe,
    task.cursor,
    newest.ts as newest_source,
    case
        when newest.ends_at - task.cursor is not null
            then greatest(newest.ends_at - task.cursor, interval '0')
    end as lag,
    task.status,
    task.hard_fails,
    task.last_error,
    task.last_success_at,
    case
        when task.status in ('disabled', 'hard_failed') then 'a reset'
        when not task.enabled then 'being enabled'
        when newest.ts is null or newest.ts < task.cursor
            then case when source.is_base then 'candles of ' else 'bars of ' end || task.source_timeframe
        when open_window.due_at > now() then 'the end of its window'
        when not source.is_base and coalesce(finer.built_until, '-infinity') < open_window.ends_at
            then 'bars of ' || task.source_timeframe
        else 'a run'
    end as waits_for,
    case
        when newest.ts >= coalesce(task.cursor, '-infinity') and open_window.due_at <= now()
            then
                now() - open_window.due_at
    end as overdue
from ohlcv.tasks as task
inner join ohlcv.timeframes as source on task.source_timeframe = source.timeframe
left join ohlcv.tasks as finer on task.symbol = finer.symbol and task.source_timeframe = finer.timeframe
left join lateral (
    (
        select
            candle.ts,
            candle.ts + frame.size as ends_at
        from (
            select task.source_timeframe as timeframe
            union distinct
            select former.timeframe
            from ohlcv.former_base_timeframes as former
            where former.symbol = task.symbol
        ) as base
        inner join ohlcv.timeframes as frame on base.timeframe = frame.timeframe
        cross join
            lateral (
                select row.ts
                from ohlcv.candles as row
                where
                    row.symbol = task.symbol
                    and row.timeframe = base.timeframe
                    -- A candle dated in the future says nothing about the feed.
                    and row.ts <= now()
                order by row.ts desc
                limit 1
            ) as candle
        where source.is_base
        order by candle.ts desc
        limit 1
    )
    union all
    (
        select
            bar.ts,
            bar.ts + source.size as ends_at
        from ohlcv.bars as bar
        where
            not source.is_base
            and bar.symbol = task.symbol
            and bar.timeframe = task.source_timeframe
            and bar.ts <= now()
        order by bar.ts desc
        limit 1
    )
) as newest on true
cross join lateral (
    select
        start.ts + task.size as ends_at,
        start.ts + task.size + task.delay as due_at
    from (
        -- Without a cursor, the first window is not known here: the newest is late enough.
        select coalesce(task.cursor, date_bin(task.size, newest.ts, timestamptz '2000-01-01 00:00+00')) as ts
    ) as start
) as open_window;
