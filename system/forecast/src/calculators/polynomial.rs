//! Polynomials with integer coefficients and the count of their real roots (Sturm's theorem).

use dashu_base::{Abs, Gcd, Sign};
use dashu_int::IBig;

use super::ratio::Ratio;

/// Coefficients, the constant first; the last one is not zero. Empty is the zero polynomial.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Polynomial(Vec<IBig>);

impl Polynomial {
    pub(super) fn new(mut coefficients: Vec<IBig>) -> Self {
        while coefficients.last().is_some_and(IBig::is_zero) {
            coefficients.pop();
        }
        Self(coefficients)
    }

    pub(super) fn degree(&self) -> usize {
        self.0.len().saturating_sub(1)
    }

    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn leading(&self) -> &IBig {
        self.0.last().expect("the zero polynomial has no leading coefficient")
    }

    fn derivative(&self) -> Self {
        Self::new(self.0.iter().enumerate().skip(1).map(|(i, c)| c * IBig::from(i)).collect())
    }

    /// Divided by the greatest common divisor of its coefficients; signs stay.
    fn primitive(self) -> Self {
        let content = self
            .0
            .iter()
            .fold(IBig::ZERO, |gcd, c| if gcd.is_zero() { c.clone().abs() } else { IBig::from(gcd.gcd(c)) });
        if content.is_zero() || content == IBig::ONE {
            return self;
        }
        Self(self.0.into_iter().map(|c| c / &content).collect())
    }

    /// A positive multiple of the remainder of `self` by `divisor`, and of the quotient.
    fn divide(&self, divisor: &Self) -> (Self, Self) {
        let mut remainder = self.0.clone();
        let lead = divisor.leading().clone();
        let magnitude = lead.clone().abs();
        let mut quotient = vec![IBig::ZERO; (self.0.len() + 1).saturating_sub(divisor.0.len())];
        while remainder.len() >= divisor.0.len() {
            let shift = remainder.len() - divisor.0.len();
            let top = remainder.pop().expect("at least as long as the divisor");
            let factor = if lead.sign() == Sign::Negative { -&top } else { top };
            for c in &mut remainder {
                *c *= &magnitude;
            }
            for c in &mut quotient {
                *c *= &magnitude;
            }
            for (i, c) in divisor.0[..divisor.0.len() - 1].iter().enumerate() {
                remainder[shift + i] -= &factor * c;
            }
            quotient[shift] += factor;
        }
        (Self::new(quotient), Self::new(remainder))
    }

    /// The polynomial with the same roots, each of them once.
    pub(super) fn square_free(self) -> Self {
        let (mut a, mut b) = (self.clone().primitive(), self.derivative().primitive());
        while !b.is_zero() {
            let (_, remainder) = a.divide(&b);
            (a, b) = (b, remainder.primitive());
        }
        let quotient = if a.degree() == 0 { self } else { self.divide(&a).0 };
        let quotient = quotient.primitive();
        // One sign for all that share the roots.
        if sign_of(quotient.leading()) < 0 { Self(quotient.0.into_iter().map(|c| -c).collect()) } else { quotient }
    }

    /// -1, 0 or 1 at a point.
    pub(super) fn sign_at(&self, point: &Ratio) -> i8 {
        let mut sum = IBig::ZERO;
        let mut den_power = IBig::ONE;
        for c in self.0.iter().rev() {
            sum = sum * &point.num + c * &den_power;
            den_power *= &point.den;
        }
        sign_of(&sum)
    }

    /// Changes of sign along the coefficients: as many positive roots, or fewer by an even number.
    pub(super) fn sign_changes(&self) -> usize {
        changes(self.0.iter().map(sign_of))
    }
}

/// Sturm's chain of a square-free polynomial.
pub(super) struct Sturm(Vec<Polynomial>);

impl Sturm {
    pub(super) fn of(polynomial: &Polynomial) -> Self {
        let mut chain = vec![polynomial.clone(), polynomial.derivative().primitive()];
        while let [.., before, last] = chain.as_slice()
            && last.degree() > 0
        {
            let remainder = before.divide(last).1.primitive();
            let next = Polynomial(remainder.0.into_iter().map(|c| -c).collect());
            if next.is_zero() {
                break;
            }
            chain.push(next);
        }
        Self(chain)
    }

    /// Variations of sign at a point: `variations(a) - variations(b)` roots lie in (a, b].
    pub(super) fn variations(&self, point: &Ratio) -> usize {
        changes(self.0.iter().map(|polynomial| polynomial.sign_at(point)))
    }
}

fn sign_of(value: &IBig) -> i8 {
    match (value.is_zero(), value.sign()) {
        (true, _) => 0,
        (false, Sign::Positive) => 1,
        (false, Sign::Negative) => -1,
    }
}

fn changes(signs: impl Iterator<Item = i8>) -> usize {
    let mut count = 0;
    let mut before = 0;
    for sign in signs.filter(|sign| *sign != 0) {
        count += usize::from(before != 0 && before != sign);
        before = sign;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn polynomial(coefficients: &[i64]) -> Polynomial {
        Polynomial::new(coefficients.iter().map(|c| IBig::from(*c)).collect())
    }

    #[test]
    fn repeated_roots_are_kept_once() {
        // (x - 1)² (x - 2) = x³ - 4x² + 5x - 2
        assert_eq!(polynomial(&[-2, 5, -4, 1]).square_free(), polynomial(&[2, -3, 1]));
        assert_eq!(polynomial(&[-6, 11, -6, 1]).square_free(), polynomial(&[-6, 11, -6, 1]));
    }

    #[test]
    fn roots_are_counted_in_half_open_intervals() {
        // (x - 1)(x - 2)(x - 3)
        let sturm = Sturm::of(&polynomial(&[-6, 11, -6, 1]));
        let count = |a: i64, b: i64| sturm.variations(&Ratio::int(a)) - sturm.variations(&Ratio::int(b));
        assert_eq!([count(0, 10), count(0, 1), count(1, 2), count(2, 10), count(3, 10)], [3, 1, 1, 1, 0]);
        let none = Sturm::of(&polynomial(&[1, 0, 1]));
        assert_eq!(none.variations(&Ratio::int(-5)), none.variations(&Ratio::int(5)));
    }
}
