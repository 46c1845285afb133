-- Called by aggregator.alerts.freshness. Returns the day of the newest snapshot, twice: while there are scores, the
-- next snapshot is due. Snapshots dated before 1970 or after %(now)s are errors and do not count.
select
    max(date)::timestamp at time zone 'UTC' as newest,
    case when exists (select from scoring.lead_scores) then max(date)::timestamp at time zone 'UTC' end as waiting_since
from analytics.daily_score_distribution
where date >= '1970-01-01' and date <= (%(now)s::timestamptz at time zone 'UTC')::date
