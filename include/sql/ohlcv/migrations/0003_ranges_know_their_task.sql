-- What ohlcv.aggregate knows of a range's task already, so that ohlcv.build_bars need not look it up for each bar.
alter type ohlcv.source_range
add attribute source_size interval,
add attribute cursor timestamptz,
add attribute built_until timestamptz,
add attribute expected_candles integer;
