//! Each effect proof where nothing is done: made as in a run, looked at for as long as after a real blow, and silent.
//!
//! A proof that the load alone makes hold would say of every fault that it landed.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use nogo_faults::catalogue;
use nogo_faults::catalogue::role_and_store;
use nogo_harness::run::books::{Share, has_a_biller};
use tokio::time::Instant;

use crate::system_rig::{Case, Ground, under_load};

/// Enough for each of the provider's faults to have first charges of its own.
const TENANTS: usize = 240;
/// Proofs looked at side by side: what they ask is small beside the load.
const PARALLEL: usize = 14;
/// As between two looks of a run.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a proof is looked at that has a biller bill, each by itself. It is short: a pass over a few charges is soon
/// through, and a rule that is not in place matches nothing.
const BILLED: Duration = Duration::from_millis(2_000);

/// Every row, with a victim of each kind that it may be done to: an API, a worker or a biller, and where its link leads.
fn cases() -> Vec<Case> {
    let kind = |target: &'static str| {
        let (role, server) = role_and_store(target).unwrap_or((target, ""));
        let one_of_many = |last: char| last == '-' || last == 's' || last.is_ascii_digit();
        (role.trim_end_matches(one_of_many), server.trim_end_matches(one_of_many))
    };
    let mut cases = Vec::new();
    for row in catalogue::all() {
        let mut seen = BTreeSet::new();
        for target in row.targets.iter().copied().filter(|target| seen.insert(kind(target))) {
            cases.push(Case { row, target, number: cases.len() + 1, share: Share::BEFORE });
        }
    }
    let of = cases.iter().filter(|case| bills(case)).count();
    for (index, case) in cases.iter_mut().filter(|case| bills(case)).enumerate() {
        case.share = Share { number: index + 1, of };
    }
    cases
}

/// Whether its window has a biller at work.
fn bills(case: &Case) -> bool {
    has_a_biller(case.row.name, case.target)
}

/// Whether the row puts long jobs into the queue as it is made, which nobody else's proof has to bear in a run.
fn lays_baits(case: &Case) -> bool {
    matches!((case.row.name, case.target), ("worker-crash" | "worker-freeze", _) | ("restart-storm", "worker-1"))
}

/// What its proof said when it held, though the fault was never installed.
async fn spoke(ground: &Ground<'_>, case: Case, limit: Duration) -> Option<String> {
    let mut planted = ground.planted(case).await;
    let end = Instant::now() + limit;
    let mut looks = 0;
    loop {
        let effect = planted.probe.effect().await;
        looks += 1;
        if effect.holds {
            return Some(format!("{} on {}, look {looks}: {}", case.row.name, case.target, effect.what));
        }
        if Instant::now() >= end {
            println!("{} on {}, silent in {looks} looks: {}", case.row.name, case.target, effect.what);
            return None;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Those of `cases` that spoke, looked at side by side.
async fn spoke_beside(ground: &Ground<'_>, cases: &[Case]) -> Vec<String> {
    let limit = Duration::from_millis(ground.experiment.limits.effect_ms);
    join_all(cases.iter().map(|case| spoke(ground, *case, limit))).await.into_iter().flatten().collect()
}

/// Those that spoke: many side by side, and by themselves those that lay baits or bill.
async fn all_that_spoke(ground: &Ground<'_>) -> Vec<String> {
    let (billed, others): (Vec<Case>, Vec<Case>) = ground.cases.iter().copied().partition(bills);
    let (baits, others): (Vec<Case>, Vec<Case>) = others.into_iter().partition(lays_baits);
    let mut found = Vec::new();
    for some in others.chunks(PARALLEL).chain(baits.chunks(1)) {
        found.extend(spoke_beside(ground, some).await);
    }
    for case in billed {
        found.extend(spoke(ground, case, BILLED).await);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_no_effect_proof_holds_while_nothing_is_done() {
    let began = Instant::now();
    let (spoke, load) = under_load(cases(), TENANTS, all_that_spoke).await;
    println!("{:.0} s, {load:?}", began.elapsed().as_secs_f64());
    assert!(load.operations > 1_000, "silence under no load says nothing: {load:?}");
    assert!(spoke.is_empty(), "{} proofs hold though nothing was done:\n{}", spoke.len(), spoke.join("\n"));
}
