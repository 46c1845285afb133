-- Called by aggregator.web.operations.kpi. Returns the newest job of each UTC day of a range.
select distinct on ((created_at at time zone 'UTC')::date)
    (created_at at time zone 'UTC')::date as day,
    trace_id
from kpi.jobs
where
    created_at >= %(first_day)s::date::timestamp at time zone 'UTC'
    and created_at < %(until_day)s::date::timestamp at time zone 'UTC'
order by (created_at at time zone 'UTC')::date, created_at desc, trace_id desc
