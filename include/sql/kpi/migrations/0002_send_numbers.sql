-- Each deliberate repetition of a webhook has an idempotency key of its own, which its retries share.
alter table kpi.job_kpis
alter column resend type boolean using resend is not null,
add column retry_group text,
add column send_number integer not null default 1 check (send_number >= 1);

alter table kpi.job_kpis
alter column resend set default false,
alter column resend set not null,
add column idempotency_key text not null generated always as (
    trace_id || case when send_number = 1 then '' else '.' || send_number::text end || '/' || kpi_id
) stored;

comment on column kpi.job_kpis.resend is 'Whether the run''s param resend was granted for this KPI';
comment on column kpi.job_kpis.retry_group is 'Which tries repeat one request: a clear starts another group';
comment on column kpi.job_kpis.send_number is '1 for the first request; retries keep it, a clear or a resend adds 1';
comment on column kpi.job_kpis.idempotency_key is 'Header Idempotency-Key of the last request';

-- Its replacement has other parameters.
drop function if exists kpi.claim_kpi(text, text, text, text);
