//! TLS with clients and with servers, as curl, OpenSSL and rustls meet it.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::ring};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use super::support::{
    certificates::{Authority, Folder, Issued},
    cluster::{Balancer, agent},
    eventually,
    origin::{Origin, Seen, balancer_over, ok},
    process::Process,
};

/// An authority, and a folder with a certificate that it gave to a.example and
/// localhost.
struct Site {
    folder: Folder,
    ca: Authority,
}

impl Site {
    fn new() -> Self {
        let site = Self {
            folder: Folder::new(),
            ca: Authority::new(),
        };
        site.folder.write("ca.pem", &site.ca.pem());
        site.renew();
        site
    }

    /// Gives it another certificate.
    fn renew(&self) -> Issued {
        let issued = self.ca.issue(&["a.example", "localhost", "127.0.0.1"]);
        self.folder.write("site/a.pem", &issued.combined());
        issued
    }

    fn path(&self, name: &str) -> String {
        self.folder.path(name).to_str().unwrap().to_owned()
    }

    /// A balancer over `origin` that has it.
    fn serve(&self, origin: &Origin, flags: &[&str]) -> Balancer {
        let certificates = self.path("site");
        let own = ["--https", "127.0.0.1:0", "--tls-cert", &certificates];
        balancer_over(&[origin], &[&own[..], flags].concat())
    }

    /// curl's answer, head and body, or what it says of none.
    fn curl(&self, to: SocketAddr, args: &[&str]) -> Result<String, String> {
        let port = to.port();
        let mut command = Command::new("curl");
        command.args(["-sSi", "--max-time", "10", "--cacert", &self.path("ca.pem")]);
        command.args(["--resolve", &format!("a.example:{port}:127.0.0.1")]);
        command.args(args).arg(format!("https://a.example:{port}/"));
        let output = command.output().expect("curl is installed");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    /// What `openssl s_client` shows of a connection.
    fn s_client(&self, to: SocketAddr, args: &[&str]) -> String {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &to.to_string()]);
        command.args(["-CAfile", &self.path("ca.pem"), "-servername", "a.example"]);
        command.args(args).stdin(Stdio::null());
        let output = command.output().expect("openssl is installed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A connection by rustls, which may show a certificate.
    fn connect(&self, to: SocketAddr, own: Option<&Issued>) -> Secure {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.ca.pem().as_bytes()).unwrap();
        roots.add(ca).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain = CertificateDer::from_pem_slice(own.chain.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![chain], key).unwrap()
            }
        };
        let name = "a.example".try_into().unwrap();
        let tls = ClientConnection::new(Arc::new(config), name).unwrap();
        let socket = TcpStream::connect(to).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Secure(StreamOwned::new(tls, socket))
    }
}

/// A connection over TLS.
struct Secure(StreamOwned<ClientConnection, TcpStream>);

impl Secure {
    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
        self.0.flush().unwrap();
    }

    /// GETs `/` and reads the answer, whose body is `length` bytes.
    fn get(&mut self, length: usize) -> Vec<u8> {
        self.send(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
        self.answer(length)
    }

    fn answer(&mut self, length: usize) -> Vec<u8> {
        let mut read = Vec::new();
        let mut chunk = [0; 16 * 1024];
        loop {
            let end = read.windows(4).position(|four| four == b"\r\n\r\n");
            if end.is_some_and(|end| read.len() >= end + 4 + length) {
                return read;
            }
            match self.0.read(&mut chunk).unwrap() {
                0 => panic!("closed after {} bytes", read.len()),
                more => read.extend_from_slice(&chunk[..more]),
            }
        }
    }

    /// The certificate that it was shown.
    fn shown(&self) -> CertificateDer<'static> {
        self.0.conn.peer_certificates().unwrap()[0].clone()
    }
}

fn certificate(issued: &Issued) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(issued.chain.as_bytes()).unwrap()
}

