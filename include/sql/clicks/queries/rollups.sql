-- Called by click_rollups. The rows of click_rollups that Analytics Engine's answer makes, hires that are known only.
select
    (%(data_interval_start)s::timestamptz at time zone 'UTC')::date as day,
    answer.hire_id,
    -- numeric rounds halves away from zero, double precision to even. Not cast to integer here: one hire with more
    -- clicks than an integer holds would fail the query, and with it the whole day.
    round(answer.valid_clicks::numeric) as valid_clicks,
    round(answer.invalid_clicks::numeric) as invalid_clicks
from pg_temp.analytics_engine_answer as answer
inner join public.hires on answer.hire_id = hires.id
