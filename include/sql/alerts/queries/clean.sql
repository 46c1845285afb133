-- Called by aggregator.maintenance. Deletes alerts, with their messages, and dead letters that were resolved before
-- %(before)s. Returns the number of each.
with deleted_alerts as (
    delete from ops.alerts
    where settled_at < %(before)s
    returning id
),

deleted_letters as (
    delete from ops.dead_letters
    where settled_at < %(before)s
    returning id
)

select
    (select count(*) from deleted_alerts) as alerts,
    (select count(*) from deleted_letters) as dead_letters
