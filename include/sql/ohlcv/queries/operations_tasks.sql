-- Called by aggregator.web.operations.ohlcv. Returns a page of the tasks that match the filters, sorted by %(sort)s.
-- Only the tasks of the page are looked up in ohlcv.frontier, whose lag takes one index scan for each task.
with task as (
    select
        *,
        extract(epoch from now() - coalesce(greatest(cursor, built_until), starts_at))::double precision as age_seconds
    from ohlcv.tasks
    where
        strpos(lower(symbol), lower(%(search)s)) > 0
        and (%(timeframe)s::text is null or timeframe = %(timeframe)s)
        and (%(status)s::text is null or status = %(status)s)
),

ranked as (
    select
        *,
        count(*) over () as total,
        case %(sort)s
            when 'age' then age_seconds
            when 'streak' then hard_fails
            when 'status' then array_position(array['idle', 'running', 'disabled', 'hard_failed'], status)
            when 'attention'
                then
                    case when status in ('disabled', 'hard_failed') then 2e12 else 0 end
                    + case when last_error is not null then 1e12 else 0 end
                    + coalesce(age_seconds, 0)
        end as rank
    from task
),

page as (
    select
        *,
        row_number() over (
            order by
                case when %(sort)s = 'symbol' and not %(descending)s then symbol end asc,
                case when %(sort)s = 'symbol' and %(descending)s then symbol end desc,
                case when %(descending)s then rank end desc nulls last,
                case when not %(descending)s then rank end asc nulls first,
                symbol asc,
                size asc
        ) as place
    from ranked
    order by place
    limit %(limit)s offset %(offset)s
)

select
    page.symbol,
    page.timeframe,
    page.status,
    page.enabled,
    page.mandatory,
    page.cursor,
    frontier.newest_source,
    extract(epoch from frontier.lag) as lag_seconds,
    extract(epoch from frontier.overdue) as overdue_seconds,
    frontier.waits_for,
    page.age_seconds,
    page.hard_fails,
    page.last_error,
    page.last_success_at,
    page.last_attempt_at,
    page.next_run_at,
    page.total_runs,
    page.total_bars,
    page.total_poor_bars,
    page.total
from page
left join ohlcv.frontier on page.symbol = frontier.symbol and page.timeframe = frontier.timeframe
order by page.place
