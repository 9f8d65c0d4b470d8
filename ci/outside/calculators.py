"""Forecastle's calculators against numpy-financial, on seeded random inputs.

Usage: calculators.py FORECASTLE [--cases N] [--seed N]

Prints one row for each calculator and exits with 1 if any answer disagrees. numpy-financial works in
doubles, so agreement is relative to the size of what was summed; Forecastle's answer is exact.
"""

import argparse
import json
import math
import random
import subprocess
import sys

import numpy
import numpy_financial

TOLERANCE = 1e-9


def money(rng, digits=6):
    whole = rng.randint(-(10 ** rng.randint(1, digits)), 10 ** rng.randint(1, digits))
    return f"{whole}.{rng.randint(0, 99):02}" if whole else str(rng.randint(1, 9))


def rate(rng):
    return rng.choice(["0", "0.01", f"0.{rng.randint(0, 2999):04}", f"-0.0{rng.randint(1, 99):02}", f"{rng.randint(1, 2)}.{rng.randint(0, 99):02}"])


def annuity(rng, *amounts):
    terms = {"rate": rate(rng), "when": rng.choice(["end", "begin"])}
    if rng.random() < 0.5:
        terms["periods_per_year"] = rng.choice([1, 4, 12, 52])
    return terms | {name: money(rng) for name in amounts}


def per_period(terms):
    return float(terms["rate"]) / terms.get("periods_per_year", 1)


def pmt(rng):
    terms = annuity(rng, "pv", "fv") | {"periods": rng.randint(1, 120)}
    return terms, numpy_financial.pmt(per_period(terms), terms["periods"], float(terms["pv"]), float(terms["fv"]), terms["when"])


def pv(rng):
    terms = annuity(rng, "pmt", "fv") | {"periods": rng.randint(1, 120)}
    return terms, numpy_financial.pv(per_period(terms), terms["periods"], float(terms["pmt"]), float(terms["fv"]), terms["when"])


def fv(rng):
    terms = annuity(rng, "pmt", "pv") | {"periods": rng.randint(1, 40)}
    return terms, numpy_financial.fv(per_period(terms), terms["periods"], float(terms["pmt"]), float(terms["pv"]), terms["when"])


def nper(rng):
    terms = annuity(rng, "pmt", "pv", "fv")
    if float(terms["rate"]) == 0:
        # Its documentation says fv + pv + pmt × nper = 0; release 1.0.0 turns the sign of fv around instead.
        return terms, -(float(terms["fv"]) + float(terms["pv"])) / float(terms["pmt"])
    with numpy.errstate(all="ignore"):
        value = numpy_financial.nper(per_period(terms), float(terms["pmt"]), float(terms["pv"]), float(terms["fv"]), terms["when"])
    return terms, float(value)


def npv(rng):
    flows = [money(rng) for _ in range(rng.randint(1, 40))]
    terms = {"rate": rate(rng), "flows": flows}
    return terms, numpy_financial.npv(float(terms["rate"]), [float(flow) for flow in flows])


def mirr(rng):
    flows = [money(rng) for _ in range(rng.randint(2, 20))]
    terms = {"flows": flows, "finance_rate": rate(rng), "reinvestment_rate": rate(rng)}
    with numpy.errstate(all="ignore"):
        value = numpy_financial.mirr([float(f) for f in flows], float(terms["finance_rate"]), float(terms["reinvestment_rate"]))
    return terms, value


def percentile(rng):
    values = [money(rng) for _ in range(rng.randint(1, 200))]
    p = rng.randint(0, 1000) / 1000
    return {"values": values, "p": f"{p:.3f}"}, numpy.percentile([float(v) for v in values], 100 * p, method="linear")


def irr(rng):
    flows = [f"-{abs(float(money(rng))):.2f}"] + [money(rng) for _ in range(rng.randint(1, 11))]
    with numpy.errstate(all="ignore"):
        value = numpy_financial.irr([float(flow) for flow in flows])
    return {"flows": flows}, value


def amortisation(rng):
    terms = {"rate": f"0.{rng.randint(1, 1999):04}", "periods": rng.randint(1, 60), "pv": money(rng)}
    nominal, periods, principal = float(terms["rate"]), terms["periods"], float(terms["pv"])
    index = numpy.arange(periods) + 1
    return terms, (numpy_financial.ipmt(nominal, index, periods, principal), numpy_financial.ppmt(nominal, index, periods, principal))


