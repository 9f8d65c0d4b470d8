//! Every internal rate of return: all real roots, isolated by counting, placed by signs, never by
//! iteration from a guess.

use dashu_base::BitTest;
use dashu_int::IBig;
use serde_json::{Value, json};

use super::Answer;
use super::polynomial::{Polynomial, Sturm};
use super::ratio::{DIGITS, Ratio, print_units};
use super::series::MONEY;
use crate::decimal::Decimal;
use crate::reader::Reader;

/// Most flows.
const FLOWS_MAX: usize = 60;

/// Every real r in (-1, 10] with `Σ flows[t] / (1 + r)^t = 0`, ascending, each distinct root once.
pub(super) fn irr(reader: &Reader<'_>) -> Answer {
    reader.only(&["flows"]);
    let flows = reader.decimals("flows", 1, FLOWS_MAX, MONEY)?;
    Some(Ok(json!({ "roots": roots(&flows) })))
}

fn roots(flows: &[Decimal]) -> Vec<Value> {
    // With x = 1 + r and the last flow that is not zero at t = n: Σ f(t) x^(n-t) has the same roots in x > 0,
    // and none at 0.
    let Some(last) = flows.iter().rposition(|flow| !flow.is_zero()) else { return Vec::new() };
    let scale = flows.iter().map(|flow| flow.scale).max().unwrap_or(0);
    let coefficient = |flow: &Decimal| &flow.int * IBig::from(10).pow(scale - flow.scale);
    let polynomial = Polynomial::new(flows[..=last].iter().rev().map(coefficient).collect());
    if polynomial.sign_changes() == 0 {
        return Vec::new();
    }
    let search = Search::new(polynomial.square_free());
    let mut found = Vec::new();
    search.within(&Bound::LOWEST, &Bound::HIGHEST, search.count(&Bound::LOWEST, &Bound::HIGHEST), &mut found);
    found.iter().map(print_units).collect()
}

/// A point between the values that can be printed: x = `half_units / 2e12`.
#[derive(Clone)]
struct Bound {
    half_units: i64,
}

impl Bound {
    /// x = 0, r = -1.
    const LOWEST: Self = Self { half_units: 0 };
    /// x = 11, r = 10.
    const HIGHEST: Self = Self { half_units: 22_000_000_000_000 };

    fn point(&self) -> Ratio {
        Ratio::new(self.half_units.into(), IBig::from(2) * IBig::from(10).pow(DIGITS))
    }
}

struct Search {
    polynomial: Polynomial,
    sturm: Sturm,
}

impl Search {
    fn new(polynomial: Polynomial) -> Self {
        let sturm = Sturm::of(&polynomial);
        Self { polynomial, sturm }
    }

    /// Roots in (low, high].
    fn count(&self, low: &Bound, high: &Bound) -> usize {
        self.sturm.variations(&low.point()) - self.sturm.variations(&high.point())
    }

    /// Finds the `count` roots in (low, high] and adds them, as units of 1e-12 of r, ascending. Both
    /// bounds are halves: odd but for the outermost.
    fn within(&self, low: &Bound, high: &Bound, count: usize, found: &mut Vec<IBig>) {
        if count == 0 {
            return;
        }
        let Some(middle) = middle(low, high) else {
            // Between two neighbouring halves lies one printable value; or the upper half itself, which
            // is a tie, is a root.
            for _ in 1..count {
                found.push(self.value(high, false));
            }
            found.push(self.value(high, self.polynomial.sign_at(&high.point()) == 0));
            return;
        };
        let below = if count == 1 { usize::from(self.is_below(low, &middle)) } else { self.count(low, &middle) };
        self.within(low, &middle, below, found);
        self.within(&middle, high, count - below, found);
    }

    /// Whether the only root of (low, high] lies in (low, middle].
    fn is_below(&self, low: &Bound, middle: &Bound) -> bool {
        let at_middle = self.polynomial.sign_at(&middle.point());
        // Just above `low` the sign is that at `low`, or the derivative's where `low` is itself a root.
        match self.polynomial.sign_at(&low.point()) {
            0 => self.count(low, middle) == 1,
            at_low => at_middle == 0 || at_middle != at_low,
        }
    }

    /// The printable value of the cell that ends at `high`; a tie at its end goes to the even neighbour.
    fn value(&self, high: &Bound, is_tie: bool) -> IBig {
        let units = IBig::from(high.half_units / 2);
        let up = is_tie && high.half_units % 2 == 1 && units.bit(0);
        let one = IBig::from(10).pow(DIGITS);
        if up { units + IBig::ONE - one } else { units - one }
    }
}

/// An odd number of half units strictly between two bounds, near the middle; none where the bounds
/// enclose one printable value alone.
fn middle(low: &Bound, high: &Bound) -> Option<Bound> {
    let half_units = (low.half_units + high.half_units) / 2;
    let odd = half_units | 1;
    [odd, odd - 2]
        .into_iter()
        .find(|at| *at > low.half_units && *at < high.half_units)
        .map(|half_units| Bound { half_units })
}
