-- Called by aggregator.ohlcv mark-changed. Answers with the marked symbols, and whether they have candles in the range.
select
    symbol,
    has_candles
from ohlcv.mark_changed(%(symbols)s::text[], %(starts_at)s::timestamptz, %(ends_at)s::timestamptz)
