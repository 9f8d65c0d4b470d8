-- The queue's second half: jobs handed back by a drain, jobs cancelled, forecasts retried, and the
-- progress of forecasts as rows. An instance of before works on unchanged: columns have defaults, checks
-- only got wider, and app.queue_claim keeps its signature.

SET LOCAL ROLE forecastle_owner;

-- Set where a draining worker gave the job back: the next claim goes on with the attempt that was
-- counted already, so that a drain costs a job nothing.
ALTER TABLE app.jobs ADD COLUMN handed_back boolean NOT NULL DEFAULT false;
ALTER TABLE app.job_attempts DROP CONSTRAINT job_attempts_outcome_check;
ALTER TABLE app.job_attempts ADD CONSTRAINT job_attempts_outcome_check
    CHECK (outcome IN ('succeeded', 'retry', 'failed', 'lease_lost', 'drained', 'cancelled'));
-- A forecast made again from the input of one that failed or was cancelled.
ALTER TABLE app.forecasts ADD COLUMN retry_of uuid;
ALTER TABLE app.forecasts ADD CONSTRAINT forecasts_retry_of_fkey
    FOREIGN KEY (tenant_id, retry_of) REFERENCES app.forecasts NOT VALID;
GRANT UPDATE (handed_back) ON app.jobs TO forecastle_app, forecastle_definer;

-- What happened to a tenant's forecasts, for those who watch. Sequence numbers become visible out of
-- order, so a row also carries its transaction: whoever reads only rows of transactions below
-- pg_snapshot_xmin(pg_current_snapshot()), ordered by (xid, seq), reads a line to which nothing can be
-- added behind its back. Kept for a while, then pruned.
CREATE TABLE app.forecast_events (
    tenant_id   uuid NOT NULL,
    xid         xid8 NOT NULL DEFAULT pg_current_xact_id(),
    seq         bigint GENERATED ALWAYS AS IDENTITY,
    forecast_id uuid NOT NULL,
    state       text NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    percent     smallint CHECK (percent BETWEEN 0 AND 100),
    error_code  text,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, xid, seq),
    FOREIGN KEY (tenant_id, forecast_id) REFERENCES app.forecasts
);
CREATE INDEX forecast_events_by_age ON app.forecast_events (at);
ALTER TABLE app.forecast_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE app.forecast_events FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_only ON app.forecast_events
    USING (tenant_id = nullif(current_setting('app.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('app.tenant', true), '')::uuid);
GRANT SELECT ON app.forecast_events TO forecastle_app, forecastle_read, forecastle_definer;
GRANT INSERT ON app.forecast_events TO forecastle_app, forecastle_definer;
GRANT DELETE ON app.forecast_events TO forecastle_definer;

-- Every change of a forecast's state leaves its event in the same transaction, whoever makes it.
CREATE FUNCTION app.forecast_state_changed() RETURNS trigger
LANGUAGE plpgsql SET search_path = app, pg_temp
AS $$
BEGIN
    INSERT INTO app.forecast_events (tenant_id, forecast_id, state, percent, error_code)
    VALUES (NEW.tenant_id, NEW.forecast_id, NEW.state,
            CASE NEW.state WHEN 'running' THEN 0 WHEN 'succeeded' THEN 100 END, NEW.error_code);
    PERFORM pg_notify('forecastle_events', NEW.tenant_id::text);
    RETURN NULL;
END
$$;
CREATE TRIGGER forecast_was_queued
    AFTER INSERT ON app.forecasts
    FOR EACH ROW WHEN (NEW.state = 'queued') EXECUTE FUNCTION app.forecast_state_changed();
CREATE TRIGGER forecast_state_changed
    AFTER UPDATE OF state ON app.forecasts
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION app.forecast_state_changed();

RESET ROLE;

-- As in 0003, now set by set: one statement takes the whole batch, so that the lock which keeps the
-- order (one claim at a time) is held for one look and one commit. Jobs that are used up or too late
-- are rare and ended one by one before. A job that was handed back goes on with its attempt, whose row
-- keeps the time of its first claim and gets the new fence and worker. The planner is held to the
-- indexes: its guess for "at most `batch` rows" is a tenth of the queue.
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
        RETURNING j.tenant_id, j.job_id, j.kind, j.subject_id, j.attempts, j.fence, j.deadline_at, j.ready_at, j.seq),
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
        RETURNING f.tenant_id, f.forecast_id, f.input)
    SELECT t.tenant_id, t.job_id, t.kind, t.subject_id, t.attempts, t.fence, t.deadline_at, b.input, true, NULL::text,
        (extract(epoch FROM at - t.ready_at) * 1000)::bigint
    FROM taken t
    LEFT JOIN begun b ON t.kind = 'forecast' AND b.tenant_id = t.tenant_id AND b.forecast_id = t.subject_id
    ORDER BY t.ready_at, t.seq;
END
$$;

-- Also across tenants, so that the events of one who no longer comes go too:
--
--   queue_prune          forgets a batch of events older than `keep_ms`; how many

CREATE FUNCTION app.queue_prune(keep_ms bigint, batch integer)
RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = app, pg_temp
AS $$
    WITH spent AS (
        DELETE FROM app.forecast_events e
        USING (SELECT o.tenant_id, o.xid, o.seq FROM app.forecast_events o
               WHERE o.at < clock_timestamp() - keep_ms * interval '1 millisecond'
               ORDER BY o.at LIMIT batch) AS old
        WHERE e.tenant_id = old.tenant_id AND e.xid = old.xid AND e.seq = old.seq
        RETURNING 1)
    SELECT count(*) FROM spent
$$;
ALTER FUNCTION app.queue_prune(bigint, integer) OWNER TO forecastle_definer;
REVOKE ALL ON FUNCTION app.queue_prune(bigint, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.queue_prune(bigint, integer) TO forecastle_app;
