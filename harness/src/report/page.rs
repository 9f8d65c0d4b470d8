//! `report.html`: one file, inline style and SVG, no network, no script; opens from disk, prints, light and dark.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use nogo_invariants::evidence::Manifest;
use nogo_invariants::history::Event;
use nogo_invariants::verdict::{Answer, Launch, Verdict, Violation};

use super::chart::{Pin, timeline_svg};
use super::timeline::{Timeline, Window, seconds_of};

/// Violations of one law that are shown; the rest are counted.
const SHOWN_MAX: usize = 200;

/// What a page is made from; all of it derived from the record.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// The run's identity.
    pub manifest: &'a Manifest,
    /// The answer.
    pub launch: Launch,
    /// Why, in a sentence.
    pub because: &'a str,
    /// One per law.
    pub verdicts: &'a [Verdict],
    /// The record.
    pub history: &'a [Event],
    /// p95 at most, outside fault windows, milliseconds.
    pub latency_budget_ms: f64,
}

/// The whole page.
pub fn render(page: &Page<'_>) -> String {
    let timeline = Timeline::of(page.history);
    let pins = pins(page.verdicts);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (page.launch.name()) ", scope " (page.manifest.suite) ", run " (page.manifest.run_id) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (verdict_strip(page))
                main {
                    (trust(page, &timeline))
                    section { h2 { "Timeline" } div.scroll { (timeline_svg(&timeline, &pins, page.latency_budget_ms)) }
                        p.note { "A fault is hollow from request to proof, solid while in place with its effect observed, hatched until the \
                            system was well again. Latency counts from the moment a request was meant to be sent; its axis is logarithmic." }
                    }
                    (law_table(page.verdicts))
                    (matrix(page.verdicts, &timeline))
                    (violations(page))
                    (appendix(page))
                }
            }
        }
    }
    .into_string()
}

fn verdict_strip(page: &Page<'_>) -> Markup {
    let class = match page.launch {
        Launch::Go => "go",
        Launch::NoGo | Launch::HarnessBroke => "nogo",
        Launch::ConditionalGo | Launch::InsufficientEvidence => "unsure",
    };
    html! {
        header class=(class) {
            h1 { (page.launch.name()) small { ", scope " (page.manifest.suite) ", engine " (page.manifest.engine) } }
            p { (page.because) }
            p.identity {
                "run " code { (page.manifest.run_id) } " · seed " code { (page.manifest.seed) } " · commit "
                code { (short(&page.manifest.commit)) } @if page.manifest.dirty { " with uncommitted changes" }
                " · history " code { (short(&page.manifest.history_sha256)) }
            }
        }
    }
}

fn trust(page: &Page<'_>, timeline: &Timeline) -> Markup {
    let landed = timeline.faults.iter().filter(|fault| fault.observed).count();
    let unknown: Vec<&Verdict> = page.verdicts.iter().filter(|verdict| verdict.answer == Answer::Unknown).collect();
    let offered: u64 = timeline.seconds.iter().map(|second| second.offered).sum();
    html! {
        section {
            h2 { "Can this be trusted?" }
            @if page.manifest.partial { p.warn { "The run was cut short: nothing in it is complete." } }
            @for verdict in &unknown {
                @for reason in &verdict.reasons { p.warn { code { (verdict.law) } ": " (reason) } }
            }
            ul {
                li { "Faults observed: " (landed) " of " (page.manifest.faults_requested.len()) " requested" }
                li { "Requests sent: " (offered) }
                li { "Laws with enough evidence: " (page.verdicts.len() - unknown.len()) " of " (page.verdicts.len()) }
                li { "A seed replays the plan, not the interleaving. Judging this record again gives the same bytes: "
                    code { "nogo gate " (page.manifest.run_id) } }
            }
        }
    }
}

