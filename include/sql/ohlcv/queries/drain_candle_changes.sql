-- Called by aggregator.ohlcv, before tasks are claimed. Answers how many windows are stale now; null: not this time.
select ohlcv.drain_candle_changes() as stale
