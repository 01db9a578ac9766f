-- Triggers that tell every Caddy node at once when a member has changed, for
-- `resolver sql { driver postgres … invalidate_on_notify members_changed }`.
--
-- PostgreSQL 14 or newer. Set the names below and run this as the table's
-- owner, for each table that the resolver's query reads. It may be run again at
-- any time, for instance with another name:
--
--     psql -X -1 -v ON_ERROR_STOP=1 -d "$DSN" -f notify.sql

set kca.members_table = 'members';          -- with its schema, if that is not in the search path
set kca.channel = 'members_changed';        -- as in invalidate_on_notify, letter case included
set kca.tenant_column = 'tenant';           -- '' if the table has none
set kca.kc_id_column = 'kc_id';             -- the user's Keycloak id; '' if the table has none
set kca.id_column = 'id';                   -- the application's id of a member; '' if the table has none
-- Columns that no look-up reads, such as 'last_login,visits'. An UPDATE of
-- nothing else sends nothing.
set kca.ignored_columns = '';
-- With a schema for each tenant, whose names are a prefix and the tenant:
-- that prefix and a star, such as 'tenant_*'. tenant_column is not used then.
set kca.tenant_schema = '';

-- What is sent when a transaction commits names the rows as they were and as
-- they are: {"tenant":…,"kc_id":…,"member_id":…}. A column that is NULL, or that
-- the table does not have, is left out, and the flush is the wider for it. A
-- statement that changes more than 100 members of a tenant sends the tenant, one
-- that changes more than 100 tenants, or TRUNCATE, sends "*", everybody. So what
-- one statement sends is bounded.
--
-- Not seen are writes while session_replication_role is replica, rows that
-- logical replication brings, and writes to a partition by its own name.
create or replace function kca_notify() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $function$
declare
	channel   constant text := tg_argv[0];
	ignored   constant text[] := string_to_array(tg_argv[4], ',');
	in_schema constant text := case when tg_argv[5] <> '' then substr(tg_table_schema::text, length(tg_argv[5])) end;
	named     constant text := format('%s as tenant, %s as kc_id, %s as id',
		case when in_schema is not null then quote_literal(in_schema) || '::text'
		     when tg_argv[1] = '' then 'null::text' else format('%I::text', tg_argv[1]) end,
		case when tg_argv[2] = '' then 'null::text' else format('%I::text', tg_argv[2]) end,
		case when tg_argv[3] = '' then 'null::text' else format('%I::text', tg_argv[3]) end);
	changed   text;
	message   text;
begin
	if tg_op = 'TRUNCATE' then
		perform pg_notify(channel, case when in_schema is null then '*' else json_build_object('tenant', in_schema)::text end);
		return null;
	elsif tg_op = 'INSERT' then
		changed := format('select %s from new_rows', named);
	elsif tg_op = 'DELETE' then
		changed := format('select %s from old_rows', named);
	elsif ignored = '{}' then
		changed := format('select %1$s from old_rows union all select %1$s from new_rows', named);
	else
		changed := format('(select %1$s, to_jsonb(r) - %2$L::text[] from old_rows r except all select %1$s, to_jsonb(r) - %2$L::text[] from new_rows r)
			union all (select %1$s, to_jsonb(r) - %2$L::text[] from new_rows r except all select %1$s, to_jsonb(r) - %2$L::text[] from old_rows r)', named, ignored);
	end if;
	for message in execute format($query$
		with changed as (select distinct tenant, kc_id, id from (%s) as r),
		counted as (
			select *, dense_rank() over (order by tenant) as nth,
				count(*) over same > 100 or bool_or(kc_id is null and (id is null or tenant is null)) over same as whole
			from changed window same as (partition by tenant)),
		judged as (
			select *, max(nth) over () > 100 or bool_or(whole and tenant is null) over () as everybody from counted)
		select distinct case
			when everybody then '*'
			when whole then json_build_object('tenant', tenant)::text
			else json_strip_nulls(json_build_object('tenant', tenant, 'kc_id', kc_id, 'member_id', id))::text end
		from judged$query$, changed)
	loop
		-- a payload must be shorter than 8000 bytes
		perform pg_notify(channel, case when octet_length(message) < 8000 then message else '*' end);
	end loop;
	return null;
end
$function$;

do $triggers$
declare
	arguments constant text := format('%L, %L, %L, %L, %L, %L',
		current_setting('kca.channel'), current_setting('kca.tenant_column'), current_setting('kca.kc_id_column'),
		current_setting('kca.id_column'), replace(current_setting('kca.ignored_columns'), ' ', ''), current_setting('kca.tenant_schema'));
	on_table constant regclass := current_setting('kca.members_table');
	event    text[];
begin
	foreach event slice 1 in array array[
		['insert', 'referencing new table as new_rows'],
		['update', 'referencing old table as old_rows new table as new_rows'],
		['delete', 'referencing old table as old_rows'],
		['truncate', '']]
	loop
		execute format('create or replace trigger %I after %s on %s %s for each statement execute function kca_notify(%s)',
			'kca_notify_' || event[1], event[1], on_table, event[2], arguments);
	end loop;
end
$triggers$;
