-- Called by aggregator.kpi.jobs.create. Creates the job record of a run with all KPIs pending. A cleared run has a
-- record already:
--
-- - KPIs that were sent stay unchanged.
-- - KPIs that are pending or failed get the name, type, report_back and metadata of _kpis.
-- - KPIs that are pending or failed and not in _kpis are deleted.
-- - New KPIs are added as pending.
create or replace function kpi.create_job(
    _trace_id text, _dag_id text, _run_id text, _environment text, _kpis jsonb
)
returns void
language plpgsql
volatile
set search_path = ''
set datestyle = 'ISO, MDY'
set timezone = 'UTC'
as $$
begin
    insert into kpi.jobs (trace_id, dag_id, run_id, environment)
    values (_trace_id, _dag_id, _run_id, _environment)
    on conflict do nothing; -- with either unique key: a concurrent call may create the same job

    -- Serializes concurrent calls for one job.
    perform from kpi.jobs as job
    where job.trace_id = _trace_id and job.dag_id = _dag_id and job.run_id = _run_id
    for update;
    if not found then
        raise exception 'Trace id % belongs to another run', _trace_id using errcode = 'unique_violation';
    end if;

    delete from kpi.job_kpis as stored
    where
        stored.trace_id = _trace_id
        and stored.status in ('pending', 'failed')
        and not exists (
            select from jsonb_array_elements(_kpis) as given
            where given ->> 'kpi_id' = stored.kpi_id
        );

    insert into kpi.job_kpis as stored (trace_id, kpi_id, name, type, report_back, metadata)
    select
        _trace_id,
        given.kpi_id,
        given.name,
        given.type,
        given.report_back,
        coalesce(given.metadata, '{}')
    from jsonb_to_recordset(_kpis) as given (kpi_id text, name text, type text, report_back boolean, metadata jsonb)
    on conflict (trace_id, kpi_id) do update
        set
            name = excluded.name,
            type = excluded.type,
            report_back = excluded.report_back,
            metadata = excluded.metadata
        where
            stored.status in ('pending', 'failed')
            and (stored.name, stored.type, stored.report_back, stored.metadata)
            is distinct from (excluded.name, excluded.type, excluded.report_back, excluded.metadata);

    update kpi.jobs as job
    set settled_at = null
    where
        job.trace_id = _trace_id
        and job.settled_at is not null
        and exists (
            select from kpi.job_kpis as stored
            where stored.trace_id = _trace_id and stored.status in ('pending', 'failed')
        );
end
$$;

comment on function kpi.create_job(text, text, text, text, jsonb) is 'Creates or updates the job record of a run';
revoke all on function kpi.create_job(text, text, text, text, jsonb) from public;
