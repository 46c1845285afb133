-- Called by aggregator.web.operations.dags. Returns label, value and unit of the counters of a range of UTC days. The
-- DAG removes those of days that are over.
select
    figure.label,
    figure.value,
    null as unit
from (
    select
        count(distinct domain) as domains,
        coalesce(sum(sent), 0) as sent
    from delivery.warmup_counters
    where day >= %(first_day)s::date and day < %(until_day)s::date
) as stored
cross join
    lateral (
        values (1, 'Domains with a counter', stored.domains), (2, 'Emails counted', stored.sent)
    ) as figure (position, label, value)
order by figure.position
