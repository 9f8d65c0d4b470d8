-- A claim looks past mails that are over: up to now they took the places of a batch, so that a sender which was
-- given none of a batch could not know whether others were due behind them. The same name, arguments and columns.

-- Ends the mails whose token is used or over, or which have used up `attempts_max`, then takes up to `batch` due ones,
-- the longest due first. One whose lease ran out is taken again.
CREATE OR REPLACE FUNCTION app.mail_claim(batch integer, lease_ms bigint, attempts_max integer)
RETURNS TABLE (
    tenant_id uuid, mail_id uuid, template text, parameters jsonb, recipient text, attempt integer,
    created_at timestamptz, token_id uuid, token_hash bytea)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = app, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    mail record;
    at timestamptz := clock_timestamp();
BEGIN
    WITH ended AS (
        SELECT m.tenant_id, m.mail_id,
               CASE WHEN t.used_at IS NOT NULL OR t.expires_at <= at THEN 'token_over' ELSE 'attempts_exhausted' END
                   AS code
        FROM app.mail_outbox m
        LEFT JOIN app.mail_tokens t ON t.tenant_id = m.tenant_id AND t.token_id = m.token_id
        WHERE ((m.state = 'queued' AND m.next_at <= at) OR (m.state = 'sending' AND m.lease_until < at))
          AND (t.used_at IS NOT NULL OR t.expires_at <= at OR m.attempts >= attempts_max)
        FOR UPDATE OF m SKIP LOCKED)
    UPDATE app.mail_outbox m
    SET state = 'dead', lease_until = NULL, finished_at = at, last_error_code = ended.code
    FROM ended WHERE m.tenant_id = ended.tenant_id AND m.mail_id = ended.mail_id;

    FOR mail IN
        SELECT m.*, t.token_hash FROM app.mail_outbox m
        LEFT JOIN app.mail_tokens t ON t.tenant_id = m.tenant_id AND t.token_id = m.token_id
        WHERE ((m.state = 'queued' AND m.next_at <= at) OR (m.state = 'sending' AND m.lease_until < at))
          AND (t.token_id IS NULL OR (t.used_at IS NULL AND t.expires_at > at)) AND m.attempts < attempts_max
        ORDER BY m.next_at
        LIMIT batch
        FOR UPDATE OF m SKIP LOCKED
    LOOP
        UPDATE app.mail_outbox m
        SET state = 'sending', attempts = m.attempts + 1, lease_until = at + lease_ms * interval '1 millisecond'
        WHERE m.tenant_id = mail.tenant_id AND m.mail_id = mail.mail_id;
        RETURN QUERY SELECT mail.tenant_id, mail.mail_id, mail.template, mail.parameters, mail.recipient,
            mail.attempts + 1, mail.created_at, mail.token_id, mail.token_hash;
    END LOOP;
END
$$;

