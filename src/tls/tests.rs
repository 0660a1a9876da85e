//! Handshakes between both sides, in memory.

use std::{io, path::PathBuf, time::Duration};

use rustls::{
    ClientConfig, HandshakeKind, RootCertStore,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio_rustls::{TlsConnector, client, server};

use super::{
    fixture::{Authority, Folder, Issued},
    *,
};

/// Two certificates of one authority, and whoever wants to connect.
struct Stage {
    folder: Folder,
    ca: Authority,
}

type Both = (
    client::TlsStream<DuplexStream>,
    server::TlsStream<DuplexStream>,
);

impl Stage {
    fn new() -> Self {
        let (folder, ca) = (Folder::new(), Authority::new());
        folder.write("ca.pem", &ca.pem());
        for name in ["a.example", "b.example"] {
            folder.write(
                &format!("site/{name}.pem"),
                &ca.issue(&[name, "10.0.0.5"]).combined(),
            );
        }
        Self { folder, ca }
    }

    fn settings(&self) -> Settings {
        Settings {
            certificates: vec![self.folder.path("site")],
            client_auth: None,
            min_version: MinVersion::Tls12,
            http2: true,
        }
    }

    fn server(&self) -> Arc<Server> {
        Server::new(self.settings()).unwrap()
    }

    fn server_that_asks(&self, required: bool) -> Arc<Server> {
        let ca = self.folder.path("ca.pem");
        Server::new(Settings {
            client_auth: Some(ClientAuth { ca, required }),
            ..self.settings()
        })
        .unwrap()
    }

    fn ca(&self) -> PathBuf {
        self.folder.path("ca.pem")
    }

    /// A client of these versions that may have a certificate of its own.
    fn client(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        own: Option<&Issued>,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.ca.pem().as_bytes()).unwrap();
        roots.add(ca).unwrap();
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain = CertificateDer::from_pem_slice(own.chain.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![chain], key).unwrap()
            }
        })
    }
}

