-- Called by aggregator.web.operations.analytics. Returns the emails of domains that warm up, by UTC day.
select
    day,
    sum(sent) as sent,
    count(*) as domains
from delivery.warmup_counters
where day >= %(first_day)s::date and day < %(until_day)s::date
group by day
