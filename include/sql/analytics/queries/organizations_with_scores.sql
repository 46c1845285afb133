-- Called by analytics_score_distribution when its query fails. Organizations with lead scores.
select distinct organization_id::text
from scoring.lead_scores
where organization_id is not null
order by organization_id
