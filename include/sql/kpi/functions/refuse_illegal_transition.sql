-- Called by the trigger of kpi.job_kpis, whoever writes. Refuses a transition that the states do not have (ADR 7), and
-- says of a sender that is gone what that means.
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
            raise exception 'A KPI begins as pending, not as %', new.status using errcode = 'check_violation';
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
            else array['pending'] -- what has ended can only be sent again
        end
    ) then
        raise exception 'A KPI that is % cannot become %', old.status, new.status using errcode = 'check_violation';
    end if;

    if new.status = 'sending' and old.status = 'sending' and new.owner is distinct from old.owner then
        raise exception 'A KPI that is being sent cannot change its owner' using errcode = 'check_violation';
    end if;

    if new.status = 'unknown' then
        new.error := coalesce(
            new.error, 'The task ended between the request and its answer; n8n may have run the workflow.'
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

comment on function kpi.refuse_illegal_transition() is 'Keeps the states of kpi.job_kpis to their transitions';
revoke all on function kpi.refuse_illegal_transition() from public;

create or replace trigger refuse_illegal_transition
before insert or update on kpi.job_kpis
for each row execute function kpi.refuse_illegal_transition();

-- Whoever writes: also sessions with session_replication_role = replica.
alter table kpi.job_kpis enable always trigger refuse_illegal_transition;
