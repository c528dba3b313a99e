use std::io::{Read, Write};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use tempfile::TempDir;
use tld_model::{AgentId, Zone};
use tld_sys::clock::{Clock, ManualClock};

use super::*;
use crate::registry::{Setup, State};

/// Like an agent without an authority: it takes any certificate.
#[derive(Debug)]
struct Trusting(CryptoProvider);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _stapled: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

struct Bed {
    home: TempDir,
    clock: Arc<ManualClock>,
    registry: Arc<Registry>,
}

impl Bed {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        for folder in ["etc", "queue", "logs"] {
            std::fs::create_dir(home.path().join(folder)).unwrap();
        }
        let clock = Arc::new(ManualClock::new(1_750_000_000 * 1_000_000_000, Duration::ZERO));
        let setup = Setup {
            home: home.path().into(),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            zone: Zone::utc(),
            warn: Arc::new(|_| {}),
        };
        let registry = Arc::new(Registry::open(setup).unwrap());
        Self { home, clock, registry }
    }

    fn try_start(&self, options: Options) -> Result<Enrolment, StartError> {
        let options = Options { address: Some(Ipv4Addr::LOCALHOST.into()), port: 0, ..options };
        let path = self.home.path().join("logs/ossec.log");
        let log = Log::new(path, Arc::clone(&self.clock) as Arc<dyn Clock>, Zone::utc(), false);
        start(Arc::clone(&self.registry), &options, log)
    }

    fn start(&self, options: Options) -> Enrolment {
        self.try_start(options).unwrap()
    }

    fn put(&self, path: &str, text: &str) {
        durable::replace(&self.home.path().join(path), text.as_bytes(), 0o640).unwrap();
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("logs/ossec.log")).unwrap_or_default()
    }

    /// Waits for words that the client's thread may say after its answer.
    #[track_caller]
    fn says(&self, text: &str) {
        let end = Deadline::after(Duration::from_secs(30));
        while !self.log().contains(text) {
            assert!(!end.passed(), "no `{text}` in `{}`", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

type Session = StreamOwned<ClientConnection, TcpStream>;

fn connect_as(
    address: SocketAddr,
    versions: &[&'static rustls::SupportedProtocolVersion],
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Session {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting((*provider).clone())));
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
    };
    let connection =
        ClientConnection::new(Arc::new(config), ServerName::try_from("manager").unwrap()).unwrap();
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    StreamOwned::new(connection, socket)
}

fn ask(enrolment: &Enrolment, request: &str) -> String {
    talk(connect_as(enrolment.address(), &[&TLS12, &TLS13], None), request).unwrap()
}

/// Ends only with the manager's proper goodbye: without it rustls reports an unexpected end.
fn talk(mut session: Session, request: &str) -> io::Result<String> {
    session.write_all(request.as_bytes())?;
    session.write_all(b"\n")?;
    let mut reply = String::new();
    session.read_to_string(&mut reply)?;
    Ok(reply)
}

fn dialogues() -> Option<Vec<serde_json::Value>> {
    let shared = std::env::var_os("TLD_SHARED");
    let folder = shared
        .as_ref()
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let Ok(text) = std::fs::read_to_string(folder.join("conformance/wire/vectors.json")) else {
        let demanded = shared.is_some() && std::env::var_os("TLD_REQUIRE_ALL").is_some();
        assert!(!demanded, "no vectors in `{}`", folder.display());
        println!("skipped: no vectors in `{}`", folder.display());
        return None;
    };
    let data: serde_json::Value = serde_json::from_str(&text).unwrap();
    Some(data["enrollment"]["dialogues"].as_array().unwrap().clone())
}

/// The recorded reply with what varies taken from ours.
fn fill_in(expected: &str, reply: &str) -> String {
    let fields: Vec<_> = reply.trim_start_matches("OSSEC K:'").trim_end_matches('\'').split(' ').collect();
    let [id, _, ip, key] = fields[..] else { return expected.to_owned() };
    assert!(!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()), "{reply}");
    assert!(key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit()), "{reply}");
    assert!(!expected.contains("<peer address>") || ip == "127.0.0.1", "{reply}");
    expected.replace("<id>", id).replace("<key>", key).replace("<peer address>", "127.0.0.1")
}

