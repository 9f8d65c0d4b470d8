"""schemathesis over the OpenAPI document that Forecastle serves, as two tenants, all checks on.

Usage: conformance.py FORECASTLE SCHEMATHESIS [--engine process] [--examples N] [--seed N] [--control] [--keep FOLDER]

Starts PostgreSQL, Redis, a payment provider, a mail server and Forecastle's processes, makes two tenants with
something of everything through the interface, and runs schemathesis as the one and as the other, each time with
ids of the other's among its requests. With --control it runs instead over a copy of the document that lies, and with
a tenant's own ids passed off as the other's; every one of those lies must be found.

Exit codes: 0 agrees, 1 disagrees (with --control: a lie was not found), 2 usage, 6 something cannot be had here,
70 the run itself broke.
"""

import argparse
import collections
import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
import uuid

import requests

from doubles import MailServer, Provider
from excused import EXCUSED, UNREACHED
from ground import Ground, Missing

HERE = os.path.dirname(os.path.abspath(__file__))
PASSWORD = "correct horse battery"
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
WEBHOOK_SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
RATE = "1000000"
# Beyond the product's defaults, for this run alone; authentication is as ever. Printed with the result.
SETTINGS = {
    "rate limits raised to 1,000,000 a second": [
        word for limit in ("user", "address", "login") for word in (f"--rate-{limit}-per-s", RATE, f"--rate-{limit}-floor-per-s", RATE)
    ],
    "cheap password hashes": ["--password-memory-kib", "64", "--password-passes", "1"],
    "no floor under a reset's answer, a mail a second": ["--mail-reset-floor-ms", "1", "--mail-interval-s", "1"],
    "64 streams a user": ["--streams-user-max", "64"],
    "access tokens of a day": ["--access-ttl-s", "86400"],
}
# What `format: iana-time-zone` is drawn from.
TIME_ZONES = ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Cairo", "UTC", "Etc/GMT+12"]
# One that takes a worker longer than a request to cancel it.
SLOW_PATHS = 50_000
# Longest run of schemathesis as one tenant, by the number of examples: it is ended then, and the run has broken.
RUN_S_MAX = 7_200


class Disagreement(Exception):
    """Forecastle answers its driver otherwise than it should."""


class Tenant:
    """An organisation, its owner, and what the owner has made."""

    def __init__(self, base, name, **terms):
        self.base, self.name, self.canary = base, name, f"canary-{name}-{uuid.uuid4().hex}"
        self.email = f"{name}-{uuid.uuid4().hex[:8]}@example.com"
        body = {"organization": self.canary, "name": name, "email": self.email, "password": PASSWORD, "currency": "EUR", "time_zone": "Europe/Berlin"}
        self.tokens = expect(201, requests.post(f"{base}/v1/signup", json=body | terms, timeout=15))
        self.own = collections.defaultdict(list)

    def ask(self, status, method, path, body=None, **headers):
        every = {"Authorization": f"Bearer {self.tokens['access_token']}", "Idempotency-Key": str(uuid.uuid4()), **headers}
        return expect(status, requests.request(method, self.base + path, json=body, headers=every, timeout=15))

    def ids(self, path):
        return [item["id"] for item in self.ask(200, "GET", path + "?limit=100")["items"]]

    def furnish(self, bill):
        """Something of everything that has an id, through the interface and one run of the biller."""
        for number in range(3):
            self.ask(201, "POST", "/v1/scenarios", {"name": f"{self.canary} {number}", "notes": None, "input": scenario()})
        self.slow = self.ask(201, "POST", "/v1/scenarios", {"name": f"{self.canary} slow", "input": scenario(SLOW_PATHS)})["id"]
        self.own["scenarios"] = [identifier for identifier in self.ids("/v1/scenarios") if identifier != self.slow]
        for identifier in self.own["scenarios"]:
            self.ask(202, "POST", "/v1/forecasts", {"scenario_id": identifier})
        until("forecasts are done", lambda: self.ask(200, "GET", "/v1/dashboard")["forecasts"]["succeeded"] == 3)
        for role in ("editor", "viewer"):
            body = {"name": f"{self.canary} {role}", "email": f"{role}-{self.email}", "role": role, "password": PASSWORD}
            self.ask(201, "POST", "/v1/users", body)
        bill()
        # A proration that is declined is credited in full: so there is a credit note.
        self.ask(200, "PUT", "/v1/payment-method", {"payment_token": "tok_declined_1"})
        self.ask(402, "POST", "/v1/plan/changes", {"plan": "PRO"})
        self.ask(200, "PUT", "/v1/payment-method", {"payment_token": "tok_good_2"})
        self.ask(201, "POST", "/v1/plan/changes", {"plan": "PRO"})
        for kind in ("forecasts", "invoices", "payments", "credit-notes", "sessions"):
            self.own[kind] = self.ids(f"/v1/{kind}")
        self.own["users"] = [identifier for identifier in self.ids("/v1/users") if identifier != self.tokens["user_id"]]
        empty = [kind for kind, ids in self.own.items() if not ids]
        if empty:
            raise Disagreement(f"{self.name} has none of: {', '.join(empty)}")


