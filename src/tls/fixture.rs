//! Certificates made for a test, here and in tests/it.

#![allow(dead_code, reason = "not every test needs all of it")]

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ED25519,
};
use time::OffsetDateTime;

/// A day in seconds.
pub(crate) const DAY: i64 = 24 * 60 * 60;

/// A moment, in Unix seconds.
pub(crate) const NOW: i64 = 1_795_000_000;

/// An authority that signs whatever it is asked to.
pub(crate) struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
#[derive(Debug, Clone)]
pub(crate) struct Issued {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Issued {
    /// Both in one.
    pub(crate) fn combined(&self) -> String {
        [&*self.chain, &*self.key].concat()
    }
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "An authority");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// Its own certificate.
    pub(crate) fn pem(&self) -> String {
        self.pem.clone()
    }

    /// For the names, with a key for ECDSA, for years.
    pub(crate) fn issue(&self, names: &[&str]) -> Issued {
        self.sign(&Self::params(names), &PKCS_ECDSA_P256_SHA256)
    }

    pub(crate) fn issue_ed25519(&self, names: &[&str]) -> Issued {
        self.sign(&Self::params(names), &PKCS_ED25519)
    }

    pub(crate) fn issue_until(&self, names: &[&str], unix: i64) -> Issued {
        let mut params = Self::params(names);
        params.not_after = OffsetDateTime::from_unix_timestamp(unix).unwrap();
        self.sign(&params, &PKCS_ECDSA_P256_SHA256)
    }

    pub(crate) fn issue_for_common_name(&self, name: &str) -> Issued {
        let mut params = Self::params(&[]);
        params.distinguished_name.push(DnType::CommonName, name);
        self.sign(&params, &PKCS_ECDSA_P256_SHA256)
    }

    /// With a key of the test's own, such as for RSA.
    pub(crate) fn issue_with_key(&self, names: &[&str], key: &str) -> Issued {
        let key_pair = KeyPair::from_pem(key).unwrap();
        let signed = Self::params(names).signed_by(&key_pair, &self.issuer);
        Issued {
            chain: signed.unwrap().pem(),
            key: key.to_owned(),
        }
    }

    fn params(names: &[&str]) -> CertificateParams {
        let names: Vec<String> = names.iter().copied().map(Into::into).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
    }

    fn sign(&self, params: &CertificateParams, alg: &'static rcgen::SignatureAlgorithm) -> Issued {
        let key = KeyPair::generate_for(alg).unwrap();
        Issued {
            chain: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

/// A folder that goes with its test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let own = format!(
            "tidings-tls-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Relaxed)
        );
        let path = std::env::temp_dir().join(own);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}
