-- Called by telemetry_daily. Result: the rows of public.telemetry_daily for a range of UTC days.
with events as (
    select
        (created_at at time zone 'UTC')::date as date,
        event,
        user_id,
        value,
        meta,
        created_at,
        id
    from public.telemetry
    where
        created_at >= %(first_day)s::date::timestamp at time zone 'UTC'
        and created_at < (%(last_day)s::date + 1)::timestamp at time zone 'UTC'
        and event is not null
        and (%(groups)s::text[] is null or event = any(%(groups)s::text[]))
),

latest_fields as (
    select distinct on (events.date, events.event, field.name)
        events.date,
        events.event,
        field.name,
        field.content
    from events
    cross join
        lateral jsonb_each(case when jsonb_typeof(events.meta) = 'object' then events.meta end) as field (name, content)
    order by events.date asc, events.event asc, field.name asc, events.created_at desc, events.id desc
),

metas as (
    select
        date,
        event,
        jsonb_object_agg(name, content) as meta
    from latest_fields
    group by date, event
),

totals as (
    select
        date,
        event,
        count(*) as count,
        count(distinct user_id) as unique_users,
        sum(coalesce(nullif(value, 0), 1)) as value_sum
    from events
    group by date, event
)

select
    totals.date,
    totals.event,
    totals.count,
    totals.unique_users,
    totals.value_sum,
    metas.meta
from totals
left join metas on totals.date = metas.date and totals.event = metas.event
