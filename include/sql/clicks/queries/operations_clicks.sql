-- Called by aggregator.web.operations.clicks. Returns the clicks of all hires whose id contains %(search)s, one row.
select
    coalesce(sum(valid_clicks), 0) as valid,
    coalesce(sum(invalid_clicks), 0) as invalid
from public.click_rollups
where
    day >= %(first_day)s::date and day < %(until_day)s::date
    and strpos(lower(hire_id), lower(%(search)s)) > 0
