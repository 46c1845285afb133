-- Called by aggregator.ohlcv. Tasks that the asset registry asks for; answers how many changed.
select ohlcv.sync_tasks() as synchronised
