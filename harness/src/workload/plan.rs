//! Seed to operations: which kind, for which tenant, due when. No I/O, no clock, no end.
//!
//! What an operation needs beyond that (which scenario, which input) it draws from a stream of its own index, so that
//! the interleaving of answers moves nothing else.

use std::sync::Arc;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::spec::LoadSpec;
use super::tenants::TenantProfile;
use crate::randomness::{Randomness, chance, pick};

/// The kinds of operation of the standard mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OperationKind {
    /// One forecast, pending ones first: this is how results are polled.
    ReadForecast,
    /// A page of forecasts.
    ListForecasts,
    /// One scenario.
    ReadScenario,
    /// A page of scenarios.
    ListScenarios,
    /// The dashboard.
    ReadDashboard,
    /// Plan, usage, invoices or the own account.
    ReadAccount,
    /// A new scenario.
    CreateScenario,
    /// An edit with If-Match.
    EditScenario,
    /// A forecast on an existing scenario.
    RequestForecast,
    /// One of the calculators.
    Calculate,
    /// Rotation of the refresh token.
    Refresh,
    /// A new session by password; the old one is logged out.
    Login,
}

/// One operation that is due `at_ns` after the load's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedOperation {
    /// Counts from 0; names the operation's own stream.
    pub index: u64,
    /// Intended send time, nanoseconds after the load's start.
    pub at_ns: u64,
    /// Index of the tenant.
    pub tenant: usize,
    /// What to do.
    pub kind: OperationKind,
    /// The client will not wait for the answer.
    pub hangs_up: bool,
    /// The forecast goes to a scenario with simulated paths.
    pub simulated: bool,
}

/// The endless plan; an iterator of operations in order of their time.
#[derive(Debug)]
pub struct Plan {
    rng: ChaCha8Rng,
    spec: LoadSpec,
    groups: Arc<Groups>,
    next: u64,
}

#[derive(Debug)]
struct Groups {
    all: Vec<usize>,
    free: Vec<usize>,
    starter: Vec<usize>,
    pro: Vec<usize>,
    hot: Vec<usize>,
}

impl Plan {
    /// The plan of `spec` over `tenants`, from the stream `workload/plan`.
    pub fn new(randomness: Randomness, spec: &LoadSpec, tenants: &[TenantProfile]) -> Self {
        let of = |wanted: &dyn Fn(&TenantProfile) -> bool| -> Vec<usize> {
            tenants.iter().filter(|tenant| wanted(tenant)).map(|tenant| tenant.index).collect()
        };
        let groups = Groups {
            all: of(&|_| true),
            free: of(&|tenant| tenant.plan == "FREE"),
            starter: of(&|tenant| tenant.plan == "STARTER"),
            pro: of(&|tenant| tenant.plan == "PRO"),
            hot: of(&|tenant| tenant.hot),
        };
        Self { rng: randomness.stream("workload/plan"), spec: spec.clone(), groups: Arc::new(groups), next: 0 }
    }

    /// A plan beside the first, drawn from a stream of its own; its operations count from `first`.
    pub fn beside(randomness: Randomness, spec: &LoadSpec, tenants: &[TenantProfile], first: u64) -> Self {
        let rng = randomness.stream(&format!("workload/plan-from-{first}"));
        Self { rng, next: first, ..Self::new(randomness, spec, tenants) }
    }

    fn draw_kind(&mut self) -> OperationKind {
        use OperationKind as Kind;
        match self.rng.random_range(0..1_000) {
            0..200 => Kind::ReadForecast,
            200..230 => Kind::ListForecasts,
            230..300 => Kind::ReadScenario,
            300..330 => Kind::ListScenarios,
            330..380 => Kind::ReadDashboard,
            380..400 => Kind::ReadAccount,
            400..500 => Kind::CreateScenario,
            500..700 => Kind::EditScenario,
            700..880 => Kind::RequestForecast,
            880..900 => Kind::Calculate,
            900..995 => Kind::Refresh,
            _ => Kind::Login,
        }
    }

    /// Calculations are skewed so that some STARTER tenants pay for overage and FREE tenants meet their cap; reads of
    /// forecasts follow the same skew; creations avoid plans that hold three scenarios.
    fn draw_tenant(&mut self, kind: OperationKind) -> usize {
        let groups = Arc::clone(&self.groups);
        let draw = self.rng.random_range(0..100);
        let group = match kind {
            OperationKind::RequestForecast | OperationKind::ReadForecast => match draw {
                0..45 => &groups.hot,
                45..55 => &groups.free,
                55..75 => &groups.starter,
                _ => &groups.pro,
            },
            OperationKind::CreateScenario => match draw {
                0..6 => &groups.free,
                6..60 => &groups.starter,
                _ => &groups.pro,
            },
            _ => &groups.all,
        };
        *pick(&mut self.rng, if group.is_empty() { &groups.all } else { group })
    }
}

