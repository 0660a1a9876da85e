//! One certificate with its key: whom it is for, until when, and what is wrong
//! with it if it cannot be used.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{Error, InconsistentKeys, RootCertStore, SignatureAlgorithm, sign::CertifiedKey};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject as _},
};
use x509_cert::{
    der::Decode as _,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use super::{
    files::{Pair, found},
    provider,
};
use crate::rfc3339;

/// A certificate that servers present, and its key.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// What rustls presents and signs with.
    pub key: Arc<CertifiedKey>,
    /// Whom it is for, in lower case: DNS names, some as `*.example.org`, and
    /// addresses. The common name where there are no alternative names.
    pub names: Vec<Box<str>>,
    /// From when on it holds, in Unix seconds.
    pub begins: i64,
    /// Until when, in Unix seconds.
    pub ends: i64,
    /// The file it comes from.
    pub file: PathBuf,
}

impl Certificate {
    /// Reads the pair; an error is a line that names the file and what to do.
    pub(super) fn read(pair: &Pair) -> Result<Self, String> {
        let file = pair.certificate.display();
        let chain = certificates(&pair.chain, &pair.certificate)?;
        let (key_file, key) = pair.key();
        let key = private_key(key, key_file)?;
        let of_leaf = chain.first().and_then(|leaf| facts(leaf));
        let (names, begins, ends) = of_leaf
            .ok_or_else(|| format!("the first certificate in {file} is no X.509 certificate"))?;
        let key_file = key_file.display();
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|err| match err {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => format!(
                "the key in {key_file} does not fit the certificate in {file}: give the key that \
                 it was made for, and put the server's own certificate before its issuers'"
            ),
            Error::InvalidCertificate(why) => {
                format!("the first certificate in {file} cannot be used: {why}")
            }
            err => format!(
                "the key in {key_file} cannot be used: {err}; expected RSA of 2048 bits or more, \
                 ECDSA with P-256 or P-384, or Ed25519"
            ),
        })?;
        Ok(Self {
            key: Arc::new(key),
            names,
            begins,
            ends,
            file: pair.certificate.clone(),
        })
    }

    /// Its first name, or none.
    pub fn name(&self) -> &str {
        self.names.first().map_or("", |name| name)
    }

    /// What kind of key it has.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.key.key.algorithm()
    }

    /// The day on which it ends, such as `2027-02-14`.
    pub fn last_day(&self) -> String {
        day(self.ends)
    }
}

fn day(unix: i64) -> String {
    let at = time::OffsetDateTime::from_unix_timestamp(unix);
    let at = at.map_or_else(|_| unix.to_string(), rfc3339::millis);
    at.split('T').next().unwrap_or(&at).to_owned()
}

/// The certificates of a PEM file, at least one.
fn certificates(text: &[u8], file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|err| damaged(file, &err))?;
    if all.is_empty() {
        return Err(format!(
            "there is no certificate in {} but {}: expected PEM, -----BEGIN CERTIFICATE-----",
            file.display(),
            found(text)
        ));
    }
    Ok(all)
}

/// The authorities of a PEM file.
pub(super) fn authorities(text: &[u8], file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(text, file)? {
        roots.add(certificate).map_err(|err| {
            let file = file.display();
            format!("a certificate in {file} cannot be used as an authority's: {err}")
        })?;
    }
    Ok(roots)
}

fn private_key(text: &[u8], file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let name = file.display();
    if memchr::memmem::find(text, b"ENCRYPTED").is_some() {
        return Err(format!(
            "the key in {name} is encrypted: write it without a passphrase, by openssl pkey -in \
             {name} -out FILE"
        ));
    }
    PrivateKeyDer::from_pem_slice(text).map_err(|err| match err {
        pem::Error::NoItemsFound => {
            let found = found(text);
            format!(
                "there is no key in {name} but {found}: expected PEM, -----BEGIN PRIVATE KEY-----"
            )
        }
        err => damaged(file, &err),
    })
}

fn damaged(file: &Path, err: &pem::Error) -> String {
    format!("{} is damaged: {err}; write it again", file.display())
}

