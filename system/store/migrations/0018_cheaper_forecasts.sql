-- What a forecast costs the database, made less. As with 0011 and 0017 the tenant is the first argument, and
-- everything is done under row-level security as whoever calls (SECURITY INVOKER).
--
--   look_before_request   what a request has to know, at one moment
--   request_forecast      key, quota, forecast, job and answer together, if all is still as it was seen
--   complete_jobs         as in 0017; the result goes into a column of its own
--   read_forecast_row     a forecast with its attempts, its columns one by one
--
-- A request takes two trips where nothing stands in its way: one that looks, one that writes. What looks again, waits or
-- refuses goes the long way, in a transaction of the caller's.

SET LOCAL ROLE forecastle_owner;

-- A result is written once and given out whole, so it is kept as it was written: to take it apart for `result` cost as
-- much as storing it. What stands there already stays. An instance of before reads through app.read_forecast and
-- writes through app.complete_jobs, which know both.
ALTER TABLE app.forecasts ADD COLUMN result_json json;
ALTER TABLE app.forecasts
    DROP CONSTRAINT forecasts_check1,
    ADD CONSTRAINT forecasts_check1 CHECK (
        (state = 'succeeded') = ((result IS NOT NULL) <> (result_json IS NOT NULL)
                                 AND result_hash IS NOT NULL)) NOT VALID;
ALTER TABLE app.forecasts VALIDATE CONSTRAINT forecasts_check1;
GRANT UPDATE (result_json) ON app.forecasts TO forecastle_app, forecastle_definer;
DO $$
BEGIN
    ALTER TABLE app.forecasts ALTER COLUMN result_json SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    RAISE NOTICE 'no LZ4 here: the default compression stays';
END
$$;

CREATE OR REPLACE FUNCTION app.read_forecast(wanted_tenant uuid, wanted_forecast uuid)
RETURNS TABLE (forecast app.forecasts, job app.jobs)
LANGUAGE plpgsql SECURITY INVOKER
AS $$
DECLARE
    found_row record;
BEGIN
    PERFORM pg_catalog.set_config('app.tenant', wanted_tenant::text, true);
    FOR found_row IN
        SELECT f AS forecast, j AS job FROM app.forecasts f
        JOIN app.jobs j ON j.tenant_id = f.tenant_id AND j.kind = 'forecast' AND j.subject_id = f.forecast_id
        WHERE f.tenant_id = wanted_tenant AND f.forecast_id = wanted_forecast
    LOOP
        forecast := found_row.forecast;
        job := found_row.job;
        forecast.result := coalesce(forecast.result, forecast.result_json::jsonb);
        RETURN NEXT;
    END LOOP;
END
$$;

-- No row for a scenario that is not this tenant's.
CREATE FUNCTION app.look_before_request(
    wanted_tenant uuid, wanted_user uuid, wanted_key text, wanted_scenario uuid)
RETURNS TABLE (
    is_known_key boolean, version integer, input jsonb, organization text, plan text, billing_state text,
    currency text, time_zone text, anchor_date date, now timestamptz)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
AS $$
#variable_conflict use_column
BEGIN
    PERFORM pg_catalog.set_config('app.tenant', wanted_tenant::text, true);
    RETURN QUERY
    SELECT EXISTS (SELECT 1 FROM app.idempotency_keys k
                   WHERE k.tenant_id = wanted_tenant AND k.user_id = wanted_user AND k.key = wanted_key),
        s.version, s.input, t.organization, coalesce(due.to_plan, t.plan), t.billing_state, t.currency, t.time_zone,
        t.anchor_date, pg_catalog.now()
    FROM app.scenarios s
    JOIN app.tenants t ON t.tenant_id = s.tenant_id
    LEFT JOIN app.plan_changes due
      ON due.tenant_id = t.tenant_id AND due.state = 'pending' AND due.effective_at <= pg_catalog.now()
    WHERE s.tenant_id = wanted_tenant AND s.scenario_id = wanted_scenario;
END
$$;

-- False, and nothing is written, where another transaction works under the key, the key is known, the scenario is not the
-- one that was seen, the plan is another one, the cap is reached, or the look is older than `look_ms_max`. A
-- second call after a lost answer finds the key.
CREATE FUNCTION app.request_forecast(
    wanted_tenant uuid, wanted_forecast uuid, wanted_scenario uuid, seen_version integer, seen_plan text,
    seen_billing_state text, seen_at timestamptz, look_ms_max bigint, asking_user uuid, period integer, cap bigint,
    job_kind text, bell text, wanted_key text, key_fingerprint bytea, key_status integer, key_response text,
    key_ttl_ms bigint)
RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
AS $$
#variable_conflict use_column
DECLARE
    is_written boolean;
BEGIN
    PERFORM pg_catalog.set_config('app.tenant', wanted_tenant::text, true);
    IF clock_timestamp() > seen_at + look_ms_max * interval '1 millisecond' OR NOT pg_try_advisory_xact_lock(
        hashtextextended(format('idempotency %s %s %s', wanted_tenant, asking_user, wanted_key), 0))
    THEN
        RETURN false;
    END IF;
    WITH meant AS MATERIALIZED (
        SELECT s.input
        FROM app.scenarios s
        JOIN app.tenants t ON t.tenant_id = s.tenant_id
        LEFT JOIN app.plan_changes due
          ON due.tenant_id = t.tenant_id AND due.state = 'pending' AND due.effective_at <= seen_at
        WHERE s.tenant_id = wanted_tenant AND s.scenario_id = wanted_scenario AND s.version = seen_version
          AND coalesce(due.to_plan, t.plan) = seen_plan AND t.billing_state = seen_billing_state
          AND NOT EXISTS (SELECT 1 FROM app.idempotency_keys k
                          WHERE k.tenant_id = wanted_tenant AND k.user_id = asking_user AND k.key = wanted_key)),
    counted AS (
        INSERT INTO app.quota_periods AS q (tenant_id, period_index, taken)
        SELECT wanted_tenant, period, 1 FROM meant
        ON CONFLICT (tenant_id, period_index) DO UPDATE SET taken = q.taken + 1 WHERE q.taken < cap
        RETURNING 1),
    asked AS (
        INSERT INTO app.forecasts (tenant_id, forecast_id, scenario_id, scenario_version, requested_by, input,
                                   state, requested_at, quota_period, quota_state)
        SELECT wanted_tenant, wanted_forecast, wanted_scenario, seen_version, asking_user, meant.input,
               'queued', seen_at, period, 'held'
        FROM meant, counted
        RETURNING 1),
    kept AS (
        INSERT INTO app.idempotency_keys
            (tenant_id, user_id, key, fingerprint, state, status, response, created_at, expires_at)
        SELECT wanted_tenant, asking_user, wanted_key, key_fingerprint, 'done', key_status, key_response,
               now(), now() + key_ttl_ms * interval '1 millisecond'
        FROM asked
        RETURNING 1),
    queued AS (
        INSERT INTO app.jobs (tenant_id, job_id, kind, subject_id, state, ready_at, enqueued_at)
        SELECT wanted_tenant, wanted_forecast, job_kind, wanted_forecast, 'queued', now(), now() FROM asked
        RETURNING pg_notify(bell, ''))
    SELECT EXISTS (SELECT 1 FROM queued, kept) INTO is_written;
    -- One request in eight forgets keys whose time is over, and more of them than eight requests store: they do not
    -- pile up. The last byte of a forecast's id is drawn by chance.
    IF is_written AND get_byte(uuid_send(wanted_forecast), 15) % 8 = 0 THEN
        DELETE FROM app.idempotency_keys old
        USING (SELECT user_id, key FROM app.idempotency_keys
               WHERE tenant_id = wanted_tenant AND expires_at <= now()
               ORDER BY expires_at LIMIT 32 FOR UPDATE SKIP LOCKED) AS spent
        WHERE old.tenant_id = wanted_tenant AND old.user_id = spent.user_id AND old.key = spent.key;
    END IF;
    RETURN is_written;
END
$$;

-- Job, forecast, usage event, quota and attempt together. Those whose lease is lost are left out, and the others done.
CREATE OR REPLACE FUNCTION app.complete_jobs(
    wanted_tenant uuid, wanted_jobs uuid[], fences bigint[], engine_versions text[], results text[], hashes text[],
    usage_event_ids uuid[])
RETURNS SETOF uuid
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
AS $$
#variable_conflict use_column
DECLARE
    ended record;
