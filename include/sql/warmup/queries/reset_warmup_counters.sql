-- Called by aggregator.warmup.counter_store. Deletes the counters of the given domains for days that end before a time.
-- Returns the number of deleted counters, and the number of these domains' counters of later days.
with warming as (
    select
        organization_id,
        domain,
        (%(before)s::timestamptz at time zone 'UTC')::date as first_day_kept
    from unnest(%(organization_ids)s::uuid[], %(domains)s::text[]) as given (organization_id, domain)
),

removed as (
    delete from delivery.warmup_counters as counter
    using warming
    where
        counter.organization_id = warming.organization_id
        and counter.domain = warming.domain
        and counter.day < warming.first_day_kept
    returning counter.day
)

select
    (select count(*) from removed) as reset,
    count(*) as kept
from delivery.warmup_counters as counter
inner join warming on counter.organization_id = warming.organization_id and counter.domain = warming.domain
where counter.day >= warming.first_day_kept
