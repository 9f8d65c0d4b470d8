-- Money that the provider took for a charge it had declined: which charge that was, and how much of it went
-- back since. The payment stays failed, and what came in is the customer's credit. Everything is added.

SET LOCAL ROLE forecastle_owner;

ALTER TABLE app.payments
    ADD COLUMN unexpected_charge_id text,
    ADD COLUMN unexpected_refunded_minor bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT payments_unexpected_when_failed CHECK (unexpected_charge_id IS NULL OR state = 'failed'),
    ADD CONSTRAINT payments_unexpected_refunded_in_range
        CHECK (unexpected_refunded_minor BETWEEN 0 AND amount_minor);

GRANT UPDATE (unexpected_charge_id, unexpected_refunded_minor) ON app.payments TO forecastle_app;

RESET ROLE;
