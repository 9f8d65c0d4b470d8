-- The whole of the books: plan changes, periods closed with or without an invoice, proration, dunning,
-- credit notes and write-offs. Everything is added: an instance of before goes on working, since new
-- columns have defaults and old words stay allowed.

SET LOCAL ROLE forecastle_owner;

-- How a tenant stands, and what it has to its credit: what paid invoices were corrected by, used up by
-- the next ones.
ALTER TABLE app.tenants
    ADD COLUMN billing_state           text NOT NULL DEFAULT 'current'
        CHECK (billing_state IN ('current', 'past_due')),
    ADD COLUMN past_due_since          timestamptz,
    ADD COLUMN next_credit_note_number bigint NOT NULL DEFAULT 1 CHECK (next_credit_note_number >= 1),
    ADD COLUMN credit_balance_minor    bigint NOT NULL DEFAULT 0 CHECK (credit_balance_minor >= 0),
    ADD CONSTRAINT tenants_past_due_since_when_past_due
        CHECK ((billing_state = 'past_due') = (past_due_since IS NOT NULL));

-- Still one invoice for each tenant, period, kind and sequence. A subscription invoice has sequence 0, so
-- there is one for each period; the upgrades of one period count 1, 2, 3, each with its proration.
--
-- dunning_step counts the declined charges of its own schedule (0 to 4); next_attempt_at is when the next
-- one is due, NULL meaning at issue while the step is 0; give_up_at is set with the last decline.
-- What is still owed while it is issued: total_minor - credit_applied_minor - credited_minor, never below 0.
ALTER TABLE app.invoices
    DROP CONSTRAINT invoices_kind_check,
    ADD CONSTRAINT invoices_kind_check CHECK (kind IN ('subscription', 'proration')),
    ADD COLUMN sequence             integer NOT NULL DEFAULT 0 CHECK (sequence >= 0),
    ADD COLUMN dunning_step         integer NOT NULL DEFAULT 0 CHECK (dunning_step BETWEEN 0 AND 4),
    ADD COLUMN next_attempt_at      timestamptz,
    ADD COLUMN give_up_at           timestamptz,
    ADD COLUMN uncollectible_at     timestamptz,
    ADD COLUMN voided_at            timestamptz,
    ADD COLUMN credited_minor       bigint NOT NULL DEFAULT 0,
    ADD COLUMN credit_applied_minor bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT invoices_sequence_of_kind CHECK ((kind = 'subscription') = (sequence = 0)),
    ADD CONSTRAINT invoices_credited_in_range CHECK (credited_minor BETWEEN 0 AND total_minor),
    ADD CONSTRAINT invoices_credit_applied_in_range CHECK (credit_applied_minor BETWEEN 0 AND total_minor),
    ADD CONSTRAINT invoices_credit_after_issue
        CHECK (state <> 'draft' OR (credited_minor = 0 AND credit_applied_minor = 0)),
    ADD CONSTRAINT invoices_void_is_credited CHECK (state <> 'void' OR credited_minor = total_minor),
    ADD CONSTRAINT invoices_voided_at_when_void CHECK ((state = 'void') = (voided_at IS NOT NULL)),
    ADD CONSTRAINT invoices_uncollectible_at CHECK ((state = 'uncollectible') = (uncollectible_at IS NOT NULL)),
    ADD CONSTRAINT invoices_give_up_after_dunning CHECK ((dunning_step = 4) = (give_up_at IS NOT NULL)),
    DROP CONSTRAINT invoices_one_per_period,
    ADD CONSTRAINT invoices_one_per_period UNIQUE (tenant_id, period_index, kind, sequence);
CREATE INDEX invoices_open ON app.invoices (tenant_id, issue_due_at) WHERE state IN ('draft', 'issued');

