-- What the books must obey whoever writes them: a posting balances when its transaction commits, an
-- invoice only moves forward, and what was issued does not change.

SET LOCAL ROLE forecastle_owner;

CREATE FUNCTION app.posting_must_balance() RETURNS trigger
LANGUAGE plpgsql SET search_path = app, pg_temp
AS $$
BEGIN
    IF EXISTS (
        SELECT 1 FROM app.ledger_entries e
        WHERE e.tenant_id = NEW.tenant_id AND e.posting_kind = NEW.posting_kind AND e.posting_ref = NEW.posting_ref
        GROUP BY e.currency
        HAVING sum(e.debit_minor) <> sum(e.credit_minor)
    ) THEN
        RAISE EXCEPTION 'posting does not balance'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_posting_balances';
    END IF;
    RETURN NULL;
END
$$;

CREATE CONSTRAINT TRIGGER ledger_posting_balances
    AFTER INSERT ON app.ledger_entries DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION app.posting_must_balance();

CREATE FUNCTION app.invoice_moves_forward() RETURNS trigger
LANGUAGE plpgsql SET search_path = app, pg_temp
AS $$
BEGIN
    IF OLD.state <> 'draft' AND (NEW.number, NEW.tax_minor, NEW.total_minor, NEW.issued_at)
        IS DISTINCT FROM (OLD.number, OLD.tax_minor, OLD.total_minor, OLD.issued_at)
    THEN
        RAISE EXCEPTION 'an issued invoice does not change'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'invoice_issued_is_final';
    END IF;
    IF NEW.state <> OLD.state AND NOT (
        (OLD.state = 'draft' AND NEW.state = 'issued')
        OR (OLD.state = 'issued' AND NEW.state IN ('paid', 'void', 'uncollectible')))
    THEN
        RAISE EXCEPTION 'an invoice only moves forward'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'invoice_moves_forward';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER invoice_moves_forward
    BEFORE UPDATE ON app.invoices
    FOR EACH ROW EXECUTE FUNCTION app.invoice_moves_forward();

CREATE FUNCTION app.invoice_lines_must_add_up() RETURNS trigger
LANGUAGE plpgsql SET search_path = app, pg_temp
AS $$
BEGIN
    IF EXISTS (
        SELECT 1 FROM app.invoices i
        LEFT JOIN app.invoice_lines l ON l.tenant_id = i.tenant_id AND l.invoice_id = i.invoice_id
        WHERE i.tenant_id = NEW.tenant_id AND i.invoice_id = NEW.invoice_id
        GROUP BY i.total_minor, i.tax_minor
        HAVING i.total_minor <> coalesce(sum(l.amount_minor + l.tax_minor), 0)
            OR i.tax_minor <> coalesce(sum(l.tax_minor), 0)
    ) THEN
        RAISE EXCEPTION 'an invoice is the sum of its lines'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'invoice_is_sum_of_lines';
    END IF;
    RETURN NULL;
END
$$;

CREATE CONSTRAINT TRIGGER invoice_is_sum_of_lines
    AFTER INSERT OR UPDATE ON app.invoices DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION app.invoice_lines_must_add_up();
CREATE CONSTRAINT TRIGGER invoice_line_is_counted
    AFTER INSERT OR UPDATE ON app.invoice_lines DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION app.invoice_lines_must_add_up();

RESET ROLE;
