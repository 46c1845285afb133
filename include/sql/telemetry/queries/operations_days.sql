-- Called by aggregator.web.operations.telemetry. Returns the rollups of the %(series)s most frequent event types of a
-- range of UTC days: rows with a type. The rows without a type have the events of all types.
with rollup as (
    select
        date,
        event,
        count,
        unique_users
    from public.telemetry_daily
    where date >= %(first_day)s::date and date < %(until_day)s::date
),

frequent as (
    select
        event,
        sum(count) as events,
        count(*) over () as types
    from rollup
    group by event
    order by sum(count) desc, event asc
    limit %(series)s
)

select
    rollup.date as day,
    frequent.event,
    rollup.count,
    rollup.unique_users as users,
    frequent.events,
    frequent.types
from rollup
inner join frequent on rollup.event = frequent.event
union all
select
    date as day,
    null as event,
    sum(count) as count,
    null as users,
    null as events,
    null as types
from rollup
group by date
order by events desc, event asc, day asc
