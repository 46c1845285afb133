-- Called by aggregator.alerts.store. Resolves an alert, unless members were added since it was read, and writes the
-- message if there is a text. Returns the alert's id if it was resolved.
with settled as (
    update ops.alerts
    set settled_at = now()
    where
        id = %(id)s
        and settled_at is null
        and members = %(members)s::text[]
    returning id
),

message as (
    insert into ops.alert_messages (alert_id, text)
    select
        settled.id,
        %(text)s
    from settled
    where %(text)s::text is not null
)

select settled.id from settled
