-- The whole schema. The tenant is the first part of every key; a time is timestamptz; money is bigint
-- minor units beside its currency. Roles exist already: `forecastle migrate` makes them first.

CREATE SCHEMA app AUTHORIZATION forecastle_owner;
SET LOCAL ROLE forecastle_owner;

CREATE TABLE app.tenants (
    tenant_id           uuid PRIMARY KEY,
    organization        text NOT NULL,
    plan                text NOT NULL CHECK (plan IN ('FREE', 'STARTER', 'PRO')),
    currency            text NOT NULL CHECK (currency IN ('USD', 'EUR', 'GBP', 'JPY', 'KWD')),
    time_zone           text NOT NULL,
    tax_rate_ppm        bigint NOT NULL DEFAULT 0 CHECK (tax_rate_ppm BETWEEN 0 AND 1000000),
    anchor_date         date NOT NULL,
    signed_up_at        timestamptz NOT NULL,
    payment_token       text,
    next_invoice_number bigint NOT NULL DEFAULT 1 CHECK (next_invoice_number >= 1),
    CHECK (plan = 'FREE' OR payment_token IS NOT NULL)
);

CREATE TABLE app.users (
    tenant_id     uuid NOT NULL REFERENCES app.tenants,
    user_id       uuid NOT NULL,
    email         text NOT NULL,
    name          text NOT NULL,
    password_hash text NOT NULL,
    role          text NOT NULL CHECK (role IN ('owner', 'editor', 'viewer')),
    created_at    timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, user_id),
    CONSTRAINT users_email_key UNIQUE (email),
    CHECK (email = lower(email))
);

CREATE TABLE app.sessions (
    tenant_id  uuid NOT NULL,
    session_id uuid NOT NULL,
    user_id    uuid NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    PRIMARY KEY (tenant_id, session_id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES app.users
);
CREATE INDEX sessions_of_user ON app.sessions (tenant_id, user_id);

CREATE TABLE app.refresh_tokens (
    tenant_id   uuid NOT NULL,
    token_hash  bytea NOT NULL,
    session_id  uuid NOT NULL,
    parent_hash bytea,
    issued_at   timestamptz NOT NULL,
    rotated_at  timestamptz,
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, token_hash),
    CONSTRAINT refresh_tokens_hash_key UNIQUE (token_hash),
    FOREIGN KEY (tenant_id, session_id) REFERENCES app.sessions
);
CREATE INDEX refresh_tokens_of_session ON app.refresh_tokens (tenant_id, session_id);

CREATE TABLE app.scenarios (
    tenant_id   uuid NOT NULL REFERENCES app.tenants,
    scenario_id uuid NOT NULL,
    name        text NOT NULL,
    notes       text,
    input       jsonb NOT NULL,
    version     integer NOT NULL DEFAULT 1 CHECK (version >= 1),
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, scenario_id)
);
CREATE INDEX scenarios_newest_first ON app.scenarios (tenant_id, created_at DESC, scenario_id DESC);

