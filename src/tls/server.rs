//! The side that clients connect to.

use std::{fmt, io, path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ALL_VERSIONS, ProtocolVersion, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
    crypto::ring::Ticketer,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
    version::TLS13,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    Index,
    certificate::{authorities, subject},
    files, provider,
    watch::{self, certificates},
};
use crate::counters::Counter;

static ONLY_TLS13: [&SupportedProtocolVersion; 1] = [&TLS13];

/// What the command line says about TLS with clients.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where certificates are: files and folders.
    pub certificates: Vec<PathBuf>,
    /// Whether clients show a certificate of their own.
    pub client_auth: Option<ClientAuth>,
    /// The oldest version that is spoken.
    pub min_version: MinVersion,
    /// Whether HTTP/2 is offered (ALPN), before HTTP/1.1.
    pub http2: bool,
}

/// Whom clients' certificates come from (`HAProxy`'s `ca-file` and `verify`).
#[derive(Debug, Clone)]
pub struct ClientAuth {
    /// The authorities' certificates.
    pub ca: PathBuf,
    /// Whether a client without a certificate is refused.
    pub required: bool,
}

/// The oldest version of TLS that is spoken (`HAProxy`'s `ssl-min-ver`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum MinVersion {
    /// TLS 1.2 (RFC 5246)
    #[value(name = "1.2")]
    Tls12,
    /// TLS 1.3 (RFC 8446)
    #[value(name = "1.3")]
    Tls13,
}

impl MinVersion {
    fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Tls12 => ALL_VERSIONS,
            Self::Tls13 => &ONLY_TLS13,
        }
    }
}

/// How handshakes ended.
#[derive(Debug, Default)]
pub struct Handshakes {
    /// In a connection.
    pub ok: Counter,
    /// In none: refused, broken off or out of time.
    pub failed: Counter,
}

/// What takes clients' handshakes. All workers share it.
pub struct Server {
    settings: Settings,
    index: Arc<ArcSwap<Index>>,
    config: ArcSwap<ServerConfig>,
    handshakes: Arc<Handshakes>,
}

impl Server {
    /// Reads certificates and authorities; an error is a line that names the
    /// file and what to do.
    pub fn new(settings: Settings) -> Result<Arc<Self>, String> {
        let index = certificates(&files::read(&settings.certificates)?)?;
        let index = Arc::new(ArcSwap::from_pointee(index));
        let roots = match &settings.client_auth {
            Some(auth) => Some(authorities(&files::bundle(&auth.ca)?, &auth.ca)?),
            None => None,
        };
        let config = config(&settings, &index, roots)?;
        Ok(Arc::new(Self {
            settings,
            index,
            config: ArcSwap::new(config),
            handshakes: Arc::default(),
        }))
    }

    /// The certificates that new connections are shown.
    pub fn index(&self) -> Arc<Index> {
        self.index.load_full()
    }

    /// How handshakes ended so far.
    pub fn handshakes(&self) -> &Arc<Handshakes> {
        &self.handshakes
    }

