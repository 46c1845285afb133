-- Called by aggregator.web.operations.dags. Returns label, value and unit of what the DAG %(dag_id)s stored for a range
-- of UTC days. PostgreSQL skips the parts of the other DAGs.
select
    figure.label,
    figure.value,
    figure.unit
from (
    select
        count(distinct organization_id) as organizations,
        coalesce(sum(count), 0) as events
    from analytics.event_aggregates
    where
        date >= %(first_day)s::date and date < %(until_day)s::date
        and (channel is not distinct from 'monthly_summary') = (%(dag_id)s = 'analytics_monthly_usage')
) as stored
cross join
    lateral (
        values (1, 'Organizations', stored.organizations, null), (2, 'Events', stored.events, null)
    ) as figure (position, label, value, unit)
where %(dag_id)s in ('analytics_hourly_aggregation', 'analytics_monthly_usage')
union all
select
    figure.label,
    figure.value,
    figure.unit
from (
    select
        count(distinct campaign_id) as campaigns,
        coalesce(sum(sent), 0) as sent,
        coalesce(sum(delivered), 0) as delivered,
        coalesce(sum(bounced), 0) as bounced
    from analytics.campaign_daily_stats
    where date >= %(first_day)s::date and date < %(until_day)s::date
) as stored
cross join
    lateral (
        values
        (1, 'Campaigns', stored.campaigns, null),
        (2, 'Emails sent', stored.sent, null),
        (3, 'Delivered', stored.delivered, null),
        (4, 'Bounced', stored.bounced, null)
    ) as figure (position, label, value, unit)
where %(dag_id)s = 'analytics_daily_reports'
union all
select
    figure.label,
    figure.value,
    figure.unit
from (
    select
        count(*) as snapshots,
        coalesce(sum(total_contacts), 0) as contacts
    from analytics.daily_score_distribution
    -- A run stores the snapshot of the day on which its data interval ends.
    where
        date >= %(first_day)s::date + (%(run_id)s::text is not null)::integer
        and date < %(until_day)s::date + (%(run_id)s::text is not null)::integer
) as stored
cross join
    lateral (
        values
        (1, 'Snapshots of organizations', stored.snapshots, null), (2, 'Contacts in them', stored.contacts, null)
    ) as figure (position, label, value, unit)
where %(dag_id)s = 'analytics_score_distribution'
union all
select
    figure.label,
    figure.value,
    figure.unit
from (
    select
        count(distinct organization_id) as organizations,
        coalesce(sum(total_enriched), 0) as enriched,
        round(avg(nullif(success_rate, 'NaN')), 2) as success_rate
    from analytics.enrichment_metrics
    where date >= %(first_day)s::date and date < %(until_day)s::date
) as stored
cross join
    lateral (
        values
        (1, 'Organizations', stored.organizations, null),
        (2, 'Completed jobs', stored.enriched, null),
        (3, 'Success rate, mean', stored.success_rate, '%%')
    ) as figure (position, label, value, unit)
where %(dag_id)s = 'analytics_enrichment_metrics'
