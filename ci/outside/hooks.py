"""Loaded by schemathesis: what it cannot know about Forecastle, the tenants' checks, and the counts.

It changes only requests that are meant to be good ("positive"), so what a check expects of a bad one stays true.
A good request to sign in needs a password that is right, a webhook needs a signature, and what can be done once
needs something to be done to: `STEERS` gives some requests of an operation what they need. The rest stay as drawn.
"""

import atexit
import base64
import collections
import hashlib
import hmac
import json
import os
import random
import re
import time
import uuid

import requests
import schemathesis
import schemathesis.cli
from hypothesis import strategies as st
from schemathesis.core.failures import Failure
from schemathesis.engine.events import ScenarioFinished

from excused import EXCUSED

with open(os.environ["FORECASTLE_OUTSIDE"], encoding="utf-8") as plan:
    PLAN = json.load(plan)
BASE, ME = PLAN["base"], PLAN["me"]
CHOICE = random.Random(PLAN["seed"])
OWN, FOREIGN = PLAN["own"], PLAN["foreign"]
FOREIGN_IDS = {identifier for ids in FOREIGN.values() for identifier in ids}
FAILURES_KEPT = 400

schemathesis.openapi.format("iana-time-zone", st.sampled_from(PLAN["time_zones"]))


class Count:
    """What happened, for the driver's table."""

    def __init__(self):
        self.cases = collections.Counter()
        self.phases = collections.Counter()
        self.statuses = collections.defaultdict(collections.Counter)
        self.checks = collections.defaultdict(collections.Counter)
        self.failed = collections.Counter()
        self.excused = collections.Counter()
        self.foreign = collections.Counter()
        self.steered = collections.Counter()
        self.failures = []
        self.started = time.monotonic()

    def write(self):
        told = {name: value for name, value in vars(self).items() if name != "started"}
        told["failed"] = [[*key, n] for key, n in self.failed.items()]
        told["excused"] = [[*key, n] for key, n in self.excused.items()]
        told["seconds"] = round(time.monotonic() - self.started, 1)
        with open(PLAN["report"], "w", encoding="utf-8") as report:
            json.dump(told, report)


COUNT = Count()
atexit.register(COUNT.write)


class Caller:
    """The tenant's owner with a session of its own, beside the one schemathesis uses."""

    def __init__(self):
        self.link = requests.Session()
        self.token = None

    def __call__(self, method, path, body=None, **headers):
        for _ in range(2):
            if self.token is None:
                signed_in = self.link.post(f"{BASE}/v1/login", json={"email": ME["email"], "password": ME["password"]}, timeout=15)
                signed_in.raise_for_status()
                self.token = signed_in.json()["access_token"]
            every = {"Authorization": f"Bearer {self.token}", "Idempotency-Key": str(uuid.uuid4()), **headers}
            answer = self.link.request(method, BASE + path, json=body, headers=every, timeout=15)
            if answer.status_code != 401:
                return answer
            # A case has ended this session, as it may.
            self.token = None
        answer.raise_for_status()
        return answer


CALL = Caller()
TURN = collections.Counter()
REFRESH_TOKENS = []


class Signature(requests.auth.AuthBase):
    """Signs the bytes that are sent, as the payment provider does."""

    def __call__(self, request):
        identifier, at = f"evt_{uuid.uuid4()}", str(int(time.time()))
        body = request.body if isinstance(request.body, bytes) else (request.body or "").encode()
        secret = base64.b64decode(PLAN["webhook_secret"].removeprefix("whsec_"))
        mac = hmac.new(secret, f"{identifier}.{at}.".encode() + body, hashlib.sha256).digest()
        request.headers["webhook-id"] = identifier
        request.headers["webhook-timestamp"] = at
        request.headers["webhook-signature"] = "v1," + base64.b64encode(mac).decode()
        return request


def _forecast_under_way():
    """A forecast that takes a while."""
    return CALL("POST", "/v1/forecasts", {"scenario_id": PLAN["slow_scenario"]}).json()["id"]


def _log_in(case, _):
    case.body = {"email": ME["email"], "password": ME["password"]}


def _refresh(case, _):
    if REFRESH_TOKENS:
        case.body = {"refresh_token": REFRESH_TOKENS.pop()}


def _mailed(purpose, **rest):
    def steer(case, _):
        if PLAN["mailed"][purpose]:
            case.body = {"token": PLAN["mailed"][purpose].pop(), **rest}

    return steer


def _password(case, _):
    case.body = {"old_password": ME["password"], "new_password": ME["password"]}


