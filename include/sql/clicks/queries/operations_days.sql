-- Called by aggregator.web.operations.clicks. Returns the clicks of each UTC day of a range that has rollups.
select
    day,
    sum(valid_clicks) as valid,
    sum(invalid_clicks) as invalid,
    count(*) as hires
from public.click_rollups
where day >= %(first_day)s::date and day < %(until_day)s::date
group by day
