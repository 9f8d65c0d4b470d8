//! Who may sign up while customers are taken by invitation: addresses on a list, and bearers of a code.

use std::collections::BTreeSet;

use forecastle_domain::Email;
use sha2::{Digest as _, Sha256};

/// Longest code, characters.
pub(crate) const CODE_LENGTH_MAX: usize = 100;

/// The invited. Codes are kept as digests only.
#[derive(Debug, Clone, Default)]
pub struct Invited {
    addresses: BTreeSet<String>,
    codes: BTreeSet<[u8; 32]>,
}

/// An entry of the list that is no e-mail address; its number, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("entry {0} of the list of invited addresses is not an e-mail address")]
pub struct BadAddress(pub usize);

impl Invited {
    /// From whole e-mail addresses, in any case, and codes of 1 to 100 characters; empty codes are left out.
    ///
    /// # Errors
    /// The first entry that is no address.
    pub fn new(addresses: &[String], codes: &[String]) -> Result<Self, BadAddress> {
        let parse = |(at, text): (usize, &String)| {
            Email::parse(text).map(|email| email.as_str().to_owned()).map_err(|_| BadAddress(at + 1))
        };
        let addresses = addresses.iter().enumerate().map(parse).collect::<Result<_, _>>()?;
        let codes = codes.iter().map(|code| code.trim()).filter(|code| !code.is_empty()).map(digest).collect();
        Ok(Self { addresses, codes })
    }

    /// Whether the address is on the list, or the code is one of those given out.
    pub(crate) fn admits(&self, email: &Email, code: Option<&str>) -> bool {
        // Digests are compared, so how long that takes says nothing about a code.
        self.addresses.contains(email.as_str()) || code.is_some_and(|code| self.codes.contains(&digest(code.trim())))
    }
}

fn digest(code: &str) -> [u8; 32] {
    Sha256::digest(code.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_on_the_list_or_a_code_admits_and_nothing_else_does() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let invited = Invited::new(&words(&["Ada@Example.com"]), &words(&["spring", ""])).unwrap();
        let (ada, eve) = (Email::parse("ada@example.com").unwrap(), Email::parse("eve@example.com").unwrap());
        assert!(invited.admits(&ada, None) && invited.admits(&eve, Some("spring")));
        for code in [None, Some(""), Some("Spring"), Some("spring2")] {
            assert!(!invited.admits(&eve, code), "{code:?}");
        }
        assert!(!Invited::default().admits(&ada, Some("")));
        assert_eq!(Invited::new(&words(&["a@b.example", "nobody"]), &[]).unwrap_err(), BadAddress(2));
    }
}
