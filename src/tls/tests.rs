//! Handshakes between our own two sides over loopback, with certificates made on the spot.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SanType, SignatureAlgorithm,
};
use rustls::{
    HandshakeKind, ProtocolVersion, SignatureScheme, SupportedProtocolVersion,
    version::{TLS12, TLS13},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{server::accept, sni::Sni, *};
use crate::config::{
    pattern::EndpointHost,
    schema::{
        CertificateFiles, ClientCertificates, ClientIdentity, ClientMode, ListenTls, Protocol,
        TlsVersion, VersionTls,
    },
};

const PATIENCE: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A folder with an authority, which issues certificates into it.
struct Office {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Office {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Test authority");
        fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `file`.pem and `file`.key.
    fn issue(&self, file: &str, names: &[&str]) -> CertificateFiles {
        self.issue_with(file, names, &PKCS_ECDSA_P256_SHA256, |_| {})
    }

    fn issue_with(
        &self,
        file: &str,
        names: &[&str],
        algorithm: &'static SignatureAlgorithm,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateFiles {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Example, Ltd.");
        params.distinguished_name.push(DnType::CommonName, file);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let (cert, key_file) =
            (self.path(&format!("{file}.pem")), self.path(&format!("{file}.key")));
        fs::write(&cert, certificate.pem()).unwrap();
        fs::write(&key_file, key.serialize_pem()).unwrap();
        CertificateFiles { cert, key: key_file, ocsp: None }
    }

    fn listener(&self, certificates: Vec<CertificateFiles>) -> ListenTls {
        ListenTls { certificates, min_version: TlsVersion::V1_2, client: None }
    }

    fn asking_clients(&self, mode: ClientMode) -> ListenTls {
        let client = Some(ClientCertificates { ca: self.path("ca.pem"), mode });
        ListenTls { client, ..self.listener(vec![self.issue("edge", &["edge.test"])]) }
    }

    fn version(&self) -> VersionTls {
        VersionTls { ca: Some(self.path("ca.pem")), ..VersionTls::default() }
    }

    fn client(&self) -> Client {
        Client::open(&self.version(), &[b"http/1.1"]).unwrap()
    }

    fn client_of(&self, version: &'static SupportedProtocolVersion) -> Client {
        let material = Material::of_version(&self.version()).unwrap();
        Client::build(&self.version(), &material, &[b"http/1.1"], &[version]).unwrap()
    }
}

fn host(name: &str) -> EndpointHost {
    name.parse().unwrap()
}

/// What both sides know after a handshake and one byte from the server.
#[derive(Debug)]
struct Met {
    version: Option<ProtocolVersion>,
    kind: Option<HandshakeKind>,
    alpn: Option<Vec<u8>>,
    /// Subject of the server's certificate.
    server: String,
    /// Subject of the client's certificate.
    client: Option<String>,
}

async fn meet(
    server: Arc<rustls::ServerConfig>,
    client: &Client,
    name: &str,
) -> Result<Met, HandshakeError> {
    let listening = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpStream::connect(listening.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listening.accept().await.unwrap();
    let serve = async {
        let mut stream = accept(server, accepted, PATIENCE).await?;
        stream.write_all(b"!").await?;
        stream.flush().await?;
        let connection = stream.get_ref().1;
        let known = (server::client_subject(connection), connection.alpn_protocol().map(Vec::from));
        // Until the client leaves.
        let _ = stream.read_u8().await;
        Ok::<_, HandshakeError>(known)
    };
    let name = host(name);
    let ask = async {
        let mut stream = client.connect(&name, socket, PATIENCE).await?;
        stream.read_u8().await?;
        let connection = stream.get_ref().1;
        let certificate = &connection.peer_certificates().unwrap()[0];
        let server = subject::of(certificate).unwrap();
        Ok::<_, HandshakeError>((
            connection.protocol_version(),
            connection.handshake_kind(),
            server,
        ))
    };
    let (served, asked) = tokio::join!(serve, ask);
    let ((client, alpn), (version, kind, server)) = (served?, asked?);
    Ok(Met { version, kind, alpn, server, client })
}

const EDGE: &str = r"CN=edge,O=Example\, Ltd.";

#[test]
fn the_name_decides_and_the_first_is_the_default() {
    let office = Office::new();
    let files = [
        office.issue("first", &["first.test"]),
        office.issue("wild", &["*.example.test", "example.test"]),
        office.issue("exact", &["API.example.test"]),
        office.issue_with("rsa", &["both.test"], &PKCS_RSA_SHA256, |_| {}),
        office.issue("ec", &["both.test"]),
    ];
    let tls = office.listener(files.to_vec());
    let certificates = server::certificates(&tls, &Material::of_listener(&tls).unwrap()).unwrap();
    let sni = Sni::new(&certificates);
    let all = [SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256];
    let chosen = |name: Option<&str>, schemes: &[SignatureScheme]| {
        let key = sni.choose(name, schemes).unwrap();
        let at = certificates.iter().position(|c| Arc::ptr_eq(&c.key, key)).unwrap();
        certificates[at].file.file_stem().unwrap().to_str().unwrap().to_owned()
    };
    for (name, expected) in [
        ("first.test", "first"),
        ("example.test", "wild"),
        ("www.example.test", "wild"),
        ("api.example.test", "exact"),
        ("api.example.test.", "exact"),
        ("www.example.test.", "wild"),
        ("a.b.example.test", "first"),
        ("unknown.test", "first"),
        ("test", "first"),
        ("both.test", "ec"),
    ] {
        assert_eq!(chosen(Some(name), &all), expected, "{name}");
    }
    assert_eq!(chosen(None, &all), "first");
    assert_eq!(chosen(Some("both.test"), &all[1..]), "rsa");
    assert_eq!(chosen(Some("first.test"), &all[1..]), "first");
}

#[test]
fn files_that_cannot_be_used_say_why() {
    let office = Office::new();
    let (good, other) = (office.issue("good", &["a.test"]), office.issue("other", &["b.test"]));
    let ca = office.path("ca.pem");
    let write = |name: &str, content: &[u8]| {
        fs::write(office.path(name), content).unwrap();
        office.path(name)
    };
    let reversed = [fs::read(&ca).unwrap(), fs::read(&good.cert).unwrap()].concat();
    let encrypted =
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----";
    let cut = &fs::read(&good.cert).unwrap()[..100];
    let cases = [
        (other.cert.clone(), good.key.clone(), None, "other.pem: does not belong to the key in"),
        (write("reversed", &reversed), good.key.clone(), None, "put the server's own first"),
        (good.cert.clone(), write("enc", encrypted), None, "enc: the key is encrypted; take"),
        (good.cert.clone(), ca, None, "ca.pem: holds no private key; PEM has"),
        (good.key.clone(), good.key.clone(), None, "good.key: holds no certificate; PEM has"),
        (write("cut", cut), good.key.clone(), None, "cut: not PEM ("),
        (office.path("none"), good.key.clone(), None, "none: No such file"),
        (office.path(""), good.key.clone(), None, "it is a folder; name a regular file"),
        (
            good.cert.clone(),
            good.key.clone(),
            Some(write("text", b"x")),
            "text: not an OCSP response",
        ),
        (
            good.cert.clone(),
            good.key.clone(),
            Some(write("later", &[0x30, 3, 0x0A, 1, 3])),
            "later: an OCSP response that is an error (status 3)",
        ),
    ];
    for (cert, key, ocsp, expected) in cases {
        let tls = office.listener(vec![CertificateFiles { cert, key, ocsp }]);
        let message = server::server_config(&tls, &[]).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}\ndoes not contain\n{expected}");
    }
    // Certificate and key may share a file, in any order.
    let both = [fs::read(&good.key).unwrap(), fs::read(&good.cert).unwrap()].concat();
    let both = write("both", &both);
    let ocsp = Some(write("fine", &[0x30, 3, 0x0A, 1, 0]));
    let tls = office.listener(vec![CertificateFiles { cert: both.clone(), key: both, ocsp }]);
    let certificates = server::certificates(&tls, &Material::of_listener(&tls).unwrap()).unwrap();
    assert_eq!(certificates[0].key.ocsp.as_deref(), Some(&[0x30, 3, 0x0A, 1, 0][..]));
}

#[tokio::test]
async fn both_versions_are_spoken_and_resumed() {
    let office = Office::new();
    let tls = office.listener(vec![office.issue("edge", &["*.edge.test", "127.0.0.1"])]);
    for version in [&TLS12, &TLS13] {
        let server = server::server_config(&tls, &[b"h2", b"http/1.1"]).unwrap();
        let client = office.client_of(version);
        let met = meet(Arc::clone(&server), &client, "API.Edge.test").await.unwrap();
        assert_eq!(met.version, Some(version.version));
        assert_eq!(met.alpn.as_deref(), Some(&b"http/1.1"[..]));
        assert_eq!((met.server.as_str(), met.client), (EDGE, None));
        assert_eq!(met.kind, Some(HandshakeKind::Full));
        let again = meet(Arc::clone(&server), &client, "API.Edge.test").await.unwrap();
        assert_eq!(again.kind, Some(HandshakeKind::Resumed));
        let other = meet(Arc::clone(&server), &client, "other.edge.test").await.unwrap();
        assert_eq!(other.kind, Some(HandshakeKind::Full));
        meet(Arc::clone(&server), &client, "127.0.0.1").await.unwrap();
        let wrong = meet(server, &client, "elsewhere.test").await.unwrap_err();
        assert_eq!(wrong.kind(), "failed");
    }
    let newer = ListenTls { min_version: TlsVersion::V1_3, ..tls };
    let server = server::server_config(&newer, &[b"http/1.1"]).unwrap();
    let old = office.client_of(&TLS12);
    assert_eq!(meet(server, &old, "a.edge.test").await.unwrap_err().kind(), "failed");
}

#[tokio::test]
async fn clients_are_verified() {
    let office = Office::new();
    let identity = office.issue("partner", &["partner.test"]);
    let known = VersionTls {
        server_name: Some(host("edge.test")),
        client: Some(ClientIdentity { cert: identity.cert, key: identity.key }),
        ..office.version()
    };
    let known = Client::open(&known, &[]).unwrap();
    let stranger = Office::new();
    let foreign = stranger.issue("stranger", &["partner.test"]);
    let foreign = VersionTls {
        client: Some(ClientIdentity { cert: foreign.cert, key: foreign.key }),
        ..office.version()
    };
    let foreign = Client::open(&foreign, &[]).unwrap();
    for (mode, without) in [(ClientMode::Required, false), (ClientMode::Optional, true)] {
        let server = server::server_config(&office.asking_clients(mode), &[]).unwrap();
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let met = meet(Arc::clone(&server), &known, "127.0.0.1").await.unwrap();
            assert_eq!(met.client.as_deref(), Some(r"CN=partner,O=Example\, Ltd."));
            assert_eq!(met.kind, Some(kind));
        }
        let met = meet(Arc::clone(&server), &office.client(), "edge.test").await;
        assert_eq!(met.is_ok_and(|met| met.client.is_none()), without);
        let met = meet(server, &foreign, "edge.test").await;
        assert_eq!(met.unwrap_err().kind(), "failed");
    }
}

#[tokio::test]
async fn who_does_not_speak_tls_is_let_go() {
    let office = Office::new();
    let tls = office.listener(vec![office.issue("edge", &["edge.test"])]);
    let server = server::server_config(&tls, &[]).unwrap();
    let listening = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let after = |sent: &'static [u8], stays: bool, timeout| {
        let (listening, server) = (&listening, Arc::clone(&server));
        async move {
            let address = listening.local_addr().unwrap();
            let mut socket = TcpStream::connect(address).await.unwrap();
            let (accepted, _) = listening.accept().await.unwrap();
            socket.write_all(sent).await.unwrap();
            let _open = stays.then_some(socket);
            accept(server, accepted, timeout).await.unwrap_err().kind()
        }
    };
    assert_eq!(after(b"GET / HTTP/1.1\r\n\r\n", true, PATIENCE).await, "failed");
    assert_eq!(after(b"", false, PATIENCE).await, "closed");
    assert_eq!(after(b"\x16\x03\x01", true, Duration::from_millis(20)).await, "timeout");
}