def expect(status, answer):
    if answer.status_code != status:
        raise Disagreement(f"{answer.request.method} {answer.request.path_url}: {status} expected, {answer.status_code}: {answer.text[:500]}")
    return answer.json() if answer.content else None


def until(what, is_so, s_max=60):
    end = time.monotonic() + s_max
    while not is_so():
        if time.monotonic() > end:
            raise RuntimeError(f"not within {s_max} s: {what}")
        time.sleep(0.1)


def scenario(paths=None):
    line = {"name": "Seats", "opening_units": "100", "adds_per_month": "10", "adds_growth_monthly": "0.01", "churn_monthly": "0.02"}
    line |= {"price": "25", "price_growth_annual": "0.03", "collection_lag_months": 1}
    terms = {"currency": "EUR", "start_month": "2026-01", "horizon_months": 120 if paths else 24, "opening_cash": "1000"}
    terms |= {"discount_rate_annual": "0.08", "tax_rate": "0.25", "revenue": [line], "costs": []}
    if paths:
        terms["uncertainty"] = {"paths": paths, "price_sigma_monthly": "0.1", "adds_sigma_monthly": "0.1", "seed": "7"}
    return terms


def start(ground, provider, mails):
    """Every process; the address of the interface, and a function that bills once."""
    postgres, redis = ground.postgres(), ground.redis()
    url = "postgres://{}@127.0.0.1:%d/forecastle" % postgres
    ground.run("migrate", ["migrate", "--database-url", url.format("postgres")])
    app, cache = ["--database-url", url.format("forecastle_app")], ["--redis-url", f"redis://127.0.0.1:{redis}/"]
    serve = [*app, *cache, "--signing-keys", f"outside:{KEY}", "--mail-token-key", KEY, "--provider-url", provider.url]
    serve += ["--webhook-secrets", WEBHOOK_SECRET, *(word for words in SETTINGS.values() for word in words)]
    address = ground.start("serve", [ground.binary, "serve", *serve], announces=True)["address"]
    # What is drawn may be the heaviest forecast there is: it must not take the processor from the interface.
    work = [*app, *cache, "--concurrency", "1", "--deadline-ms", "5000"]
    ground.start("work", ["nice", "-n", "10", ground.binary, "work", *work], announces=True)
    send = [*app, "--smtp-port", str(mails.port), "--mail-token-key", KEY, "--mail-from", "forecastle@example.com"]
    ground.start("mail", [ground.binary, "mail", *send, "--public-url", "http://127.0.0.1/", "--poll-ms", "200"], announces=True)
    bill = [*app, "--provider-url", provider.url, "--once", "--issue-after-s", "0"]
    # 5: something is left to be done, which its summary tells.
    return f"http://{address}", lambda: json.loads(ground.run("bill", ["bill", *bill], codes=(0, 5)))


def mailed_tokens(base, mails, number):
    """Tokens that each count once: of users whose sign-up and whose forgotten password nobody else uses."""
    tokens = {"verification": [], "reset": []}
    for turn in range(number):
        spare = Tenant(base, f"spare{turn}")
        tokens["verification"].append(mails.token_for(spare.email, 0))
        expect(202, requests.post(f"{base}/v1/password-reset", json={"email": spare.email}, timeout=15))
        tokens["reset"].append(mails.token_for(spare.email, 1))
    return tokens


