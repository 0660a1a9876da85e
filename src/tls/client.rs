//! The side that connects to servers.

use std::{io, net::IpAddr, path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Alpn, certificate::authorities, files, provider, watch};

/// What is said where there is nobody to trust.
const NOBODY: &str = "tls=1 needs --server-ca, or --server-verify none";

/// Makes connections to servers that speak TLS. Copies share what they trust.
#[derive(Debug, Clone)]
pub struct Connector {
    ca: Option<PathBuf>,
    trust: Arc<ArcSwap<Trust>>,
}

/// What servers are believed by.
#[derive(Debug)]
enum Trust {
    /// Nothing: no connection can be made.
    Nobody,
    Configured {
        /// Speaks HTTP/1.1 alone.
        http1: Arc<ClientConfig>,
        /// Offers HTTP/2 before it.
        http2: Arc<ClientConfig>,
    },
}

impl Connector {
    /// Trusts what the authorities in the file `ca` have signed, or, if not
    /// told to `verify`, everybody. An error is a line that names the file.
    pub fn new(ca: Option<PathBuf>, verify: bool) -> Result<Self, String> {
        let (trust, ca) = match (verify, ca) {
            (false, _) => (Trust::by(Arc::new(Anybody(provider())))?, None),
            (true, None) => (Trust::Nobody, None),
            (true, Some(ca)) => {
                let roots = authorities(&files::bundle(&ca)?, &ca)?;
                (Trust::in_roots(roots)?, Some(ca))
            }
        };
        Ok(Self {
            ca,
            trust: Arc::new(ArcSwap::from_pointee(trust)),
        })
    }

    /// Speaks TLS over `io` with the server that `name` is to be the name of.
    /// Verified or not, the name is sent (SNI) unless it is an address.
    pub fn connect<IO>(
        &self,
        io: IO,
        name: ServerName<'static>,
        alpn_h2: bool,
    ) -> impl Future<Output = io::Result<TlsStream<IO>>> + use<IO>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let config = match (&**self.trust.load(), alpn_h2) {
            (Trust::Nobody, _) => Err(io::Error::other(NOBODY)),
            (Trust::Configured { http1, .. }, false) => Ok(Arc::clone(http1)),
            (Trust::Configured { http2, .. }, true) => Ok(Arc::clone(http2)),
        };
        async move { TlsConnector::from(config?).connect(name, io).await }
    }

    /// The protocol that was agreed on.
    pub fn alpn<IO>(stream: &TlsStream<IO>) -> Alpn {
        Alpn::agreed(stream.get_ref().1.alpn_protocol())
    }

    /// Follows the authorities in their file, if there is one, for ever.
    pub async fn follow(self) {
        let Some(ca) = self.ca else {
            return;
        };
        let path = ca.clone();
        let take_up = |text: Vec<u8>| {
            let trust = Trust::in_roots(authorities(&text, &ca)?)?;
            self.trust.store(Arc::new(trust));
            tracing::info!("servers are believed by {}", ca.display());
            Ok(())
        };
        watch::follow(
            "servers' authorities",
            move || files::bundle(&path),
            take_up,
        )
        .await;
    }
}

impl Trust {
    fn in_roots(roots: RootCertStore) -> Result<Self, String> {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
        let verifier = verifier.build();
        Self::by(verifier.map_err(|err| format!("--server-ca cannot be used: {err}"))?)
    }

    fn by(verifier: Arc<dyn ServerCertVerifier>) -> Result<Self, String> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|err| format!("TLS to servers cannot start: {err}"))?;
        let mut http1 = builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        let mut http2 = http1.clone();
        let of = |alpn: &[Alpn]| alpn.iter().map(|alpn| alpn.id().to_vec()).collect();
        http1.alpn_protocols = of(&[Alpn::Http11]);
        http2.alpn_protocols = of(&[Alpn::Http2, Alpn::Http11]);
        Ok(Self::Configured {
            http1: Arc::new(http1),
            http2: Arc::new(http2),
        })
    }
}

/// The name that a server's certificate must have: its `sni`, which is the host
/// of a target that has one, or else its address.
pub fn server_name(sni: Option<&str>, address: IpAddr) -> Result<ServerName<'static>, String> {
    let Some(name) = sni else {
        return Ok(ServerName::IpAddress(address.into()));
    };
    ServerName::try_from(name.to_owned())
        .map_err(|_| format!("{name:?} is no name that a certificate can have: give sni=NAME"))
}

/// Why no connection was made, with what to do about it, in one line.
pub fn in_words(err: &io::Error) -> String {
    let inner = err.get_ref().and_then(|err| err.downcast_ref::<Error>());
    let Some(inner) = inner else {
        return err.to_string();
    };
    match inner {
        // A wrong signature is what another authority of the same name leaves.
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => "its certificate comes from nobody in --server-ca".to_owned(),
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "its certificate has ended: renew it".to_owned(),
        Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            expected,
            presented,
        }) => format!(
            "its certificate is not for {} but for {}: give the server sni=NAME",
            expected.to_str(),
            presented.join(", ")
        ),
        Error::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        err => err.to_string(),
    }
}

/// Believes every certificate, but has whoever shows one prove that the key is
/// theirs (`HAProxy`'s `verify none`).
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
