-- Called by click_rollups. Hires of Analytics Engine's result that are not in public.hires.
select answer.hire_id
from pg_temp.analytics_engine_answer as answer
left join public.hires on answer.hire_id = hires.id
where hires.id is null
order by answer.hire_id
