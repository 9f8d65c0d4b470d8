//! The loop that a simulation cannot do without, and nothing else: the same draws (ChaCha8, a stream for each
//! path; the inverse of the normal distribution by Wichura's AS 241), the same exponential from the same
//! portable library, and the month's arithmetic. No exact forecast, no order statistics, no printing.
//!
//! Written again here on purpose: it must not become faster or slower with what it is compared to.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// One revenue line, as doubles.
pub(crate) struct Line {
    pub(crate) opening_units: f64,
    pub(crate) kept: f64,
    /// One for each month.
    pub(crate) adds: Vec<f64>,
    /// One for each month.
    pub(crate) price: Vec<f64>,
}

/// What is drawn over.
pub(crate) struct Setting {
    pub(crate) seed: u64,
    pub(crate) paths: u64,
    pub(crate) months: usize,
    pub(crate) price_sigma: f64,
    pub(crate) adds_sigma: f64,
    pub(crate) tax_rate: f64,
    pub(crate) lines: Vec<Line>,
}

/// Mean revenue of each month, and the mean cash at the end.
pub(crate) fn run(setting: &Setting) -> (Vec<f64>, f64) {
    let mut revenue_sums = vec![0.0; setting.months];
    let mut cash_sum = 0.0;
    let mut units = vec![0.0; setting.lines.len()];
    let half = |sigma: f64| sigma * sigma / 2.0;
    let (price_half, adds_half) = (half(setting.price_sigma), half(setting.adds_sigma));
    for path in 0..setting.paths {
        let mut rng = stream(setting.seed, path);
        for (units, line) in units.iter_mut().zip(&setting.lines) {
            *units = line.opening_units;
        }
        let mut cash = 0.0;
        for (month, revenue_sum) in revenue_sums.iter_mut().enumerate() {
            let mut revenue = 0.0;
            for (units, line) in units.iter_mut().zip(&setting.lines) {
                let price = libm::exp(setting.price_sigma * draw(&mut rng) - price_half);
                let adds = libm::exp(setting.adds_sigma * draw(&mut rng) - adds_half);
                *units = *units * line.kept + line.adds[month] * adds;
                revenue += *units * (line.price[month] * price);
            }
            cash += revenue - setting.tax_rate * revenue.max(0.0);
            *revenue_sum += revenue;
        }
        cash_sum += cash;
    }
    let paths = setting.paths as f64;
    (revenue_sums.into_iter().map(|sum| sum / paths).collect(), cash_sum / paths)
}

fn stream(seed: u64, path: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(path);
    rng
}

fn draw(rng: &mut ChaCha8Rng) -> f64 {
    quantile(((rng.next_u64() >> 12) as f64 + 0.5) * (1.0 / 4_503_599_627_370_496.0))
}

/// Coefficients from the constant term up: numerator and denominator.
type Rational = ([f64; 8], [f64; 8]);

#[expect(clippy::excessive_precision, reason = "digits as published")]
const CENTRE: Rational = (
    [
        3.387_132_872_796_366_608_0,
        1.331_416_678_917_843_774_5e2,
        1.971_590_950_306_551_442_7e3,
        1.373_169_376_550_946_112_5e4,
        4.592_195_393_154_987_145_7e4,
        6.726_577_092_700_870_085_3e4,
        3.343_057_558_358_812_810_5e4,
        2.509_080_928_730_122_672_7e3,
    ],
    [
        1.0,
        4.231_333_070_160_091_125_2e1,
        6.871_870_074_920_579_083_0e2,
        5.394_196_021_424_751_107_7e3,
        2.121_379_430_158_659_586_7e4,
        3.930_789_580_009_271_061_0e4,
        2.872_908_573_572_194_267_4e4,
        5.226_495_278_852_854_561_0e3,
    ],
);

#[expect(clippy::excessive_precision, reason = "digits as published")]
const NEAR_TAIL: Rational = (
    [
        1.423_437_110_749_683_577_34,
        4.630_337_846_156_545_295_90,
        5.769_497_221_460_691_405_50,
        3.647_848_324_763_204_605_04,
        1.270_458_252_452_368_382_58,
        2.417_807_251_774_506_117_70e-1,
        2.272_384_498_926_918_458_33e-2,
        7.745_450_142_783_414_076_40e-4,
    ],
    [
        1.0,
        2.053_191_626_637_758_821_87,
        1.676_384_830_183_803_849_40,
        6.897_673_349_851_000_045_50e-1,
        1.481_039_764_274_800_745_90e-1,
        1.519_866_656_361_645_719_66e-2,
        5.475_938_084_995_344_946_00e-4,
        1.050_750_071_644_416_843_24e-9,
    ],
);

#[expect(clippy::excessive_precision, reason = "digits as published")]
const FAR_TAIL: Rational = (
    [
        6.657_904_643_501_103_777_20,
        5.463_784_911_164_114_369_90,
        1.784_826_539_917_291_335_80,
        2.965_605_718_285_048_912_30e-1,
        2.653_218_952_657_612_309_30e-2,
        1.242_660_947_388_078_438_60e-3,
        2.711_555_568_743_487_578_15e-5,
        2.010_334_399_292_288_132_65e-7,
    ],
    [
        1.0,
        5.998_322_065_558_879_376_90e-1,
        1.369_298_809_227_358_053_10e-1,
        1.487_536_129_085_061_485_25e-2,
        7.868_691_311_456_132_591_00e-4,
        1.846_318_317_510_054_681_80e-5,
        1.421_511_758_316_445_888_70e-7,
        2.044_263_103_389_939_785_64e-15,
    ],
);

/// The standard normal quantile of `p`, 0 < p < 1.
fn quantile(p: f64) -> f64 {
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180_625 - q * q;
        return horner(&CENTRE.0, r) * q / horner(&CENTRE.1, r);
    }
    let tail = if q < 0.0 { p } else { 1.0 - p };
    let r = libm::sqrt(-libm::log(tail));
    let z = if r <= 5.0 { ratio(&NEAR_TAIL, r - 1.6) } else { ratio(&FAR_TAIL, r - 5.0) };
    if q < 0.0 { -z } else { z }
}

fn ratio((numerator, denominator): &Rational, r: f64) -> f64 {
    horner(numerator, r) / horner(denominator, r)
}

/// Multiply, then add, each rounded: a fused operation would give other bits on other machines.
fn horner(coefficients: &[f64; 8], r: f64) -> f64 {
    coefficients.iter().rev().fold(0.0, |sum, c| sum * r + c)
}
