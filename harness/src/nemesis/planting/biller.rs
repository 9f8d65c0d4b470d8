//! Faults of the biller as a process, planted: a pass is sent on its way and caught in the middle of a request.
//!
//! What it is caught at is the point at which most depends on it. One that is ended has had the provider take money and
//! has not heard of it. One that is stopped is about to commit: the database takes its locks from it, another does the
//! work, and what it had been about to write comes too late.

use std::ops::RangeInclusive;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use nogo_faults::{
    Action, AnyMoment, BlastRadius, CommitPattern, Fault, FaultRow, HttpPattern, Occurrence, Pattern, Place,
    PostgresPattern, ProcessControl, ProcessDrain, ProcessFreeze, ProcessKill, ProcessKillLimits, ProcessLimits, Rule,
    Struck, StruckMidRequest,
};

use super::{LINK_MS_MAX, Planted, Site};
use crate::environment::topology::BILLERS;
use crate::nemesis::effect::{EffectProbe, FirstCharges, MoneyUnrecorded, TakenOver};
use crate::run::books;
use crate::run::one_pass::PassingBiller;

/// How many charges such a pass has to make: enough for several at once, and soon through.
const MADE: RangeInclusive<usize> = 1..=8;
/// The row that stops a biller.
const FREEZE: &str = "biller-freeze";

/// Makes the fault of a biller that `row` describes.
pub(super) async fn plant(row: &'static FaultRow, mut radius: BlastRadius, site: &Site<'_>) -> Result<Planted> {
    let target = site.step.target.as_str();
    let other = BILLERS.into_iter().find(|name| *name != target).context("find another biller")?;
    let book = site.topology.links().rule_book().context("find a proxy that follows protocols")?.clone();
    let as_of = books::time_of(site.share, MADE, site.reader).await?;
    let due = books::still_to_pay(as_of, site.reader).await?;
    ensure!(!due.is_empty(), "there is nothing to charge for a biller that goes to {as_of}");
    let billing = |name: &str| PassingBiller::new(Arc::clone(site.topology), site.recorder.clone(), name, as_of);
    let (biller, other) = (billing(target), billing(other));
    let rule = held(row, site);
    book.plan(&rule).context("write the rule down")?;
    book.install(&rule.name).context("install the rule")?;
    let started = biller.start();
    let control: Arc<dyn ProcessControl> = Arc::clone(&biller) as Arc<dyn ProcessControl>;
    let limits = ProcessLimits::default();
    let fault: Box<dyn Fault> = match row.name {
        "biller-crash" => {
            Box::new(ProcessKill::new(control, Arc::new(AnyMoment), ProcessKillLimits::default(), row.tolerance))
        }
        "biller-drain" => Box::new(Struck::new(ProcessDrain::new(row.name, control, limits), row.tolerance)),
        FREEZE => {
            Box::new(Struck::new(ProcessFreeze::new(row.name, control, Arc::new(AnyMoment), limits), row.tolerance))
        }
        other => bail!("fault '{other}' has a row and no implementation"),
    };
    // From here on the rule ends with the fault, whatever comes.
    let fault = Box::new(StruckMidRequest::new(fault, book, &rule.name, LINK_MS_MAX));
    radius.allow_process(started?);
    let charges = FirstCharges { due, reader: site.reader.clone(), provider: Arc::clone(site.provider) };
    let probe: Box<dyn EffectProbe> = match row.name {
        FREEZE => Box::new(TakenOver { charges, biller, other }),
        _ => Box::new(MoneyUnrecorded { charges, biller }),
    };
    Ok(Planted { row, fault, radius, probe })
}

/// What of the biller's requests is held, so that it is in the middle of something.
fn held(row: &FaultRow, site: &Site<'_>) -> Rule {
    let (pattern, place) = if row.name == FREEZE {
        let commit = PostgresPattern { statement: None, commit: Some(CommitPattern::Writing) };
        (Pattern::Postgres(commit), Place::BeforeServer)
    } else {
        // Where the answer to a charge is lost by the provider's own doing, that to the question that follows.
        (Pattern::Http(HttpPattern::default()), Place::BeforeClient)
    };
    Rule {
        name: format!("f{}-held", site.number),
        role: Some(site.step.target.clone()),
        pattern,
        k: Occurrence::EVERY,
        place,
        action: Action::Hold { ms: None },
    }
}
