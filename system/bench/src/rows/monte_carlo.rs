//! Monte Carlo against a bare loop with the same draws, one thread each, in CPU time.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::time::{ClockId, clock_gettime};

use super::Setting;
use crate::bare_loop;
use crate::inputs;
use crate::report::{Line, median};

const MONTHS: u32 = 60;
const LINES: u32 = 20;

pub(crate) fn measure(setting: &Setting) -> anyhow::Result<Vec<Line>> {
    let (paths, blocks) = setting.pick((10_000, 9), (1_000, 3));
    let input = inputs::scenario(MONTHS, LINES, 0, Some(paths));
    let bare = bare_setting(&input)?;
    let engine = || forecastle_forecast::run(&input, 1, &|| false).context("compute the forecast");

    // The two compute the same thing: first revenues agree but for the cent they are printed to.
    let (means, _) = bare_loop::run(&bare);
    let outcome = engine()?;
    for (month, mean) in means.iter().enumerate() {
        let printed = outcome.result["uncertainty"]["revenue"][month]["mean"].as_str().context("a mean is printed")?;
        let printed: f64 = printed.parse().context("read the mean")?;
        ensure!((printed - mean).abs() <= 0.01 + mean.abs() * 1e-9, "month {month}: {printed} is not {mean}");
    }

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..blocks {
        ours.push(cpu_time(|| engine().map(drop))?.as_secs_f64() * 1e3);
        theirs.push(
            cpu_time(|| {
                std::hint::black_box(bare_loop::run(std::hint::black_box(&bare)));
                Ok(())
            })?
            .as_secs_f64()
                * 1e3,
        );
    }
    let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a / b).collect();
    let line = Line::at_most("monte-carlo", "Monte Carlo against a bare loop", median(&ratios), 1.5, 1.05);
    let figures = |values: &[f64]| format!("{:.0} ms", median(values));
    Ok(vec![line.figures(figures(&ours), figures(&theirs)).note(format!(
        "{paths} paths × {MONTHS} months × {LINES} lines, CPU time of one thread, {blocks} runs each in turn, medians; \
         ours: reading the input, the exact forecast, the paths, percentiles, printing and hashing; the loop: the \
         paths alone"
    ))])
}

fn cpu_time(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let started = now();
    work()?;
    Ok(now() - started)
}

/// The input's own figures as the loop wants them.
fn bare_setting(input: &serde_json::Value) -> anyhow::Result<bare_loop::Setting> {
    let number = |value: &serde_json::Value| -> anyhow::Result<f64> {
        value.as_str().context("a decimal is a string")?.parse().context("read a decimal")
    };
    let months = MONTHS as usize;
    let lines = input["revenue"].as_array().context("there are revenue lines")?.iter().map(|line| {
        let (adds, growth) = (number(&line["adds_per_month"])?, number(&line["adds_growth_monthly"])?);
        let (price, yearly) = (number(&line["price"])?, number(&line["price_growth_annual"])?);
        let seasons: Vec<f64> =
            line["seasonality"].as_array().context("seasons")?.iter().map(number).collect::<Result<_, _>>()?;
        let price_at = |month: usize| price * (1.0 + yearly).powi((month / 12) as i32) * seasons[month % 12];
        Ok(bare_loop::Line {
            opening_units: number(&line["opening_units"])?,
            kept: 1.0 - number(&line["churn_monthly"])?,
            adds: (0..months).map(|month| adds * (1.0 + growth).powi(month as i32)).collect(),
            price: (0..months).map(price_at).collect(),
        })
    });
    let uncertainty = &input["uncertainty"];
    Ok(bare_loop::Setting {
        seed: uncertainty["seed"].as_str().context("the seed is a string")?.parse().context("read the seed")?,
        paths: uncertainty["paths"].as_u64().context("paths are a number")?,
        months,
        price_sigma: number(&uncertainty["price_sigma_monthly"])?,
        adds_sigma: number(&uncertainty["adds_sigma_monthly"])?,
        tax_rate: number(&input["tax_rate"])?,
        lines: lines.collect::<anyhow::Result<_>>()?,
    })
}
