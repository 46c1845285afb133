-- Called by aggregator.alerts.notifier. Marks a message as sent, or stores why it was not sent and when to retry: after
-- 5, 10, 20 seconds and so on, at most 5 minutes.
update ops.alert_messages
set
    attempts = attempts + 1,
    sent_at = case when %(error)s::text is null then clock_timestamp() end,
    next_attempt_at = clock_timestamp() + least(interval '5 seconds' * 2 ^ least(attempts, 6), interval '5 minutes'),
    error = %(error)s
where id = %(id)s