-- A proration_credit has a negative price; its quantity is 1 as everywhere.
ALTER TABLE app.invoice_lines
    DROP CONSTRAINT invoice_lines_kind_check,
    ADD CONSTRAINT invoice_lines_kind_check CHECK (kind IN ('base', 'usage', 'proration_charge', 'proration_credit')),
    ADD CONSTRAINT invoice_lines_sign_of_kind
        CHECK ((kind = 'proration_credit') = (unit_price_minor < 0) OR amount_minor = 0);

-- 'invoice' at issue, 'dunning-1' to 'dunning-3' when it was declined, 'pay-1', 'pay-2' and so on when the
-- customer asks for another try. A declined key is final, so each try has a purpose of its own; and as
-- long as one may still take the money there is no other: one payment for each invoice that is not failed.
-- The token is the one the key was first sent with, whatever the tenant's is by now.
ALTER TABLE app.payments
    DROP CONSTRAINT payments_purpose_check,
    ADD CONSTRAINT payments_purpose_check CHECK (purpose ~ '^(invoice|dunning-[1-3]|pay-[1-9][0-9]{0,5})$'),
    ADD COLUMN payment_token text;
CREATE UNIQUE INDEX payments_one_open_or_succeeded ON app.payments (tenant_id, invoice_id) WHERE state <> 'failed';

ALTER TABLE app.ledger_entries
    DROP CONSTRAINT ledger_entries_posting_kind_check,
    ADD CONSTRAINT ledger_entries_posting_kind_check CHECK (posting_kind IN (
        'invoice_issued', 'payment_received', 'credit_note', 'credit_applied', 'written_off')),
    DROP CONSTRAINT ledger_entries_account_check,
    ADD CONSTRAINT ledger_entries_account_check CHECK (account IN (
        'accounts_receivable', 'revenue', 'tax_payable', 'cash', 'customer_credit', 'bad_debt'));

-- Which plan was in force when. Applied changes are the history; at most one is pending, to take effect
-- when a period ends. Of two with the same effective_at the one with the higher seq came later.
CREATE TABLE app.plan_changes (
    tenant_id    uuid NOT NULL REFERENCES app.tenants,
    change_id    uuid NOT NULL,
    seq          bigint GENERATED ALWAYS AS IDENTITY,
    from_plan    text NOT NULL CHECK (from_plan IN ('FREE', 'STARTER', 'PRO')),
    to_plan      text NOT NULL CHECK (to_plan IN ('FREE', 'STARTER', 'PRO')),
    kind         text NOT NULL CHECK (kind IN ('upgrade', 'downgrade')),
    cause        text NOT NULL DEFAULT 'customer' CHECK (cause IN ('customer', 'unpaid')),
    state        text NOT NULL CHECK (state IN ('pending', 'applied', 'cancelled')),
    requested_at timestamptz NOT NULL,
    effective_at timestamptz NOT NULL,
    applied_at   timestamptz,
    cancelled_at timestamptz,
    invoice_id   uuid,
    PRIMARY KEY (tenant_id, change_id),
    FOREIGN KEY (tenant_id, invoice_id) REFERENCES app.invoices,
    CHECK (from_plan <> to_plan),
    CHECK (kind = 'upgrade' OR invoice_id IS NULL),
    CHECK (cause = 'customer' OR (kind = 'downgrade' AND to_plan = 'FREE')),
    CHECK ((state = 'applied') = (applied_at IS NOT NULL)),
    CHECK ((state = 'cancelled') = (cancelled_at IS NOT NULL))
);
CREATE UNIQUE INDEX plan_changes_one_pending ON app.plan_changes (tenant_id) WHERE state = 'pending';
CREATE INDEX plan_changes_in_order ON app.plan_changes (tenant_id, effective_at, seq);

