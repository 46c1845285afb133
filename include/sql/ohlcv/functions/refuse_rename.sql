-- Called by a trigger on ohlcv.assets. Bars and candles would keep the old symbol, and the cursor of the renamed task
-- would claim that its bars are built.
create or replace function ohlcv.refuse_rename() returns trigger
language plpgsql
volatile
as $$
begin
    if exists (select from ohlcv.tasks as task where task.symbol = old.symbol) then
        raise exception 'The asset % is not renamed to %: its candles and bars would keep the old symbol. Nothing was '
            'changed. Insert the asset %. Copy its former base timeframes (insert into ohlcv.former_base_timeframes '
            'select %, timeframe, starts_at, ends_at from ohlcv.former_base_timeframes where symbol = %). Move the '
            'candles (update ohlcv.candles set symbol = % where symbol = %). Wait for a run, which moves the bars. '
            'Then delete the old asset.',
            quote_literal(old.symbol), quote_literal(new.symbol), quote_literal(new.symbol), quote_literal(new.symbol),
            quote_literal(old.symbol), quote_literal(new.symbol), quote_literal(old.symbol)
            using errcode = 'feature_not_supported';
    end if;
    return new;
end
$$;

comment on function ohlcv.refuse_rename is
'Trigger function: refuses to rename an asset that has tasks, with instructions';

create or replace trigger refuse_rename before update of symbol on ohlcv.assets
for each row when (old.symbol <> new.symbol) execute function ohlcv.refuse_rename();

alter table ohlcv.assets enable always trigger refuse_rename;