class Run:
    """One run of schemathesis as one tenant, in a folder of its own."""

    def __init__(self, folder, program, options, me, other, mailed, absent, charges, foreign=None):
        self.name, self.program, self.options, self.folder = me.name, program, options, os.path.join(folder, me.name)
        os.makedirs(self.folder)
        self.report = os.path.join(self.folder, "report.json")
        who = {"email": me.email, "password": PASSWORD, "user_id": me.tokens["user_id"]}
        plan = {"base": me.base, "me": who, "own": me.own, "foreign": other.own if foreign is None else foreign, "seed": options.seed}
        plan |= {"slow_scenario": me.slow, "mailed": mailed, "webhook_secret": WEBHOOK_SECRET, "absent": absent, "report": self.report}
        plan["charges"] = [charge for charge in charges if me.tokens["tenant_id"] in charge["idempotency_key"]]
        plan |= {"foreign_canary": other.canary, "time_zones": TIME_ZONES}
        self.write("plan.json", json.dumps(plan))
        self.write("auth.json", json.dumps({"auth": [login(me), login(other)]}))
        self.write("schemathesis.toml", CONFIG.format(hooks=os.path.join(HERE, "hooks.py"), auth=os.path.join(self.folder, "auth.json"), me=me.name, other=other.name))

    def write(self, name, text):
        with open(os.path.join(self.folder, name), "w", encoding="utf-8") as file:
            file.write(text)

    def execute(self, document, base, *more):
        """Runs it to its end; its exit code."""
        command = [self.program, "--config-file", os.path.join(self.folder, "schemathesis.toml"), "run", document, "--url", base]
        command += ["--seed", str(self.options.seed), "--max-examples", str(self.options.examples), "--no-color", "--continue-on-failure", *more]
        command += ["--report", "json", "--report-json-path", os.path.join(self.folder, "verdict.json")]
        environment = os.environ | {"FORECASTLE_OUTSIDE": os.path.join(self.folder, "plan.json"), "PYTHONPATH": HERE, "PYTHONDONTWRITEBYTECODE": "1"}
        with open(os.path.join(self.folder, "output.txt"), "w", encoding="utf-8") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=self.folder, env=environment)
            try:
                self.code = process.wait(RUN_S_MAX)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        return self.code

    def told(self):
        with open(self.report, encoding="utf-8") as report:
            return json.load(report)

    def errors(self):
        """What kept schemathesis from testing something, and what it left out."""
        with open(os.path.join(self.folder, "verdict.json"), encoding="utf-8") as file:
            verdict = json.load(file)
        errors = [f"schemathesis as {self.name}: {error['title']}, {error['count']} times" for error in verdict["errors"]]
        if not verdict["complete"] or verdict["operations"]["tested"] != verdict["operations"]["total"]:
            errors.append(f"schemathesis as {self.name}: tested {verdict['operations']['tested']} of {verdict['operations']['total']} operations")
        return errors

    def output(self):
        with open(os.path.join(self.folder, "output.txt"), encoding="utf-8", errors="replace") as output:
            return output.read()


def login(tenant):
    token = {"extractFrom": "body", "extractSelector": "/access_token", "sendIn": "header", "sendName": "Authorization", "sendTemplate": "Bearer {token}"}
    who = {"username": tenant.email, "password": PASSWORD, "usernameField": "email", "passwordField": "password"}
    endpoint = {"endpoint": "/v1/login", "verb": "POST", "contentType": "application/json", "payloadUserPwd": who, "token": token}
    return {"name": tenant.name, "loginEndpointAuth": endpoint}


CONFIG = """\
hooks = "{hooks}"
workers = 1
request-timeout = 20
max-stream-events = 1
warnings = false

[cache]
enabled = false

[generation]
database = "none"

# Signs in as the one; the other replays its reads (object_level_authorization).
[auth]
auto-signup = false

[auth.wfc]
path = "{auth}"
user = "{me}"
peers = ["{me}", "{other}"]
refresh_interval = 86400
"""


def operations(document):
    methods = {"get", "put", "post", "delete", "patch"}
    return [f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item if method in methods]


def merged(runs):
    """The counts of several runs as one."""
    total = collections.defaultdict(collections.Counter)
    for told in (run.told() for run in runs):
        for name in ("cases", "phases", "foreign", "steered"):
            total[name].update(told[name])
        for name in ("failed", "excused"):
            for *key, n in told[name]:
                total[name][tuple(key)] += n
        for label, statuses in told["statuses"].items():
            total["good"][label] += sum(n for status, n in statuses.items() if status.startswith("2"))
            total["server_errors"][label] += sum(n for status, n in statuses.items() if status.startswith("5"))
        for check, labels in told["checks"].items():
            total["checks"][check] += sum(labels.values())
    return total


