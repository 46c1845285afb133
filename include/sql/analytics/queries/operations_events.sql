-- Called by aggregator.web.operations.analytics. Returns the %(series)s most frequent event types of a range of UTC
-- days, one row for each type and day; monthly summaries if %(is_monthly)s, whose day is the first of the month.
with rollup as (
    select
        date,
        event_type,
        sum(count) as count,
        sum(unique_count) as unique_count
    from analytics.event_aggregates
    where
        date >= %(first_day)s::date and date < %(until_day)s::date
        and (channel is not distinct from 'monthly_summary') = %(is_monthly)s
        and (%(organization_id)s::uuid is null or organization_id = %(organization_id)s)
    group by date, event_type
),

frequent as (
    select
        event_type,
        sum(count) as events,
        count(*) over () as types
    from rollup
    group by event_type
    order by sum(count) desc, event_type asc
    limit %(series)s
)

select
    rollup.date as day,
    rollup.event_type,
    rollup.count,
    rollup.unique_count,
    frequent.types
from rollup
inner join frequent on rollup.event_type = frequent.event_type
order by frequent.events desc, rollup.event_type asc, rollup.date asc
