create schema if not exists kpi;

create table kpi.jobs (
    trace_id text primary key check (trace_id ~ '^trace_[0-9]{8}_[0-9]{6}_[a-z0-9]{8}$'),
    dag_id text not null,
    run_id text not null,
    environment text not null,
    created_at timestamptz not null default now(),
    settled_at timestamptz,
    unique (dag_id, run_id)
);

comment on table kpi.jobs is 'One row for each run of kpi_dispatch; kpi.job_records has its status';
comment on column kpi.jobs.settled_at is 'When every KPI had been tried; null while they are being sent';

create index jobs_created_at_idx on kpi.jobs (created_at);

create table kpi.job_kpis (
    trace_id text not null references kpi.jobs (trace_id) on delete cascade,
    kpi_id text not null check (length(kpi_id) between 1 and 200),
    name text not null,
    type text not null,
    report_back boolean not null,
    metadata jsonb not null,
    status text not null default 'pending' check (
        status in ('pending', 'sending', 'triggered', 'failed', 'unknown', 'completed', 'timeout')
    ),
    owner text,
    resend text,
    retry_count integer not null default 0 check (retry_count >= 0),
    error text,
    sent_at timestamptz,
    completed_at timestamptz,
    updated_at timestamptz not null default now(),
    primary key (trace_id, kpi_id)
);

comment on table kpi.job_kpis is 'What became of each KPI of a job; a trigger refuses transitions that do not exist';
comment on column kpi.job_kpis.report_back is 'Whether n8n reports the end of the workflow';
comment on column kpi.job_kpis.metadata is 'Of the registry''s entry';
comment on column kpi.job_kpis.owner is 'Who sent it last: a later owner is not overruled by an earlier one';
comment on column kpi.job_kpis.resend is 'The last wish to send it again that was granted: each is granted once';
comment on column kpi.job_kpis.retry_count is 'Requests after the first one';
comment on column kpi.job_kpis.sent_at is 'When it was claimed last, just before the request';
comment on column kpi.job_kpis.completed_at is 'When the workflow''s end was known, or given up';

create index job_kpis_open_idx on kpi.job_kpis (sent_at)
where status = 'sending' or (report_back and status in ('triggered', 'unknown'));

-- The seed's JSON. A job's status follows from its KPIs, so the two cannot contradict each other, and a hundred reports
-- at once do not queue for one row.
create view kpi.job_records as
select
    job.trace_id,
    state.status,
    job.created_at,
    greatest(job.created_at, job.settled_at, kpi.updated_at) as updated_at,
    state.metadata,
    jsonb_build_object(
        'traceId', job.trace_id,
        'status', state.status,
        'createdAt', to_char(job.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
        'updatedAt', to_char(
            greatest(job.created_at, job.settled_at, kpi.updated_at) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'
        ),
        'kpis', kpi.records,
        'metadata', state.metadata
    ) as record
from kpi.jobs as job
cross join
    lateral (
        select
            count(*) as total,
            count(*) filter (where one.status = 'pending') as pending,
            count(*) filter (where one.status = 'sending') as sending,
            count(*) filter (where one.status = 'triggered') as triggered,
            count(*) filter (where one.status = 'unknown') as unknown,
            count(*) filter (where one.status = 'completed') as completed,
            count(*) filter (where one.status = 'failed') as failed,
            count(*) filter (where one.status = 'timeout') as timeout,
            max(one.updated_at) as updated_at,
            count(*) filter (where one.report_back and one.status in ('triggered', 'unknown')) as awaited,
            count(*) filter (where not one.report_back and one.status = 'unknown') as never_known,
            coalesce(
                jsonb_object_agg(
                    one.kpi_id,
                    jsonb_build_object(
                        'kpiId', one.kpi_id,
                        'status', one.status,
                        'completedAt', to_char(one.completed_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
                        'error', one.error,
                        'retryCount', one.retry_count
                    )
                ),
                '{}'
            ) as records
        from kpi.job_kpis as one
        where one.trace_id = job.trace_id
    ) as kpi
cross join lateral ( -- noqa: ST05
    select
        case
            when job.settled_at is null or kpi.sending > 0 then 'pending'
            when kpi.pending + kpi.failed + kpi.timeout + kpi.never_known = 0
                then
                    case
                        when kpi.awaited = 0 and (kpi.completed > 0 or kpi.total = 0) then 'completed' else 'triggered'
                    end
            when kpi.triggered + kpi.completed + kpi.unknown > 0 then 'partial'
            when kpi.timeout > 0 then 'timeout'
            else 'failed'
        end as status,
        jsonb_build_object(
            'totalKPIs', kpi.total,
            'completedKPIs', kpi.completed,
            'failedKPIs', kpi.failed + kpi.timeout,
            'environment', job.environment
        ) as metadata
) as state;

comment on view kpi.job_records is 'Each job as the JSON that the product''s other services read';
