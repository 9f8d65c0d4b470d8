//! What is requested and never done.

use anyhow::Result;
use nogo_faults::{
    BlastRadius, BoxFuture, Fault, FaultRow, Grant, HealError, InstallError, Proof, ProofError, Target, Tolerance,
};
use serde_json::json;

use super::{Planted, Site};
use crate::nemesis::effect::Nothing;

/// Claims to hurt Redis.
pub(super) fn placebo(row: &'static FaultRow, mut radius: BlastRadius, site: &Site<'_>) -> Result<Planted> {
    let address = site.topology.redis().address();
    radius.allow_address(address);
    let fault = Placebo { target: Target::Service { name: "redis".to_owned(), address }, tolerance: row.tolerance };
    Ok(Planted { row, fault: Box::new(fault), radius, probe: Box::new(Nothing { address }) })
}

/// Requested and never done. Claims to be in place, so that only the missing effect gives it away.
struct Placebo {
    target: Target,
    tolerance: Tolerance,
}

impl Fault for Placebo {
    fn name(&self) -> &str {
        "placebo"
    }

    fn targets(&self) -> Vec<Target> {
        vec![self.target.clone()]
    }

    fn tolerance(&self) -> Tolerance {
        self.tolerance
    }

    fn install<'a>(&'a mut self, grant: &'a Grant) -> BoxFuture<'a, Result<Proof, InstallError>> {
        Box::pin(async move {
            grant.covers(&self.targets())?;
            Ok(Proof::new("placebo", json!({"did": "nothing"})))
        })
    }

    fn control_proof(&mut self) -> BoxFuture<'_, Result<Proof, ProofError>> {
        Box::pin(async { Err(ProofError::NoHarm("a placebo does nothing".to_owned())) })
    }

    fn heal(&mut self) -> BoxFuture<'_, Result<Proof, HealError>> {
        Box::pin(async { Ok(Proof::new("placebo", json!({"undid": "nothing"}))) })
    }
}