def table(labels, runs):
    """Prints what was done; the lines that say what is wrong."""
    total = merged(runs)
    failed = collections.Counter()
    for (label, *_), n in total["failed"].items():
        failed[label] += n
    width = max(map(len, labels))
    print(f"{'operation':{width}}  {'cases':>7}  {'2xx':>6}  {'foreign':>7}  {'failed':>6}")
    for label in labels:
        print(f"{label:{width}}  {total['cases'][label]:7}  {total['good'][label]:6}  {total['foreign'][label]:7}  {failed[label]:6}")
    print("\nchecks: " + ", ".join(f"{check} {n}" for check, n in sorted(total["checks"].items())))
    print("phases: " + ", ".join(f"{phase} {n}" for phase, n in sorted(total["phases"].items())))
    print("\nexcused, each for one operation and one answer:")
    for key, reason in sorted(EXCUSED.items()):
        print(f"  {total['excused'][key]:5}  {key[0]}: {key[1]}, {key[2]} {key[3]}: {reason}")
    wrong = []
    for (label, failure, status), n in sorted(total["failed"].items()):
        wrong.append(f"{label}: {failure}, answered {status}, {n} times")
    for label in labels:
        if not total["good"][label] and label not in UNREACHED:
            wrong.append(f"{label}: never answered 2xx, so nothing is known of it")
    for label, reason in UNREACHED.items():
        print(f"never answered 2xx here: {label}: {reason}")
    with_ids = [label for label in labels if "{id}" in label and not total["foreign"][label]]
    wrong += [f"{label}: never asked with an id of the other tenant" for label in with_ids]
    count = sum(total["cases"].values())
    seconds = sum(run.told()["seconds"] for run in runs)
    print(f"\n{len(labels)} operations, {count} cases, {sum(total['checks'].values())} checks, {sum(total['foreign'].values())} with foreign ids, "
          f"{sum(failed.values())} failures, {sum(total['excused'].values())} excused, {seconds:.0f} s")
    return wrong


def examples_of_failures(runs):
    """One request and answer of each kind of failure."""
    seen = set()
    for run in runs:
        for failure in run.told()["failures"]:
            kind = (failure["operation"], failure["failure"], failure["status"])
            if kind not in seen:
                seen.add(kind)
                print(f"\n-- {kind[0]}: {kind[1]} ({failure['phase']}, {failure['case']}, as {run.name})\n{failure['message']}")
                print(f"   {failure['request']} {failure['headers']} {failure['body']}\n   -> {failure['status']} {failure['answer']}")


def hold(runs, document, base, bill):
    """Runs schemathesis as each tenant; whether everything agrees, and the books do after all of it."""
    for run in runs:
        # As it was served; schemathesis leaves out the operation that it reads a document from.
        run.write("openapi.json", json.dumps(document))
        code = run.execute(os.path.join(run.folder, "openapi.json"), base)
        if code not in (0, 1) or not os.path.exists(run.report):
            raise RuntimeError(f"schemathesis ended with {code}: {run.output()[-6000:]}")
    wrong = table(operations(document), runs)
    examples_of_failures(runs)
    for run in runs:
        errors = run.errors()
        if errors or (run.code != 0 and not wrong):
            print(run.output())
            wrong += errors or [f"schemathesis as {run.name} ended with {run.code}"]
    books = bill()
    print(f"the biller, after all of it: {json.dumps(books)}")
    if books["mismatched"] or books["incomplete"]:
        wrong.append("the biller finds invoices, payments and ledger in disagreement")
    for line in wrong:
        print(f"DISAGREES {line}")
    return not wrong


