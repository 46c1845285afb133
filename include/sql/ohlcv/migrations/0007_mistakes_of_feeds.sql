-- The name is all that somebody reads whose candle is refused.
alter table ohlcv.candles
rename constraint candles_aligned to ts_is_a_whole_step_of_its_timeframe_1m_or_5m_in_utc;

create or replace view ohlcv.frontier as
select
    task.symbol,
    task.timeframe,
    task.cursor,
    newest.ts as newest_source,
    case
        when newest.ts + source.size - task.cursor is not null
            then greatest(newest.ts + source.size - task.cursor, interval '0')
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
        select candle.ts
        from ohlcv.candles as candle
        where
            source.is_base
            and candle.symbol = task.symbol
            and candle.timeframe = task.source_timeframe
            -- A candle dated in the future says nothing about the feed.
            and candle.ts <= now()
        order by candle.ts desc
        limit 1
    )
    union all
    (
        select bar.ts
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

comment on view ohlcv.frontier is 'How far each task is, how far behind its newest source, and what it waits for';
comment on column ohlcv.frontier.newest_source is 'Start of the newest candle or finer bar that is not in the future';
comment on column ohlcv.frontier.lag is
'Source data that is not in bars yet; healthy is less than the timeframe and 6 minutes';
comment on column ohlcv.frontier.waits_for is
'What it needs to go on: a run, a reset, the end of its window, candles, or bars of a finer timeframe';
comment on column ohlcv.frontier.overdue is
'For how long its next window could have been built; healthy is less than 6 minutes; null: it is not over';