def _webhook(case, kwargs):
    kwargs["auth"] = Signature()
    if CHOICE.random() < 0.7:
        # About a charge that there is, with amounts as drawn.
        charge = CHOICE.choice(PLAN["charges"])
        case.body["type"] = CHOICE.choice(["charge.succeeded", "charge.failed", "charge.refunded"])
        case.body["data"] |= {name: charge[name] for name in ("id", "idempotency_key", "reference", "currency")}


def _cancel(case, _):
    case.path_parameters["id"] = _forecast_under_way()


def _retry(case, _):
    identifier = _forecast_under_way()
    CALL("POST", f"/v1/forecasts/{identifier}/cancel")
    case.path_parameters["id"] = identifier


def _withdraw(case, _):
    CALL("POST", "/v1/plan/changes", {"plan": "FREE"})


def _edit(case, _):
    identifier = CHOICE.choice(OWN["scenarios"])
    case.path_parameters["id"] = identifier
    case.headers["If-Match"] = CALL("GET", f"/v1/scenarios/{identifier}").headers["ETag"]


def _request_forecast(case, _):
    case.body = {"scenario_id": CHOICE.choice(OWN["scenarios"])}


def _remove_user(case, _):
    identifier = uuid.uuid4()
    body = {"name": "Gone", "email": f"gone-{identifier}@example.com", "role": "viewer", "password": "correct horse battery"}
    added = CALL("POST", "/v1/users", body)
    if added.status_code == 201:
        case.path_parameters["id"] = added.json()["id"]


def _revoke_session(case, _):
    body = {"email": ME["email"], "password": ME["password"]}
    case.path_parameters["id"] = requests.post(f"{BASE}/v1/login", json=body, timeout=15).json()["session_id"]


def _own(kind):
    def steer(case, _):
        case.path_parameters["id"] = CHOICE.choice(OWN[kind])

    return steer


# Operation: how a good request of it is helped.
STEERS = {
    "POST /v1/login": _log_in,
    "POST /v1/token/refresh": _refresh,
    "POST /v1/email-verification/confirm": _mailed("verification"),
    "POST /v1/password-reset/confirm": _mailed("reset", password="another horse battery"),
    "PUT /v1/me/password": _password,
    "POST /v1/webhooks/payments": _webhook,
    "POST /v1/forecasts": _request_forecast,
    "POST /v1/forecasts/{id}/cancel": _cancel,
    "POST /v1/forecasts/{id}/retry": _retry,
    "DELETE /v1/plan/changes/pending": _withdraw,
    "PUT /v1/scenarios/{id}": _edit,
    "DELETE /v1/users/{id}": _remove_user,
    "DELETE /v1/sessions/{id}": _revoke_session,
    "PATCH /v1/users/{id}": _own("users"),
    "POST /v1/invoices/{id}/pay": _own("invoices"),
    **{f"GET /v1/{kind}/{{id}}": _own(kind) for kind in ("scenarios", "forecasts", "invoices", "payments", "credit-notes", "users")},
}

def _foreign(case, kind):
    """Gives the request an id of the other tenant, if it has a place for one."""
    label, identifiers = case.operation.label, case.path_parameters or {}
    if "id" in identifiers and FOREIGN.get(kind):
        identifiers["id"] = CHOICE.choice(FOREIGN[kind])
    elif label == "POST /v1/forecasts" and FOREIGN.get("scenarios"):
        case.body = {"scenario_id": CHOICE.choice(FOREIGN["scenarios"])}
    elif label == "GET /v1/forecasts/events" and FOREIGN.get("forecasts"):
        case.query["forecast_id"] = CHOICE.choice(FOREIGN["forecasts"])


def _each(value, change):
    """A JSON value with every number and text changed."""
    if isinstance(value, dict):
        return {name: _each(item, change) for name, item in value.items()}
    return [_each(item, change) for item in value] if isinstance(value, list) else change(value)


