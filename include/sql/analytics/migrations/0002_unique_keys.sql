-- The tables had no unique keys, so every replay of a job stored its rows once more. Of the rows of a key one stays, as
-- the rule beside each table says; the others are moved to migrations.analytics_merged_rows and counted in a notice.
-- "Written last" is the place in the table: the jobs only ever inserted.
-- A large contact_activity without an index is blocked for writes meanwhile: create it by hand, concurrently, before.
create schema if not exists migrations;

create table if not exists migrations.analytics_merged_rows (
    table_name text not null,
    stored jsonb not null,
    merged_at timestamptz not null default now()
);

comment on table migrations.analytics_merged_rows is
'Rows that the migration analytics/0002 took out of the tables named, because another row of their key was kept';

create function pg_temp.make_unique(target regclass, key text[], best_first text) returns void
language plpgsql
as $$
declare
    columns text := (
        select string_agg(quote_ident(name), ', ' order by position)
        from unnest(key) with ordinality as part (name, position)
    );
    merged bigint;
begin
    execute format('lock table %s in share row exclusive mode', target);
    if exists (
        select
        from pg_index
        where indrelid = target and indisunique and indisvalid and indimmediate and indpred is null and indexprs is null
            and (
                select array_agg(attname::text order by attname::text)
                    = (select array_agg(name order by name) from unnest(key) as name)
                    and (indnullsnotdistinct or bool_and(attnotnull))
                from pg_attribute
                where attrelid = target and attnum = any(indkey[0:indnkeyatts - 1])
            )
    ) then
        return;
    end if;
    execute format(
        'with ranked as (
            select ctid as place, row_number() over (partition by %2$s order by %3$s) as position from %1$s
        ),
        merged as (
            delete from %1$s as stored using ranked
            where stored.ctid = ranked.place and ranked.position > 1
            returning to_jsonb(stored) as stored
        )
        insert into migrations.analytics_merged_rows (table_name, stored) select %4$L, stored from merged',
        target, columns, best_first, target::text
    );
    get diagnostics merged = row_count;
    if merged > 0 then
        raise notice '% duplicates of % were moved to migrations.analytics_merged_rows', merged, target;
    end if;
    execute format('create unique index on %s (%s) nulls not distinct', target, columns);
end
$$;

create function pg_temp.index_created_at(source regclass) returns void
language plpgsql
as $$
begin
    if not exists (
        select
        from pg_index
        join pg_attribute on attrelid = indrelid and attnum = indkey[0]
        where indrelid = source and attname = 'created_at' and indisvalid and indpred is null
    ) then
        execute format('create index on %s (created_at)', source);
    end if;
end
$$;

-- A day's events only become more: the greatest count has seen the most of them.
select pg_temp.make_unique(
    'analytics.event_aggregates', '{organization_id, date, event_type, channel}',
    'count desc nulls last, unique_count desc nulls last, ctid desc'
);

-- Likewise, of all counts together.
select pg_temp.make_unique(
    'analytics.campaign_daily_stats', '{campaign_id, organization_id, date}',
    'coalesce(sent, 0) + coalesce(delivered, 0) + coalesce(opened, 0) + coalesce(unique_opened, 0)
        + coalesce(clicked, 0) + coalesce(unique_clicked, 0) + coalesce(bounced, 0) + coalesce(complained, 0)
        + coalesce(unsubscribed, 0) desc, ctid desc'
);

-- A replay stored the scores of a later moment under the day's date: the row written first is the day's own.
select pg_temp.make_unique('analytics.daily_score_distribution', '{organization_id, date}', 'ctid');

-- A day's jobs only become more, and more of them complete.
select pg_temp.make_unique(
    'analytics.enrichment_metrics', '{organization_id, date}',
    'total_enriched desc nulls last, success_rate desc nulls last, ctid desc'
);

select pg_temp.index_created_at('analytics.contact_activity');
select pg_temp.index_created_at('lead_intelligence.enrichment_jobs');

drop function pg_temp.make_unique;
drop function pg_temp.index_created_at;
