-- Called by aggregator.alerts.store. Settles an alert unless it got members meanwhile, and writes the message about it
-- if there is a text. Answers with the alert.
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