def _whole(value):
    """Whole numbers written without a point, as MODEL.md has them; to JSON Schema 1.0 is an integer as well."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _own_words(value):
    """Nothing of the other tenant, whose answers schemathesis has seen as well: it must come from nowhere else."""
    return value.replace(PLAN["foreign_canary"], "drawn") if isinstance(value, str) else value


@schemathesis.hook
def before_call(context, case, kwargs):
    meta = case.meta
    if meta is None:
        return
    identifiers = case.path_parameters or {}
    changes_users = case.operation.path == "/v1/users/{id}" and case.operation.method.upper() != "GET"
    if changes_users and identifiers.get("id") == ME["user_id"]:
        # The one user that the run must not lose: it is the one that runs.
        identifiers["id"] = str(uuid.uuid4())
    case.body = _each(case.body, _own_words)
    if not meta.generation.mode.is_positive:
        return
    if isinstance(case.headers.get("Idempotency-Key"), str):
        # One drawn key comes again and again, and would only ever show the answer of its first request.
        case.headers["Idempotency-Key"] = case.headers["Idempotency-Key"][:240] + str(CHOICE.randrange(10**12))
    case.body = _each(case.body, _whole)
    if meta.phase.name.value == "stateful" and identifiers:
        return
    label, kind = case.operation.label, (case.operation.path.split("/")[2:3] or [""])[0]
    # By turns, so that few requests are enough for each: helped, with another tenant's id, as drawn.
    TURN[label] += 1
    if TURN[label] % 3 == 1 and label in STEERS:
        STEERS[label](case, kwargs)
        COUNT.steered[label] += 1
    elif TURN[label] % 3 == 2:
        _foreign(case, kind)


@schemathesis.hook
def after_call(context, case, response):
    if case.operation.path in ("/v1/login", "/v1/token/refresh") and response.status_code == 200:
        REFRESH_TOKENS.append(response.json()["refresh_token"])
        del REFRESH_TOKENS[:-20]


def _sent(case):
    body = case.body if isinstance(case.body, dict) else {}
    for container in (case.path_parameters, case.query, body):
        yield from (value for value in (container or {}).values() if isinstance(value, str))


class ForeignShown(Failure):
    """Something of the other tenant was answered, or it was not answered as what nobody has."""

    def __init__(self, *, operation, message):
        super().__init__(operation=operation, title="The other tenant shows", message=message)


@schemathesis.check
def foreign_is_absent(ctx, response, case):
    """The other tenant's ids are answered as ids that nobody has, to the byte; and nothing of it is ever shown."""
    label, text = case.operation.label, response.text
    if PLAN["foreign_canary"] in text:
        raise ForeignShown(operation=label, message="the answer holds what only the other tenant has")
    if not any(value in FOREIGN_IDS for value in _sent(case)):
        return None
    status, is_good = response.status_code, case.meta is None or case.meta.generation.mode.is_positive
    reasons = _reasons(response)
    if status == 401 or (reasons and all((label, "RejectedPositiveData", status, reason) in EXCUSED for reason in reasons)):
        # Refused for what it is, before anything was looked for.
        return None
    COUNT.foreign[label] += 1
    if status == 404 and response.content.decode() != PLAN["absent"]:
        raise ForeignShown(operation=label, message=f"not the answer for an absent id: {text[:300]}")
    if status != 404 and (is_good or status < 400):
        raise ForeignShown(operation=label, message=f"{status} for an id of the other tenant, 404 expected: {text[:300]}")
    return None


def _reasons(response):
    """The problem's code; where the request's content was at fault, instead each fault it names: "pointer code"."""
    if not response.headers.get("content-type", [""])[0].startswith("application/problem+json"):
        return set()
    problem = response.json()
    faults = {f"{re.sub(r'/[0-9]+(?=/|$)', '/*', fault['pointer'])} {fault['code']}" for fault in problem.get("errors", [])}
    return faults or {problem["code"]}


@schemathesis.hook
def filter_failure(context, failure, case, response):
    key = (case.operation.label, type(failure).__name__, response.status_code)
    reasons = _reasons(response)
    if reasons and all((*key, reason) in EXCUSED for reason in reasons):
        COUNT.excused.update((*key, reason) for reason in reasons)
        return False
    COUNT.failed[key] += 1
    if len(COUNT.failures) < FAILURES_KEPT:
        request = response.request
        body = request.body.decode("utf-8", "replace") if isinstance(request.body, bytes) else request.body
        COUNT.failures.append(
            {
                "operation": key[0],
                "failure": key[1],
                "status": key[2],
                "phase": case.meta.phase.name.value if case.meta else None,
                "case": str(case.meta.phase.data.description) if case.meta else None,
                "message": failure.message[:600],
                "request": f"{request.method} {request.url}",
                "headers": {name: value for name, value in request.headers.items() if name.lower() in SHOWN},
                "body": (body or "")[:600],
                "answer": response.text[:600],
            }
        )
    return True


SHOWN = {"content-type", "idempotency-key", "if-match", "last-event-id", "webhook-id"}


@schemathesis.cli.handler()
class Counting(schemathesis.cli.EventHandler):
    """Counts every case that was answered and every check that was made on it."""

    def handle_event(self, ctx, event):
        if not isinstance(event, ScenarioFinished):
            return
        recorder = event.recorder
        for identifier, checks in recorder.checks.items():
            case, answer = recorder.cases[identifier].value, recorder.find_response(case_id=identifier)
            label = case.operation.label
            COUNT.cases[label] += 1
            COUNT.statuses[label][str(answer.status_code)] += 1
            if case.meta:
                COUNT.phases[f"{case.meta.phase.name.value} {case.meta.generation.mode.value}"] += 1
            for check in checks:
                COUNT.checks[check.name][label] += 1
