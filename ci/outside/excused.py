"""What schemathesis would call a failure and is none, each for one operation, one answer and one reason.

Every check is on for every operation. A row is used only where the operation answers with exactly this status
and this problem code, or with this fault of a field and no other ("pointer code", * for an index); how often each
was used stands in the run's output, and a failure that no row fits is one.
"""

RANGE = "the result lies beyond 1e15: it depends on all fields together"
TWO_FIELDS = "an end before its own start: a rule between two fields"
KEY_REUSED = "a key that was drawn twice, for two requests"
CARD = "what reads like a card's number is never taken as a token"

# (operation, failure as schemathesis names it, status, problem code or fault): reason
EXCUSED = {
    ("POST /v1/signup", "RejectedPositiveData", 422, "/payment_token required"): (
        "a paid plan needs a payment token: a rule between two fields"
    ),
    ("POST /v1/signup", "RejectedPositiveData", 422, "/payment_token card_number"): CARD,
    ("PUT /v1/payment-method", "RejectedPositiveData", 422, "/payment_token card_number"): CARD,
    ("POST /v1/users", "RejectedPositiveData", 402, "user_limit"): "the plan keeps 50 users, and the run adds more",
    ("PUT /v1/scenarios/{id}", "RejectedPositiveData", 412, "version_differs"): "a tag that was drawn is seldom the version's",
    ("PUT /v1/scenarios/{id}", "AcceptedNegativeData", 412, "version_differs"): (
        "a tag that is none of ours matches no version (RFC 9110, 13.1.1): refused, by a status that schemathesis does not list"
    ),
    ("PUT /v1/scenarios/{id}", "MissingHeaderNotRejected", 428, "if_match_required"): (
        "the answer that RFC 6585 has for it, which schemathesis does not list"
    ),
    **{
        (f"{method} /v1/scenarios{path}", "RejectedPositiveData", 422, f"/input/costs/*/{end} end_before_start"): TWO_FIELDS
        for method, path in (("POST", ""), ("PUT", "/{id}"))
        for end in ("end_month", "end_date")
    },
    **{
        (f"POST /v1/calculators/{name}", "RejectedPositiveData", 422, "amount_out_of_range"): RANGE
        for name in ("npv", "pmt", "pv", "fv", "nper", "mirr", "amortisation")
    },
    **{
        (f"POST /v1/{path}", "RejectedPositiveData", 422, "idempotency_key_reused"): KEY_REUSED
        for path in ("scenarios", "forecasts", "forecasts/{id}/retry", "users", "plan/changes", "invoices/{id}/pay")
    },
}

# Operations that may end a run without a 2xx answer: reason
UNREACHED = {}
