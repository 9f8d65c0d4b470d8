//! A spike far beyond what the machine can do: nothing may die, memory stays bounded, and honest customers are
//! answered as before soon after.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::Setting;
use super::standard_mix::Town;
use crate::bed::queue_depth;
use crate::open_loop::{Load, Outcome, drive};
use crate::report::Line;

const SPIKE_PER_SECOND: u32 = 5_000;
/// What goes on before, and after.
const HONEST_PER_SECOND: u32 = 100;
/// Honest latency has to be back this long after the spike's end.
const RECOVERY: Duration = Duration::from_secs(10);
/// An honest p95 that needs no comparison.
const FINE_MS: f64 = 50.0;
/// Resident memory an instance may reach.
const INSTANCE_MB_MAX: f64 = 256.0;
/// Longest wait for the backlog.
const DRAIN_MAX: Duration = Duration::from_secs(300);

pub(crate) async fn measure(setting: &Setting) -> anyhow::Result<Vec<Line>> {
    let (calm, spike) = setting
        .pick((Duration::from_secs(15), Duration::from_secs(60)), (Duration::from_secs(4), Duration::from_secs(5)));
    let mut town = Town::found(setting, 2, 4).await?;
    let honest = |time, seed| Load {
        per_second: HONEST_PER_SECOND,
        time,
        connections: 128,
        patience: Duration::from_secs(10),
        seed,
    };
    drive(&town.mix, &town.instances, honest(calm, 1)).await;
    let before = drive(&town.mix, &town.instances, honest(calm, 2)).await;

    let flood = Load {
        per_second: SPIKE_PER_SECOND,
        time: spike,
        connections: 1_024,
        patience: Duration::from_secs(2),
        seed: 3,
    };
    let (over, mut when_over) = tokio::sync::oneshot::channel::<()>();
    let (mix, instances) = (std::sync::Arc::clone(&town.mix), town.instances.clone());
    let flood = tokio::spawn(async move {
        let outcome = drive(&mix, &instances, flood).await;
        drop(over);
        outcome
    });
    let mut peak_mb: f64 = 0.0;
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            _ = &mut when_over => break,
            _ = ticks.tick() => peak_mb = peak_mb.max(town.instance_mb()),
        }
    }
    let during: Outcome = flood.await?;
    let ended = Instant::now();

    // Whatever comes while it recovers does not count; what comes after does.
    drive(&town.mix, &town.instances, honest(RECOVERY, 4)).await;
    let after = drive(&town.mix, &town.instances, honest(calm, 5)).await;
    let mut admin = town.bed.admin().await;
    while queue_depth(&mut admin).await? > 0 && ended.elapsed() < DRAIN_MAX {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let drained = queue_depth(&mut admin).await? == 0;
    let drained_after = ended.elapsed();
    let dead = town.dead();
    ensure!(after.done > 0, "nobody was answered after the spike");

    let is_back = after.ms(95.0) <= (before.ms(95.0) * 2.0).max(FINE_MS) && after.errors == 0;
    let held = dead.is_empty() && is_back && drained && peak_mb <= INSTANCE_MB_MAX;
    let all_served = during.errors + during.refused + during.given_up == 0;
    let bar =
        format!("none dies, ≤ {INSTANCE_MB_MAX} MB, honest p95 back in {} s, backlog drained", RECOVERY.as_secs());
    let what = format!("spike of {SPIKE_PER_SECOND} /s for {} s", spike.as_secs());
    let line = Line::judged("spike", what, (held, &bar), (all_served, "all served"))
        .figures(
            format!("honest p95 {:.1} ms after, peak {peak_mb:.0} MB", after.ms(95.0)),
            format!("honest p95 {:.1} ms before", before.ms(95.0)),
        )
        .note(format!(
            "in the spike: done {} ({:.0} /s), refusals {}, errors {}, given up {}, p50 {:.0} ms, p95 {:.0} ms",
            during.done,
            during.done as f64 / spike.as_secs_f64(),
            during.refused,
            during.errors,
            during.given_up,
            during.ms(50.0),
            during.ms(95.0)
        ))
        .note(format!(
            "ended: {dead:?}; backlog {} after {:.0} s; after: errors {}, refusals {}; first errors {:?}",
            if drained { "drained" } else { "NOT drained" },
            drained_after.as_secs_f64(),
            after.errors,
            after.refused,
            during.samples
        ));
    Ok(vec![line])
}
