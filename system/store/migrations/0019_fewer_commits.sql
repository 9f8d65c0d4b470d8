-- What a forecast costs the database, less again. As with 0011 everything is done under row-level security as whoever
-- calls (SECURITY INVOKER).
--
--   complete_jobs_of   ends jobs of several tenants well, each tenant's under its own scope, in one commit
--
-- The functions that change a forecast's state for a request, a claim and a completion write its event in the statement
-- that changes it; for everything else the triggers of 0006 go on writing it.

SET LOCAL ROLE forecastle_owner;

-- Rows of forecasts alone make events, and no forecast is ever deleted: looking each one up again proved nothing.
ALTER TABLE app.forecast_events DROP CONSTRAINT forecast_events_tenant_id_forecast_id_fkey;

-- `app.event_is_told` is set, for as long as its statement lasts, by a function that writes the event itself.
CREATE OR REPLACE TRIGGER forecast_was_queued
    AFTER INSERT ON app.forecasts
    FOR EACH ROW WHEN (NEW.state = 'queued' AND current_setting('app.event_is_told', true) IS DISTINCT FROM 'yes')
    EXECUTE FUNCTION app.forecast_state_changed();
CREATE OR REPLACE TRIGGER forecast_state_changed
    AFTER UPDATE OF state ON app.forecasts
    FOR EACH ROW WHEN (OLD.state <> NEW.state AND current_setting('app.event_is_told', true) IS DISTINCT FROM 'yes')
    EXECUTE FUNCTION app.forecast_state_changed();

-- PERFORM runs a query; an assignment evaluates an expression. So every function that sets a tenant for itself does that.
DO $$
DECLARE
    definition text;
BEGIN
    FOR definition IN
        SELECT pg_get_functiondef(p.oid) FROM pg_proc p
        WHERE p.pronamespace = 'app'::regnamespace AND p.prosrc LIKE '%PERFORM pg_catalog.set_config(''app.tenant''%'
          AND p.prosrc NOT LIKE '%DECLARE%'
    LOOP
        definition := replace(definition, 'PERFORM pg_catalog.set_config(', 'set_to := pg_catalog.set_config(');
        EXECUTE regexp_replace(definition, '\nBEGIN\n', E'\nDECLARE\n    set_to text;\nBEGIN\n');
    END LOOP;
END
$$;

-- As in 0018, with its event written here.
CREATE OR REPLACE FUNCTION app.request_forecast(
    wanted_tenant uuid, wanted_forecast uuid, wanted_scenario uuid, seen_version integer, seen_plan text,
    seen_billing_state text, seen_at timestamptz, look_ms_max bigint, asking_user uuid, period integer, cap bigint,
    job_kind text, bell text, wanted_key text, key_fingerprint bytea, key_status integer, key_response text,
    key_ttl_ms bigint)
RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
AS $$
#variable_conflict use_column
DECLARE
    set_to text := pg_catalog.set_config('app.tenant', wanted_tenant::text, true);
    is_written boolean;
BEGIN
    IF clock_timestamp() > seen_at + look_ms_max * interval '1 millisecond' OR NOT pg_try_advisory_xact_lock(
        hashtextextended(format('idempotency %s %s %s', wanted_tenant, asking_user, wanted_key), 0))
    THEN
        RETURN false;
    END IF;
    set_to := pg_catalog.set_config('app.event_is_told', 'yes', true);
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
    told AS (
        INSERT INTO app.forecast_events (tenant_id, forecast_id, state)
        SELECT wanted_tenant, wanted_forecast, 'queued' FROM asked),
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
        RETURNING pg_notify(bell, ''), pg_notify('forecastle_events', wanted_tenant::text))
    SELECT EXISTS (SELECT 1 FROM queued, kept) INTO is_written;
    set_to := pg_catalog.set_config('app.event_is_told', '', true);
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

-- Job, forecast, usage event, quota and attempt together, as in 0018, for `counts[n]` jobs of `tenants[n]`, one tenant
-- after the other: nothing is read or written but under the scope of the tenant whose turn it is. Those whose lease is
-- lost are left out, and the others done. Which those are.
CREATE FUNCTION app.complete_jobs_of(
    tenants uuid[], counts integer[], wanted_jobs uuid[], fences bigint[], engine_versions text[], results text[],
    hashes text[], usage_event_ids uuid[])
RETURNS TABLE (tenant_id uuid, job_id uuid)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
AS $$
#variable_conflict use_column
DECLARE
    set_to text := pg_catalog.set_config('app.event_is_told', 'yes', true);
    wanted_tenant uuid;
    first integer := 1;
    last integer;
