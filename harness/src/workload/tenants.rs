//! Who the tenants are: plan, currency, zone, tax rate, owner, secret and canary, all drawn from the seed.

use nogo_invariants::canary::{Canaries, Field};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use super::spec::LoadSpec;
use crate::randomness::{Randomness, pick};

/// The model's five currencies.
pub const CURRENCIES: [&str; 5] = ["USD", "EUR", "GBP", "JPY", "KWD"];

/// Zones with and without daylight saving, with half and three-quarter hours, on both sides of the date line, and some
/// whose midnight is missing on one day of the year.
const ZONES: [&str; 16] = [
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/Los_Angeles",
    "America/Sao_Paulo",
    "America/Santiago",
    "America/Havana",
    "America/St_Johns",
    "Asia/Tokyo",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Asia/Beirut",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Africa/Cairo",
];

/// One tenant before it exists in the system. `index` is its place in the run, 0-based.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantProfile {
    /// Place in the run; canaries and addresses derive from it.
    pub index: usize,
    /// Its label in the history, e.g. `T0007`.
    pub label: String,
    /// FREE, STARTER or PRO.
    pub plan: String,
    /// One of [`CURRENCIES`].
    pub currency: String,
    /// IANA name.
    pub time_zone: String,
    /// Parts per million.
    pub tax_rate_ppm: i64,
    /// Organization, carries a canary.
    pub organization: String,
    /// The owner's name, carries a canary.
    pub owner_name: String,
    /// The owner's e-mail address, carries a canary; personal data.
    pub email: String,
    /// The owner's password; a secret.
    pub password: String,
    /// The provider's token; none on FREE.
    pub payment_token: Option<String>,
    /// Mark of its scenarios' names.
    pub scenario_mark: String,
    /// Mark of its scenarios' notes.
    pub notes_mark: String,
    /// Mark of its revenue and cost lines.
    pub line_mark: String,
    /// A STARTER tenant that runs over its included forecasts.
    pub hot: bool,
}

impl TenantProfile {
    /// Scenarios this plan may hold; `None` is no limit.
    pub fn scenario_limit(&self) -> Option<usize> {
        match self.plan.as_str() {
            "FREE" => Some(3),
            "STARTER" => Some(50),
            _ => None,
        }
    }
}

/// The run's tenants: 60 % FREE, 30 % STARTER, 10 % PRO, in a fixed interleaving.
pub fn draw_tenants(randomness: Randomness, spec: &LoadSpec, canaries: &mut Canaries) -> Vec<TenantProfile> {
    let mut hot_left = spec.hot_tenants;
    (0..spec.tenants)
        .map(|index| {
            let mut rng = randomness.stream(&format!("data/tenant-{index}"));
            let plan = match index % 10 {
                0 | 2 | 4 | 5 | 7 | 9 => "FREE",
                1 | 3 | 6 => "STARTER",
                _ => "PRO",
            };
            let hot = plan == "STARTER" && hot_left > 0;
            hot_left -= usize::from(hot);
            let ordinal = u32::try_from(index).expect("a run has few tenants");
            let label = canaries.plant(ordinal);
            let mark = |field| canaries.mark(ordinal, field);
            let secret = rng.next_u64();
            TenantProfile {
                index,
                label,
                plan: plan.to_owned(),
                // Every currency occurs with every plan as soon as there are 50 tenants.
                currency: CURRENCIES[(index / 10 + index) % CURRENCIES.len()].to_owned(),
                time_zone: ZONES[(index * 7 + rng.random_range(0..ZONES.len())) % ZONES.len()].to_owned(),
                tax_rate_ppm: *pick(&mut rng, &[0, 0, 77_000, 190_000, 200_000, 81_250, 125_001, 55_555]),
                organization: format!("Org {index} {}", mark(Field::Organization)),
                owner_name: format!("Owner {index} {}", mark(Field::Person)),
                email: format!("{}@example.test", mark(Field::Email)),
                password: format!("{}-{secret:016x}", mark(Field::Password)),
                payment_token: (plan != "FREE").then(|| format!("tok_{:016x}", secret.rotate_left(17))),
                scenario_mark: mark(Field::Scenario),
                notes_mark: mark(Field::Notes),
                line_mark: mark(Field::Line),
                hot,
            }
        })
        .collect()
}

/// A client address in 10.0.0.0/8. `group` keeps kinds of clients apart (0 to 255), `number` counts inside it.
pub fn client_address(group: u8, number: usize) -> String {
    let low = number % 65_536;
    format!("10.{group}.{}.{}", low / 256, low % 256)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn sixty() -> Vec<TenantProfile> {
        draw_tenants(Randomness::new(1), &LoadSpec::default(), &mut Canaries::new("1"))
    }

    #[test]
    fn plans_are_split_sixty_thirty_ten() {
        let tenants = sixty();
        let count = |plan: &str| tenants.iter().filter(|tenant| tenant.plan == plan).count();
        assert_eq!((count("FREE"), count("STARTER"), count("PRO")), (36, 18, 6));
        assert_eq!(tenants.iter().filter(|tenant| tenant.hot).count(), 3);
    }

    #[test]
    fn every_free_text_field_carries_the_tenants_own_canary() {
        let mut canaries = Canaries::new("1");
        for tenant in draw_tenants(Randomness::new(1), &LoadSpec::default(), &mut canaries) {
            let texts = [
                (&tenant.organization, "org"),
                (&tenant.owner_name, "person"),
                (&tenant.email, "email"),
                (&tenant.password, "password"),
                (&tenant.scenario_mark, "scenario"),
                (&tenant.notes_mark, "notes"),
                (&tenant.line_mark, "line"),
            ];
            for (text, field) in texts {
                let found = canaries.search(text.as_bytes());
                assert_eq!(found.owners.keys().collect::<Vec<_>>(), [&tenant.label], "{text}");
                assert!(found.owners[&tenant.label].contains_key(field), "{text}");
            }
        }
    }

    #[test]
    fn paid_plans_meet_every_currency_and_have_a_token() {
        let tenants = sixty();
        let paid: BTreeSet<_> = tenants.iter().filter(|t| t.plan != "FREE").map(|t| t.currency.as_str()).collect();
        assert_eq!(paid.len(), CURRENCIES.len());
        assert!(tenants.iter().all(|tenant| tenant.payment_token.is_some() == (tenant.plan != "FREE")));
    }

    #[test]
    fn the_same_seed_gives_the_same_tenants() {
        assert_eq!(sixty(), sixty());
    }
}
