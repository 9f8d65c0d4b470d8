//! Memory of one instance over minutes of load: it has to be flat.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Setting;
use super::standard_mix::Town;
use crate::open_loop::{Load, drive};
use crate::report::Line;

const PER_SECOND: u32 = 300;
/// Growth over the second half that still counts as flat, MB.
const GROWTH_MB_MAX: f64 = 5.0;
const RESIDENT_MB_AIM: f64 = 60.0;

pub(crate) async fn measure(setting: &Setting) -> anyhow::Result<Vec<Line>> {
    let time = setting.pick(Duration::from_secs(600), Duration::from_secs(60));
    let town = Town::found(setting, 1, 2).await?;
    let load = Load { per_second: PER_SECOND, time, connections: 256, patience: Duration::from_secs(10), seed: 11 };
    let (mix, instances) = (Arc::clone(&town.mix), town.instances.clone());
    let driven = tokio::spawn(async move { drive(&mix, &instances, load).await });
    let started = Instant::now();
    let mut samples: Vec<(f64, f64)> = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    while started.elapsed() < time {
        ticks.tick().await;
        samples.push((started.elapsed().as_secs_f64(), town.instance_mb()));
    }
    let outcome = driven.await?;
    let second_half: Vec<(f64, f64)> = samples[samples.len() / 2..].to_vec();
    let slope = slope(&second_half);
    let growth = slope * time.as_secs_f64() / 2.0;
    let (last, peak) = (samples.last().map_or(0.0, |s| s.1), samples.iter().map(|s| s.1).fold(0.0, f64::max));
    let line = Line::judged(
        "memory",
        format!("memory of one instance over {} s at {PER_SECOND} /s", time.as_secs()),
        (growth <= GROWTH_MB_MAX, &format!("flat: ≤ {GROWTH_MB_MAX} MB over the second half")),
        (peak <= RESIDENT_MB_AIM, &format!("≤ {RESIDENT_MB_AIM} MB")),
    );
    Ok(vec![
        line.figures(format!("{last:.1} MB, peak {peak:.1} MB, {growth:+.2} MB"), String::new())
            .note(format!(
                "slope {:+.3} MB a minute, least squares over the second half of {} samples; done {}, errors {}, refusals {}",
                slope * 60.0,
                samples.len(),
                outcome.done,
                outcome.errors,
                outcome.refused
            ))
            .note(if outcome.samples.is_empty() { String::new() } else { format!("first errors: {:?}", outcome.samples) }),
    ])
}

/// MB a second, by least squares.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let n = samples.len().max(1) as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| samples.iter().map(of).sum::<f64>() / n;
    let (mean_x, mean_y) = (mean(|s| s.0), mean(|s| s.1));
    let covariance: f64 = samples.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let variance: f64 = samples.iter().map(|(x, _)| (x - mean_x) * (x - mean_x)).sum();
    if variance == 0.0 { 0.0 } else { covariance / variance }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rise_is_found_and_flat_is_flat() {
        let rising: Vec<(f64, f64)> = (0..60).map(|s| (f64::from(s), 40.0 + 0.5 * f64::from(s))).collect();
        assert!((slope(&rising) - 0.5).abs() < 1e-9);
        assert_eq!(slope(&[(0.0, 40.0), (1.0, 40.0), (2.0, 40.0)]), 0.0);
        assert_eq!(slope(&[]), 0.0);
    }
}
