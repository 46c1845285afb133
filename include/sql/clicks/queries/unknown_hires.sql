-- Called by click_rollups. Hires of Analytics Engine's result that are not in public.hires.
select result.hire_id
from pg_temp.analytics_engine_answer as result
left join public.hires on result.hire_id = hires.id
where hires.id is null
order by result.hire_id
