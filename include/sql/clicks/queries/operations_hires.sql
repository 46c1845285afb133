-- Called by aggregator.web.operations.clicks. Returns a page of the hires whose id contains %(search)s, those with the
-- most valid clicks first, and the clicks of all of them.
select
    hire_id,
    sum(valid_clicks) as valid,
    sum(invalid_clicks) as invalid,
    count(*) as days,
    count(*) over () as total,
    sum(sum(valid_clicks)) over () as all_valid,
    sum(sum(invalid_clicks)) over () as all_invalid
from public.click_rollups
where
    day >= %(first_day)s::date and day < %(until_day)s::date
    and (%(search)s = '' or strpos(lower(hire_id), lower(%(search)s)) > 0)
group by hire_id
order by sum(valid_clicks) desc, hire_id
limit %(limit)s offset %(offset)s