#[tokio::test]
async fn changed_files_are_taken_over_and_sessions_go_on() {
    let office = Office::new();
    let now = SystemTime::now();
    let files = office.issue("edge", &["edge.test"]);
    let listener =
        TlsListener::open("front", &office.listener(vec![files.clone()]), &[b"http/1.1"]);
    let listener = listener.unwrap();
    let client = office.client();
    meet(listener.config(), &client, "edge.test").await.unwrap();
    assert!(matches!(listener.refresh(now), Refreshed::Unchanged));

    office.issue("edge", &["edge.test", "new.test"]);
    assert!(matches!(listener.refresh(now), Refreshed::Renewed));
    assert_eq!(listener.expiries()[0].names, ["edge.test", "new.test"]);
    let met = meet(listener.config(), &client, "edge.test").await.unwrap();
    assert_eq!(met.kind, Some(HandshakeKind::Resumed));
    meet(listener.config(), &client, "new.test").await.unwrap();
    assert_eq!(listener.files(), [files.cert, files.key]);
}

#[tokio::test]
async fn what_is_broken_keeps_the_old() {
    let office = Office::new();
    let now = SystemTime::now();
    let files = office.issue("edge", &["edge.test"]);
    let tls = office.listener(vec![files.clone()]);
    let listener = TlsListener::open("front", &tls, &[b"http/1.1"]).unwrap();
    let (cert, key) = (fs::read(&files.cert).unwrap(), fs::read(&files.key).unwrap());

    // The certificate is written before its key.
    let next = office.issue("next", &["edge.test", "next.test"]);
    fs::copy(&next.cert, &files.cert).unwrap();
    let Refreshed::Kept(fault) = listener.refresh(now) else { panic!("taken over") };
    assert_eq!(fault.listener, "front");
    assert!(
        fault.to_string().starts_with("listener front: the previous certificates stay in force: ")
    );
    assert_eq!(fault.error.file(), Some(files.cert.as_path()));
    assert!(matches!(listener.refresh(now), Refreshed::Unchanged));
    assert!(listener.fault().is_some());
    assert_eq!(listener.expiries()[0].names, ["edge.test"]);
    meet(listener.config(), &office.client(), "edge.test").await.unwrap();
    fs::copy(&next.key, &files.key).unwrap();
    assert!(matches!(listener.refresh(now), Refreshed::Renewed));
    assert!(listener.fault().is_none());
    meet(listener.config(), &office.client(), "next.test").await.unwrap();

    // A missing file is looked for again.
    fs::remove_file(&files.key).unwrap();
    assert!(matches!(listener.refresh(now), Refreshed::Kept(_)));
    fs::write(&files.cert, cert).unwrap();
    fs::write(&files.key, key).unwrap();
    assert!(matches!(listener.refresh(now), Refreshed::Renewed));

    // An outdated certificate does not replace a valid one.
    let expired =
        |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    office.issue_with("edge", &["edge.test"], &PKCS_ECDSA_P256_SHA256, expired);
    let Refreshed::Kept(fault) = listener.refresh(now) else { panic!("taken over") };
    assert!(fault.error.to_string().contains("expired on 2020-01-01T00:00:00Z"), "{fault:?}");
    // At start an outdated certificate is accepted, since there is no other.
    TlsListener::open("front", &tls, &[]).unwrap();
}

