-- One task sends all KPIs of a run, and the task instance of each KPI takes its outcome over.
alter table kpi.job_kpis
add column requests integer not null default 0 check (requests >= 0),
add column retry_at timestamptz,
add column by_pass boolean not null default false;

comment on column kpi.job_kpis.requests is 'Number of requests, connections that failed included';
comment on column kpi.job_kpis.retry_at is 'Time of the next request after a transient failure; null after others';
comment on column kpi.job_kpis.by_pass is 'Whether send_kpis claimed it last, and its instance has not seen that';

-- Their replacements have other parameters.
drop function if exists kpi.claim_kpi(text, text, text, text, boolean);
drop function if exists kpi.record_outcome(text, text, text, text, integer, text);
