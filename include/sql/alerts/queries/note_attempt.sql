-- Called by aggregator.alerts.notifier. Notes that a message was sent, or why not and when to try again: after 5, 10,
-- 20 seconds and so on, every 5 minutes at last.
update ops.alert_messages
set
    attempts = attempts + 1,
    sent_at = case when %(error)s::text is null then clock_timestamp() end,
    next_attempt_at = clock_timestamp() + least(interval '5 seconds' * 2 ^ least(attempts, 6), interval '5 minutes'),
    error = %(error)s
where id = %(id)s