-- `input` is the scenario as it was when the forecast was asked for; later edits do not reach it.
CREATE TABLE app.forecasts (
    tenant_id        uuid NOT NULL,
    forecast_id      uuid NOT NULL,
    scenario_id      uuid NOT NULL,
    scenario_version integer NOT NULL,
    requested_by     uuid NOT NULL,
    input            jsonb NOT NULL,
    state            text NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    engine_version   text,
    result           jsonb,
    result_hash      text CHECK (result_hash ~ '^[0-9a-f]{64}$'),
    error_code       text,
    requested_at     timestamptz NOT NULL,
    started_at       timestamptz,
    finished_at      timestamptz,
    quota_period     integer NOT NULL CHECK (quota_period >= 0),
    quota_state      text NOT NULL CHECK (quota_state IN ('held', 'consumed', 'released')),
    PRIMARY KEY (tenant_id, forecast_id),
    FOREIGN KEY (tenant_id, scenario_id) REFERENCES app.scenarios,
    FOREIGN KEY (tenant_id, requested_by) REFERENCES app.users,
    CHECK ((state IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
    CHECK ((state = 'succeeded') = (result IS NOT NULL AND result_hash IS NOT NULL)),
    CHECK ((state = 'failed') = (error_code IS NOT NULL)),
    CHECK ((quota_state = 'consumed') = (state = 'succeeded')),
    CHECK ((quota_state = 'released') = (state IN ('failed', 'cancelled')))
);
CREATE INDEX forecasts_newest_first ON app.forecasts (tenant_id, requested_at DESC, forecast_id DESC);

CREATE SEQUENCE app.job_fences AS bigint;

-- deadline_at is set by the first claim, so that waiting in the queue costs a job nothing.
CREATE TABLE app.jobs (
    tenant_id       uuid NOT NULL REFERENCES app.tenants,
    job_id          uuid NOT NULL,
    kind            text NOT NULL,
    subject_id      uuid NOT NULL,
    state           text NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'dead')),
    attempts        integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    ready_at        timestamptz NOT NULL,
    lease_until     timestamptz,
    fence           bigint NOT NULL DEFAULT 0,
    worker          text,
    seq             bigint GENERATED ALWAYS AS IDENTITY,
    deadline_at     timestamptz,
    enqueued_at     timestamptz NOT NULL,
    finished_at     timestamptz,
    last_error_code text,
    PRIMARY KEY (tenant_id, job_id),
    UNIQUE (tenant_id, kind, subject_id),
    CHECK ((state = 'running') = (lease_until IS NOT NULL)),
    CHECK ((state IN ('succeeded', 'failed', 'cancelled', 'dead')) = (finished_at IS NOT NULL))
);
CREATE INDEX jobs_open_in_order ON app.jobs (ready_at, seq) WHERE state IN ('queued', 'running');

CREATE TABLE app.job_attempts (
    tenant_id  uuid NOT NULL,
    job_id     uuid NOT NULL,
    attempt    integer NOT NULL CHECK (attempt >= 1),
    fence      bigint NOT NULL UNIQUE,
    worker     text NOT NULL,
    claimed_at timestamptz NOT NULL,
    ended_at   timestamptz,
    outcome    text CHECK (outcome IN ('succeeded', 'retry', 'failed', 'lease_lost')),
    PRIMARY KEY (tenant_id, job_id, attempt),
    FOREIGN KEY (tenant_id, job_id) REFERENCES app.jobs,
    CHECK ((ended_at IS NULL) = (outcome IS NULL))
);

CREATE TABLE app.quota_periods (
    tenant_id    uuid NOT NULL REFERENCES app.tenants,
    period_index integer NOT NULL CHECK (period_index >= 0),
    taken        integer NOT NULL CHECK (taken >= 0),
    PRIMARY KEY (tenant_id, period_index)
);

CREATE TABLE app.idempotency_keys (
    tenant_id    uuid NOT NULL,
    user_id      uuid NOT NULL,
    key          text NOT NULL,
    fingerprint  bytea NOT NULL,
    state        text NOT NULL CHECK (state IN ('in_flight', 'done')),
    status       integer,
    response     text,
    locked_until timestamptz,
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, user_id, key),
    FOREIGN KEY (tenant_id, user_id) REFERENCES app.users,
    CHECK ((state = 'done') = (status IS NOT NULL AND response IS NOT NULL))
);
CREATE INDEX idempotency_keys_by_expiry ON app.idempotency_keys (tenant_id, expires_at);