#[test]
fn every_recorded_dialogue_gets_its_reply_through_the_port() {
    let Some(dialogues) = dialogues() else { return };
    assert_eq!(dialogues.len(), 22);
    let bed = Bed::new();
    let host = tld_sys::host::name();
    let mut enrolment = bed.start(Options::default());
    let mut protected = false;
    for dialogue in &dialogues {
        let text = |member: &str| dialogue[member].as_str().unwrap_or_default().to_owned();
        let condition = text("condition");
        if !protected && (condition.contains("password option on") || condition.starts_with("same")) {
            drop(enrolment);
            bed.put("etc/authd.pass", "S3cret pass\n");
            enrolment = bed.start(Options { use_password: true, ..Options::default() });
            protected = true;
        }
        let request = text("request").replace("<manager host name>", &host);
        let reply = ask(&enrolment, &request);
        let expected = fill_in(&text("reply").replace("<manager host name>", &host), &reply);
        assert_eq!(reply, expected, "{request} ({condition})");
    }
    let keys = std::fs::read_to_string(bed.home.path().join("etc/client.keys")).unwrap();
    assert_eq!(keys.lines().count(), 7, "{keys}");
}

#[test]
fn both_versions_of_tls_are_spoken() {
    let bed = Bed::new();
    let enrolment = bed.start(Options::default());
    for (name, version) in [("tls-12", &TLS12), ("tls-13", &TLS13)] {
        let session = connect_as(enrolment.address(), &[version], None);
        let reply = talk(session, &format!("OSSEC A:'{name}'")).unwrap();
        assert!(reply.starts_with("OSSEC K:'") && !reply.ends_with('\n'), "{reply}");
    }
}

#[test]
fn a_duplicate_is_replaced_when_it_is_gone_long_enough() {
    let bed = Bed::new();
    let enrolment = bed.start(Options::default());
    let first = ask(&enrolment, "OSSEC A:'web'");
    assert!(first.starts_with("OSSEC K:'001 web any "), "{first}");
    bed.clock.advance(Duration::from_secs(3_599));
    let refused = "ERROR: Duplicate agent name: web. Unable to add agent";
    assert_eq!(ask(&enrolment, "OSSEC A:'web'"), refused);
    bed.clock.advance(Duration::from_secs(1));
    let hash = bed.registry.table().by_name("web").unwrap().key.hash();
    assert_eq!(ask(&enrolment, &format!("OSSEC A:'web' K:'{hash}'")), refused);
    bed.registry.table().by_name("web").unwrap().update(|activity| activity.state = State::Active);
    assert_eq!(ask(&enrolment, "OSSEC A:'web'"), refused);
    let now = bed.registry.now();
    bed.registry.table().by_name("web").unwrap().update(|activity| {
        activity.state = State::Disconnected;
        activity.disconnected_at = Some(now);
    });
    assert_eq!(ask(&enrolment, "OSSEC A:'web'"), refused);
    bed.clock.advance(Duration::from_secs(3_600));
    let second = ask(&enrolment, "OSSEC A:'web'");
    assert!(second.starts_with("OSSEC K:'002 web any "), "{second}");
    let keys = std::fs::read_to_string(bed.home.path().join("etc/client.keys")).unwrap();
    assert!(keys.starts_with("001 !web any "), "{keys}");
    assert!(bed.registry.table().by_id(AgentId(1)).is_none());
    bed.says("agent `web` (002) from `127.0.0.1`, in place of 001");
}

#[test]
fn groups_of_the_request_are_kept() {
    let bed = Bed::new();
    let enrolment = bed.start(Options::default());
    std::fs::create_dir(bed.home.path().join("etc/shared/linux")).unwrap();
    ask(&enrolment, "OSSEC A:'web' G:'default,linux'");
    assert_eq!(bed.registry.table().by_name("web").unwrap().activity().groups, ["default", "linux"]);
}

#[test]
fn a_line_without_end_is_left_unanswered_and_delays_nobody() {
    let bed = Bed::new();
    let enrolment = bed.start(Options { patience: Duration::from_secs(2), ..Options::default() });
    let mut silent = connect_as(enrolment.address(), &[&TLS13], None);
    silent.write_all(b"OSSEC A:'never'").unwrap();
    let _mute = TcpStream::connect(enrolment.address()).unwrap();
    assert!(ask(&enrolment, "OSSEC A:'web'").starts_with("OSSEC K:'001"));
    let mut reply = String::new();
    let ended = silent.read_to_string(&mut reply);
    assert!(reply.is_empty(), "{ended:?}");
    let end = Deadline::after(Duration::from_secs(30));
    while enrolment.clients() > 0 && !end.passed() {
        std::thread::sleep(Duration::from_millis(2));
    }
    bed.says("its request had no line end");
    assert!(bed.registry.table().by_name("never").is_none());
}

