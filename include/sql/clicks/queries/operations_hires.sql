-- Called by aggregator.web.operations.clicks. Returns a page of the hires whose id contains %(search)s, those with the
-- most valid clicks first.
select
    hire_id,
    sum(valid_clicks) as valid,
    sum(invalid_clicks) as invalid,
    count(*) as days,
    count(*) over () as total
from public.click_rollups
where
    day >= %(first_day)s::date and day < %(until_day)s::date
    and strpos(lower(hire_id), lower(%(search)s)) > 0
group by hire_id
order by sum(valid_clicks) desc, hire_id
limit %(limit)s offset %(offset)s
