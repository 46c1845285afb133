-- Called by aggregator.alerts.store. Raises an alert, or adds members to the open one. Writes a message, unless the
-- last message about the alert is less than an hour old. Returns the alert's id if a message was written.
with alert as (
    insert into ops.alerts as stored (kind, subject, members, since, text)
    values (%(kind)s, %(subject)s, %(members)s::text[], %(since)s, %(text)s)
    on conflict (kind, subject) where settled_at is null do update
        set
            members = stored.members || array(
                select member.name from unnest(excluded.members) as member (name) -- noqa: RF01
                where member.name <> all(stored.members) -- noqa: RF01
            ),
            text = case when stored.told_at < now() - interval '1 hour' then excluded.text else stored.text end,
            told_at = case when stored.told_at < now() - interval '1 hour' then now() else stored.told_at end
        where not stored.members @> excluded.members
    returning id, told_at
)

insert into ops.alert_messages (alert_id, text)
select
    alert.id,
    %(text)s
from alert
where alert.told_at = now()
returning alert_id
