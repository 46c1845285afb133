-- Called by aggregator.alerts.freshness. Returns the day of the newest snapshot, twice: while there are scores, the
-- next snapshot is due. Snapshots dated before 1970 or after %(now)s are errors and do not count.
select
    max(distribution.date)::timestamp at time zone 'UTC' as newest,
    case
        when exists (select from scoring.lead_scores) then max(distribution.date)::timestamp at time zone 'UTC'
    end as waiting_since
from analytics.daily_score_distribution as distribution
where
    distribution.date >= '1970-01-01'
    and distribution.date <= (%(now)s::timestamptz at time zone 'UTC')::date