BEGIN
    FOR nth IN 1 .. cardinality(tenants) LOOP
        wanted_tenant := tenants[nth];
        last := first + counts[nth] - 1;
        set_to := pg_catalog.set_config('app.tenant', wanted_tenant::text, true);
        RETURN QUERY
        WITH wanted AS (
            SELECT * FROM unnest(wanted_jobs[first:last], fences[first:last], engine_versions[first:last],
                                 results[first:last], hashes[first:last], usage_event_ids[first:last])
                AS w (job_id, fence, engine_version, result, result_hash, usage_event_id)),
        held AS (
            UPDATE app.jobs j SET state = 'succeeded', lease_until = NULL, finished_at = now()
            FROM wanted w
            WHERE j.tenant_id = wanted_tenant AND j.job_id = w.job_id AND j.fence = w.fence AND j.state = 'running'
              AND j.lease_until > clock_timestamp() AND j.deadline_at > clock_timestamp()
            RETURNING j.job_id, j.fence, j.kind, j.subject_id, w.engine_version, w.result, w.result_hash,
                      w.usage_event_id),
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
        told AS (
            INSERT INTO app.forecast_events (tenant_id, forecast_id, state, percent)
            SELECT wanted_tenant, done.forecast_id, 'succeeded', 100 FROM done
            RETURNING pg_notify('forecastle_events', wanted_tenant::text)),
        attempt AS (
            UPDATE app.job_attempts a SET ended_at = now(), outcome = 'succeeded'
            FROM held
            WHERE a.tenant_id = wanted_tenant AND a.job_id = held.job_id AND a.fence = held.fence
              AND a.outcome IS NULL)
        SELECT wanted_tenant, CASE WHEN (held.kind = 'forecast') = (event.forecast_id IS NOT NULL) THEN held.job_id
                                   ELSE app.refuse_ended_forecast() END
        FROM held LEFT JOIN event ON event.forecast_id = held.subject_id;
        first := last + 1;
    END LOOP;
    set_to := pg_catalog.set_config('app.event_is_told', '', true);
END
$$;

-- The job is its worker's but its forecast had ended already: nothing of it is let through.
CREATE FUNCTION app.refuse_ended_forecast()
RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
AS $$
BEGIN
    RAISE EXCEPTION 'a job is held whose forecast has ended' USING ERRCODE = 'data_corrupted';
END
$$;

DO $$
DECLARE
    signature text;
BEGIN
    FOREACH signature IN ARRAY ARRAY[
        'app.complete_jobs_of(uuid[], integer[], uuid[], bigint[], text[], text[], text[], uuid[])',
        'app.refuse_ended_forecast()'
    ] LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO forecastle_app', signature);
    END LOOP;
END
$$;

RESET ROLE;

-- As in 0006, with the events of what it begins written here.
CREATE OR REPLACE FUNCTION app.queue_claim(
    worker_name text, batch integer, lease_ms bigint, deadline_ms bigint, attempts_max integer, kinds text[])
