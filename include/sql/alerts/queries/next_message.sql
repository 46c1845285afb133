-- Called by aggregator.alerts.notifier. Returns the next message to send, locked until the end of the transaction.
-- Messages of one alert are sent in their order. A message that is older than a day is not sent, and stays stored.
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
