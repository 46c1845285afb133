-- Called by click_rollups, in the dialect of Analytics Engine. One row for each hire with clicks in the window.
-- A stored click represents _sample_interval clicks. double2 is 1 for an invalid click, else 0; blob4 is the hire's id.
select
    blob4 as hire_id,
    sum(_sample_interval * (1 - double2)) as valid_clicks,
    sum(_sample_interval * double2) as invalid_clicks
from clicks
where
    timestamp >= %(data_interval_start)s
    and timestamp < %(data_interval_end)s
    and blob4 != ''
group by hire_id
format JSON