#[test]
fn a_request_may_come_in_pieces_but_not_without_bound() {
    let bed = Bed::new();
    let enrolment = bed.start(Options::default());
    let mut session = connect_as(enrolment.address(), &[&TLS13], None);
    session.write_all(b"OSSEC A:").unwrap();
    session.flush().unwrap();
    assert!(talk(session, "'web'").unwrap().starts_with("OSSEC K:'001 web"));
    let session = connect_as(enrolment.address(), &[&TLS13], None);
    assert_ne!(talk(session, &"x".repeat(200_000)).unwrap_or_default().get(..5), Some("OSSEC"));
    bed.says("its request was too long");
}

#[test]
fn clients_beyond_the_bound_are_turned_away_and_places_become_free() {
    let bed = Bed::new();
    let enrolment = bed.start(Options { clients: 2, ..Options::default() });
    let waiting: Vec<_> = (0..2).map(|_| TcpStream::connect(enrolment.address()).unwrap()).collect();
    let until = |count| {
        let end = Deadline::after(Duration::from_secs(30));
        while enrolment.clients() != count {
            assert!(!end.passed(), "{} clients", enrolment.clients());
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    until(2);
    let session = connect_as(enrolment.address(), &[&TLS13], None);
    assert!(talk(session, "OSSEC A:'web'").is_err());
    drop(waiting);
    until(0);
    assert!(ask(&enrolment, "OSSEC A:'web'").starts_with("OSSEC K:'001"));
}

#[test]
fn many_agents_enrol_at_once() {
    const AGENTS: usize = 60;
    let bed = Bed::new();
    let enrolment = bed.start(Options::default());
    std::thread::scope(|scope| {
        for number in 0..AGENTS {
            let enrolment = &enrolment;
            scope.spawn(move || {
                let reply = ask(enrolment, &format!("OSSEC A:'agent-{number}'"));
                assert!(reply.contains(&format!(" agent-{number} any ")), "{reply}");
            });
        }
    });
    assert_eq!(bed.registry.table().agents().len(), AGENTS);
}

#[test]
fn a_missing_password_file_gives_a_password_in_the_log() {
    let bed = Bed::new();
    let enrolment = bed.start(Options { use_password: true, ..Options::default() });
    let log = bed.log();
    let password = log.lines().find_map(|line| line.split_once("until the next start is ")).unwrap().1;
    assert_eq!(password.len(), 32);
    assert!(ask(&enrolment, "OSSEC A:'web'").starts_with("ERROR: Invalid password"));
    assert!(ask(&enrolment, &format!("OSSEC PASS: {password} OSSEC A:'web'")).starts_with("OSSEC K:'"));
    drop(enrolment);
    bed.put("etc/authd.pass", "x");
    let error = bed.try_start(Options { use_password: true, ..Options::default() }).unwrap_err();
    assert!(matches!(error, StartError::Password(_)), "{error}");
}

#[test]
fn clients_show_certificates_where_an_authority_is_set() {
    let bed = Bed::new();
    let authority = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    bed.put("etc/ca.pem", &params.self_signed(&authority).unwrap().pem());
    let issuer = rcgen::Issuer::new(params, authority);
    let identity = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        Some((vec![certificate.der().clone()], key))
    };
    let mut options = Options { verify_host: true, ..Options::default() };
    assert!(matches!(bed.try_start(options.clone()), Err(StartError::HostWithoutAuthority)));
    options.files.client_authority = Some("etc/ca.pem".into());
    let enrolment = bed.start(options);
    let ask = |identity| talk(connect_as(enrolment.address(), &[&TLS12, &TLS13], identity), "OSSEC A:'web'");
    assert!(ask(None).is_err());
    assert!(ask(identity("192.0.2.1")).is_err());
    bed.says("its certificate does not name its address");
    assert!(ask(identity("127.0.0.1")).unwrap().starts_with("OSSEC K:'001 web"));
}

fn local(bed: &Bed, request: &str) -> serde_json::Value {
    let mut stream =
        std::os::unix::net::UnixStream::connect(bed.home.path().join("queue/sockets/auth")).unwrap();
    stream.write_all(&tld_wire::frame::encode(request.as_bytes()).unwrap()).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut answer).unwrap();
    let json = answer.strip_prefix(b"ok ").unwrap_or(&answer);
    serde_json::from_slice(json).unwrap()
}