#[tokio::test]
async fn other_demands_on_clients_end_their_sessions() {
    let office = Office::new();
    let now = SystemTime::now();
    let optional = office.asking_clients(ClientMode::Optional);
    let listener = TlsListener::open("front", &optional, &[]).unwrap();
    let client = Client::open(&office.version(), &[]).unwrap();
    meet(listener.config(), &client, "edge.test").await.unwrap();
    let mode = ClientMode::Required;
    let required =
        ListenTls { client: optional.client.map(|c| ClientCertificates { mode, ..c }), ..optional };
    assert!(matches!(listener.replace(&required, now), Refreshed::Renewed));
    assert!(matches!(listener.replace(&required, now), Refreshed::Unchanged));
    let met = meet(listener.config(), &client, "edge.test").await;
    assert_eq!(met.unwrap_err().kind(), "failed");
}

#[test]
fn the_end_of_a_certificate_is_known() {
    let office = Office::new();
    let until = |year| {
        move |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(year, 1, 15)
    };
    let files = vec![
        office.issue_with("late", &["a.test", "10.0.0.1"], &PKCS_ECDSA_P256_SHA256, |params| {
            params.subject_alt_names.push(SanType::IpAddress("::1".parse().unwrap()));
            until(2031)(params);
        }),
        office.issue_with("soon", &["b.test"], &PKCS_ECDSA_P256_SHA256, until(2030)),
    ];
    let listener = TlsListener::open("0.0.0.0:8443", &office.listener(files), &[]).unwrap();
    let expiries = listener.expiries();
    assert_eq!(expiries[0].names, ["a.test", "10.0.0.1", "::1"]);
    assert_eq!(expiries[1].listener, "0.0.0.0:8443");
    assert_eq!(
        humantime::format_rfc3339(expiries[1].not_after).to_string(),
        "2030-01-15T00:00:00Z"
    );
    let end = expiries[1].not_after;
    let second = Duration::from_secs(1);
    for (now, days) in [
        (end - 13 * DAY, 13),
        (end - 13 * DAY + second, 12),
        (end - second, 0),
        (end, 0),
        (end + second, -1),
        (end + 2 * DAY, -3),
    ] {
        assert_eq!(expiries[1].days_left(now), days);
    }
    let soon = |now| -> Vec<_> {
        expiring(&expiries, now).map(|(e, left)| (e.names[0].clone(), left)).collect()
    };
    assert_eq!(soon(end - 14 * DAY), []);
    assert_eq!(soon(end - 13 * DAY), [("b.test".to_owned(), 13 * DAY)]);
    assert_eq!(soon(end + DAY), [("b.test".to_owned(), Duration::ZERO)]);
}