fn name(name: &'static str) -> ServerName<'static> {
    name.try_into().unwrap()
}

/// Both sides of a handshake, and a byte each way: with TLS 1.3 a client learns
/// only then whether its certificate was taken, and what the tickets are.
async fn shake(
    server: &Server,
    connect: impl AsyncFnOnce(DuplexStream) -> io::Result<client::TlsStream<DuplexStream>>,
) -> io::Result<Both> {
    let (near, far) = duplex(64 * 1024);
    let accept = async {
        let mut stream = server.accept(far).await?;
        stream.write_all(b"!").await?;
        stream.flush().await?;
        io::Result::Ok(stream)
    };
    let connect = async {
        let mut stream = connect(near).await?;
        stream.read_u8().await?;
        io::Result::Ok(stream)
    };
    let (server, client) = tokio::join!(accept, connect);
    // What the server says of it is the cause.
    server.and_then(|server| Ok((client?, server)))
}

async fn with(server: &Server, config: &Arc<ClientConfig>, to: &'static str) -> io::Result<Both> {
    let connector = TlsConnector::from(Arc::clone(config));
    shake(server, async move |io| {
        connector.connect(name(to), io).await
    })
    .await
}

async fn by(connector: &Connector, server: &Server, to: &'static str) -> io::Result<Both> {
    shake(server, async |io| {
        connector.connect(io, name(to), true).await
    })
    .await
}

#[tokio::test]
async fn a_client_is_shown_the_certificate_of_the_name_it_asks_for() {
    let stage = Stage::new();
    let (server, connector) = (stage.server(), Connector::new(Some(stage.ca()), true));
    let connector = connector.unwrap();
    for to in ["a.example", "b.example"] {
        let (_client, server) = by(&connector, &server, to).await.unwrap();
        assert_eq!(Handshake::of(&server).server_name(), Some(to));
    }
    // Clients send no name when they connect to an address (RFC 6066 §3).
    let (_client, server) = by(&connector, &server, "10.0.0.5").await.unwrap();
    assert_eq!(Handshake::of(&server).server_name(), None);
}

#[tokio::test]
async fn both_sides_agree_on_a_protocol_and_a_version() {
    let stage = Stage::new();
    let (http2, connector) = (stage.server(), Connector::new(Some(stage.ca()), true));
    let http1 = Server::new(Settings {
        http2: false,
        ..stage.settings()
    });
    let (http1, connector) = (http1.unwrap(), connector.unwrap());
    for (server, alpn) in [(&http2, Alpn::Http2), (&http1, Alpn::Http11)] {
        let (client, server) = by(&connector, server, "a.example").await.unwrap();
        assert_eq!(Handshake::of(&server).alpn(), alpn);
        assert_eq!(Connector::alpn(&client), alpn);
        assert_eq!(Handshake::of(&server).version(), "TLSv1.3");
    }
    let silent = stage.client(&[&TLS12], None);
    let (_client, server) = with(&http2, &silent, "a.example").await.unwrap();
    assert_eq!(Handshake::of(&server).alpn(), Alpn::Http11);
    assert_eq!(Handshake::of(&server).version(), "TLSv1.2");
}

#[tokio::test]
async fn an_older_version_than_the_least_is_refused_and_counted() {
    let stage = Stage::new();
    let server = Server::new(Settings {
        min_version: MinVersion::Tls13,
        ..stage.settings()
    });
    let server = server.unwrap();
    let old = stage.client(&[&TLS12], None);
    with(&server, &old, "a.example").await.unwrap_err();
    let new = stage.client(&[&TLS13], None);
    with(&server, &new, "a.example").await.unwrap();
    // Whoever never says a word, until somebody loses patience.
    let (_near, far) = duplex(64);
    let patience = Duration::from_millis(1);
    tokio::time::timeout(patience, server.accept(far))
        .await
        .unwrap_err();
    let Handshakes { ok, failed } = &**server.handshakes();
    assert_eq!((ok.get(), failed.get()), (1, 2));
}

#[tokio::test]
async fn a_client_that_comes_back_resumes_its_session() {
    let stage = Stage::new();
    let server = stage.server();
    for version in [&TLS12, &TLS13] {
        let config = stage.client(&[version], None);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (client, _server) = with(&server, &config, "a.example").await.unwrap();
            assert_eq!(
                client.get_ref().1.handshake_kind(),
                Some(kind),
                "{version:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_client_must_have_a_certificate_of_the_right_authority() {
    let stage = Stage::new();
    let (must, may) = (stage.server_that_asks(true), stage.server_that_asks(false));
    let (own, strange) = (
        stage.ca.issue_for_common_name("app"),
        Authority::new().issue_for_common_name("app"),
    );
    for version in [&TLS12, &TLS13] {
        let of = |own| stage.client(&[version], own);
        for server in [&must, &may] {
            let own = of(Some(&own));
            let (_client, server) = with(server, &own, "a.example").await.unwrap();
            assert_eq!(Handshake::of(&server).client().as_deref(), Some("CN=app"));
        }
        with(&must, &of(None), "a.example").await.unwrap_err();
        let (_client, anonymous) = with(&may, &of(None), "a.example").await.unwrap();
        assert_eq!(Handshake::of(&anonymous).client(), None);
        for server in [&must, &may] {
            let strange = of(Some(&strange));
            with(server, &strange, "a.example").await.unwrap_err();
        }
    }
}

/// Waits until a handshake ends as expected; the clock is paused, and moves on
/// while nothing else is to be done.
async fn until<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..100 {
        if let Some(done) = attempt().await {
            return done;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{what} did not happen");
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_new_connections_and_old_ones_go_on() {
    let stage = Stage::new();
    let server = stage.server();
    let following = tokio::spawn(Arc::clone(&server).follow());
    let config = stage.client(&[&TLS13], None);
    let (mut old_client, mut old_server) = with(&server, &config, "a.example").await.unwrap();

    let renewed = stage.ca.issue(&["a.example"]);
    let expected = CertificateDer::from_pem_slice(renewed.chain.as_bytes()).unwrap();
    stage
        .folder
        .write("site/a.example.pem", &renewed.combined());
    until("renewal", async || {
        let fresh = stage.client(&[&TLS13], None);
        let (client, _server) = with(&server, &fresh, "a.example").await.unwrap();
        let shown = client.get_ref().1.peer_certificates().unwrap();
        (shown[0] == expected).then_some(())
    })
    .await;

    stage
        .folder
        .write("site/a.example.pem", &renewed.chain.replace("END", "…"));
    tokio::time::sleep(Duration::from_secs(4)).await;
    let fresh = stage.client(&[&TLS13], None);
    let (client, _server) = with(&server, &fresh, "a.example").await.unwrap();
    let shown = client.get_ref().1.peer_certificates().unwrap();
    assert_eq!(shown[0], expected, "what cannot be used changes nothing");

    old_client.write_all(b"?").await.unwrap();
    old_client.flush().await.unwrap();
    assert_eq!(old_server.read_u8().await.unwrap(), b'?');
    following.abort();
}

#[tokio::test]
async fn whom_the_new_authorities_do_not_know_cannot_resume_an_old_session() {
    let stage = Stage::new();
    let server = stage.server_that_asks(true);
    let following = tokio::spawn(Arc::clone(&server).follow());
    let app = stage.ca.issue_for_common_name("app");
    let config = stage.client(&[&TLS13], Some(&app));
    with(&server, &config, "a.example").await.unwrap();
    stage.folder.write("ca.pem", &Authority::new().pem());
    until("refusal", async || {
        with(&server, &config, "a.example").await.err()
    })
    .await;
    following.abort();
}

#[tokio::test]
async fn a_server_that_cannot_be_believed_is_refused_with_what_to_do() {
    let stage = Stage::new();
    let server = stage.server();
    stage.folder.write("other.pem", &Authority::new().pem());
    let with_ca = |ca, verify| Connector::new(ca, verify).unwrap();
    let other = Some(stage.folder.path("other.pem"));
    for (connector, to, hint) in [
        (with_ca(None, true), "a.example", "needs --server-ca"),
        (
            with_ca(other, true),
            "a.example",
            "from nobody in --server-ca",
        ),
        (
            with_ca(Some(stage.ca()), true),
            "c.example",
            "is not for c.example but for ",
        ),
        (
            with_ca(Some(stage.ca()), true),
            "10.0.0.6",
            "is not for 10.0.0.6 but for ",
        ),
    ] {
        let (near, far) = duplex(64 * 1024);
        let accept = server.accept(far);
        let (connected, _accepted) = tokio::join!(connector.connect(near, name(to), false), accept);
        let why = in_words(&connected.unwrap_err());
        assert!(why.contains(hint), "{why}");
    }
    by(&with_ca(None, false), &server, "c.example")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_told_apart() {
    let (near, mut far) = duplex(1024);
    far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        .await
        .unwrap();
    let connector = Connector::new(None, false).unwrap();
    let err = connector.connect(near, name("a.example"), false).await;
    assert_eq!(in_words(&err.unwrap_err()), "it does not speak TLS");
}

#[test]
fn a_servers_name_is_its_sni_or_its_address() {
    let address = "10.0.0.5".parse().unwrap();
    let of = |sni| server_name(sni, address).unwrap();
    assert_eq!(of(Some("a.example")), name("a.example"));
    assert_eq!(of(Some("::1")), name("::1"));
    assert_eq!(of(None), name("10.0.0.5"));
    let err = server_name(Some("a b"), address).unwrap_err();
    assert!(err.contains("give sni=NAME"), "{err}");
}