    /// Takes a client's handshake and counts it. It has no time limit of its
    /// own: whoever drops it has counted it as failed.
    pub fn accept<IO>(&self, io: IO) -> impl Future<Output = io::Result<TlsStream<IO>>> + use<IO>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.config.load_full());
        let counted = Counted {
            handshakes: Arc::clone(&self.handshakes),
            ok: false,
        };
        let handshake = acceptor.accept(io);
        async move {
            let stream = handshake.await?;
            counted.succeeded();
            Ok(stream)
        }
    }

    /// Follows certificates and authorities in their files, for ever. Those
    /// that cannot be used change nothing; connections that are open go on.
    pub async fn follow(self: Arc<Self>) {
        tokio::join!(self.follow_certificates(), self.follow_authorities());
    }

    async fn follow_certificates(&self) {
        let paths = self.settings.certificates.clone();
        let take_up = |pairs: Vec<files::Pair>| {
            self.still_there(&pairs)?;
            let index = certificates(&pairs)?;
            watch::say_certificates(&index);
            watch::warn_of_ends(&index);
            self.index.store(Arc::new(index));
            Ok(())
        };
        tokio::join!(
            watch::follow("certificates", move || files::read(&paths), take_up),
            watch::warn_daily(|| self.index()),
        );
    }

    /// A folder's file without a key may be anything, such as the issuers'
    /// certificates; not so one that had a key.
    fn still_there(&self, pairs: &[files::Pair]) -> Result<(), String> {
        let index = self.index.load();
        let lost = index.certificates().find(|certificate| {
            let there = pairs
                .iter()
                .any(|pair| pair.certificate == certificate.file);
            !there && certificate.file.exists()
        });
        lost.map_or(Ok(()), |certificate| {
            let file = certificate.file.display();
            Err(format!(
                "{file} has no certificate with a key any more: write it again, or remove it"
            ))
        })
    }

    /// A new configuration has new ticket keys: nobody whom the new authorities
    /// do not know resumes a session that the old ones let in.
    async fn follow_authorities(&self) {
        let Some(auth) = &self.settings.client_auth else {
            return;
        };
        let path = auth.ca.clone();
        let take_up = |text: Vec<u8>| {
            let roots = authorities(&text, &auth.ca)?;
            self.config
                .store(config(&self.settings, &self.index, Some(roots))?);
            tracing::info!("clients are believed by {}", auth.ca.display());
            Ok(())
        };
        watch::follow(
            "clients' authorities",
            move || files::bundle(&path),
            take_up,
        )
        .await;
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Counts a handshake when it is over, however that is.
struct Counted {
    handshakes: Arc<Handshakes>,
    ok: bool,
}

impl Counted {
    fn succeeded(mut self) {
        self.ok = true;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Handshakes { ok, failed } = &*self.handshakes;
        if self.ok { ok.inc() } else { failed.inc() }
    }
}

fn config(
    settings: &Settings,
    index: &Arc<ArcSwap<Index>>,
    roots: Option<RootCertStore>,
) -> Result<Arc<ServerConfig>, String> {
    let failed = |err: rustls::Error| format!("TLS cannot start: {err}");
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(settings.min_version.versions())
        .map_err(failed)?;
    let builder = match roots {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let required = settings
                .client_auth
                .as_ref()
                .is_some_and(|auth| auth.required);
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            let verifier = if required {
                verifier
            } else {
                verifier.allow_unauthenticated()
            };
            let verifier = verifier.build();
            builder.with_client_cert_verifier(
                verifier.map_err(|err| format!("--tls-client-ca cannot be used: {err}"))?,
            )
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(Resolver(Arc::clone(index))));
    let http2 = settings.http2.then(|| Alpn::Http2.id().to_vec());
    config.alpn_protocols = http2.into_iter().collect();
    config.alpn_protocols.push(Alpn::Http11.id().to_vec());
    // Tickets hold the session, so nothing is kept here that workers share.
    config.ticketer = Ticketer::new().map_err(failed)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// Looks the certificate up for each handshake, so that a new one is used from
/// the next on.
struct Resolver(Arc<ArcSwap<Index>>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let index = self.0.load();
        let schemes = hello.signature_schemes();
        let picked = index.pick(hello.server_name(), |certificate| {
            certificate.key.key.choose_scheme(schemes).is_some()
        });
        Some(Arc::clone(&picked?.key))
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

/// The protocol that both sides agreed on (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// `h2`.
    Http2,
    /// `http/1.1`, also where the other side knows nothing of ALPN.
    Http11,
}

impl Alpn {
    /// Its name on the wire.
    pub(super) fn id(self) -> &'static [u8] {
        match self {
            Self::Http2 => b"h2",
            Self::Http11 => b"http/1.1",
        }
    }

    /// What was agreed on.
    pub(super) fn agreed(id: Option<&[u8]>) -> Self {
        match id {
            Some(b"h2") => Self::Http2,
            _ => Self::Http11,
        }
    }
}

/// What a handshake found out.
#[derive(Debug, Clone, Copy)]
pub struct Handshake<'a>(&'a ServerConnection);

impl<'a> Handshake<'a> {
    /// Of the stream.
    pub fn of<IO>(stream: &'a TlsStream<IO>) -> Self {
        Self(stream.get_ref().1)
    }

    /// The protocol to go on with.
    pub fn alpn(self) -> Alpn {
        Alpn::agreed(self.0.alpn_protocol())
    }

    /// The name that the client asked for (SNI), in lower case.
    pub fn server_name(self) -> Option<&'a str> {
        self.0.server_name()
    }

    /// Whom the client's certificate was given to, as RFC 4514 writes it. One
    /// that did not pass did not get here.
    pub fn client(self) -> Option<String> {
        subject(self.0.peer_certificates()?.first()?)
    }

    /// The version, in `HAProxy`'s words (`ssl_fc_protocol`).
    pub fn version(self) -> &'static str {
        match self.0.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLSv1.2",
        }
    }
}
