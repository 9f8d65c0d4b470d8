-- Who may see what. Every table is under forced row-level security: without a tenant set in the
-- transaction a query sees nothing and writes nothing, whoever wrote it.

SET LOCAL ROLE forecastle_owner;

DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'app' LOOP
        EXECUTE format('ALTER TABLE app.%I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE app.%I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY tenant_only ON app.%I'
            ' USING (tenant_id = nullif(current_setting(''app.tenant'', true), '''')::uuid)'
            ' WITH CHECK (tenant_id = nullif(current_setting(''app.tenant'', true), '''')::uuid)', name);
    END LOOP;
END
$$;

GRANT USAGE ON SCHEMA app TO forecastle_app, forecastle_read, forecastle_definer;
GRANT SELECT ON ALL TABLES IN SCHEMA app TO forecastle_app, forecastle_read, forecastle_definer;

-- What the application may change. What is missing here is missing on purpose: nothing deletes but
-- spent idempotency keys, and the ledger is only ever added to.
GRANT INSERT ON ALL TABLES IN SCHEMA app TO forecastle_app;
GRANT UPDATE (plan, payment_token, next_invoice_number) ON app.tenants TO forecastle_app;
GRANT UPDATE (name, password_hash, role) ON app.users TO forecastle_app;
GRANT UPDATE (expires_at, revoked_at) ON app.sessions TO forecastle_app;
GRANT UPDATE (rotated_at) ON app.refresh_tokens TO forecastle_app;
GRANT UPDATE (name, notes, input, version, updated_at) ON app.scenarios TO forecastle_app;
GRANT UPDATE (state, engine_version, result, result_hash, error_code, started_at, finished_at, quota_state)
    ON app.forecasts TO forecastle_app;
GRANT UPDATE (state, ready_at, lease_until, finished_at, last_error_code) ON app.jobs TO forecastle_app;
GRANT UPDATE (ended_at, outcome) ON app.job_attempts TO forecastle_app;
GRANT UPDATE (taken) ON app.quota_periods TO forecastle_app;
GRANT UPDATE (fingerprint, state, status, response, locked_until, created_at, expires_at)
    ON app.idempotency_keys TO forecastle_app;
GRANT DELETE ON app.idempotency_keys TO forecastle_app;
GRANT UPDATE (state, number, tax_minor, total_minor, issued_at, paid_at) ON app.invoices TO forecastle_app;
GRANT UPDATE (quantity, amount_minor, tax_minor) ON app.invoice_lines TO forecastle_app;
GRANT UPDATE (invoice_id) ON app.usage_events TO forecastle_app;
GRANT UPDATE (state, provider_charge_id, updated_at) ON app.payments TO forecastle_app;
REVOKE UPDATE, DELETE, TRUNCATE ON app.ledger_entries FROM forecastle_app;

RESET ROLE;
