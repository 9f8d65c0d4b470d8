-- Two things that a forecast's way does each time, in one trip each. As with the reads of 0011 the tenant is the first
-- argument where there is no transaction of the caller's, and everything is done under row-level security as whoever
-- calls (SECURITY INVOKER).
--
--   complete_jobs   ends jobs of one tenant well, each under its own fence; which of them
--   claim_key       takes an idempotency key for the caller's transaction, and says what is stored under it

SET LOCAL ROLE forecastle_owner;

-- Job, forecast, usage event, quota and attempt together. Those whose lease is lost are left out, and the others done.
CREATE FUNCTION app.complete_jobs(
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
            SET state = 'succeeded', engine_version = held.engine_version, result = held.result::jsonb,
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

-- Nobody waits: while another transaction works under the key, `is_free` is false. What is stored is read after the
-- lock is held: each statement of a volatile function has a snapshot of its own.
CREATE FUNCTION app.claim_key(wanted_tenant uuid, wanted_user uuid, wanted_key text)
RETURNS TABLE (is_free boolean, fingerprint bytea, status integer, response text)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
AS $$
#variable_conflict use_column
BEGIN
    IF NOT pg_try_advisory_xact_lock(
        hashtextextended(format('idempotency %s %s %s', wanted_tenant, wanted_user, wanted_key), 0))
    THEN
        RETURN QUERY SELECT false, NULL::bytea, NULL::integer, NULL::text;
        RETURN;
    END IF;
    RETURN QUERY
    SELECT true, k.fingerprint, k.status, k.response
    FROM (VALUES (1)) AS always (one)
    LEFT JOIN app.idempotency_keys k
      ON k.tenant_id = wanted_tenant AND k.user_id = wanted_user AND k.key = wanted_key
     AND k.expires_at > clock_timestamp();
END
$$;

DO $$
DECLARE
    signature text;
BEGIN
    FOREACH signature IN ARRAY ARRAY[
        'app.complete_jobs(uuid, uuid[], bigint[], text[], text[], text[], uuid[])', 'app.claim_key(uuid, uuid, text)'
    ] LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO forecastle_app', signature);
    END LOOP;
END
$$;

RESET ROLE;
