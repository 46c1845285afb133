-- Four weeks of results before the sample's inputs, so that charts and tables of the Operations page have something to
-- show. Executed by dev.sample.load once for each `make up`; rows that exist are kept. Deterministic by day.
set local timezone to 'UTC';

create function pg_temp.chance(seed text) returns double precision
language sql
immutable
return (hashtext(seed)::bigint & 1048575) / 1048576.0;

-- Candles: the sample's, one to three weeks earlier. THINLY is silent for two days, and BTCUSD has a gap of three hours.
select ohlcv.add_candle_partitions(now() - interval '32 days', now());

insert into ohlcv.candles (symbol, timeframe, ts, open, high, low, close, volume, trades)
select
    candle.symbol,
    candle.timeframe,
    candle.ts - shift.days,
    candle.open * shift.factor,
    candle.high * shift.factor,
    candle.low * shift.factor,
    candle.close * shift.factor,
    candle.volume,
    candle.trades
from ohlcv.candles as candle
cross join generate_series(1, 3) as week
cross join lateral (select week * interval '7 days' as days, 1 - week / 50.0 as factor) as shift
where
    candle.ts >= current_date - 9
    and candle.ts - shift.days < current_date - 9
    and candle.close < 'Infinity'
    and not (candle.symbol = 'THINLY' and (candle.ts - shift.days)::date in (current_date - 13, current_date - 12))
    and not (
        candle.symbol = 'BTCUSD'
        and candle.ts - shift.days >= current_date - 20 + interval '3 hours'
        and candle.ts - shift.days < current_date - 20 + interval '6 hours'
    )
on conflict do nothing;

insert into public.click_rollups (day, hire_id, valid_clicks, invalid_clicks)
select
    day.day::date,
    hire.id,
    round(hire.clicks * day.factor * (0.8 + 0.4 * pg_temp.chance(hire.id || day.day))),
    round(hire.clicks * 0.2 * day.factor * pg_temp.chance(day.day || hire.id))
from (
    select
        id,
        1500.0 / row_number() over (order by id) as clicks
    from public.hires
) as hire
cross join
    lateral (
        select
            day,
            case when extract(isodow from day) > 5 then 0.75 else 1 end as factor
        from generate_series(current_date - 30, current_date - 2, interval '1 day') as day
    ) as day
on conflict do nothing;

insert into public.telemetry_daily (date, event, count, unique_users, value_sum)
select
    day.day::date,
    type.event,
    count.count,
    least(count.count, 20 + round(40 * pg_temp.chance(type.event || day.day))),
    count.count * 3
from
    unnest(array['page_view', 'search', 'sign_in', 'feature_used', 'export', 'Anmeldung für später', 'o''clock'])
    with ordinality as type (event, place)
cross join generate_series(current_date - 30, current_date - 2, interval '1 day') as day (day)
cross join
    lateral (
        select
            round(
                230 / type.place * (0.9 + 0.2 * pg_temp.chance(day.day || type.event))
                * case when extract(isodow from day.day) > 5 then 0.5 else 1 end
            ) as count
    ) as count
on conflict do nothing;

insert into analytics.daily_score_distribution (
    organization_id, date, avg_score, min_score, max_score, p50, p90, p95, total_contacts
)
select
    score.organization_id,
    day.day::date,
    score.average - day.age / 5.0,
    score.least,
    score.greatest,
    score.p50 - day.age / 6,
    score.p90 - day.age / 8,
    score.p95 - day.age / 10,
    greatest(1, round(score.contacts * (1 - day.age / 60.0)))
from (
    select
        organization_id,
        round(avg(total_score), 2) as average,
        min(total_score) as least,
        max(total_score) as greatest,
        round(percentile_cont(0.5) within group (order by total_score)) as p50,
        round(percentile_cont(0.9) within group (order by total_score)) as p90,
        round(percentile_cont(0.95) within group (order by total_score)) as p95,
        count(*) as contacts
    from scoring.lead_scores
    group by organization_id
) as score
cross join
    lateral (
        select
            current_date - age as day,
            age
        from generate_series(1, 30) as age
    ) as day
