-- Called by aggregator.web.operations.ohlcv. Returns a page of the tasks that match the filters, sorted by %(sort)s.
-- Only the tasks of the page are looked up in ohlcv.frontier, whose lag takes one index scan for each task.
with ranked as (
    select
        symbol,
        timeframe,
        size,
        extract(epoch from now() - coalesce(greatest(cursor, built_until), starts_at))::double precision as age_seconds,
        case when %(descending)s then -1 else 1 end as direction,
        case when %(sort)s = 'symbol' and %(descending)s then symbol end as last_first,
        case %(sort)s
            when 'streak' then hard_fails
            when 'status' then array_position(array['idle', 'running', 'disabled', 'hard_failed'], status)
            when 'age' then extract(epoch from now() - coalesce(greatest(cursor, built_until), starts_at))
            when 'attention'
                then
                    case when status in ('disabled', 'hard_failed') then 2e12 else 0 end
                    + case when last_error is not null then 1e12 else 0 end
                    + extract(epoch from now() - coalesce(greatest(cursor, built_until), starts_at, now()))
        end::double precision as rank
    from ohlcv.tasks
    where
        (%(search)s = '' or strpos(lower(symbol), lower(%(search)s)) > 0)
        and (%(timeframe)s::text is null or timeframe = %(timeframe)s)
        and (%(status)s::text is null or status = %(status)s)
),

page as materialized (
    select *
    from ranked
    order by last_first desc, rank * direction asc, symbol asc, size asc
    limit %(limit)s offset %(offset)s
)

select
    task.symbol,
    task.timeframe,
    task.status,
    task.enabled,
    task.mandatory,
    task.cursor,
    frontier.newest_source,
    extract(epoch from frontier.lag) as lag_seconds,
    extract(epoch from frontier.overdue) as overdue_seconds,
    frontier.waits_for,
    page.age_seconds,
    task.hard_fails,
    task.last_error,
    task.last_success_at,
    task.last_attempt_at,
    task.next_run_at,
    task.total_runs,
    task.total_bars,
    task.total_poor_bars
from page
inner join ohlcv.tasks as task on page.symbol = task.symbol and page.timeframe = task.timeframe
left join ohlcv.frontier on page.symbol = frontier.symbol and page.timeframe = frontier.timeframe
order by page.last_first desc, page.rank * page.direction asc, page.symbol asc, page.size asc
