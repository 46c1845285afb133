-- Called by aggregator.web.operations.dags. Returns label, value and unit of what is stored for a range of UTC days.
with rollup as (
    select
        count(distinct hire_id) as hires,
        coalesce(sum(valid_clicks), 0) as valid,
        coalesce(sum(invalid_clicks), 0) as invalid
    from public.click_rollups
    where day >= %(first_day)s::date and day < %(until_day)s::date
)

select
    figure.label,
    figure.value,
    null as unit
from rollup
cross join
    lateral (
        values (1, 'Hires', rollup.hires), (2, 'Valid clicks', rollup.valid), (3, 'Invalid clicks', rollup.invalid)
    ) as figure (position, label, value)
order by figure.position
