-- Flags a tenant has otherwise than everybody, and what keeps the cache honest when Redis does not answer.

SET LOCAL ROLE forecastle_owner;

-- What holds for everybody stands in the code (domain: flag.rs), so that no row belongs to nobody.
CREATE TABLE app.tenant_flags (
    tenant_id uuid NOT NULL REFERENCES app.tenants,
    flag      text NOT NULL CHECK (flag ~ '^[a-z][a-z0-9_]{0,62}$'),
    enabled   boolean NOT NULL,
    set_at    timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, flag)
);

-- Keys that Redis has to block (an announcement) or to forget (a deletion) and whose writer had no word
-- from it. Whoever reaches Redis does it and removes the row; `seq` tells a debt from its renewal.
CREATE SEQUENCE app.cache_debt_seq AS bigint;
CREATE TABLE app.cache_debts (
    tenant_id uuid NOT NULL,
    key       text NOT NULL,
    blocks    boolean NOT NULL,
    seq       bigint NOT NULL DEFAULT nextval('app.cache_debt_seq'),
    owed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, key, blocks)
);
CREATE UNIQUE INDEX cache_debts_oldest_first ON app.cache_debts (seq);

-- Until when each API instance may give out cached values. Instances are nobody's: their rows stand under
-- the nil id, which is no tenant's, so that this table needs no exception from the rule.
CREATE TABLE app.cache_readers (
    tenant_id    uuid NOT NULL CHECK (tenant_id = '00000000-0000-0000-0000-000000000000'),
    reader_id    uuid NOT NULL,
    trusts_until timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, reader_id)
);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['tenant_flags', 'cache_debts', 'cache_readers'] LOOP
        EXECUTE format('ALTER TABLE app.%I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE app.%I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY tenant_only ON app.%I'
            ' USING (tenant_id = nullif(current_setting(''app.tenant'', true), '''')::uuid)'
            ' WITH CHECK (tenant_id = nullif(current_setting(''app.tenant'', true), '''')::uuid)', name);
        EXECUTE format('GRANT SELECT ON app.%I TO forecastle_app, forecastle_read, forecastle_definer', name);
    END LOOP;
END
$$;

-- The application reads flags and does not set them: that is the operator's.
GRANT INSERT ON app.cache_debts, app.cache_readers TO forecastle_app;
GRANT UPDATE (seq, owed_at) ON app.cache_debts TO forecastle_app;
GRANT USAGE ON SEQUENCE app.cache_debt_seq TO forecastle_app;
GRANT UPDATE (trusts_until) ON app.cache_readers TO forecastle_app;
GRANT DELETE ON app.cache_readers TO forecastle_app;
GRANT DELETE ON app.cache_debts TO forecastle_definer;

-- Further functions that look across tenants, since whoever pays has no tenant:
--
--   cache_debts_oldest    the debts to pay next
--   cache_debts_paid      removes what was paid
--   cache_debts_standing  for a writer that waits: whether its keys are still owed, and how long any
--                         instance may go on giving out cached values without having seen them

CREATE FUNCTION app.cache_debts_oldest(batch integer)
RETURNS TABLE (key text, blocks boolean, seq bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = app, pg_temp
AS $$
    SELECT d.key, d.blocks, d.seq FROM app.cache_debts d ORDER BY d.seq LIMIT batch
$$;

CREATE FUNCTION app.cache_debts_paid(paid bigint[])
RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = app, pg_temp
AS $$
    DELETE FROM app.cache_debts d WHERE d.seq = ANY (paid)
$$;

CREATE FUNCTION app.cache_debts_standing(of_tenant uuid, of_keys text[], blocking boolean)
RETURNS TABLE (owed bigint, trust_ms bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = app, pg_temp
AS $$
    SELECT (SELECT count(*) FROM app.cache_debts d
            WHERE d.tenant_id = of_tenant AND d.key = ANY (of_keys) AND d.blocks = blocking),
           coalesce((SELECT greatest(0, ceil(extract(epoch FROM max(r.trusts_until) - clock_timestamp()) * 1000))
                     FROM app.cache_readers r), 0)::bigint
$$;

RESET ROLE;

DO $$
DECLARE
    signature text;
BEGIN
    FOREACH signature IN ARRAY ARRAY[
        'app.cache_debts_oldest(integer)', 'app.cache_debts_paid(bigint[])',
        'app.cache_debts_standing(uuid, text[], boolean)'
    ] LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO forecastle_definer', signature);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO forecastle_app', signature);
    END LOOP;
END
$$;