-- A boundary between two periods that was billed, whether or not there was anything to charge: what the
-- ended period (none before the first) counted, at which plan, and which plan the starting one began with.
-- period_index is the starting period's, as on its invoice.
CREATE TABLE app.period_closings (
    tenant_id    uuid NOT NULL REFERENCES app.tenants,
    period_index integer NOT NULL CHECK (period_index >= 0),
    ended_plan   text CHECK (ended_plan IN ('FREE', 'STARTER', 'PRO')),
    started_plan text NOT NULL CHECK (started_plan IN ('FREE', 'STARTER', 'PRO')),
    usage_events bigint NOT NULL CHECK (usage_events >= 0),
    invoice_id   uuid,
    closed_at    timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, period_index),
    FOREIGN KEY (tenant_id, invoice_id) REFERENCES app.invoices,
    CHECK ((period_index = 0) = (ended_plan IS NULL))
);

-- Which closing counted the event; the closing's invoice, where it has one, is invoice_id.
ALTER TABLE app.usage_events ADD COLUMN billed_period_index integer CHECK (billed_period_index >= 0);
CREATE INDEX usage_events_unbilled ON app.usage_events (tenant_id, occurred_at) WHERE billed_period_index IS NULL;

-- Corrects an issued invoice. What of it was still owed is owed no more (to_receivable_minor); the rest, already
-- paid, is the customer's credit (to_balance_minor). request_key makes one request one credit note.
CREATE TABLE app.credit_notes (
    tenant_id           uuid NOT NULL REFERENCES app.tenants,
    credit_note_id      uuid NOT NULL,
    invoice_id          uuid NOT NULL,
    number              bigint NOT NULL CHECK (number >= 1),
    request_key         text NOT NULL,
    reason              text NOT NULL,
    currency            text NOT NULL,
    tax_minor           bigint NOT NULL,
    total_minor         bigint NOT NULL CHECK (total_minor > 0),
    to_receivable_minor bigint NOT NULL CHECK (to_receivable_minor >= 0),
    to_balance_minor    bigint NOT NULL CHECK (to_balance_minor >= 0),
    issued_at           timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, credit_note_id),
    CONSTRAINT credit_notes_number_key UNIQUE (tenant_id, number),
    CONSTRAINT credit_notes_request_key UNIQUE (tenant_id, request_key),
    FOREIGN KEY (tenant_id, invoice_id) REFERENCES app.invoices,
    CHECK (to_receivable_minor + to_balance_minor = total_minor)
);
CREATE INDEX credit_notes_of_invoice ON app.credit_notes (tenant_id, invoice_id);

-- What is taken back of one line of the invoice; its sign is the line's own.
CREATE TABLE app.credit_note_lines (
    tenant_id       uuid NOT NULL,
    credit_note_id  uuid NOT NULL,
    line_no         integer NOT NULL CHECK (line_no >= 1),
    invoice_id      uuid NOT NULL,
    invoice_line_no integer NOT NULL,
    amount_minor    bigint NOT NULL CHECK (amount_minor <> 0),
    tax_minor       bigint NOT NULL,
    PRIMARY KEY (tenant_id, credit_note_id, line_no),
    CONSTRAINT credit_note_lines_once UNIQUE (tenant_id, credit_note_id, invoice_line_no),
    FOREIGN KEY (tenant_id, credit_note_id) REFERENCES app.credit_notes,
    FOREIGN KEY (tenant_id, invoice_id, invoice_line_no) REFERENCES app.invoice_lines
);
CREATE INDEX credit_note_lines_of_line ON app.credit_note_lines (tenant_id, invoice_id, invoice_line_no);

