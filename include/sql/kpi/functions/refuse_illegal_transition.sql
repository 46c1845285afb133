-- Called by the trigger of kpi.job_kpis for every writer. Rejects invalid transitions (ADR 7), and maintains error,
-- updated_at and completed_at.
create or replace function kpi.refuse_illegal_transition()
returns trigger
language plpgsql
volatile
set search_path = ''
set datestyle = 'ISO, MDY'
set timezone = 'UTC'
as $$
begin
    if tg_op = 'INSERT' then
        if new.status <> 'pending' then
            raise exception 'The first status of a KPI is pending, not %', new.status using errcode = 'check_violation';
        end if;
        return new;
    end if;

    if new.status <> old.status and new.status <> all (
        case old.status
            when 'pending' then array['sending']
            when 'sending' then array['triggered', 'failed', 'unknown', 'completed']
            when 'failed' then array['sending', 'pending']
            when 'triggered' then array['completed', 'failed', 'timeout', 'pending']
            when 'unknown' then array['triggered', 'completed', 'failed', 'timeout', 'pending']
            else array['pending'] -- completed, timeout: only a resend
        end
    ) then
        raise exception 'The status of a KPI cannot change from % to %', old.status, new.status using errcode = 'check_violation';
    end if;

    if new.status = 'sending' and old.status = 'sending' and new.owner is distinct from old.owner then
        raise exception 'The owner of a KPI cannot change while its status is sending' using errcode = 'check_violation';
    end if;

    if new.status = 'unknown' then
        new.error := coalesce(
            new.error, 'The task ended before it recorded a response. n8n may have run the workflow.'
        );
    end if;

    new.updated_at := now();
    new.completed_at := case
        when new.status not in ('completed', 'failed', 'timeout') then null
        when new.status = old.status then old.completed_at
        else now()
    end;
    return new;
end
$$;

comment on function kpi.refuse_illegal_transition() is 'Rejects invalid status transitions in kpi.job_kpis';
revoke all on function kpi.refuse_illegal_transition() from public;

create or replace trigger refuse_illegal_transition
before insert or update on kpi.job_kpis
for each row execute function kpi.refuse_illegal_transition();

-- Also for sessions with session_replication_role = replica.
alter table kpi.job_kpis enable always trigger refuse_illegal_transition;
