//! How long 50,000 customers with history take to load, and whether the books they come with are whole.

use super::Setting;
use crate::bed::Bed;
use crate::report::Line;

const SECONDS_MAX: f64 = 90.0;

pub(crate) async fn measure(setting: &Setting) -> anyhow::Result<Vec<Line>> {
    let customers = setting.pick(50_000, 2_000);
    let bed = Bed::start(&setting.binary)?;
    let (took, summary) = bed.seed(customers)?;
    let seconds = took.as_secs_f64();
    let bar = SECONDS_MAX * f64::from(customers) / 50_000.0;
    let line = Line::judged(
        "seed",
        format!("seed {customers} customers with history"),
        (seconds < bar, &format!("< {bar:.0} s")),
        (seconds < bar, &format!("< {bar:.0} s")),
    );
    let rows = serde_json::to_string(&summary)?;
    Ok(vec![line.figures(format!("{seconds:.1} s"), String::new()).note(rows)])
}
