"""OHLCV aggregation: bars from candles, every five minutes."""