CREATE TABLE app.invoices (
    tenant_id    uuid NOT NULL REFERENCES app.tenants,
    invoice_id   uuid NOT NULL,
    period_index integer NOT NULL CHECK (period_index >= 0),
    kind         text NOT NULL CHECK (kind IN ('subscription')),
    period_start timestamptz NOT NULL,
    period_end   timestamptz NOT NULL,
    currency     text NOT NULL,
    state        text NOT NULL CHECK (state IN ('draft', 'issued', 'paid', 'void', 'uncollectible')),
    number       bigint CHECK (number >= 1),
    tax_minor    bigint NOT NULL CHECK (tax_minor >= 0),
    total_minor  bigint NOT NULL CHECK (total_minor > 0),
    drafted_at   timestamptz NOT NULL,
    issue_due_at timestamptz NOT NULL,
    issued_at    timestamptz,
    paid_at      timestamptz,
    PRIMARY KEY (tenant_id, invoice_id),
    CONSTRAINT invoices_one_per_period UNIQUE (tenant_id, period_index, kind),
    CONSTRAINT invoices_number_key UNIQUE (tenant_id, number),
    CHECK (period_start < period_end),
    CHECK (tax_minor <= total_minor),
    CHECK ((state = 'draft') = (number IS NULL)),
    CHECK ((state = 'draft') = (issued_at IS NULL)),
    CHECK ((state = 'paid') = (paid_at IS NOT NULL))
);

CREATE TABLE app.invoice_lines (
    tenant_id        uuid NOT NULL,
    invoice_id       uuid NOT NULL,
    line_no          integer NOT NULL CHECK (line_no >= 1),
    kind             text NOT NULL CHECK (kind IN ('base', 'usage')),
    description      text NOT NULL,
    quantity         bigint NOT NULL CHECK (quantity >= 1),
    unit_price_minor bigint NOT NULL,
    amount_minor     bigint NOT NULL,
    tax_minor        bigint NOT NULL,
    PRIMARY KEY (tenant_id, invoice_id, line_no),
    FOREIGN KEY (tenant_id, invoice_id) REFERENCES app.invoices,
    CHECK (amount_minor = quantity * unit_price_minor)
);

-- One row for each forecast that succeeded; the unique key is what makes it one.
CREATE TABLE app.usage_events (
    tenant_id      uuid NOT NULL,
    usage_event_id uuid NOT NULL,
    forecast_id    uuid NOT NULL,
    occurred_at    timestamptz NOT NULL,
    invoice_id     uuid,
    PRIMARY KEY (tenant_id, usage_event_id),
    CONSTRAINT usage_events_one_per_forecast UNIQUE (tenant_id, forecast_id),
    FOREIGN KEY (tenant_id, forecast_id) REFERENCES app.forecasts,
    FOREIGN KEY (tenant_id, invoice_id) REFERENCES app.invoices
);
CREATE INDEX usage_events_by_time ON app.usage_events (tenant_id, occurred_at);

CREATE TABLE app.payments (
    tenant_id          uuid NOT NULL,
    payment_id         uuid NOT NULL,
    invoice_id         uuid NOT NULL,
    purpose            text NOT NULL CHECK (purpose IN ('invoice')),
    idempotency_key    text NOT NULL,
    amount_minor       bigint NOT NULL CHECK (amount_minor > 0),
    currency           text NOT NULL,
    state              text NOT NULL CHECK (state IN ('intended', 'unknown', 'succeeded', 'failed')),
    provider_charge_id text,
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, payment_id),
    CONSTRAINT payments_one_per_purpose UNIQUE (tenant_id, invoice_id, purpose),
    CONSTRAINT payments_idempotency_key_key UNIQUE (idempotency_key),
    FOREIGN KEY (tenant_id, invoice_id) REFERENCES app.invoices,
    CHECK ((state = 'succeeded') = (provider_charge_id IS NOT NULL))
);

CREATE TABLE app.ledger_entries (
    tenant_id    uuid NOT NULL REFERENCES app.tenants,
    entry_id     uuid NOT NULL,
    posting_kind text NOT NULL CHECK (posting_kind IN ('invoice_issued', 'payment_received')),
    posting_ref  uuid NOT NULL,
    account      text NOT NULL CHECK (account IN ('accounts_receivable', 'revenue', 'tax_payable', 'cash')),
    currency     text NOT NULL,
    debit_minor  bigint NOT NULL CHECK (debit_minor >= 0),
    credit_minor bigint NOT NULL CHECK (credit_minor >= 0),
    posted_at    timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, entry_id),
    CONSTRAINT ledger_entries_once UNIQUE (tenant_id, posting_kind, posting_ref, account),
    CHECK ((debit_minor = 0) <> (credit_minor = 0))
);

RESET ROLE;