/// Names, begin and end of a certificate (RFC 5280 §4.1.2.5, §4.2.1.6).
fn facts(der: &CertificateDer<'_>) -> Option<(Vec<Box<str>>, i64, i64)> {
    let parsed = x509_cert::Certificate::from_der(der).ok()?;
    let parsed = parsed.tbs_certificate();
    let unix = |time: x509_cert::time::Time| {
        i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
    };
    let validity = parsed.validity();
    let alternative = parsed.get_extension::<SubjectAltName>().ok()?;
    let names = if let Some((_, SubjectAltName(names))) = alternative {
        names.iter().filter_map(name).collect()
    } else {
        let common = parsed.subject().common_name().ok().flatten();
        let common = common.map(|name| name.value().to_ascii_lowercase().into_boxed_str());
        common.into_iter().collect()
    };
    Some((names, unix(validity.not_before), unix(validity.not_after)))
}

fn name(name: &GeneralName) -> Option<Box<str>> {
    match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase().into()),
        GeneralName::IpAddress(octets) => {
            let octets = octets.as_bytes();
            let v4 = <[u8; 4]>::try_from(octets).map(|ip| Ipv4Addr::from(ip).to_string());
            let v6 = || <[u8; 16]>::try_from(octets).map(|ip| Ipv6Addr::from(ip).to_string());
            v4.or_else(|_| v6()).ok().map(Into::into)
        }
        _ => None,
    }
}

/// Whom a certificate was given to, as RFC 4514 writes it: `CN=app,O=Example`.
pub(super) fn subject(der: &CertificateDer<'_>) -> Option<String> {
    let parsed = x509_cert::Certificate::from_der(der).ok()?;
    Some(parsed.tbs_certificate().subject().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::fixture::{Authority, DAY};

    #[test]
    fn a_certificates_names_are_its_alternative_ones_or_the_common_name() {
        let authority = Authority::new();
        let names = ["A.example", "*.b.example", "10.0.0.5", "::1"];
        let certificate = Certificate::read(&Pair::of(&authority.issue(&names))).unwrap();
        let expected = ["a.example", "*.b.example", "10.0.0.5", "::1"];
        assert_eq!(certificate.names, expected.map(Box::from));
        let common = authority.issue_for_common_name("Old.example");
        let certificate = Certificate::read(&Pair::of(&common)).unwrap();
        assert_eq!(certificate.names, [Box::from("old.example")]);
    }

    #[test]
    fn a_certificate_says_until_when_it_holds() {
        let ends = 1_800_000_000 - 1_800_000_000 % DAY;
        let issued = Authority::new().issue_until(&["a.example"], ends);
        let certificate = Certificate::read(&Pair::of(&issued)).unwrap();
        assert_eq!(certificate.ends, ends);
        assert_eq!(certificate.last_day(), "2027-01-15");
    }

    #[test]
    fn what_cannot_be_used_is_named_with_what_to_do() {
        let authority = Authority::new();
        let [one, other] = [(); 2].map(|()| authority.issue(&["a.example"]));
        let of = |chain: &str, key: &str| {
            let pair = Pair {
                certificate: "/tls/site.crt".into(),
                chain: chain.into(),
                key: Some(("/tls/site.key".into(), key.into())),
            };
            Certificate::read(&pair).unwrap_err()
        };
        let cut = one.chain.replace("-----END", "END");
        let issuer_first = [authority.pem(), one.chain.clone()].concat();
        let encrypted = one.key.replace("BEGIN PRIVATE", "BEGIN ENCRYPTED PRIVATE");
        for (err, hint) in [
            (
                of(&one.chain, &other.key),
                "the key in /tls/site.key does not fit the certificate in /tls/site.crt",
            ),
            (
                of(&issuer_first, &one.key),
                "own certificate before its issuers'",
            ),
            (of("", &one.key), "there is no certificate in /tls/site.crt"),
            (of(&cut, &one.key), "/tls/site.crt is damaged"),
            (of(&one.chain, ""), "there is no key in /tls/site.key"),
            (
                of(&one.chain, &encrypted),
                "by openssl pkey -in /tls/site.key",
            ),
        ] {
            assert!(err.contains(hint), "{err}");
            assert!(!err.contains('\n'), "{err}");
        }
    }
}
