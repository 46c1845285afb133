-- Called by aggregator.web.operations.dags. Returns label, value and unit of what is stored for a range of UTC days.
with rollup as (
    select
        count(distinct event) as types,
        coalesce(sum(count), 0) as events,
        coalesce(max(unique_users), 0) as users
    from public.telemetry_daily
    where date >= %(first_day)s::date and date < %(until_day)s::date
)

select
    figure.label,
    figure.value,
    null as unit
from rollup
cross join
    lateral (
        values
        (1, 'Event types', rollup.types),
        (2, 'Events', rollup.events),
        (3, 'Most users of a type and day', rollup.users)
    ) as figure (position, label, value)
order by figure.position
