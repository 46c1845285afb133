-- Called by aggregator.warmup.counter_store. Removes the counters that the given domains have of days before a moment.
-- Answers with the number of those, and of the domains' counters of later days.
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
),

kept as (
    select counter.day
    from delivery.warmup_counters as counter
    inner join warming
        on
            counter.organization_id = warming.organization_id
            and counter.domain = warming.domain
            and counter.day >= warming.first_day_kept
)

select
    (select count(*) from removed) as reset,
    (select count(*) from kept) as kept
