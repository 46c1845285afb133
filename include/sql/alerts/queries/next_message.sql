-- Called by aggregator.alerts.notifier. The next message to send; nobody else sends it while the transaction is open.
-- Messages of one alert keep their order. After a day, news is history: it stays in the table.
select
    message.id,
    message.text
from ops.alert_messages as message
where
    message.sent_at is null
    and message.next_attempt_at <= now()
    and message.created_at > now() - interval '1 day'
    and not exists (
        select from ops.alert_messages as earlier
        where
            earlier.alert_id = message.alert_id
            and earlier.id < message.id
            and earlier.sent_at is null
            and earlier.created_at > now() - interval '1 day'
    )
order by message.id
limit 1
for update of message skip locked