BEGIN
    PERFORM pg_catalog.set_config('app.tenant', wanted_tenant::text, true);
    FOR ended IN
        WITH wanted AS (
            SELECT * FROM unnest(wanted_jobs, fences, engine_versions, results, hashes, usage_event_ids)
                AS w (job_id, fence, engine_version, result, result_hash, usage_event_id)),
        held AS (
            UPDATE app.jobs j SET state = 'succeeded', lease_until = NULL, finished_at = now()
            FROM wanted w
            WHERE j.tenant_id = wanted_tenant AND j.job_id = w.job_id AND j.fence = w.fence AND j.state = 'running'
              AND j.lease_until > clock_timestamp() AND j.deadline_at > clock_timestamp()
            RETURNING j.job_id, j.kind, j.subject_id, w.engine_version, w.result, w.result_hash, w.usage_event_id),
        done AS (
            UPDATE app.forecasts f
            SET state = 'succeeded', engine_version = held.engine_version, result_json = held.result::json,
                result_hash = held.result_hash, finished_at = now(), quota_state = 'consumed'
            FROM held
            WHERE f.tenant_id = wanted_tenant AND held.kind = 'forecast' AND f.forecast_id = held.subject_id
              AND f.quota_state = 'held'
            RETURNING f.forecast_id, held.usage_event_id),
        event AS (
            INSERT INTO app.usage_events (tenant_id, usage_event_id, forecast_id, occurred_at)
            SELECT wanted_tenant, done.usage_event_id, done.forecast_id, now() FROM done
            RETURNING forecast_id),
        attempt AS (
            UPDATE app.job_attempts a SET ended_at = now(), outcome = 'succeeded'
            FROM wanted w, held
            WHERE a.tenant_id = wanted_tenant AND a.job_id = w.job_id AND held.job_id = w.job_id AND a.fence = w.fence
              AND a.outcome IS NULL)
        SELECT held.job_id, held.kind = 'forecast' AS is_forecast, event.forecast_id IS NOT NULL AS has_event
        FROM held LEFT JOIN event ON event.forecast_id = held.subject_id
    LOOP
        IF ended.is_forecast <> ended.has_event THEN
            -- The job is its worker's but its forecast had ended already: nothing of it is let through.
            RAISE EXCEPTION 'a job is held whose forecast has ended' USING ERRCODE = 'data_corrupted';
        END IF;
        RETURN NEXT ended.job_id;
    END LOOP;
END
$$;

CREATE FUNCTION app.read_forecast_row(wanted_tenant uuid, wanted_forecast uuid)
RETURNS TABLE (
    forecast_id uuid, scenario_id uuid, scenario_version integer, state text, attempts integer,
    requested_at timestamptz, started_at timestamptz, finished_at timestamptz, engine_version text, result_hash text,
    error_code text, input jsonb, result json)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
AS $$
#variable_conflict use_column
BEGIN
    PERFORM pg_catalog.set_config('app.tenant', wanted_tenant::text, true);
    RETURN QUERY
    SELECT f.forecast_id, f.scenario_id, f.scenario_version, f.state, j.attempts, f.requested_at, f.started_at,
        f.finished_at, f.engine_version, f.result_hash, f.error_code, f.input,
        coalesce(f.result_json, f.result::json)
    FROM app.forecasts f
    JOIN app.jobs j ON j.tenant_id = f.tenant_id AND j.kind = 'forecast' AND j.subject_id = f.forecast_id
    WHERE f.tenant_id = wanted_tenant AND f.forecast_id = wanted_forecast;
END
$$;

-- As in 0006, with every name written out in place of a search path, which would be set and restored at each row.
CREATE OR REPLACE FUNCTION app.forecast_state_changed() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO app.forecast_events (tenant_id, forecast_id, state, percent, error_code)
    VALUES (NEW.tenant_id, NEW.forecast_id, NEW.state,
            CASE NEW.state WHEN 'running' THEN 0 WHEN 'succeeded' THEN 100 END, NEW.error_code);
    PERFORM pg_catalog.pg_notify('forecastle_events', NEW.tenant_id::text);
    RETURN NULL;
END
$$;

-- Each row is changed twice after it came, in columns that no index has: with room beside it the indexes stay as they are.
ALTER TABLE app.forecasts SET (fillfactor = 60);
ALTER TABLE app.job_attempts SET (fillfactor = 80);

DO $$
DECLARE
    signature text;
BEGIN
    FOREACH signature IN ARRAY ARRAY[
        'app.look_before_request(uuid, uuid, text, uuid)',
        'app.request_forecast(uuid, uuid, uuid, integer, text, text, timestamptz, bigint, uuid, integer, bigint, text,
                              text, text, bytea, integer, text, bigint)',
        'app.read_forecast_row(uuid, uuid)'
    ] LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO forecastle_app', signature);
    END LOOP;
END
$$;

RESET ROLE;