impl Iterator for Plan {
    type Item = PlannedOperation;

    fn next(&mut self) -> Option<PlannedOperation> {
        let index = self.next;
        self.next += 1;
        let kind = self.draw_kind();
        let tenant = self.draw_tenant(kind);
        let hangs_up = chance(&mut self.rng, self.spec.hang_up_share);
        let simulated = chance(&mut self.rng, self.spec.simulated_share);
        let at_ns = u64::try_from(u128::from(index) * 1_000_000_000 / u128::from(self.spec.operations_per_s.max(1)))
            .unwrap_or(u64::MAX);
        Some(PlannedOperation { index, at_ns, tenant, kind, hangs_up, simulated })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::tenants::draw_tenants;
    use std::collections::BTreeMap;

    fn plan(seed: u64, count: usize) -> (Vec<TenantProfile>, Vec<PlannedOperation>) {
        let spec = LoadSpec::default();
        let tenants = draw_tenants(Randomness::new(seed), &spec, &mut nogo_invariants::Canaries::new("x"));
        let planned = Plan::new(Randomness::new(seed), &spec, &tenants).take(count).collect();
        (tenants, planned)
    }

    #[test]
    fn the_same_seed_gives_the_same_operations() {
        assert_eq!(plan(5, 2_000).1, plan(5, 2_000).1);
        assert_ne!(plan(5, 2_000).1, plan(6, 2_000).1);
    }

    #[test]
    fn the_mix_keeps_its_shares_within_two_points() {
        use OperationKind as Kind;
        let (_, planned) = plan(1, 20_000);
        let share = |kinds: &[Kind]| {
            planned.iter().filter(|operation| kinds.contains(&operation.kind)).count() as f64 / planned.len() as f64
        };
        let reads = [
            Kind::ReadForecast,
            Kind::ListForecasts,
            Kind::ReadScenario,
            Kind::ListScenarios,
            Kind::ReadDashboard,
            Kind::ReadAccount,
        ];
        assert!((share(&reads) - 0.40).abs() < 0.02);
        assert!((share(&[Kind::CreateScenario, Kind::EditScenario]) - 0.30).abs() < 0.02);
        assert!((share(&[Kind::RequestForecast, Kind::Calculate]) - 0.20).abs() < 0.02);
        assert!((share(&[Kind::Calculate]) - 0.02).abs() < 0.01);
        assert!((share(&[Kind::Refresh, Kind::Login]) - 0.10).abs() < 0.02);
    }

    #[test]
    fn hot_tenants_exceed_their_hundred_and_free_ones_meet_their_cap() {
        let (tenants, planned) = plan(3, 150 * 55);
        let mut requested: BTreeMap<usize, usize> = BTreeMap::new();
        for operation in planned.iter().filter(|operation| operation.kind == OperationKind::RequestForecast) {
            *requested.entry(operation.tenant).or_default() += 1;
        }
        let count = |tenant: &TenantProfile| requested.get(&tenant.index).copied().unwrap_or_default();
        assert!(tenants.iter().filter(|tenant| tenant.hot).all(|tenant| count(tenant) > 180));
        assert!(tenants.iter().filter(|tenant| tenant.plan == "FREE" && count(tenant) > 5).count() >= 5);
    }

    #[test]
    fn a_plan_beside_has_numbers_of_its_own_and_keeps_its_rate() {
        let spec = LoadSpec { operations_per_s: 1_350, ..LoadSpec::default() };
        let tenants = draw_tenants(Randomness::new(1), &spec, &mut nogo_invariants::Canaries::new("x"));
        let beside: Vec<_> = Plan::beside(Randomness::new(1), &spec, &tenants, 6_000_000_000).take(1_351).collect();
        assert_eq!(beside[0].index, 6_000_000_000);
        assert_eq!(beside[1_350].at_ns - beside[0].at_ns, 1_000_000_000);
        let kinds = |plan: &[PlannedOperation]| plan.iter().map(|operation| operation.kind).collect::<Vec<_>>();
        assert_ne!(kinds(&beside), kinds(&plan(1, 1_351).1), "drawn from the same stream");
    }

    #[test]
    fn operations_are_due_evenly_at_the_set_rate() {
        let (_, planned) = plan(1, 301);
        assert_eq!(planned[150].at_ns, 1_000_000_000);
        assert_eq!(planned[300].at_ns, 2_000_000_000);
    }
}
