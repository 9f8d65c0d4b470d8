-- The closed list of what may look across tenants. Each function runs as forecastle_definer, which
-- bypasses row-level security and can do nothing but what is granted here; a test fails on any other
-- SECURITY DEFINER function.
--
--   auth_user_by_email   login: which tenant a normalised e-mail address belongs to
--   auth_refresh_token   refresh: which tenant and session a token's hash belongs to
--   queue_claim          a worker takes the next jobs, whosever they are
--   billing_tenants      which tenants existed at a time, for the billing run
--   tenants_count        how many tenants there are, for the cap of the launch phase

GRANT UPDATE (state, attempts, lease_until, fence, worker, deadline_at, finished_at, last_error_code)
    ON app.jobs TO forecastle_definer;
GRANT INSERT, UPDATE ON app.job_attempts TO forecastle_definer;
GRANT UPDATE (state, error_code, started_at, finished_at, quota_state) ON app.forecasts TO forecastle_definer;
GRANT UPDATE (taken) ON app.quota_periods TO forecastle_definer;
GRANT USAGE ON SEQUENCE app.job_fences TO forecastle_definer;

CREATE FUNCTION app.auth_user_by_email(wanted text)
RETURNS TABLE (tenant_id uuid, user_id uuid, password_hash text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = app, pg_temp
AS $$
    SELECT u.tenant_id, u.user_id, u.password_hash FROM app.users u WHERE u.email = wanted
$$;

CREATE FUNCTION app.auth_refresh_token(wanted bytea)
RETURNS TABLE (tenant_id uuid, session_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = app, pg_temp
AS $$
    SELECT r.tenant_id, r.session_id FROM app.refresh_tokens r WHERE r.token_hash = wanted
$$;

CREATE FUNCTION app.billing_tenants(as_of timestamptz)
RETURNS TABLE (tenant_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = app, pg_temp
AS $$
    SELECT t.tenant_id FROM app.tenants t WHERE t.signed_up_at <= as_of ORDER BY t.tenant_id
$$;

CREATE FUNCTION app.tenants_count()
RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = app, pg_temp
AS $$
    SELECT count(*) FROM app.tenants
$$;

-- Takes up to `batch` jobs of the known kinds, oldest first. Order: one claim at a time (the advisory
-- lock), so that a claim that started earlier cannot pass over a job that another is just taking.
-- A job whose lease ran out is taken again. One that has used up its attempts is dead, one past its
-- deadline has failed: both end their forecast and give its quota back, here, in the same statement's
-- transaction, so that a job that kills its workers ends all the same. Such jobs count as looked at,
-- but are returned too (claimed = false), for the caller's counters and caches.
CREATE FUNCTION app.queue_claim(
    worker_name text, batch integer, lease_ms bigint, deadline_ms bigint, attempts_max integer, kinds text[])
RETURNS TABLE (
    tenant_id uuid, job_id uuid, kind text, subject_id uuid, attempt integer, fence bigint,
    deadline_at timestamptz, input jsonb, claimed boolean, end_code text, waited_ms bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = app, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    found_job record;
    at timestamptz;
    next_fence bigint;
    ended_code text;
    next_deadline timestamptz;
    job_input jsonb;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('app.queue_claim', 0));
    at := clock_timestamp();
    FOR found_job IN
        SELECT j.* FROM app.jobs j
        WHERE ((j.state = 'queued' AND j.ready_at <= at) OR (j.state = 'running' AND j.lease_until < at))
          AND j.kind = ANY (kinds)
        ORDER BY j.ready_at, j.seq
        LIMIT batch
        FOR UPDATE SKIP LOCKED
    LOOP
        IF found_job.state = 'running' THEN
            UPDATE app.job_attempts a SET ended_at = at, outcome = 'lease_lost'
            WHERE a.tenant_id = found_job.tenant_id AND a.job_id = found_job.job_id AND a.outcome IS NULL;
        END IF;

        ended_code := CASE
            WHEN found_job.deadline_at < at THEN 'deadline_exceeded'
            WHEN found_job.attempts >= attempts_max THEN 'attempts_exhausted'
        END;
        IF ended_code IS NOT NULL THEN
            UPDATE app.jobs j
            SET state = CASE ended_code WHEN 'attempts_exhausted' THEN 'dead' ELSE 'failed' END,
                lease_until = NULL, finished_at = at, last_error_code = ended_code
            WHERE j.tenant_id = found_job.tenant_id AND j.job_id = found_job.job_id;
            WITH ended AS (
                UPDATE app.forecasts f
                SET state = 'failed', error_code = ended_code, finished_at = at, quota_state = 'released'
                WHERE f.tenant_id = found_job.tenant_id AND f.forecast_id = found_job.subject_id
                  AND f.quota_state = 'held'
                RETURNING f.tenant_id, f.quota_period)
            UPDATE app.quota_periods q SET taken = q.taken - 1
            FROM ended WHERE q.tenant_id = ended.tenant_id AND q.period_index = ended.quota_period;
            RETURN QUERY SELECT found_job.tenant_id, found_job.job_id, found_job.kind, found_job.subject_id,
                found_job.attempts, found_job.fence, found_job.deadline_at, NULL::jsonb, false, ended_code, 0::bigint;
            CONTINUE;
        END IF;

        next_fence := nextval('app.job_fences');
        next_deadline := coalesce(found_job.deadline_at, at + deadline_ms * interval '1 millisecond');
        UPDATE app.jobs j
        SET state = 'running', attempts = j.attempts + 1, fence = next_fence, worker = worker_name,
            lease_until = at + lease_ms * interval '1 millisecond', deadline_at = next_deadline
        WHERE j.tenant_id = found_job.tenant_id AND j.job_id = found_job.job_id;
        INSERT INTO app.job_attempts (tenant_id, job_id, attempt, fence, worker, claimed_at)
        VALUES (found_job.tenant_id, found_job.job_id, found_job.attempts + 1, next_fence, worker_name, at);
        UPDATE app.forecasts f SET state = 'running', started_at = coalesce(f.started_at, at)
        WHERE f.tenant_id = found_job.tenant_id AND f.forecast_id = found_job.subject_id
        RETURNING f.input INTO job_input;
        RETURN QUERY SELECT found_job.tenant_id, found_job.job_id, found_job.kind, found_job.subject_id,
            found_job.attempts + 1, next_fence, next_deadline, job_input, true, NULL::text,
            (extract(epoch FROM at - found_job.ready_at) * 1000)::bigint;
    END LOOP;
END
$$;

DO $$
DECLARE
    signature text;
BEGIN
    FOREACH signature IN ARRAY ARRAY[
        'app.auth_user_by_email(text)', 'app.auth_refresh_token(bytea)', 'app.billing_tenants(timestamptz)',
        'app.tenants_count()', 'app.queue_claim(text, integer, bigint, bigint, integer, text[])'
    ] LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO forecastle_definer', signature);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO forecastle_app', signature);
    END LOOP;
END
$$;
