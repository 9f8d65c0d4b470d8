-- Inputs, results and stored answers are kilobytes of JSON that are written once and read a few times: LZ4
-- compresses them at a tenth of the time that the default takes. What is stored already stays as it is and reads
-- as before. A server that was built without LZ4 says so, and keeps the default.

DO $$
BEGIN
    ALTER TABLE app.scenarios ALTER COLUMN input SET COMPRESSION lz4;
    ALTER TABLE app.forecasts ALTER COLUMN input SET COMPRESSION lz4, ALTER COLUMN result SET COMPRESSION lz4;
    ALTER TABLE app.idempotency_keys ALTER COLUMN response SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    RAISE NOTICE 'no LZ4 here: the default compression stays';
END
$$;
