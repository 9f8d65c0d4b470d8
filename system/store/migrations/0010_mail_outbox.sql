-- Mail, put into an outbox by the transaction that causes it and sent by a process of its own.
--
-- No secret is stored. A verification or reset token is derived from its row's id under a key that the
-- database never sees; here stands only its hash, to recognise it when it comes back.

SET LOCAL ROLE forecastle_owner;

ALTER TABLE app.users ADD COLUMN email_verified_at timestamptz;
GRANT UPDATE (email_verified_at) ON app.users TO forecastle_app;

CREATE TABLE app.mail_tokens (
    tenant_id  uuid NOT NULL,
    token_id   uuid NOT NULL,
    user_id    uuid NOT NULL,
    purpose    text NOT NULL CHECK (purpose IN ('email_verification', 'password_reset')),
    token_hash bytea NOT NULL CHECK (length(token_hash) = 32),
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at    timestamptz,
    PRIMARY KEY (tenant_id, token_id),
    CONSTRAINT mail_tokens_hash_key UNIQUE (token_hash),
    FOREIGN KEY (tenant_id, user_id) REFERENCES app.users
);
CREATE INDEX mail_tokens_of_user ON app.mail_tokens (tenant_id, user_id);

-- Attempts are counted when a mail is claimed, so the count is also the claim's fence: a sender that
-- was stopped past its lease names an old count and changes nothing.
CREATE TABLE app.mail_outbox (
    tenant_id       uuid NOT NULL REFERENCES app.tenants,
    mail_id         uuid NOT NULL,
    dedup_key       text NOT NULL CHECK (length(dedup_key) BETWEEN 1 AND 200),
    template        text NOT NULL CHECK (template ~ '^[a-z_]{1,40}$'),
    parameters      jsonb NOT NULL,
    recipient       text NOT NULL,
    token_id        uuid,
    state           text NOT NULL CHECK (state IN ('queued', 'sending', 'sent', 'dead')),
    attempts        integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    next_at         timestamptz NOT NULL,
    lease_until     timestamptz,
    created_at      timestamptz NOT NULL,
    finished_at     timestamptz,
    last_error_code text,
    PRIMARY KEY (tenant_id, mail_id),
    CONSTRAINT mail_outbox_dedup_key UNIQUE (tenant_id, dedup_key),
    FOREIGN KEY (tenant_id, token_id) REFERENCES app.mail_tokens,
    CHECK ((state = 'sending') = (lease_until IS NOT NULL)),
    CHECK ((state IN ('sent', 'dead')) = (finished_at IS NOT NULL))
);
CREATE INDEX mail_outbox_open ON app.mail_outbox (next_at) WHERE state IN ('queued', 'sending');
CREATE INDEX mail_outbox_dead ON app.mail_outbox (finished_at) WHERE state = 'dead';
-- What ops_backlog counts: few rows, whatever the tables hold.
CREATE INDEX jobs_dead ON app.jobs (finished_at) WHERE state = 'dead';
CREATE INDEX payments_unclear ON app.payments (created_at) WHERE state IN ('intended', 'unknown');

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['mail_tokens', 'mail_outbox'] LOOP
        EXECUTE format('ALTER TABLE app.%I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE app.%I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY tenant_only ON app.%I'
            ' USING (tenant_id = nullif(current_setting(''app.tenant'', true), '''')::uuid)'
            ' WITH CHECK (tenant_id = nullif(current_setting(''app.tenant'', true), '''')::uuid)', name);
        EXECUTE format('GRANT SELECT ON app.%I TO forecastle_app, forecastle_read, forecastle_definer', name);
        EXECUTE format('GRANT INSERT ON app.%I TO forecastle_app', name);
    END LOOP;
END
$$;
GRANT UPDATE (used_at) ON app.mail_tokens TO forecastle_app;
GRANT UPDATE (state, next_at, lease_until, finished_at, last_error_code) ON app.mail_outbox TO forecastle_app;
GRANT UPDATE (state, attempts, lease_until, finished_at, last_error_code) ON app.mail_outbox TO forecastle_definer;

RESET ROLE;

-- Three more that look across tenants, and why:
--
--   auth_mail_token   confirmation: which tenant, user and purpose a token's hash belongs to; the person
--                     who follows a mail's link has no session that could say
--   mail_claim        the sender takes the next mails, whosever they are
--   ops_backlog       counts and ages of what waits or was given up, over all tenants, for metrics and
--                     alerts; tells no tenant from another