fn series(balancer: &Balancer, name: &str) -> f64 {
    let metrics = balancer.stats("/metrics").body;
    let metrics = String::from_utf8(metrics).unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.expect("a series").trim().parse().unwrap()
}

#[test]
fn requests_come_over_tls_1_2_and_1_3_and_servers_hear_of_it() {
    let (site, origin) = (Site::new(), Origin::saying("hello"));
    let balancer = site.serve(&origin, &["--hsts", "365d"]);
    let https = balancer.https.unwrap();
    for (version, http) in [
        ("1.2", "--http1.1"),
        ("1.3", "--http1.1"),
        ("1.3", "--http2"),
    ] {
        let least = format!("--tlsv{version}");
        let answer = site.curl(https, &[&least, "--tls-max", version, http]);
        let answer = answer.unwrap().to_lowercase();
        let first = if http == "--http2" {
            "http/2 200"
        } else {
            "http/1.1 200"
        };
        assert!(answer.starts_with(first), "{answer}");
        assert!(answer.ends_with("hello"), "{answer}");
        let hsts = "strict-transport-security: max-age=31536000\r\n";
        assert!(answer.contains(hsts), "{answer}");
    }
    let plain = balancer.connect().get(&[]).unwrap();
    assert_eq!(plain.header("strict-transport-security"), None);
    let seen = origin.seen();
    let protos: Vec<_> = seen
        .iter()
        .map(|seen| seen.values("x-forwarded-proto"))
        .collect();
    assert_eq!(protos, [["https"], ["https"], ["https"], ["http"]]);
    assert_eq!(
        seen[0].values("x-forwarded-port"),
        [https.port().to_string()]
    );

    assert!((series(&balancer, "tidings_tls_handshakes_total{result=\"ok\"}") - 3.0).abs() < 0.1);
    let expiry = "tidings_tls_certificate_expiry_timestamp_seconds{name=\"a.example\"}";
    assert!(series(&balancer, expiry) > 1.9e9);
}

#[test]
fn an_older_version_and_a_client_that_says_nothing_are_refused() {
    let (site, origin) = (Site::new(), Origin::saying("hello"));
    let flags = [
        "--tls-min-version",
        "1.3",
        "--timeout-http-request",
        "300ms",
    ];
    let balancer = site.serve(&origin, &flags);
    let https = balancer.https.unwrap();
    site.curl(https, &["--tls-max", "1.2"]).unwrap_err();
    let mut silent = TcpStream::connect(https).unwrap();
    silent
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    assert_eq!(silent.read(&mut [0; 64]).unwrap(), 0, "it is closed");
    let failed = "tidings_tls_handshakes_total{result=\"failed\"}";
    assert!((series(&balancer, failed) - 2.0).abs() < 0.1);
    assert!(site.curl(https, &[]).unwrap().ends_with("hello"));
}

#[test]
fn the_name_and_the_kind_of_key_decide_which_certificate_is_shown() {
    let (site, origin) = (Site::new(), Origin::saying("hello"));
    let rsa = [
        "genpkey",
        "-algorithm",
        "RSA",
        "-pkeyopt",
        "rsa_keygen_bits:2048",
    ];
    let rsa = Command::new("openssl")
        .args(rsa)
        .output()
        .expect("openssl is installed");
    let rsa = String::from_utf8(rsa.stdout).unwrap();
    let rsa = site.ca.issue_with_key(&["a.example"], &rsa);
    site.folder.write("site/rsa.pem", &rsa.combined());
    let wild = site.ca.issue(&["*.z.example"]);
    site.folder.write("site/z.crt", &wild.chain);
    site.folder.write("site/z.key", &wild.key);
    let balancer = site.serve(&origin, &[]);
    let https = balancer.https.unwrap();

    let shown = site.s_client(https, &["-tls1_2", "-sigalgs", "RSA-PSS+SHA256"]);
    assert!(shown.contains("Peer signature type: RSA-PSS"), "{shown}");
    assert!(shown.contains("Verify return code: 0 (ok)"), "{shown}");
    let shown = site.s_client(https, &[]);
    assert!(shown.contains("Peer signature type: ECDSA"), "{shown}");

    let of = |name: &str| {
        let shown = site.s_client(https, &["-servername", name, "-verify_hostname", name]);
        shown.contains("Verify return code: 0 (ok)")
    };
    assert!(of("shop.z.example") && of("a.example"));
    assert!(!of("z.example"), "a wildcard has one label more");
}

