-- Reads of one round trip. Each function sets the tenant for itself and reads under row-level security
-- as whoever calls it (SECURITY INVOKER): nothing here sees more than its caller with that tenant set.
-- The setting is local to the transaction, which for a statement on its own is the statement.
--
-- The tenant is always the first argument; the store binds it from a tenant scope. PL/pgSQL, since it
-- keeps the plans of its statements, and since its order of events is the written one.

SET LOCAL ROLE forecastle_owner;

-- They return whole rows, so that a column which a later migration adds is there without them being
-- made again; which columns are wanted, and of which rows, the calling statement says.

-- A tenant with its change of plan that is due, if there is one.
CREATE FUNCTION app.read_tenant(wanted_tenant uuid)
RETURNS TABLE (tenant app.tenants, due app.plan_changes)
LANGUAGE plpgsql SECURITY INVOKER
AS $$
BEGIN
    PERFORM pg_catalog.set_config('app.tenant', wanted_tenant::text, true);
    RETURN QUERY
    SELECT t, d FROM app.tenants t
    LEFT JOIN app.plan_changes d
      ON d.tenant_id = t.tenant_id AND d.state = 'pending' AND d.effective_at <= pg_catalog.now()
    WHERE t.tenant_id = wanted_tenant;
END
$$;

-- A session, whatever its standing, with its user.
CREATE FUNCTION app.read_session(wanted_tenant uuid, wanted_session uuid)
RETURNS TABLE (session app.sessions, member app.users)
LANGUAGE plpgsql SECURITY INVOKER
AS $$
BEGIN
    PERFORM pg_catalog.set_config('app.tenant', wanted_tenant::text, true);
    RETURN QUERY
    SELECT s, u FROM app.sessions s JOIN app.users u ON u.tenant_id = s.tenant_id AND u.user_id = s.user_id
    WHERE s.tenant_id = wanted_tenant AND s.session_id = wanted_session;
END
$$;

CREATE FUNCTION app.read_scenario(wanted_tenant uuid, wanted_scenario uuid)
RETURNS SETOF app.scenarios
LANGUAGE plpgsql SECURITY INVOKER
AS $$
BEGIN
    PERFORM pg_catalog.set_config('app.tenant', wanted_tenant::text, true);
    RETURN QUERY SELECT s.* FROM app.scenarios s WHERE s.tenant_id = wanted_tenant AND s.scenario_id = wanted_scenario;
END
$$;

-- A page: the newest first, strictly older than (before_at, before_id).
CREATE FUNCTION app.read_scenarios(wanted_tenant uuid, before_at timestamptz, before_id uuid, rows_max bigint)
RETURNS SETOF app.scenarios
LANGUAGE plpgsql SECURITY INVOKER
AS $$
BEGIN
    PERFORM pg_catalog.set_config('app.tenant', wanted_tenant::text, true);
    RETURN QUERY
    SELECT s.* FROM app.scenarios s
    WHERE s.tenant_id = wanted_tenant AND (s.created_at, s.scenario_id) < (before_at, before_id)
    ORDER BY s.created_at DESC, s.scenario_id DESC LIMIT rows_max;
END
$$;

-- A forecast with its job.
CREATE FUNCTION app.read_forecast(wanted_tenant uuid, wanted_forecast uuid)
RETURNS TABLE (forecast app.forecasts, job app.jobs)
LANGUAGE plpgsql SECURITY INVOKER
AS $$
BEGIN
    PERFORM pg_catalog.set_config('app.tenant', wanted_tenant::text, true);
    RETURN QUERY
    SELECT f, j FROM app.forecasts f
    JOIN app.jobs j ON j.tenant_id = f.tenant_id AND j.kind = 'forecast' AND j.subject_id = f.forecast_id
    WHERE f.tenant_id = wanted_tenant AND f.forecast_id = wanted_forecast;
END
$$;

CREATE FUNCTION app.read_period_usage(wanted_tenant uuid, since timestamptz, until timestamptz, period integer)
RETURNS TABLE (forecasts_succeeded bigint, quota_taken bigint)
LANGUAGE plpgsql SECURITY INVOKER
AS $$
#variable_conflict use_column
BEGIN
    PERFORM pg_catalog.set_config('app.tenant', wanted_tenant::text, true);
    RETURN QUERY
    SELECT (SELECT count(*) FROM app.usage_events u
            WHERE u.tenant_id = wanted_tenant AND u.occurred_at >= since AND u.occurred_at < until),
           coalesce((SELECT q.taken FROM app.quota_periods q
                     WHERE q.tenant_id = wanted_tenant AND q.period_index = period), 0)::bigint;
END
$$;

-- `recent` is an array of objects, the newest first.
CREATE FUNCTION app.read_dashboard(wanted_tenant uuid, since timestamptz, until timestamptz, period integer,
                                   recent_max bigint)
RETURNS TABLE (scenarios bigint, queued bigint, running bigint, succeeded bigint, failed bigint, cancelled bigint,
               forecasts_succeeded bigint, quota_taken bigint, recent jsonb)
LANGUAGE plpgsql SECURITY INVOKER
AS $$
#variable_conflict use_column
BEGIN
    PERFORM pg_catalog.set_config('app.tenant', wanted_tenant::text, true);
    RETURN QUERY
    SELECT (SELECT count(*) FROM app.scenarios s WHERE s.tenant_id = wanted_tenant),
           c.queued, c.running, c.succeeded, c.failed, c.cancelled,
           (SELECT count(*) FROM app.usage_events u
            WHERE u.tenant_id = wanted_tenant AND u.occurred_at >= since AND u.occurred_at < until),
           coalesce((SELECT q.taken FROM app.quota_periods q
                     WHERE q.tenant_id = wanted_tenant AND q.period_index = period), 0)::bigint,
           (SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'forecast_id', r.forecast_id, 'scenario_name', r.name, 'state', r.state,
                       'requested_at', r.requested_at, 'finished_at', r.finished_at)
                       ORDER BY r.requested_at DESC, r.forecast_id DESC), '[]')
            FROM (SELECT f.forecast_id, s.name, f.state, f.requested_at, f.finished_at
                  FROM app.forecasts f
                  JOIN app.scenarios s ON s.tenant_id = f.tenant_id AND s.scenario_id = f.scenario_id
                  WHERE f.tenant_id = wanted_tenant
                  ORDER BY f.requested_at DESC, f.forecast_id DESC LIMIT recent_max) r)
    FROM (SELECT count(*) FILTER (WHERE f.state = 'queued') AS queued,
                 count(*) FILTER (WHERE f.state = 'running') AS running,
                 count(*) FILTER (WHERE f.state = 'succeeded') AS succeeded,
                 count(*) FILTER (WHERE f.state = 'failed') AS failed,
                 count(*) FILTER (WHERE f.state = 'cancelled') AS cancelled
          FROM app.forecasts f WHERE f.tenant_id = wanted_tenant) c;
END
$$;

DO $$
DECLARE
    signature text;
BEGIN
    FOREACH signature IN ARRAY ARRAY[
        'app.read_tenant(uuid)', 'app.read_session(uuid, uuid)', 'app.read_scenario(uuid, uuid)',
        'app.read_scenarios(uuid, timestamptz, uuid, bigint)', 'app.read_forecast(uuid, uuid)',
        'app.read_period_usage(uuid, timestamptz, timestamptz, integer)',
        'app.read_dashboard(uuid, timestamptz, timestamptz, integer, bigint)'
    ] LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO forecastle_app', signature);
    END LOOP;
END
$$;

RESET ROLE;