fn law_table(verdicts: &[Verdict]) -> Markup {
    html! {
        section {
            h2 { "Laws" }
            div.scroll { table {
                thead { tr { th { "law" } th { "answer" } th { "chances to fail" } th { "floors" } th.number { "violations" } } }
                tbody {
                    @for verdict in verdicts {
                        tr {
                            td { code { (verdict.law) } br; span.note { (verdict.what) } }
                            td { (answer(verdict.answer)) }
                            td { @for (name, count) in &verdict.exposure { div { (grouped(count.total)) " " (name.replace('_', " ")) } } }
                            td {
                                @for floor in &verdict.floors {
                                    div class=[(floor.seen < floor.floor).then_some("short")] {
                                        (floor.count.replace('_', " ")) @if floor.cell != "total" { " in " (floor.cell.trim_start_matches("fault/").replace('_', " ")) }
                                        ": " (grouped(floor.seen)) " of " (grouped(floor.floor))
                                    }
                                }
                            }
                            td.number { @if verdict.violations.is_empty() { "0" } @else {
                                a href=(format!("#{}", anchor(verdicts, &verdict.law, 0))) { (verdict.violations_total()) } } }
                        }
                    }
                }
            } }
        }
    }
}

fn matrix(verdicts: &[Verdict], timeline: &Timeline) -> Markup {
    let kinds = fault_kinds(timeline);
    html! {
        section {
            h2 { "Laws × faults" }
            p.note { "Chances to fail inside each fault's window, and violations that showed in it. Grey: not exercised, which is never a pass." }
            div.scroll { table.matrix {
                thead { tr { th { "law" } th { "whole run" } @for kind in &kinds { th { (kind.replace('_', " ")) } } } }
                tbody {
                    @for verdict in verdicts {
                        tr {
                            td { code { (verdict.law) } }
                            (cell(verdict.exposure.values().map(|count| count.total).max().unwrap_or(0), verdict.violations_total()))
                            @for kind in &kinds {
                                @let seen = verdict.exposure.values().map(|count| count.fault.get(*kind).copied().unwrap_or(0)).max().unwrap_or(0);
                                @let bad = verdict.violations.iter().filter(|violation| shows_in(violation, kind)).map(|violation| violation.count).sum();
                                (cell(seen, bad))
                            }
                        }
                    }
                }
            } }
        }
    }
}

fn cell(seen: u64, bad: u64) -> Markup {
    html! {
        @if bad > 0 { td.number.bad { (grouped(bad)) " of " (grouped(seen)) } }
        @else if seen == 0 { td.number.grey { "not exercised" } }
        @else { td.number.good { (grouped(seen)) } }
    }
}

fn violations(page: &Page<'_>) -> Markup {
    let broken: Vec<&Verdict> = page.verdicts.iter().filter(|verdict| !verdict.violations.is_empty()).collect();
    html! {
        section {
            h2 { "Violations" }
            @if broken.is_empty() { p { "None." } }
            @for verdict in broken {
                @for (index, violation) in verdict.violations.iter().take(SHOWN_MAX).enumerate() {
                    (block(page, verdict, index, violation))
                }
                @if verdict.violations.len() > SHOWN_MAX {
                    p { (verdict.violations.len() - SHOWN_MAX) " more in results.json" }
                }
            }
        }
    }
}

fn block(page: &Page<'_>, verdict: &Verdict, index: usize, violation: &Violation) -> Markup {
    html! {
        article id=(anchor(page.verdicts, &verdict.law, index)) {
            h3 { "✗ " (anchor(page.verdicts, &verdict.law, index)) " " code { (verdict.law) } " " small { (grouped(violation.count)) "× " (violation.shape) ", fingerprint " (violation.fingerprint) } }
            dl {
                dt { "what" } dd { (violation.what) @if !violation.tenants.is_empty() { " (tenants " (violation.tenants.join(", ")) ")" } }
                dt { "expected" } dd { (violation.expected) }
                dt { "actual" } dd { (violation.actual) }
                dt { "when" } dd { (when(violation)) }
                @if !violation.witness.is_empty() {
                    dt { "witness" } dd { @for line in &violation.witness { (witness_line(page.history, *line)) } }
                }
                dt { "again" } dd { code { "nogo replay " (page.manifest.run_id) "#" (anchor(page.verdicts, &verdict.law, index)) } }
            }
        }
    }
}