def lies(document):
    """A copy of the document with one lie of each kind, and what must be found because of it."""
    lying, found = copy.deepcopy(document), set()
    del lying["paths"]["/v1/scenarios/{id}"]["get"]["responses"]["404"]
    found.add(("GET /v1/scenarios/{id}", "UndefinedStatusCode"))
    lying["components"]["schemas"]["Me"]["required"].append("shoe_size")
    found.add(("GET /v1/me", "JsonSchemaError"))
    lying["paths"]["/.well-known/jwks.json"]["get"]["security"] = [{"bearer": []}]
    found.add(("GET /.well-known/jwks.json", "IgnoredAuth"))
    lying["paths"]["/v1/calculators/irr"]["post"]["responses"]["200"]["content"] = {"text/csv": {"schema": {"type": "string"}}}
    found.add(("POST /v1/calculators/irr", "UndefinedContentType"))
    lying["components"]["schemas"]["NpvInput"]["properties"]["rate"] = {"type": "string"}
    found.add(("POST /v1/calculators/npv", "RejectedPositiveData"))
    lying["components"]["schemas"]["PmtInput"]["properties"]["periods"]["maximum"] = 12
    found.add(("POST /v1/calculators/pmt", "AcceptedNegativeData"))
    # Not of the document: its own scenarios are given to it as another tenant's.
    found.add(("GET /v1/scenarios/{id}", "ForeignShown"))
    kept = {label.split(" ")[1] for label, _ in found}
    lying["paths"] = {path: item for path, item in lying["paths"].items() if path in kept}
    return lying, found


def control(run, document, base):
    """Whether every lie is found."""
    lying, expected = lies(document)
    run.write("openapi.json", json.dumps(lying))
    code = run.execute(os.path.join(run.folder, "openapi.json"), base, "--phases", "examples,coverage,fuzzing")
    if code not in (0, 1) or not os.path.exists(run.report):
        raise RuntimeError(f"schemathesis ended with {code}: {run.output()[-6000:]}")
    found = {(label, failure) for label, failure, _, _ in run.told()["failed"]}
    for label, failure in sorted(expected):
        print(f"{'found' if (label, failure) in found else 'NOT FOUND':9}  {label}: {failure}")
    print(f"{len(expected & found)} of {len(expected)} lies found")
    return expected <= found


def parse():
    parser = argparse.ArgumentParser(
        prog="ci/outside/run schemathesis",
        usage="ci/outside/run schemathesis [--engine process] [--examples N] [--seed N] [--control] [--keep FOLDER]",
        description="schemathesis over the OpenAPI document that Forecastle serves",
    )
    parser.add_argument("forecastle")
    parser.add_argument("schemathesis")
    parser.add_argument("--engine", choices=["process"], default="process")
    parser.add_argument("--examples", type=int, default=25, help="most examples of an operation in each phase")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--control", action="store_true", help="run over a document that lies; every lie must be found")
    parser.add_argument("--keep", metavar="FOLDER", help="keep what schemathesis wrote there")
    options = parser.parse_args()
    if options.examples < 1:
        parser.error("--examples is at least 1")
    return options


def main():
    options = parse()
    # Both end what was started on the way out; a shell's background job would ignore the first.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with Ground(options.forecastle) as ground:
        try:
            provider, mails = Provider(), MailServer()
            base, bill = start(ground, provider, mails)
            tenants = [Tenant(base, name, plan="STARTER", payment_token="tok_good_1") for name in ("ada", "bob")]
            for tenant in tenants:
                tenant.furnish(bill)
            document = expect(200, requests.get(f"{base}/openapi.json", timeout=15))
            absent = requests.get(f"{base}/v1/scenarios/{uuid.uuid4()}", headers={"Authorization": f"Bearer {tenants[0].tokens['access_token']}"}, timeout=15)
            print(f"schemathesis, {options.examples} examples, seed {options.seed}; for this run: " + "; ".join(SETTINGS), flush=True)
            ada, bob = tenants
            told = dict(folder=ground.folder, program=options.schemathesis, options=options, absent=absent.text, charges=provider.charges())
            if options.control:
                run = Run(me=ada, other=bob, mailed={"verification": [], "reset": []}, foreign={"scenarios": ada.own["scenarios"]}, **told)
                return 0 if control(run, document, base) else 1
            runs = [Run(me=me, other=other, mailed=mailed_tokens(base, mails, 3), **told) for me, other in ((ada, bob), (bob, ada))]
            return 0 if hold(runs, document, base, bill) else 1
        except Disagreement as error:
            print(f"DISAGREES {error}")
            return 1
        finally:
            if options.keep:
                shutil.copytree(ground.folder, options.keep, dirs_exist_ok=True, ignore=shutil.ignore_patterns("postgres"))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Missing as missing:
        print(f"outside: {missing}", file=sys.stderr)
        sys.exit(6)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:
        traceback.print_exc()
        sys.exit(70)