#[test]
fn clients_are_kept_while_their_files_are_the_same() {
    let office = Office::new();
    let identity = office.issue("tidegate", &["tidegate.test"]);
    let (cert, key) = (identity.cert, identity.key);
    let tls = VersionTls { client: Some(ClientIdentity { cert, key }), ..office.version() };
    let mut clients = Clients::default();
    let first = clients.open(&tls, Protocol::H1).unwrap();
    let same = |a: &Client, b: &Client| Arc::ptr_eq(a.config(), b.config());
    assert!(same(&first, &clients.open(&tls, Protocol::H1).unwrap()));
    let ca = fs::read(office.path("ca.pem")).unwrap();
    fs::write(office.path("ca.pem"), "").unwrap();
    assert!(same(&first, &clients.open(&tls, Protocol::H1).unwrap()));
    assert!(clients.fault(&tls, Protocol::H1).is_some());
    fs::write(office.path("ca.pem"), &ca).unwrap();
    assert!(same(&first, &clients.open(&tls, Protocol::H1).unwrap()));
    assert!(clients.fault(&tls, Protocol::H1).is_none());
    office.issue("tidegate", &["tidegate.test"]);
    assert!(!same(&first, &clients.open(&tls, Protocol::H1).unwrap()));
    assert_eq!(clients.files().count(), 3);
    clients.retain(&[].into());
    assert_eq!(clients.files().count(), 0);
    assert!(
        Clients::default()
            .open(&VersionTls { ca: Some("none".into()), ..tls }, Protocol::H1)
            .is_err()
    );
}
