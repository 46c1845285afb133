-- Called by aggregator.web.operations.telemetry. Returns a page of the event types that contain %(search)s, the most
-- frequent first.
select
    event,
    sum(count) as count,
    max(unique_users) as peak_users,
    count(*) as days,
    max(date) as last_day,
    count(*) over () as total
from public.telemetry_daily
where
    date >= %(first_day)s::date and date < %(until_day)s::date
    and (%(search)s = '' or strpos(lower(event), lower(%(search)s)) > 0)
group by event
order by sum(count) desc, event asc
limit %(limit)s offset %(offset)s