#[test]
fn a_renewed_certificate_is_taken_up_and_nothing_is_dropped() {
    const LENGTH: usize = 8 << 20;
    let site = Site::new();
    let body = "x".repeat(LENGTH);
    let origin = Origin::answering(ok(&body));
    let balancer = site.serve(&origin, &[]);
    let https = balancer.https.unwrap();
    let mut kept = site.connect(https, None);
    kept.get(LENGTH);
    let first = kept.shown();
    let mut download = site.connect(https, None);
    download.send(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let mut begun = [0; 1024];
    download.0.read_exact(&mut begun).unwrap();

    let renewed = certificate(&site.renew());
    eventually("new connections get the new certificate", || {
        let mut fresh = site.connect(https, None);
        fresh.get(LENGTH);
        (fresh.shown() == renewed).then_some(())
    });

    let rest = download.answer_rest(&begun, LENGTH);
    assert_eq!(rest, LENGTH, "the download went on to its end");
    assert_eq!(download.shown(), first);
    kept.get(LENGTH);
    assert_eq!(kept.shown(), first, "on the connection that it had");

    site.folder.write("site/a.pem", &site.ca.pem());
    balancer
        .process
        .says("what cannot be used is told", |line| {
            line.contains("the certificates in use stay: ")
                .then_some(())
        });
    let mut fresh = site.connect(https, None);
    fresh.get(LENGTH);
    assert_eq!(fresh.shown(), renewed, "and changes nothing");
}

impl Secure {
    /// Reads on to the end of an answer that has begun; the body's length.
    fn answer_rest(&mut self, begun: &[u8], length: usize) -> usize {
        let end = begun.windows(4).position(|four| four == b"\r\n\r\n");
        let mut body = begun.len() - end.expect("a head") - 4;
        let mut chunk = vec![0; 64 * 1024];
        while body < length {
            match self.0.read(&mut chunk).unwrap() {
                0 => return body,
                more => body += more,
            }
        }
        body
    }
}

#[test]
fn a_client_that_comes_back_resumes_its_session() {
    let (site, origin) = (Site::new(), Origin::saying("hello"));
    let balancer = site.serve(&origin, &[]);
    let shown = site.s_client(balancer.https.unwrap(), &["-tls1_2", "-reconnect"]);
    let count = |what| shown.matches(what).count();
    assert_eq!(
        (count("New, TLSv1.2"), count("Reused, TLSv1.2")),
        (1, 5),
        "{shown}"
    );
}

#[test]
fn only_clients_with_a_certificate_of_the_authority_are_let_in() {
    let (site, origin) = (Site::new(), Origin::saying("hello"));
    let ca = site.path("ca.pem");
    let balancer = site.serve(&origin, &["--tls-client-ca", &ca]);
    let https = balancer.https.unwrap();
    let strange = Authority::new().issue_for_common_name("app");
    let own = site.ca.issue_for_common_name("app");
    for (name, issued) in [("own", &own), ("strange", &strange)] {
        site.folder
            .write(&format!("{name}.pem"), &issued.combined());
    }
    site.curl(https, &[]).unwrap_err();
    site.curl(https, &["--cert", &site.path("strange.pem")])
        .unwrap_err();
    let answer = site
        .curl(https, &["--cert", &site.path("own.pem")])
        .unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
    assert_eq!(origin.seen().len(), 1);

    let may = ["--tls-client-ca", &ca, "--tls-client-verify", "optional"];
    let balancer = site.serve(&origin, &may);
    let https = balancer.https.unwrap();
    assert!(site.curl(https, &[]).unwrap().ends_with("hello"));
    site.curl(https, &["--cert", &site.path("strange.pem")])
        .unwrap_err();
}

#[test]
fn who_asks_without_tls_is_sent_to_the_same_url_with_it() {
    let (site, origin) = (Site::new(), Origin::saying("hello"));
    let balancer = site.serve(&origin, &["--http-redirect-https=8443", "--hsts", "1h"]);
    let mut client = balancer.connect();
    for _ in 0..2 {
        let answer = client.request("GET", "/a?b=c", &[]).unwrap();
        assert_eq!(answer.status, 308);
        assert_eq!(answer.header("location"), Some("https://test:8443/a?b=c"));
        assert_eq!(answer.header("strict-transport-security"), None);
    }
    let answer = client.post("form=1").unwrap();
    assert_eq!(
        answer.status, 308,
        "a method and its body are kept (RFC 9110 §15.4.9)"
    );
    balancer.process.says("the log has it", |line| {
        (line.contains(" 308 ") && line.contains(" LR")).then_some(())
    });
    assert!(origin.seen().is_empty());
    assert!(
        site.curl(balancer.https.unwrap(), &[])
            .unwrap()
            .ends_with("hello")
    );
}

#[test]
fn a_server_over_tls_is_verified_checked_and_asked() {
    const LENGTH: usize = 1 << 20;
    let site = Site::new();
    let body = "x".repeat(LENGTH);
    let origin = Origin::answering(ok(&body));
    // The server that speaks TLS is a balancer.
    let inner = site.serve(&origin, &[]);
    let port = inner.https.unwrap().port();
    let stranger = Authority::new();
    site.folder.write("stranger.pem", &stranger.pem());
    let (ca, strange) = (site.path("ca.pem"), site.path("stranger.pem"));
    let start = |keys: &str, flags: &[&str]| {
        let server = format!("s1=localhost:{port},tls=1,check-interval=500ms,{keys}");
        Balancer::start(&[&["--server", &server][..], flags].concat())
    };

    let mut posts = 0;
    for keys in [
        "check=http:HEAD:/",
        "check=http:HEAD:/,sni=a.example",
        "check=tcp,proto=h2",
    ] {
        for flags in [&["--server-ca", &ca][..], &["--server-verify", "none"]] {
            let outer = start(keys, flags);
            outer.wait_for(&[("s1", "up")]);
            let mut client = outer.connect();
            let answer = client.get(&[]).unwrap();
            assert_eq!((answer.status, answer.body.len()), (200, LENGTH), "{keys}");
            let sent = "y".repeat(LENGTH);
            let answer = client.post(&sent).unwrap();
            assert_eq!((answer.status, answer.body.len()), (200, LENGTH), "{keys}");
            let whole = |seen: &Seen| seen.body.len() == LENGTH;
            posts += 1;
            assert_eq!(origin.seen().into_iter().filter(whole).count(), posts);
        }
    }

    for (keys, flags, hint) in [
        (
            "check=tcp",
            &["--server-ca", &strange][..],
            "from nobody in --server-ca",
        ),
        (
            "check=tcp,sni=b.example",
            &["--server-ca", &ca],
            "give the server sni=NAME",
        ),
        (
            "check=tcp",
            &[],
            "tls=1 needs --server-ca, or --server-verify none",
        ),
    ] {
        let outer = start(keys, flags);
        outer.wait_for(&[("s1", "down")]);
        outer.process.says("why there is no TLS", |line| {
            let down = line.contains("s1 is DOWN, reason: Layer6 invalid response");
            (down && line.contains(hint)).then_some(())
        });
        let asked = origin.seen().len();
        assert_eq!(outer.connect().get(&[]).unwrap().status, 503);
        assert_eq!(origin.seen().len(), asked);
    }

    // Who has no check is asked, and the line says why that fails.
    let outer = start("check=off", &[]);
    assert_eq!(outer.connect().get(&[]).unwrap().status, 503);
    outer.process.says("why there is no TLS", |line| {
        let why = "tls=1 needs --server-ca";
        (line.contains("no TLS with server s1") && line.contains(why)).then_some(())
    });

    let outer = start("check=tcp", &["--server-ca", &ca]);
    let passed = eventually("a check has passed", || {
        let csv = String::from_utf8(outer.stats("/;csv").body).unwrap();
        csv.contains(",L6OK,").then_some(csv)
    });
    assert!(passed.contains("Layer6 check passed"), "{passed}");

    let outer = start("check=http:HEAD:/", &["--server-ca", &strange]);
    outer.process.says("the check says what is wrong", |line| {
        let why = "Layer6 invalid response, info: \"its certificate comes from nobody";
        (line.contains("s1 is DOWN") && line.contains(why)).then_some(())
    });
    let csv = String::from_utf8(outer.stats("/;csv").body).unwrap();
    assert!(csv.contains(",L6RSP,"), "{csv}");
    outer.wait_for(&[("s1", "down")]);
}

#[test]
fn an_agent_looks_at_its_app_over_tls() {
    let (site, origin) = (Site::new(), Origin::saying("hello"));
    let inner = site.serve(&origin, &[]);
    let app = inner.https.unwrap();
    for check in ["tcp", "http:/"] {
        let outer = Balancer::start(&["--server-ca", &site.path("ca.pem")]);
        let own = "127.0.0.1:0".parse().unwrap();
        let mut args = agent("s1", &outer.gossip.to_string(), app, own);
        let flags = ["--tag", "tls=1", "--tag", "sni=a.example", "--check", check];
        args.extend(flags.map(str::to_owned));
        let _agent = Process::start(&args);
        outer.wait_for(&[("s1", "up")]);
        assert_eq!(outer.connect().get(&[]).unwrap().body, b"hello", "{check}");
    }
}

#[test]
fn what_is_wrong_with_a_certificate_is_one_line_at_start() {
    let site = Site::new();
    let [one, other] = [(); 2].map(|()| site.ca.issue(&["a.example"]));
    site.folder.write("wrong.crt", &one.chain);
    site.folder.write("wrong.key", &other.key);
    site.folder.write("lonely.crt", &one.chain);
    site.folder.write("bare.key", &one.key);
    site.folder
        .write("request.pem", "-----BEGIN CERTIFICATE REQUEST-----\n");
    site.folder.write("other.crt", &one.chain);
    site.folder.write("other.key", &other.chain);
    for (name, hint) in [
        ("wrong.crt", "wrong.key does not fit the certificate in "),
        ("lonely.crt", "lonely.crt has no private key"),
        ("bare.key", "bare.key has a private key and no certificate"),
        (
            "request.pem",
            "request.pem but a CERTIFICATE REQUEST: expected PEM",
        ),
        ("other.crt", "no key in "),
        ("other.crt", "other.key but a certificate: expected PEM"),
        ("absent.pem", "absent.pem: No such file"),
    ] {
        let args = [
            "serve",
            "--https",
            "127.0.0.1:0",
            "--tls-cert",
            &site.path(name),
        ];
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut process = Process::start(&args);
        assert_eq!(process.exit_code(), 1);
        process.says(hint, |line| line.contains(hint).then_some(()));
        assert_eq!(process.said().lines().count(), 1, "{}", process.said());
    }
}

#[test]
fn a_handshake_that_is_under_way_does_not_hold_up_the_end() {
    let (site, origin) = (Site::new(), Origin::saying("hello"));
    let mut balancer = site.serve(&origin, &[]);
    let _silent = TcpStream::connect(balancer.https.unwrap()).unwrap();
    assert!(site.curl(balancer.https.unwrap(), &[]).is_ok());
    let began = Instant::now();
    balancer.process.signal(rustix::process::Signal::TERM);
    assert_eq!(balancer.process.exit_code(), 0);
    // Far less than the ten seconds that a handshake may take.
    assert!(began.elapsed() < Duration::from_secs(8));
}
