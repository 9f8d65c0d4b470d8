//! The standard mix on two instances and four workers, at three rates.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::Setting;
use crate::bed::{Bed, queue_depth};
use crate::client::{Call, Connection};
use crate::customers;
use crate::mix::Mix;
use crate::open_loop::{Load, Outcome, drive};
use crate::process::Process;
use crate::report::Line;

/// 2 instances, 4 workers, customers signed in.
pub(crate) struct Town {
    pub(crate) bed: Bed,
    pub(crate) processes: Vec<Process>,
    pub(crate) instances: Vec<SocketAddr>,
    pub(crate) mix: Arc<Mix>,
    pub(crate) seeded: u32,
}

impl Town {
    pub(crate) async fn found(setting: &Setting, instances: u32, workers: u32) -> anyhow::Result<Self> {
        let (seeded, active) = setting.pick((50_000, 5_000), (1_000, 500));
        let bed = Bed::start(&setting.binary)?;
        bed.seed(seeded)?;
        let signed_in = customers::sign_in(&mut bed.admin().await, active).await?;
        bed.analyze().await?;
        let (mut processes, mut addresses) = (Vec::new(), Vec::new());
        for number in 1..=instances {
            let (process, address) = bed.serve(&format!("api-{number}"), &[])?;
            processes.push(process);
            addresses.push(address);
        }
        for number in 1..=workers {
            processes.push(bed.work(&format!("worker-{number}"), 2)?);
        }
        let has_calculators = has_calculators(addresses[0]).await?;
        let mix = Arc::new(Mix::new(signed_in, has_calculators)?);
        Ok(Self { bed, processes, instances: addresses, mix, seeded })
    }

    /// Names of processes that have ended; there should be none.
    pub(crate) fn dead(&mut self) -> Vec<String> {
        let dead = self.processes.iter_mut().filter_map(|p| (!p.is_running()).then(|| p.name().to_owned()));
        dead.collect()
    }

    /// Largest resident memory of an instance, MB.
    pub(crate) fn instance_mb(&self) -> f64 {
        let instances = self.processes.iter().filter(|process| process.name().starts_with("api"));
        instances.map(Process::resident_bytes).max().unwrap_or(0) as f64 / 1e6
    }
}

async fn has_calculators(address: SocketAddr) -> anyhow::Result<bool> {
    let document = Connection::open(address).await?.call(&Call::get("/openapi.json".to_owned())).await?.json()?;
    Ok(document["paths"].get("/v1/calculators/npv").is_some())
}

pub(crate) async fn measure(setting: &Setting) -> anyhow::Result<Vec<Line>> {
    let (warm_up, time) = setting
        .pick((Duration::from_secs(15), Duration::from_secs(30)), (Duration::from_secs(3), Duration::from_secs(5)));
    let mut town = Town::found(setting, 2, 4).await?;
    let load =
        |per_second, time, seed| Load { per_second, time, connections: 512, patience: Duration::from_secs(10), seed };
    drive(&town.mix, &town.instances, load(250, warm_up, 1)).await;
    let mut lines = Vec::new();
    for (per_second, p95_aim) in [(500, Some(20.0)), (1_000, Some(50.0)), (2_000, None)] {
        let depths = tokio::spawn(watch_queue(town.bed.postgres.admin_url(), time));
        let outcome = drive(&town.mix, &town.instances, load(per_second, time, u64::from(per_second))).await;
        let depths = depths.await.context("join the queue's watch")??;
        let dead = town.dead();
        ensure!(dead.is_empty(), "ended: {dead:?}");
        lines.push(line(per_second, p95_aim, &outcome, &depths, &town));
    }
    Ok(lines)
}

fn line(per_second: u32, p95_aim: Option<f64>, outcome: &Outcome, depths: &[i64], town: &Town) -> Line {
    let clean = outcome.errors == 0 && outcome.refused == 0 && outcome.given_up == 0;
    let held = match per_second {
        500 => (clean && is_stable(depths), "no error, no refusal, queue stable"),
        _ => (true, "printed"),
    };
    let reached = p95_aim.map_or((true, String::new()), |aim| (outcome.ms(95.0) <= aim, format!("p95 ≤ {aim} ms")));
    let what = format!("standard mix at {per_second} /s, {} customers", town.seeded);
    Line::judged("mix", what, held, (reached.0, &reached.1))
        .figures(
            format!("p50 {:.1}, p95 {:.1}, p99 {:.1} ms", outcome.ms(50.0), outcome.ms(95.0), outcome.ms(99.0)),
            String::new(),
        )
        .note(format!(
            "done {}, errors {}, refusals {}, given up {}; queue at most {}, at the end {}; largest instance {:.0} MB",
            outcome.done,
            outcome.errors,
            outcome.refused,
            outcome.given_up,
            depths.iter().max().unwrap_or(&0),
            depths.last().unwrap_or(&0),
            town.instance_mb()
        ))
        .note(if outcome.samples.is_empty() { String::new() } else { format!("first errors: {:?}", outcome.samples) })
}

/// Depths of the queue, one a second.
async fn watch_queue(admin_url: String, time: Duration) -> anyhow::Result<Vec<i64>> {
    let mut admin = forecastle_testbed::customers::connect(&admin_url).await;
    let mut depths = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    for _ in 0..time.as_secs().max(3) {
        ticks.tick().await;
        depths.push(queue_depth(&mut admin).await?);
    }
    Ok(depths)
}

/// Whether the last third is no deeper than the middle one, but for what one second brings.
fn is_stable(depths: &[i64]) -> bool {
    let third = depths.len() / 3;
    let mean = |part: &[i64]| part.iter().sum::<i64>() as f64 / part.len().max(1) as f64;
    mean(&depths[2 * third..]) <= mean(&depths[third..2 * third]) * 1.5 + 90.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_grows_is_not_stable_and_one_that_swings_is() {
        assert!(is_stable(&[0, 4, 9, 3, 0, 2, 8, 1, 2]));
        let growing: Vec<i64> = (0..30).map(|second| second * 90).collect();
        assert!(!is_stable(&growing));
    }
}
