//! Which certificate a client gets. Pure.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use rustls::SignatureAlgorithm;

use super::Certificate;

/// Certificates of one name, the best first.
type Kinds = Vec<Arc<Certificate>>;

/// Certificates by the names that they are for.
#[derive(Debug)]
pub struct Index {
    all: Vec<Arc<Certificate>>,
    exact: HashMap<Box<str>, Kinds>,
    /// By the domain below `*.`.
    wildcards: HashMap<Box<str>, Kinds>,
    others: Kinds,
}

impl Index {
    /// Orders the certificates; those that share a name with the first are for
    /// everyone whom none is for. `None` if there is none at all.
    pub(super) fn new(certificates: Vec<Certificate>) -> Option<Self> {
        let all: Vec<_> = certificates.into_iter().map(Arc::new).collect();
        let first = all.first()?;
        let (mut exact, mut wildcards) = (HashMap::new(), HashMap::new());
        for certificate in &all {
            for name in &certificate.names {
                let (names, name) = match name.strip_prefix("*.") {
                    None => (&mut exact, &**name),
                    Some(domain) => (&mut wildcards, domain),
                };
                let kinds: &mut Kinds = names.entry(name.into()).or_default();
                kinds.push(Arc::clone(certificate));
            }
        }
        let shared = |other: &&Arc<Certificate>| match first.names.first() {
            Some(name) => other.names.contains(name),
            None => Arc::ptr_eq(first, other),
        };
        let mut others: Kinds = all.iter().filter(shared).cloned().collect();
        let lists = exact.values_mut().chain(wildcards.values_mut());
        lists.chain([&mut others]).for_each(sort);
        Some(Self {
            all,
            exact,
            wildcards,
            others,
        })
    }

    /// The certificate for a client that asks for `name` (SNI): that of the
    /// name itself, else of its wildcard, else the first. Of several, the first
    /// that `suits` the client.
    ///
    /// A wildcard stands for one label, the leftmost and all of it (RFC 6125
    /// §6.4.3). Like `HAProxy` without `strict-sni`, whoever asks for an unknown
    /// name gets the first certificate, and decides.
    pub fn pick(
        &self,
        name: Option<&str>,
        suits: impl Fn(&Certificate) -> bool,
    ) -> Option<&Arc<Certificate>> {
        let kinds = name.map_or(&self.others, |name| self.by_name(name));
        // If none suits, the handshake fails anyhow, and says why.
        kinds
            .iter()
            .find(|certificate| suits(certificate))
            .or(kinds.first())
    }

    fn by_name(&self, name: &str) -> &Kinds {
        let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(name.to_ascii_lowercase())
        } else {
            Cow::Borrowed(name)
        };
        let domain = || name.split_once('.').map(|(_, domain)| domain);
        self.exact
            .get(&*name)
            .or_else(|| self.wildcards.get(domain()?))
            .unwrap_or(&self.others)
    }

    /// All certificates, in the order of their files.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.all.iter().map(AsRef::as_ref)
    }
}

/// ECDSA is the cheapest to sign with, and RSA the dearest; of two of a kind,
/// the one that ends later is used, so that a renewed one may lie beside the
/// old one.
fn sort(kinds: &mut Kinds) {
    let rank = |certificate: &Certificate| match certificate.algorithm() {
        SignatureAlgorithm::ECDSA => 0,
        SignatureAlgorithm::ED25519 => 1,
        _ => 2,
    };
    kinds.sort_by_key(|certificate| (rank(certificate), -certificate.ends));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{
        files::Pair,
        fixture::{Authority, DAY, Issued, NOW},
    };

    fn index(issued: &[(&str, Issued)]) -> Index {
        let certificates = issued.iter().map(|(file, issued)| Certificate {
            file: file.into(),
            ..Certificate::read(&Pair::of(issued)).unwrap()
        });
        Index::new(certificates.collect()).unwrap()
    }

    fn picked(index: &Index, name: Option<&str>) -> String {
        let picked = index.pick(name, |_| true).unwrap();
        picked.file.display().to_string()
    }

    #[test]
    fn a_client_gets_the_certificate_of_the_name_it_asks_for() {
        let ca = Authority::new();
        let index = index(&[
            ("first", ca.issue(&["first.example"])),
            ("wild", ca.issue(&["*.a.example"])),
            ("exact", ca.issue(&["www.a.example", "a.example"])),
            ("bare", ca.issue(&["*"])),
        ]);
        for (name, expected) in [
            ("first.example", "first"),
            ("www.a.example", "exact"),
            ("WWW.A.example", "exact"),
            ("a.example", "exact"),
            ("shop.a.example", "wild"),
            ("SHOP.a.example", "wild"),
            ("x.shop.a.example", "first"),
            ("b.example", "first"),
            ("localhost", "first"),
        ] {
            assert_eq!(picked(&index, Some(name)), expected, "{name}");
        }
        assert_eq!(picked(&index, None), "first", "for who names nobody");
    }

    #[test]
    fn a_wildcard_stands_for_the_whole_leftmost_label() {
        let ca = Authority::new();
        let index = index(&[
            ("first", ca.issue(&["first.example"])),
            ("part", ca.issue(&["w*.a.example", "www.*.example"])),
        ]);
        for name in ["www.a.example", "a.example"] {
            assert_eq!(picked(&index, Some(name)), "first", "{name}");
        }
    }

    #[test]
    fn of_two_kinds_of_key_a_client_gets_the_one_it_can_verify() {
        let ca = Authority::new();
        let index = index(&[
            ("other", ca.issue_ed25519(&["a.example"])),
            ("ecdsa", ca.issue(&["a.example"])),
        ]);
        for name in [None, Some("a.example")] {
            assert_eq!(picked(&index, name), "ecdsa", "who can do both");
            let only = |kind| move |certificate: &Certificate| certificate.algorithm() == kind;
            let picked = index.pick(name, only(SignatureAlgorithm::ED25519)).unwrap();
            assert_eq!(picked.file.to_str(), Some("other"));
            let none = index.pick(name, only(SignatureAlgorithm::RSA)).unwrap();
            assert_eq!(none.file.to_str(), Some("ecdsa"));
        }
    }

    #[test]
    fn of_two_of_a_kind_the_one_that_ends_later_is_used() {
        let ca = Authority::new();
        let index = index(&[
            ("old", ca.issue_until(&["a.example"], NOW + DAY)),
            ("new", ca.issue_until(&["a.example"], NOW + 2 * DAY)),
        ]);
        assert_eq!(picked(&index, Some("a.example")), "new");
        assert_eq!(picked(&index, None), "new");
    }

    #[test]
    fn there_is_no_index_of_nothing() {
        assert!(Index::new(Vec::new()).is_none());
    }
}