def scale_of(terms):
    """What was added up: doubles lose digits in proportion to this."""
    amounts = [abs(float(terms[name])) for name in ("pmt", "pv", "fv") if name in terms]
    listed = [abs(float(amount)) for name in ("flows", "values") for amount in terms.get(name, [])]
    return max(amounts + listed + [1.0])


def difference(ours, theirs, terms):
    return abs(ours - theirs) / max(abs(theirs), abs(ours), 1.0, 1e-4 * scale_of(terms))


def is_nothing(value):
    return value is None or not math.isfinite(value)


def judge_value(answer, theirs, terms):
    if answer.get("error_code") == "amount_out_of_range":
        return "beyond", 0.0 if abs(theirs) > 9.9e14 else math.inf
    if "value" not in answer:
        return "refused", math.inf
    if answer["value"] is None or is_nothing(theirs):
        return "nothing", 0.0 if answer["value"] is None and is_nothing(theirs) else math.inf
    return "value", difference(float(answer["value"]), float(theirs), terms)


def judge_irr(answer, theirs, terms):
    roots = [float(root) for root in answer["roots"]]
    if is_nothing(theirs) or not -1 < theirs <= 10:
        # numpy-financial picks one root, which may lie outside the range, or fails; ours are judged below.
        kind, worst = "nothing", 0.0
    else:
        kind, worst = "value", min((abs(root - theirs) for root in roots), default=math.inf)
    flows = [float(flow) for flow in terms["flows"]]
    # An independent count: the real roots of the polynomial in 1 + r that numpy finds well inside the range.
    found = numpy.roots(flows)
    real = [root.real - 1 for root in found if abs(root.imag) < 1e-9 and -0.999 < root.real - 1 < 9.999]
    for root in real:
        worst = max(worst, min((abs(root - ours) for ours in roots), default=math.inf))
    # Where two roots nearly meet, doubles move them by the square root of their own precision.
    return kind, worst if worst > 1e-5 else min(worst, TOLERANCE)


def judge_amortisation(answer, theirs, terms):
    interest, principal = theirs
    worst = 0.0
    for row, of_interest, of_principal in zip(answer["rows"], interest, principal, strict=True):
        worst = max(worst, difference(float(row["interest"]), of_interest, terms), difference(float(row["principal"]), of_principal, terms))
    return "value", worst


CALCULATORS = {
    "npv": (npv, judge_value), "pmt": (pmt, judge_value), "pv": (pv, judge_value), "fv": (fv, judge_value),
    "nper": (nper, judge_value), "mirr": (mirr, judge_value), "irr": (irr, judge_irr),
    "percentile": (percentile, judge_value), "amortisation": (amortisation, judge_amortisation),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("forecastle")
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=20261122)
    arguments = parser.parse_args()
    print(f"numpy-financial {numpy_financial.__version__}, {arguments.cases} cases each, seed {arguments.seed}")
    print(f"{'calculator':<14}{'value':>8}{'nothing':>9}{'beyond':>8}{'worst difference':>18}{'disagree':>10}")
    failed = False
    for name, (draw, judge) in CALCULATORS.items():
        rng = random.Random(f"{arguments.seed}/{name}")
        cases = [draw(rng) for _ in range(arguments.cases)]
        lines = "".join(json.dumps(terms) + "\n" for terms, _ in cases)
        done = subprocess.run([arguments.forecastle, "--log-level", "error", "compute", "--calculator", name],
                              input=lines, capture_output=True, text=True, check=True)
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        kinds, worst, wrong = {"value": 0, "nothing": 0, "beyond": 0, "refused": 0}, 0.0, []
        for (terms, theirs), answer in zip(cases, answers, strict=True):
            kind, off = judge(answer, theirs, terms)
            kinds[kind] += 1
            if off > TOLERANCE:
                wrong.append((terms, theirs, answer))
            else:
                worst = max(worst, off)
        print(f"{name:<14}{kinds['value']:>8}{kinds['nothing']:>9}{kinds['beyond']:>8}{worst:>18.1e}{len(wrong):>10}")
        if wrong:
            terms, theirs, answer = wrong[0]
            print(f"  first: {json.dumps(terms)}\n  numpy-financial: {theirs}\n  forecastle: {json.dumps(answer)[:400]}")
        # A comparison in which nothing was compared says nothing.
        failed = failed or bool(wrong) or kinds["value"] < arguments.cases // 4
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
