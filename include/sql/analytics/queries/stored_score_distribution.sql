-- Called by analytics_score_distribution. Returns the number of stored rows of today if there are no scores, else 0.
select count(*) as stored
from analytics.daily_score_distribution as distribution
where
    distribution.date = (now() at time zone 'UTC')::date
    and not exists (
        select from scoring.lead_scores as score
        where score.organization_id is not null and score.total_score is not null
    )
