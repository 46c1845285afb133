-- It has a parameter more. Beside the function that takes one, a call with one would be ambiguous. Functions are made
-- right after the migrations.
set local client_min_messages = warning;
drop function if exists ohlcv.drop_candle_partitions(timestamptz);