RETURNS TABLE (
    tenant_id uuid, job_id uuid, kind text, subject_id uuid, attempt integer, fence bigint,
    deadline_at timestamptz, input jsonb, claimed boolean, end_code text, waited_ms bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = app, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    found_job record;
    at timestamptz;
    looked_at integer := 0;
    set_to text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('app.queue_claim', 0));
    at := clock_timestamp();

    FOR found_job IN
        SELECT j.*, CASE WHEN j.deadline_at < at THEN 'deadline_exceeded' ELSE 'attempts_exhausted' END AS code
        FROM (
            SELECT * FROM app.jobs o
            WHERE o.state IN ('queued', 'running') AND o.ready_at <= at
              AND (o.state = 'queued' OR o.lease_until < at)
              AND o.kind = ANY (kinds)
            ORDER BY o.ready_at, o.seq
            LIMIT batch
        ) j
        WHERE j.deadline_at < at OR (j.attempts >= attempts_max AND NOT j.handed_back)
    LOOP
        -- Looked for without a lock, so that nobody is waited for; now it must be so still.
        PERFORM 1 FROM app.jobs j
        WHERE j.tenant_id = found_job.tenant_id AND j.job_id = found_job.job_id AND j.fence = found_job.fence
          AND j.state = found_job.state AND (j.state = 'queued' OR j.lease_until < at)
        FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        looked_at := looked_at + 1;
        UPDATE app.job_attempts a SET ended_at = at, outcome = 'lease_lost'
        WHERE a.tenant_id = found_job.tenant_id AND a.job_id = found_job.job_id AND a.outcome IS NULL;
        UPDATE app.jobs j
        SET state = CASE found_job.code WHEN 'attempts_exhausted' THEN 'dead' ELSE 'failed' END,
            lease_until = NULL, finished_at = at, last_error_code = found_job.code
        WHERE j.tenant_id = found_job.tenant_id AND j.job_id = found_job.job_id;
        WITH ended AS (
            UPDATE app.forecasts f
            SET state = 'failed', error_code = found_job.code, finished_at = at, quota_state = 'released'
            WHERE f.tenant_id = found_job.tenant_id AND f.forecast_id = found_job.subject_id
              AND f.quota_state = 'held'
            RETURNING f.tenant_id, f.quota_period)
        UPDATE app.quota_periods q SET taken = q.taken - 1
        FROM ended WHERE q.tenant_id = ended.tenant_id AND q.period_index = ended.quota_period;
        RETURN QUERY SELECT found_job.tenant_id, found_job.job_id, found_job.kind, found_job.subject_id,
            found_job.attempts, found_job.fence, found_job.deadline_at, NULL::jsonb, false, found_job.code, 0::bigint;
    END LOOP;

    set_to := set_config('app.event_is_told', 'yes', true);
    RETURN QUERY
    WITH due AS MATERIALIZED (
        SELECT j.tenant_id, j.job_id, j.state, j.attempts, j.handed_back, j.ready_at, j.seq
        FROM app.jobs j
        WHERE j.state IN ('queued', 'running') AND j.ready_at <= at
          AND (j.state = 'queued' OR j.lease_until < at)
          AND j.kind = ANY (kinds)
          AND (j.deadline_at IS NULL OR j.deadline_at >= at)
          AND (j.attempts < attempts_max OR j.handed_back)
        ORDER BY j.ready_at, j.seq
        LIMIT batch - looked_at
        FOR UPDATE SKIP LOCKED),
    lost AS (
        UPDATE app.job_attempts a SET ended_at = at, outcome = 'lease_lost'
        FROM due
        WHERE due.state = 'running' AND a.tenant_id = due.tenant_id AND a.job_id = due.job_id AND a.outcome IS NULL),
    taken AS (
        UPDATE app.jobs j
        SET state = 'running', attempts = due.attempts + CASE WHEN due.handed_back THEN 0 ELSE 1 END,
            fence = nextval('app.job_fences'), worker = worker_name, handed_back = false,
            lease_until = at + lease_ms * interval '1 millisecond',
            deadline_at = coalesce(j.deadline_at, at + deadline_ms * interval '1 millisecond')
        FROM due
        WHERE j.tenant_id = due.tenant_id AND j.job_id = due.job_id
        RETURNING j.tenant_id, j.job_id, j.kind, j.subject_id, j.attempts, j.fence, j.deadline_at, j.ready_at, j.seq,
                  due.state AS was),
    attempt AS (
        INSERT INTO app.job_attempts AS a (tenant_id, job_id, attempt, fence, worker, claimed_at)
        SELECT t.tenant_id, t.job_id, t.attempts, t.fence, worker_name, at FROM taken t
        ON CONFLICT ON CONSTRAINT job_attempts_pkey DO UPDATE
        SET fence = excluded.fence, worker = excluded.worker, ended_at = NULL, outcome = NULL
        WHERE a.outcome = 'drained'),
    begun AS (
        UPDATE app.forecasts f SET state = 'running', started_at = coalesce(f.started_at, at)
        FROM taken t
        WHERE f.tenant_id = t.tenant_id AND f.forecast_id = t.subject_id AND t.kind = 'forecast'
        RETURNING f.tenant_id, f.forecast_id, f.input, t.was),
    told AS (
        INSERT INTO app.forecast_events (tenant_id, forecast_id, state, percent)
        SELECT b.tenant_id, b.forecast_id, 'running', 0 FROM begun b WHERE b.was = 'queued'
        RETURNING pg_notify('forecastle_events', tenant_id::text))
    SELECT t.tenant_id, t.job_id, t.kind, t.subject_id, t.attempts, t.fence, t.deadline_at, b.input, true, NULL::text,
        (extract(epoch FROM at - t.ready_at) * 1000)::bigint
    FROM taken t
    LEFT JOIN begun b ON t.kind = 'forecast' AND b.tenant_id = t.tenant_id AND b.forecast_id = t.subject_id
    ORDER BY t.ready_at, t.seq;
    set_to := set_config('app.event_is_told', '', true);
END
$$;
