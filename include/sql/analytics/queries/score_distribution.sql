-- Called by analytics_score_distribution. Returns the current distribution of each organization's lead scores, dated
-- with the current UTC day. The run that is due today returns all organizations. A run of another day returns only
-- organizations without a row of today.
with today as (
    select
        (now() at time zone 'UTC')::date as date,
        (now() at time zone 'UTC')::date = (%(data_interval_end)s::timestamptz at time zone 'UTC')::date as is_due
),

scores as (
    select
        lead_scores.organization_id,
        lead_scores.total_score,
        today.date
    from scoring.lead_scores
    cross join today
    where
        lead_scores.organization_id is not null
        and lead_scores.total_score is not null
        and (%(groups)s::text[] is null or lead_scores.organization_id::text = any(%(groups)s::text[]))
        and (
            today.is_due
            or not exists (
                select
                from analytics.daily_score_distribution as stored
                where stored.organization_id = lead_scores.organization_id and stored.date = today.date
            )
        )
)

select
    organization_id,
    date,
    round(avg(total_score), 2) as avg_score,
    min(total_score) as min_score,
    max(total_score) as max_score,
    -- percentile_cont is double precision and can miss an exact half, so it is rounded first. floor(x + 0.5) rounds
    -- half up, also below zero.
    floor(round(percentile_cont(0.5) within group (order by total_score)::numeric, 4) + 0.5) as p50,
    floor(round(percentile_cont(0.9) within group (order by total_score)::numeric, 4) + 0.5) as p90,
    floor(round(percentile_cont(0.95) within group (order by total_score)::numeric, 4) + 0.5) as p95,
    count(*) as total_contacts
from scores
group by organization_id, date