CREATE FUNCTION app.credit_note_must_fit() RETURNS trigger
LANGUAGE plpgsql SET search_path = app, pg_temp
AS $$
BEGIN
    IF EXISTS (
        SELECT 1 FROM app.credit_notes n
        LEFT JOIN app.credit_note_lines l ON l.tenant_id = n.tenant_id AND l.credit_note_id = n.credit_note_id
        WHERE n.tenant_id = NEW.tenant_id AND n.credit_note_id = NEW.credit_note_id
        GROUP BY n.total_minor, n.tax_minor
        HAVING n.total_minor <> coalesce(sum(l.amount_minor + l.tax_minor), 0)
            OR n.tax_minor <> coalesce(sum(l.tax_minor), 0)
    ) THEN
        RAISE EXCEPTION 'a credit note is the sum of its lines'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'credit_note_is_sum_of_lines';
    END IF;
    IF EXISTS (
        SELECT 1 FROM app.invoice_lines i
        JOIN app.credit_note_lines l
          ON l.tenant_id = i.tenant_id AND l.invoice_id = i.invoice_id AND l.invoice_line_no = i.line_no
        WHERE i.tenant_id = NEW.tenant_id AND i.invoice_id = NEW.invoice_id
        GROUP BY i.line_no, i.amount_minor, i.tax_minor
        HAVING sign(sum(l.amount_minor)) <> sign(i.amount_minor)
            OR abs(sum(l.amount_minor)) > abs(i.amount_minor)
            OR abs(sum(l.tax_minor)) > abs(i.tax_minor)
    ) THEN
        RAISE EXCEPTION 'no more can be credited than a line has left'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'credit_note_within_line';
    END IF;
    IF EXISTS (
        SELECT 1 FROM app.invoices i
        LEFT JOIN app.credit_notes n ON n.tenant_id = i.tenant_id AND n.invoice_id = i.invoice_id
        WHERE i.tenant_id = NEW.tenant_id AND i.invoice_id = NEW.invoice_id
        GROUP BY i.credited_minor HAVING i.credited_minor <> coalesce(sum(n.total_minor), 0)
    ) THEN
        RAISE EXCEPTION 'an invoice knows what it was credited'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'invoice_knows_its_credit_notes';
    END IF;
    RETURN NULL;
END
$$;

CREATE CONSTRAINT TRIGGER credit_note_fits
    AFTER INSERT ON app.credit_notes DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION app.credit_note_must_fit();
CREATE CONSTRAINT TRIGGER credit_note_line_fits
    AFTER INSERT ON app.credit_note_lines DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION app.credit_note_must_fit();

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['plan_changes', 'period_closings', 'credit_notes', 'credit_note_lines'] LOOP
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

-- Credit notes and closings are only ever added.
GRANT UPDATE (billing_state, past_due_since, next_credit_note_number, credit_balance_minor)
    ON app.tenants TO forecastle_app;
GRANT UPDATE (dunning_step, next_attempt_at, give_up_at, uncollectible_at, voided_at, credited_minor,
              credit_applied_minor)
    ON app.invoices TO forecastle_app;
GRANT UPDATE (state, effective_at, applied_at, cancelled_at, invoice_id) ON app.plan_changes TO forecastle_app;
GRANT UPDATE (billed_period_index) ON app.usage_events TO forecastle_app;

RESET ROLE;

-- What was billed before stays billed, and what was declined goes on with its schedule. As the superuser:
-- the owner is bound by row-level security too.
INSERT INTO app.period_closings
    (tenant_id, period_index, ended_plan, started_plan, usage_events, invoice_id, closed_at)
SELECT i.tenant_id, i.period_index, CASE WHEN i.period_index > 0 THEN t.plan END, t.plan,
       (SELECT count(*) FROM app.usage_events u WHERE u.tenant_id = i.tenant_id AND u.invoice_id = i.invoice_id),
       i.invoice_id, i.issue_due_at
FROM app.invoices i JOIN app.tenants t USING (tenant_id)
WHERE i.kind = 'subscription' AND i.state <> 'draft';

UPDATE app.usage_events u SET billed_period_index = i.period_index
FROM app.invoices i WHERE i.tenant_id = u.tenant_id AND i.invoice_id = u.invoice_id;

UPDATE app.invoices i SET dunning_step = 1, next_attempt_at = i.issued_at + interval '1 day'
WHERE i.state = 'issued' AND EXISTS (
    SELECT 1 FROM app.payments p
    WHERE p.tenant_id = i.tenant_id AND p.invoice_id = i.invoice_id AND p.state = 'failed');