CREATE FUNCTION app.auth_mail_token(wanted bytea)
RETURNS TABLE (tenant_id uuid, user_id uuid, purpose text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = app, pg_temp
AS $$
    SELECT t.tenant_id, t.user_id, t.purpose FROM app.mail_tokens t
    WHERE t.token_hash = wanted AND t.used_at IS NULL AND t.expires_at > clock_timestamp()
$$;

-- Takes up to `batch` due mails, the longest due first. One whose lease ran out is taken again. One that
-- has used up its attempts, or whose token is used or over, ends here and is not returned.
CREATE FUNCTION app.mail_claim(batch integer, lease_ms bigint, attempts_max integer)
RETURNS TABLE (
    tenant_id uuid, mail_id uuid, template text, parameters jsonb, recipient text, attempt integer,
    created_at timestamptz, token_id uuid, token_hash bytea)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = app, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    mail record;
    at timestamptz := clock_timestamp();
    ended_code text;
BEGIN
    FOR mail IN
        SELECT m.*, t.token_hash, t.used_at, t.expires_at FROM app.mail_outbox m
        LEFT JOIN app.mail_tokens t ON t.tenant_id = m.tenant_id AND t.token_id = m.token_id
        WHERE (m.state = 'queued' AND m.next_at <= at) OR (m.state = 'sending' AND m.lease_until < at)
        ORDER BY m.next_at
        LIMIT batch
        FOR UPDATE OF m SKIP LOCKED
    LOOP
        ended_code := CASE
            WHEN mail.used_at IS NOT NULL OR mail.expires_at <= at THEN 'token_over'
            WHEN mail.attempts >= attempts_max THEN 'attempts_exhausted'
        END;
        IF ended_code IS NOT NULL THEN
            UPDATE app.mail_outbox m
            SET state = 'dead', lease_until = NULL, finished_at = at, last_error_code = ended_code
            WHERE m.tenant_id = mail.tenant_id AND m.mail_id = mail.mail_id;
            CONTINUE;
        END IF;
        UPDATE app.mail_outbox m
        SET state = 'sending', attempts = m.attempts + 1, lease_until = at + lease_ms * interval '1 millisecond'
        WHERE m.tenant_id = mail.tenant_id AND m.mail_id = mail.mail_id;
        RETURN QUERY SELECT mail.tenant_id, mail.mail_id, mail.template, mail.parameters, mail.recipient,
            mail.attempts + 1, mail.created_at, mail.token_id, mail.token_hash;
    END LOOP;
END
$$;

CREATE FUNCTION app.ops_backlog()
RETURNS TABLE (
    queue_waiting bigint, queue_oldest_s double precision, jobs_dead_last_hour bigint,
    payments_unknown bigint, payments_unknown_oldest_s double precision,
    mail_waiting bigint, mail_oldest_s double precision, mail_dead_last_hour bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = app, pg_temp
AS $$
    WITH jobs AS (
        SELECT count(*) AS waiting, min(j.ready_at) AS oldest FROM app.jobs j
        WHERE j.state = 'queued' AND j.ready_at <= clock_timestamp()),
    dead_jobs AS (
        SELECT count(*) AS dead FROM app.jobs j
        WHERE j.state = 'dead' AND j.finished_at > clock_timestamp() - interval '1 hour'),
    payments AS (
        SELECT count(*) AS waiting, min(p.created_at) AS oldest FROM app.payments p
        WHERE p.state IN ('intended', 'unknown')),
    mails AS (
        SELECT count(*) AS waiting, min(m.created_at) AS oldest FROM app.mail_outbox m
        WHERE m.state IN ('queued', 'sending')),
    dead_mails AS (
        SELECT count(*) AS dead FROM app.mail_outbox m
        WHERE m.state = 'dead' AND m.last_error_code <> 'token_over'
          AND m.finished_at > clock_timestamp() - interval '1 hour')
    SELECT jobs.waiting, coalesce(extract(epoch FROM clock_timestamp() - jobs.oldest), 0)::double precision,
           dead_jobs.dead,
           payments.waiting, coalesce(extract(epoch FROM clock_timestamp() - payments.oldest), 0)::double precision,
           mails.waiting, coalesce(extract(epoch FROM clock_timestamp() - mails.oldest), 0)::double precision,
           dead_mails.dead
    FROM jobs, dead_jobs, payments, mails, dead_mails
$$;

DO $$
DECLARE
    signature text;
BEGIN
    FOREACH signature IN ARRAY ARRAY[
        'app.auth_mail_token(bytea)', 'app.mail_claim(integer, bigint, integer)', 'app.ops_backlog()'
    ] LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO forecastle_definer', signature);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO forecastle_app', signature);
    END LOOP;
END
$$;
