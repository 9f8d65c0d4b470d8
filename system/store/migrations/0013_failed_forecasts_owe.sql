-- A forecast that fails leaves something out of date in the cache: the tenant's dashboard, and the forecast
-- itself where it was kept. Whoever fails it deletes that; but where a claim does it, of jobs that are used up
-- or too late, the answer that says which may be lost, and with it the deletion. So it is owed from the same
-- transaction on, whoever makes it (see 0009). Failures are few: the others, which announce what they change
-- before they change it, owe nothing.

SET LOCAL ROLE forecastle_owner;

GRANT INSERT ON app.cache_debts TO forecastle_definer;
GRANT UPDATE (seq, owed_at) ON app.cache_debts TO forecastle_definer;
GRANT USAGE ON SEQUENCE app.cache_debt_seq TO forecastle_definer;

-- The keys are those of the store's CacheKey. One after the other and the dashboard first, as whoever records
-- several at once orders them: nobody waits in a circle.
CREATE FUNCTION app.forecast_failed() RETURNS trigger
LANGUAGE plpgsql SET search_path = app, pg_temp
AS $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['dashboard', 'forecast:' || NEW.forecast_id] LOOP
        INSERT INTO app.cache_debts (tenant_id, key, blocks)
        VALUES (NEW.tenant_id, 't:' || NEW.tenant_id || ':' || name, false)
        ON CONFLICT (tenant_id, key, blocks) DO UPDATE SET seq = excluded.seq, owed_at = excluded.owed_at;
    END LOOP;
    PERFORM pg_notify('forecastle_cache_debts', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER forecast_failed
    AFTER UPDATE OF state ON app.forecasts
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state AND NEW.state = 'failed')
    EXECUTE FUNCTION app.forecast_failed();

RESET ROLE;
