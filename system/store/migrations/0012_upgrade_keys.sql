-- The key of an upgrade's request is free again once its answer would have been forgotten: whoever uses it
-- then asks for something new. The row of the old upgrade gives it up by a form that no request can send, so
-- that the index over keys stays as it is and an instance of before goes on working.

SET LOCAL ROLE forecastle_owner;

GRANT UPDATE (idempotency_key) ON app.plan_upgrades TO forecastle_app;

RESET ROLE;
