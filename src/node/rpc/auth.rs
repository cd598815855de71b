//! Who may call: whoever knows the cookie, or the configured user and password.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

use crate::node::datadir::COOKIE_USER;

/// What a request brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A right credential.
    Granted,
    /// None, or none that is understood.
    Absent,
    /// A wrong one.
    Wrong,
}

/// The credentials that are right, as digests: they are compared in constant time and not kept in clear.
#[derive(Clone, Debug)]
pub struct Credentials(Vec<[u8; 32]>);

impl Credentials {
    /// The cookie's secret, and a login if one is configured.
    pub fn new(secret: &str, login: Option<&(String, String)>) -> Self {
        let cookie = digest(format!("{COOKIE_USER}:{secret}").as_bytes());
        let login = login.map(|(user, password)| digest(format!("{user}:{password}").as_bytes()));
        Self([cookie].into_iter().chain(login).collect())
    }

    /// Whether a request may be served: HTTP Basic authentication (RFC 7617).
    pub fn check(&self, headers: &HeaderMap) -> Access {
        let given = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
            .map(|(_, encoded)| encoded.trim());
        let Some(encoded) = given else {
            return Access::Absent;
        };
        let Ok(credential) = BASE64_STANDARD.decode(encoded) else {
            return Access::Wrong;
        };
        let given = digest(&credential);
        let known = self.0.iter().fold(0, |known, right| {
            known | u8::from(differences(right, &given) == 0)
        });
        match known {
            0 => Access::Wrong,
            _ => Access::Granted,
        }
    }
}

/// The digest hides length and content, so comparing it tells an attacker nothing.
fn digest(credential: &[u8]) -> [u8; 32] {
    Sha256::digest(credential).into()
}

fn differences(left: &[u8; 32], right: &[u8; 32]) -> u8 {
    left.iter()
        .zip(right)
        .fold(0, |different, (a, b)| different | (a ^ b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str) -> Access {
        let login = ("alice".to_owned(), "pass:word".to_owned());
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        Credentials::new("c0ffee", Some(&login)).check(&headers)
    }

    fn basic(credential: &str) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(credential))
    }

    #[test]
    fn cookie_and_login_open_and_nothing_else() {
        assert_eq!(check(&basic("__cookie__:c0ffee")), Access::Granted);
        assert_eq!(check(&basic("alice:pass:word")), Access::Granted);
        assert_eq!(
            check(&basic("alice:pass:word").replace("Basic", "bAsIc")),
            Access::Granted
        );
        for wrong in ["", ":", "alice:", "alice:pass", "__cookie__:", "x:c0ffee"] {
            assert_eq!(check(&basic(wrong)), Access::Wrong, "{wrong}");
        }
        assert_eq!(check("Basic ???"), Access::Wrong);
        assert_eq!(check("Bearer x"), Access::Absent);
        assert_eq!(check("Basic"), Access::Absent);
        let none = Credentials::new("c0ffee", None);
        assert_eq!(none.check(&HeaderMap::new()), Access::Absent);
    }
}