#[test]
fn local_tools_add_get_and_remove_agents() {
    let bed = Bed::new();
    let enrolment = bed.start(Options::default());
    let add = |more: &str| {
        local(&bed, &format!(r#"{{"function":"add","arguments":{{"name":"web","ip":"any"{more}}}}}"#))
    };
    let added = add("");
    assert_eq!((&added["error"], &added["data"]["id"]), (&0.into(), &"001".into()));
    assert_eq!(added["data"]["key"].as_str().map(str::len), Some(64));
    assert_eq!(local(&bed, r#"{"function":"get","arguments":{"id":"001"}}"#), added);
    assert_eq!(add("")["error"], 9008);
    let force = r#","force":{"enabled":true,"key_mismatch":false,"disconnected_time":{"enabled":true,"value":"1h"},"after_registration_time":0}"#;
    // A key that cannot be stored replaces nobody.
    assert_eq!(add(&format!(r#"{force},"key":"a b""#))["error"], 9009);
    assert_eq!(add(&format!(r#"{force},"id":"001""#))["error"], 9012);
    assert_eq!(add(force)["data"]["id"], "002");
    let removed = local(&bed, r#"{"function":"remove","arguments":{"id":"002","purge":true}}"#);
    assert_eq!(removed, serde_json::json!({ "error": 0, "data": "Agent deleted successfully." }));
    assert_eq!(local(&bed, "getconfig auth")["auth"]["use_password"], "no");
    drop(enrolment);
    assert!(!bed.home.path().join("queue/sockets/auth").exists());
}

#[test]
fn local_failures_have_the_contracts_numbers() {
    let bed = Bed::new();
    let _enrolment = bed.start(Options::default());
    for (request, code) in [
        ("nonsense", 9002),
        (r#"{"function":"dance"}"#, 9001),
        (r#"{"arguments":{}}"#, 9004),
        (r#"{"function":"add","arguments":{"name":"web"}}"#, 9004),
        (r#"{"function":"add","arguments":{"name":"a b","ip":"any"}}"#, 9005),
        (r#"{"function":"add","arguments":{"name":"web","ip":"x"}}"#, 9006),
        (r#"{"function":"add","arguments":{"name":"web","ip":"any","groups":"nope"}}"#, 9014),
        (r#"{"function":"remove","arguments":{}}"#, 9010),
        (r#"{"function":"remove","arguments":{"id":"007"}}"#, 9011),
        (r#"{"function":"get","arguments":{"id":"../x"}}"#, 9011),
    ] {
        assert_eq!(local(&bed, request)["error"], code, "{request}");
    }
    assert_eq!(bed.registry.table().agents().len(), 0);
}

/// The library that agents of the contract use, with their suites.
#[test]
#[expect(clippy::disallowed_methods, reason = "starts openssl")]
fn openssl_clients_with_the_contracts_suites_enrol() {
    if !Path::new("/usr/bin/openssl").exists() {
        assert!(std::env::var_os("TLD_REQUIRE_ALL").is_none(), "no openssl");
        println!("skipped: `openssl` is not installed");
        return;
    }
    let bed = Bed::new();
    let enrolment = bed.start(Options::default());
    let suites = "HIGH:!ADH:!EXP:!MD5:!RC4:!3DES:!CAMELLIA:@STRENGTH";
    for (name, version) in [("old-tls", "-tls1_2"), ("new-tls", "-tls1_3")] {
        let mut child = std::process::Command::new("/usr/bin/openssl")
            .args(["s_client", "-quiet", version, "-cipher", suites, "-connect"])
            .arg(enrolment.address().to_string())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(format!("OSSEC A:'{name}' V:'v4.14.7'\n").as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let reply = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(reply.starts_with("OSSEC K:'0") && reply.contains(name), "{version}: {reply}");
    }
    for (version, refused) in [("-tls1", "OSSEC"), ("-tls1_1", "OSSEC")] {
        let output = std::process::Command::new("/usr/bin/openssl")
            .args(["s_client", "-quiet", version, "-connect", &enrolment.address().to_string()])
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        assert!(!String::from_utf8_lossy(&output.stdout).contains(refused), "{version}");
    }
}