on conflict do nothing;

-- What analytics_hourly_aggregation counts, from the sample's own events.
insert into analytics.event_aggregates (organization_id, date, event_type, channel, count, unique_count)
select
    organization_id,
    created_at::date,
    event_type,
    null,
    count(*),
    count(distinct contact_id)
from analytics.contact_activity
where
    created_at >= current_date - 30
    and created_at < current_date
    and organization_id is not null
    and event_type is not null
group by organization_id, created_at::date, event_type
on conflict do nothing;

-- Warm-up: the daily limit grows with the age of a domain.
insert into delivery.warmup_counters (organization_id, domain, day, sent)
select
    domain.organization_id,
    domain.domain,
    day.day::date,
    50 * least(30, day.day::date - domain.created_at::date)
from delivery.sending_domains as domain
cross join generate_series(current_date - 30, current_date - 2, interval '1 day') as day (day)
where domain.verified and day.day::date > domain.created_at::date
on conflict do nothing;

insert into analytics.enrichment_metrics (
    organization_id, date, total_enriched, success_rate, avg_cost, avg_freshness
)
select
    score.organization_id,
    day.day::date,
    greatest(1, round(score.contacts * 0.16 * (0.8 + 0.4 * day.chance))),
    round((70 + 20 * day.chance)::numeric, 2),
    round((0.09 + 0.06 * day.chance)::numeric, 4),
    0.99
from (
    select
        organization_id,
        count(*) as contacts
    from scoring.lead_scores
    group by organization_id
) as score
cross join
    lateral (
        select
            day,
            pg_temp.chance(score.organization_id::text || day) as chance
        from generate_series(current_date - 30, current_date - 2, interval '1 day') as day
    ) as day
on conflict do nothing;

-- KPI jobs at 12:00. The trigger accepts new KPIs as pending only, and dates their changes with the current time.
alter table kpi.job_kpis disable trigger user;

with job as (
    insert into kpi.jobs (trace_id, dag_id, run_id, environment, created_at, settled_at)
    select
        to_char(due.at, '"trace_"YYYYMMDD"_120000_"') || substr(md5(due.at::text), 1, 8),
        'kpi_dispatch',
        to_char(due.at, '"scheduled__"YYYY-MM-DD"T12:00:00+00:00"'),
        'development',
        due.at,
        due.at + interval '4 minutes'
    from generate_series(current_date - 30 + interval '12 hours', now() - interval '10 minutes', interval '1 day') as due (at)
    on conflict do nothing
    returning trace_id, created_at
),

result as (
    select
        job.trace_id,
        job.created_at,
        kpi.*,
        pg_temp.chance(job.trace_id || kpi.id) as chance
    from job
    cross join
        (
            values
            ('btc-price', 'Bitcoin Price', 'price', false),
            ('eth-price', 'Ether Price', 'price', false),
            ('fear-greed', 'Fear & Greed Index', 'index', true),
            ('btc-dominance', 'Bitcoin Dominance', 'ratio', false),
            ('total-market-cap', 'Total Market Capitalization', 'sum', false),
            ('stablecoin-supply', 'Stablecoin Supply', 'sum', true)
        ) as kpi (id, name, type, report_back)
)

insert into kpi.job_kpis (
    trace_id, kpi_id, name, type, report_back, metadata, status, retry_count, error, sent_at, completed_at, updated_at
)
select
    trace_id,
    id,
    name,
    type,
    report_back,
    '{}',
    case
        when chance < 0.03 then 'failed'
        when report_back and chance < 0.08 then 'timeout'
        when report_back then 'completed'
        else 'triggered'
    end,
    case when chance < 0.03 then 3 when chance > 0.9 then 1 else 0 end,
    case
        when chance < 0.03 then 'n8n returned 503: Service Unavailable'
        when report_back and chance < 0.08 then 'n8n did not report within 30 minutes'
    end,
    created_at + interval '2 seconds',
    case when report_back then created_at + interval '2 minutes' end,
    created_at + interval '2 minutes'
from result;

alter table kpi.job_kpis enable trigger user;

drop function pg_temp.chance;
