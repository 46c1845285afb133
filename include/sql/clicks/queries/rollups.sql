-- Called by click_rollups. The rows of public.click_rollups: one for each known hire in Analytics Engine's result.
select
    (%(data_interval_start)s::timestamptz at time zone 'UTC')::date as day,
    result.hire_id,
    -- numeric rounds halves away from zero, double precision to even. There is no cast to integer: one hire with too
    -- many clicks would fail the whole query. The upsert casts, and isolates that hire.
    round(result.valid_clicks::numeric) as valid_clicks,
    round(result.invalid_clicks::numeric) as invalid_clicks
from pg_temp.analytics_engine_answer as result
inner join public.hires on result.hire_id = hires.id
