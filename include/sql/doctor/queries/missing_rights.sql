-- Called by aggregator.doctor. Returns what the connection's role lacks: rights on tables and functions.
with needed as (
    select
        given.name,
        pg_namespace.oid as schema_id,
        pg_class.oid as table_id,
        pg_class.relowner as owner,
        regexp_split_to_table(given.rights, ', ') as need
    from unnest(%(tables)s::text[], %(rights)s::text[]) as given (name, rights)
    left join pg_namespace on split_part(given.name, '.', 1) = pg_namespace.nspname
    left join pg_class on pg_namespace.oid = pg_class.relnamespace and split_part(given.name, '.', 2) = pg_class.relname
)

select case when table_id is null then 'table ' || name else need || ' on ' || name end as missing
from needed
where
    table_id is null
    or not has_schema_privilege(schema_id, 'usage')
    or not case when need = 'own' then pg_has_role(owner, 'usage') else has_table_privilege(table_id, need) end
union distinct
select 'execute on ' || pronamespace::regnamespace || '.' || proname as missing
from pg_proc
where
    proname = any(%(functions)s::text[])
    and pronamespace in (select needed.schema_id from needed)
    and prorettype <> 'trigger'::regtype -- nobody calls these
    and not (has_schema_privilege(pronamespace, 'usage') and has_function_privilege(oid, 'execute'))
union distinct
select 'temporary on the database' as missing
where %(temporary)s and not has_database_privilege(current_database(), 'temporary')
order by missing
