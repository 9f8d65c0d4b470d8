//! The text of each kind of mail.
//!
//! A link carries its token behind `#`: what stands there is not sent to any server, so no access log
//! and no Referer header ever holds it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use forecastle_domain::{DunningNotice, Mail};
use forecastle_store::mail_tokens::MailToken;

/// What every mail has in common.
#[derive(Debug, Clone)]
pub struct Wording {
    /// Where the product is, without a slash at its end, e.g. `https://app.example.com`.
    pub public_url: String,
}

/// A mail's subject and text.
pub(crate) struct Text {
    pub(crate) subject: String,
    pub(crate) body: String,
}

impl Wording {
    /// `None` if the mail needs a token and has none.
    pub(crate) fn compose(&self, mail: &Mail, token: Option<&MailToken>) -> Option<Text> {
        let link = |page: &str| token.map(|t| format!("{}/{page}#{}", self.public_url, URL_SAFE_NO_PAD.encode(t.0)));
        Some(match mail {
            Mail::EmailVerification => Text {
                subject: "Confirm your e-mail address".to_owned(),
                body: format!(
                    "Welcome to Forecastle.\n\nConfirm that this address is yours:\n{}\n\n\
                     If you did not sign up, ignore this mail.\n",
                    link("verify-email")?
                ),
            },
            Mail::PasswordReset => Text {
                subject: "Choose another password".to_owned(),
                body: format!(
                    "Somebody, probably you, asked for another password for this address.\n\nChoose one:\n{}\n\n\
                     The link holds for a short time and once. If it was not you, ignore this mail;\n\
                     your password stays as it is.\n",
                    link("reset-password")?
                ),
            },
            Mail::Dunning(notice) => self.dunning(notice),
        })
    }

    fn dunning(&self, notice: &DunningNotice) -> Text {
        let next = match notice.next_charge_on {
            Some(day) => format!("We will try again on {day}."),
            None => "We will not try again by ourselves, and paid features are paused until it is paid.".to_owned(),
        };
        Text {
            subject: format!("Payment of invoice {} failed", notice.invoice_number),
            body: format!(
                "We could not collect {} for invoice {}.\n\n{next}\nUpdate your payment method here:\n{}/billing\n",
                amount(notice),
                notice.invoice_number,
                self.public_url
            ),
        }
    }
}

/// In major units with the currency's own number of digits, e.g. `12.50 EUR`.
fn amount(notice: &DunningNotice) -> String {
    let (minor, exponent) = (notice.owed.amount_minor, notice.owed.currency.exponent());
    let unit = 10_u64.pow(exponent);
    let sign = if minor < 0 { "-" } else { "" };
    let (whole, rest) = (minor.unsigned_abs() / unit, minor.unsigned_abs() % unit);
    let code = notice.owed.currency.code();
    if exponent == 0 {
        return format!("{sign}{whole} {code}");
    }
    format!("{sign}{whole}.{rest:0width$} {code}", width = exponent as usize)
}

#[cfg(test)]
mod tests {
    use forecastle_domain::{Currency, Money};

    use super::*;

    fn wording() -> Wording {
        Wording { public_url: "https://app.example.com".to_owned() }
    }

    #[test]
    fn a_link_keeps_its_token_out_of_the_query() {
        let text = wording().compose(&Mail::PasswordReset, Some(&MailToken([7; 32]))).unwrap();
        let link = text.body.lines().find(|line| line.starts_with("https://")).unwrap();
        assert!(!link.contains('?'));
        assert!(link.starts_with("https://app.example.com/reset-password#BwcH"));
        assert!(wording().compose(&Mail::EmailVerification, None).is_none(), "no token, no mail");
    }

    #[test]
    fn amounts_have_the_digits_of_their_currency() {
        let shown = |currency, minor| {
            amount(&DunningNotice {
                invoice_number: 1,
                owed: Money::new(currency, minor),
                failed_charges: 1,
                next_charge_on: None,
            })
        };
        assert_eq!(shown(Currency::Eur, 1205), "12.05 EUR");
        assert_eq!(shown(Currency::Jpy, 1205), "1205 JPY");
        assert_eq!(shown(Currency::Kwd, 1205), "1.205 KWD");
        assert_eq!(shown(Currency::Usd, -5), "-0.05 USD");
    }
}
