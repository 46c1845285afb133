-- The product owns these tables and reads them; where they exist they are adopted as they are. Naive times are UTC.
create schema if not exists analytics;
create schema if not exists scoring;
create schema if not exists lead_intelligence;

create table if not exists analytics.contact_activity (
    organization_id uuid not null,
    contact_id uuid,
    event_type varchar(100) not null,
    event_source varchar(100),
    event_data jsonb,
    created_at timestamp not null default (now() at time zone 'UTC')
);

create table if not exists scoring.lead_scores (
    organization_id uuid not null,
    contact_id uuid not null,
    total_score integer not null,
    primary key (organization_id, contact_id)
);

create table if not exists lead_intelligence.enrichment_jobs (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null,
    status varchar(20) not null,
    total_cost numeric(10, 4),
    created_at timestamp not null default (now() at time zone 'UTC'),
    completed_at timestamp
);

create table if not exists analytics.event_aggregates (
    organization_id uuid not null,
    date date not null,
    event_type varchar(100) not null,
    channel varchar(50),
    count bigint not null,
    unique_count bigint not null
);

create table if not exists analytics.campaign_daily_stats (
    campaign_id uuid not null,
    organization_id uuid not null,
    date date not null,
    sent integer not null default 0,
    delivered integer not null default 0,
    opened integer not null default 0,
    unique_opened integer not null default 0,
    clicked integer not null default 0,
    unique_clicked integer not null default 0,
    bounced integer not null default 0,
    complained integer not null default 0,
    unsubscribed integer not null default 0
);

create table if not exists analytics.daily_score_distribution (
    organization_id uuid not null,
    date date not null,
    avg_score numeric(5, 2) not null,
    min_score integer not null,
    max_score integer not null,
    p50 integer not null,
    p90 integer not null,
    p95 integer not null,
    total_contacts integer not null
);

create table if not exists analytics.enrichment_metrics (
    organization_id uuid not null,
    date date not null,
    total_enriched integer not null,
    success_rate numeric(5, 2) not null,
    avg_cost numeric(8, 4) not null,
    avg_freshness numeric(5, 2) not null
);

comment on table analytics.event_aggregates is
'Events per organisation, UTC day and type by analytics_hourly_aggregation; with channel monthly_summary, types '
'monthly:… and the first of the month as date, of a UTC month by analytics_monthly_usage';
comment on table analytics.campaign_daily_stats is
'Mails of a campaign per UTC day and what became of them, by analytics_daily_reports';
comment on table analytics.daily_score_distribution is
'Lead scores per organisation as they were on a UTC day, by analytics_score_distribution';
comment on table analytics.enrichment_metrics is
'Enrichment jobs per organisation and UTC day they were created on, by analytics_enrichment_metrics';