fn when(violation: &Violation) -> String {
    let at = violation.t_ns.map_or("in the final state".to_owned(), |t_ns| format!("+{:.2} s", seconds_of(t_ns)));
    let phase = violation.phase.as_deref().map(|phase| format!(", phase {phase}")).unwrap_or_default();
    let fault = violation.fault.as_ref().map_or(", no fault before it".to_owned(), |fault| {
        let state = if fault.still_installed { "in place" } else { "healed by then" };
        format!(
            ", {:.1} s after {} {} on {} ({state})",
            fault.delay_ms as f64 / 1_000.0,
            fault.id,
            fault.kind,
            fault.target
        )
    });
    format!("{at}{phase}{fault}")
}

fn witness_line(history: &[Event], index: u64) -> Markup {
    let text = usize::try_from(index)
        .ok()
        .and_then(|index| history.get(index))
        .and_then(|event| serde_json::to_string(event).ok())
        .unwrap_or_default();
    let shown: String = text.chars().take(600).collect();
    html! { pre { (shown) @if shown.len() < text.len() { " …" } } }
}

fn appendix(page: &Page<'_>) -> Markup {
    html! {
        section {
            h2 { "Environment" }
            table { tbody {
                @for (name, image) in &page.manifest.images { tr { td { (name) } td { code { (image) } } } }
                tr { td { "Cargo.lock" } td { code { (page.manifest.lock_sha256) } } }
                tr { td { "history" } td { code { (page.manifest.history_sha256) } } }
            } }
            p.note { "Limits of the method: synthetic users stand for real ones; everything ran on one machine, the load beside the system; \
                figures of latency and rate are what that machine did that day." }
        }
    }
}

fn pins(verdicts: &[Verdict]) -> Vec<Pin> {
    let mut pins = Vec::new();
    for verdict in verdicts {
        for (index, violation) in verdict.violations.iter().enumerate().take(SHOWN_MAX) {
            if let Some(t_ns) = violation.t_ns {
                pins.push(Pin {
                    at_s: seconds_of(t_ns),
                    anchor: format!("#{}", anchor(verdicts, &verdict.law, index)),
                    title: format!("{}: {}", verdict.law, violation.what),
                });
            }
        }
    }
    pins
}

/// Kinds of the faults in a record, each once, in order.
fn fault_kinds(timeline: &Timeline) -> Vec<&str> {
    let mut kinds: Vec<&str> = Vec::new();
    for Window { name, .. } in &timeline.faults {
        if let Some(kind) = name.split(' ').nth(1)
            && !kinds.contains(&kind)
        {
            kinds.push(kind);
        }
    }
    kinds
}

fn shows_in(violation: &Violation, kind: &str) -> bool {
    violation.fault.as_ref().is_some_and(|fault| fault.kind == kind && fault.still_installed)
}

fn answer(answer: Answer) -> Markup {
    let (class, sign) = match answer {
        Answer::Valid => ("good", "✓"),
        Answer::Unknown => ("grey", "?"),
        Answer::Violated => ("bad", "✗"),
    };
    html! { span class=(class) { (sign) " " (answer.name()) } }
}

