-- What customers and the payment provider do while the service runs: upgrades that wait for their money,
-- payment methods, the provider's signed events. Everything is added.

SET LOCAL ROLE forecastle_owner;

-- An upgrade from the request to its end. It becomes a row of plan_changes, and the tenant's plan, in the
-- transaction that records its money, and not before:
--   awaiting_payment  its invoice is issued; it is not known yet whether the money came
--   applied           paid (or nothing was to be paid); the plan is in force since requested_at
--   declined          the provider said no; the invoice is void, nothing else changed
--   lapsed            the money came after the period had been closed on the old plan; it is the customer's credit
-- requested_by and idempotency_key lead a repeated request to the upgrade that the first one made.
CREATE TABLE app.plan_upgrades (
    tenant_id       uuid NOT NULL REFERENCES app.tenants,
    change_id       uuid NOT NULL,
    from_plan       text NOT NULL CHECK (from_plan IN ('FREE', 'STARTER', 'PRO')),
    to_plan         text NOT NULL CHECK (to_plan IN ('STARTER', 'PRO')),
    period_index    integer NOT NULL CHECK (period_index >= 0),
    state           text NOT NULL CHECK (state IN ('awaiting_payment', 'applied', 'declined', 'lapsed')),
    requested_by    uuid NOT NULL,
    idempotency_key text NOT NULL,
    fingerprint     bytea NOT NULL,
    requested_at    timestamptz NOT NULL,
    settled_at      timestamptz,
    invoice_id      uuid,
    PRIMARY KEY (tenant_id, change_id),
    FOREIGN KEY (tenant_id, requested_by) REFERENCES app.users,
    FOREIGN KEY (tenant_id, invoice_id) REFERENCES app.invoices,
    CHECK (from_plan <> to_plan),
    CHECK ((state = 'awaiting_payment') = (settled_at IS NULL)),
    CHECK (state = 'applied' OR invoice_id IS NOT NULL)
);
CREATE UNIQUE INDEX plan_upgrades_one_waiting ON app.plan_upgrades (tenant_id) WHERE state = 'awaiting_payment';
CREATE UNIQUE INDEX plan_upgrades_of_invoice ON app.plan_upgrades (tenant_id, invoice_id);
CREATE UNIQUE INDEX plan_upgrades_once_for_each_key
    ON app.plan_upgrades (tenant_id, requested_by, idempotency_key) WHERE state <> 'declined';

-- Every payment method that was ever set after the sign-up; the newest is the one in use, and its token
-- stands in tenants.payment_token.
CREATE TABLE app.payment_methods (
    tenant_id         uuid NOT NULL REFERENCES app.tenants,
    payment_method_id uuid NOT NULL,
    token             text NOT NULL,
    set_by            uuid NOT NULL,
    set_at            timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, payment_method_id),
    FOREIGN KEY (tenant_id, set_by) REFERENCES app.users
);
CREATE INDEX payment_methods_newest_first ON app.payment_methods (tenant_id, set_at DESC);

-- The provider's events about charges of ours, each once: the row is written before its effect, in the
-- same transaction.
CREATE TABLE app.webhook_events (
    tenant_id   uuid NOT NULL REFERENCES app.tenants,
    event_id    text NOT NULL,
    kind        text NOT NULL,
    charge_key  text NOT NULL,
    sent_at     timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    outcome     text NOT NULL,
    PRIMARY KEY (tenant_id, event_id)
);

-- How much of a payment the provider gave back, as its events say; it only grows. A payment that came in
-- stays one that came in.
ALTER TABLE app.payments
    ADD COLUMN refunded_minor bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT payments_refunded_in_range CHECK (refunded_minor BETWEEN 0 AND amount_minor),
    ADD CONSTRAINT payments_refunded_when_received CHECK (refunded_minor = 0 OR state = 'succeeded');

ALTER TABLE app.ledger_entries
    DROP CONSTRAINT ledger_entries_posting_kind_check,
    ADD CONSTRAINT ledger_entries_posting_kind_check CHECK (posting_kind IN (
        'invoice_issued', 'payment_received', 'credit_note', 'credit_applied', 'written_off', 'payment_refunded',
        'payment_unexpected')),
    DROP CONSTRAINT ledger_entries_account_check,
    ADD CONSTRAINT ledger_entries_account_check CHECK (account IN (
        'accounts_receivable', 'revenue', 'tax_payable', 'cash', 'customer_credit', 'bad_debt', 'refunds'));

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['plan_upgrades', 'payment_methods', 'webhook_events'] LOOP
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

GRANT UPDATE (state, settled_at) ON app.plan_upgrades TO forecastle_app;
GRANT UPDATE (outcome) ON app.webhook_events TO forecastle_app;
GRANT UPDATE (refunded_minor) ON app.payments TO forecastle_app;

RESET ROLE;
