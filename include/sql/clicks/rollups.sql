-- Called by click_rollups. The rows of click_rollups that Analytics Engine's answer makes, hires that are known only.
select
    (%(data_interval_start)s::timestamptz at time zone 'UTC')::date as day,
    answer.hire_id,
    -- numeric rounds halves away from zero, double precision to even
    round(answer.valid_clicks::numeric)::integer as valid_clicks,
    round(answer.invalid_clicks::numeric)::integer as invalid_clicks
from pg_temp.analytics_engine_answer as answer
inner join public.hires on answer.hire_id = hires.id