/// `V1`, `V2`, …: violations are numbered over all laws in their order, as in the printed report.
fn anchor(verdicts: &[Verdict], law: &str, index: usize) -> String {
    let before: usize =
        verdicts.iter().take_while(|verdict| verdict.law != law).map(|verdict| verdict.violations.len()).sum();
    format!("V{}", before + index + 1)
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// A count with thin spaces between thousands.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push('\u{2009}');
        }
        out.push(digit);
    }
    out
}

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--line:#d0d7de;--soft:#f3f5f7;--good:#1a7f37;--bad:#b42318;--grey:#6b7480;
--go:#e6f4ea;--nogo:#fdeceb;--unsure:#fff5e0;--blue:#0b62c4;--amber:#9a6200}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ec;--paper:#14181c;--line:#333b44;--soft:#1d2329;--good:#5cc27a;--bad:#ff8a80;--grey:#98a2ad;
--go:#12301c;--nogo:#3a1715;--unsure:#332707;--blue:#6cb0ff;--amber:#e0a94a}}
*{box-sizing:border-box}body{margin:0;font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
header{padding:20px max(20px,calc((100% - 1100px)/2));border-bottom:1px solid var(--line)}header p{margin:4px 0}
header.go{background:var(--go)}header.nogo{background:var(--nogo)}header.unsure{background:var(--unsure)}
h1{margin:0;font-size:30px}h1 small{font-size:17px;font-weight:500}h2{font-size:19px;margin:28px 0 8px}h3{font-size:16px;margin:0 0 6px}
h3 small{font-weight:400;color:var(--grey)}main{max-width:1100px;margin:0 auto;padding:0 20px 60px}
code,pre{font:13px/1.45 ui-monospace,monospace}pre{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--soft);padding:6px 8px;margin:4px 0}
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:6px 8px;border-bottom:1px solid var(--line)}
th{font-weight:600;background:var(--soft)}td.number,th.number{text-align:right;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto}.note,.identity{color:var(--grey);font-size:13.5px}.good{color:var(--good)}.bad{color:var(--bad);font-weight:600}
.grey{color:var(--grey)}.short{color:var(--bad)}.warn{background:var(--unsure);border-left:4px solid var(--amber);padding:6px 10px;margin:6px 0}
article{border:1px solid var(--line);border-left:4px solid var(--bad);padding:12px 14px;margin:12px 0}
dl{display:grid;grid-template-columns:90px 1fr;gap:2px 10px;margin:0}dt{color:var(--grey)}dd{margin:0;overflow-wrap:anywhere}
svg{min-width:760px;width:100%;height:auto;font:11px system-ui,sans-serif}svg text{fill:var(--ink)}
svg .label,svg .tick{text-anchor:end;fill:var(--grey)}svg .tick-x{text-anchor:middle;fill:var(--grey)}svg .legend{fill:var(--grey)}
svg .phase{fill:var(--soft);stroke:var(--line)}svg .on-phase{fill:var(--grey)}
svg .asked{fill:none;stroke:var(--amber);stroke-dasharray:3 2}svg .landed{fill:var(--amber);fill-opacity:.45;stroke:var(--amber)}
svg .healing{fill:url(#hatch);stroke:var(--amber)}svg .hatch{stroke:var(--amber);stroke-width:2}
svg polyline,svg line{fill:none;stroke-width:1.5}svg .axis,svg .grid{stroke:var(--line);stroke-width:1}
svg .offered{stroke:var(--grey);stroke-dasharray:4 3}svg .ok,svg .p50{stroke:var(--good)}svg .refused,svg .p95{stroke:var(--amber)}
svg .client{stroke:var(--blue)}svg .errors,svg .p99{stroke:var(--bad)}svg .budget{stroke:var(--bad);stroke-dasharray:6 4}
svg .pin{stroke:var(--bad);fill:var(--bad);stroke-width:1}
@media print{body{font-size:12px}.scroll{overflow:visible}article{break-inside:avoid}}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_234_567), "1\u{2009}234\u{2009}567");
    }

    #[test]
    fn what_was_not_exercised_is_grey_and_never_green() {
        assert!(cell(0, 0).into_string().contains("grey"));
        assert!(cell(5, 0).into_string().contains("good"));
        assert!(cell(5, 2).into_string().contains("bad"));
    }

    #[test]
    fn the_page_needs_nothing_from_a_network_and_hostile_text_stays_text() {
        let mut verdict = Verdict::unknown("a.law", "what it says", "<script>alert(1)</script>".to_owned());
        verdict.answer = Answer::Unknown;
        let manifest = Manifest { run_id: "r1".to_owned(), suite: "smoke".to_owned(), ..Manifest::default() };
        let page = Page {
            manifest: &manifest,
            launch: Launch::InsufficientEvidence,
            because: "too little was seen",
            verdicts: &[verdict],
            history: &[],
            latency_budget_ms: 3_000.0,
        };
        let html = render(&page);
        assert!(!html.contains("<script") && html.contains("&lt;script"));
        assert!(!html.contains("http://") && !html.contains("https://") && !html.contains("src="));
        assert!(html.contains("INSUFFICIENT EVIDENCE"));
    }
}
