-- Members who leave, and the audit log.
--
-- A removed user's row stays, because forecasts, keys and audit events refer to it. Its address becomes
-- free for another account: the row keeps one that nobody can have.

SET LOCAL ROLE forecastle_owner;

ALTER TABLE app.users ADD COLUMN removed_at timestamptz;
GRANT UPDATE (email, removed_at) ON app.users TO forecastle_app;
CREATE INDEX users_newest_first ON app.users (tenant_id, created_at DESC, user_id DESC) WHERE removed_at IS NULL;

-- Who did what to which object, and when. `before` and `after` are words of fixed lists (a role, a plan):
-- no address, no name, no amount and no secret can stand here, and the checks see to that.
CREATE TABLE app.audit_events (
    tenant_id   uuid NOT NULL REFERENCES app.tenants,
    event_id    uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    actor_id    uuid,
    action      text NOT NULL CHECK (action ~ '^[a-z_]{1,32}\.[a-z_]{1,32}$'),
    object_kind text NOT NULL CHECK (object_kind ~ '^[a-z_]{1,32}$'),
    object_id   uuid NOT NULL,
    before      text CHECK (before ~ '^[A-Za-z_]{1,32}$'),
    after       text CHECK (after ~ '^[A-Za-z_]{1,32}$'),
    PRIMARY KEY (tenant_id, event_id),
    FOREIGN KEY (tenant_id, actor_id) REFERENCES app.users
);
CREATE INDEX audit_events_newest_first ON app.audit_events (tenant_id, occurred_at DESC, event_id DESC);

ALTER TABLE app.audit_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE app.audit_events FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_only ON app.audit_events
    USING (tenant_id = nullif(current_setting('app.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('app.tenant', true), '')::uuid);
GRANT SELECT ON app.audit_events TO forecastle_app, forecastle_read, forecastle_definer;
-- Only ever added to: nobody is granted UPDATE or DELETE.
GRANT INSERT ON app.audit_events TO forecastle_app;

RESET ROLE;
