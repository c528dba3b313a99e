use std::os::unix::fs::PermissionsExt;

use super::*;

use serde_json::{Value, json};
use tld_rules::Options;
use tld_sys::clock::{ManualClock, SystemClock};

const FAILED: &str =
    "Oct  8 10:21:33 box sshd[7]: Failed password for invalid user eve from 203.0.113.9 port 4242 ssh2";

struct Bench {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    server: Option<LogtestServer>,
}

fn shipped() -> Arc<Ruleset> {
    static SHIPPED: std::sync::OnceLock<Arc<Ruleset>> = std::sync::OnceLock::new();
    let load = || {
        let (decoders, rules) = crate::shipped::texts();
        Ruleset::load(&decoders, &rules, &[], &Options::default()).ruleset.unwrap()
    };
    Arc::clone(SHIPPED.get_or_init(load))
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(1_790_000_000_000_000_000, Duration::from_secs(100)));
        let mut bench = Self { folder, clock, server: None };
        bench.server = Some(bench.serve().unwrap());
        bench
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("logtest")
    }

    fn serve(&self) -> io::Result<LogtestServer> {
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as _;
        serve(self.path(), Arc::new(shipped), settings(Zone::utc()), RuleTest::default(), clock)
    }

    fn ask(&self, request: &[u8]) -> Value {
        let mut stream = UnixStream::connect(self.path()).unwrap();
        let length = u32::try_from(request.len()).unwrap();
        stream.write_all(&length.to_le_bytes()).unwrap();
        stream.write_all(request).unwrap();
        answer(&mut stream)
    }

    fn process(&self, event: &Value, token: Option<&str>) -> Value {
        let mut parameters = json!({"event": event, "log_format": "syslog", "location": "stdin"});
        if let Some(token) = token {
            parameters["token"] = token.into();
        }
        let request = json!({"version": 1, "origin": {"name": "x", "module": "y"}, "command": "log_processing",
            "parameters": parameters});
        self.ask(request.to_string().as_bytes())
    }

    fn remove(&self, token: &str) -> Value {
        let request = json!({"command": "remove_session", "parameters": {"token": token}});
        self.ask(request.to_string().as_bytes())
    }
}

fn answer(stream: &mut UnixStream) -> Value {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut answer).unwrap();
    serde_json::from_slice(&answer).unwrap()
}

fn token(answer: &Value) -> String {
    answer["data"]["token"].as_str().unwrap().to_owned()
}

#[test]
fn a_first_request_opens_a_session_and_shows_the_alert() {
    let answer = Bench::new().process(&FAILED.into(), None);
    let token = token(&answer);
    assert!(token.len() == 8 && token.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c)));
    let data = &answer["data"];
    assert_eq!(answer["error"], 0);
    assert_eq!(data["messages"], json!([format!("INFO: (7202): Session initialized with token '{token}'")]));
    assert_eq!(data["output"]["rule"]["id"], "5710");
    assert_eq!(data["output"]["data"]["srcip"], "203.0.113.9");
    assert_eq!(data["output"]["id"], "1790000000.0");
    assert_eq!((&data["alert"], &data["codemsg"]), (&json!(true), &json!(0)));
    assert!(data.get("rules_debug").is_none());
}

#[test]
fn a_session_counts_and_another_one_does_not_see_it() {
    let bench = Bench::new();
    let mut first = None;
    let mut last = Value::Null;
    for _ in 0..8 {
        last = bench.process(&FAILED.into(), first.as_deref());
        first.get_or_insert_with(|| token(&last));
    }
    assert_eq!(last["data"]["output"]["rule"]["id"], "5712");
    assert_eq!(last["data"]["messages"], json!([]));
    let other = bench.process(&FAILED.into(), None);
    assert_eq!(other["data"]["output"]["rule"]["id"], "5710");
    assert_eq!(other["data"]["output"]["rule"]["firedtimes"], 1);
}

#[test]
fn an_unknown_token_and_an_expired_one_start_anew_with_a_warning() {
    let bench = Bench::new();
    let unknown = bench.process(&FAILED.into(), Some("deadbeef"));
    assert_eq!(unknown["data"]["messages"][0], "WARNING: (7003): 'deadbeef' token expires");
    assert_eq!(unknown["data"]["codemsg"], 1);
    let token = token(&unknown);
    bench.clock.advance(Duration::from_secs(900));
    assert_eq!(bench.process(&FAILED.into(), Some(&token))["data"]["codemsg"], 0);
    bench.clock.advance(Duration::from_secs(901));
    let expired = bench.process(&FAILED.into(), Some(&token));
    assert_eq!(expired["data"]["messages"][0], format!("WARNING: (7003): '{token}' token expires"));
}

#[test]
fn the_session_used_longest_ago_makes_room() {
    let bench = Bench::new();
    let tokens: Vec<String> =
        (0..RuleTest::default().max_sessions).map(|_| token(&bench.process(&"x".into(), None))).collect();
    bench.process(&"x".into(), Some(&tokens[0]));
    bench.process(&"x".into(), None);
    assert_eq!(bench.process(&"x".into(), Some(&tokens[0]))["data"]["codemsg"], 0);
    assert_eq!(bench.process(&"x".into(), Some(&tokens[1]))["data"]["codemsg"], 1);
}

#[test]
fn a_session_is_closed_once() {
    let bench = Bench::new();
    let token = token(&bench.process(&"x".into(), None));
    let closed = bench.remove(&token);
    assert_eq!(
        closed["data"]["messages"][0],
        format!("INFO: (7206): The session '{token}' was closed successfully")
    );
    assert_eq!(closed["data"]["codemsg"], 0);
    assert_eq!(bench.remove(&token)["data"]["codemsg"], -1);
    assert_eq!(bench.remove("no")["error"], 4);
}

#[test]
fn refused_requests_say_why() {
    let bench = Bench::new();
    let log = |parameters: Value| json!({"command": "log_processing", "parameters": parameters}).to_string();
    for (request, error, message) in [
        ("{bad".to_owned(), 1, "(7307): Error parsing JSON in position 2, ... {bad ..."),
        (String::new(), 1, "(7307): "),
        ("[]".to_owned(), 2, "(7308): 'command' JSON field is required and must be a string"),
        (json!({"command": "x"}).to_string(), 2, "(7308): 'parameters' JSON field"),
        (json!({"command": "x", "parameters": {}}).to_string(), 3, "(7306): Unable to process command"),
        (log(json!({"log_format": "syslog", "location": "x"})), 2, "(7308): 'event' "),
        (log(json!({"event": {}, "log_format": "syslog", "location": "x"})), 2, "(7308): 'event' "),
        (log(json!({"event": "x", "location": "x"})), 2, "(7308): 'log_format' "),
        (
            log(json!({"event": "x", "log_format": "syslog"})),
            2,
            "(7308): 'location' JSON field is required and must be a string",
        ),
    ] {
        let answer = bench.ask(request.as_bytes());
        assert_eq!((&answer["error"], &answer["data"]), (&json!(error), &json!({})), "{request}");
        assert!(answer["message"].as_str().unwrap().starts_with(message), "{request}: {answer}");
    }
}

#[test]
fn a_request_over_the_limit_is_refused_and_the_next_one_served() {
    let bench = Bench::new();
    let answer = bench.ask(&vec![b' '; REQUEST_LIMIT + 1]);
    assert_eq!(answer["error"], 5);
    assert!(answer.get("data").is_none());
    assert_eq!(bench.ask(&[&vec![b' '; REQUEST_LIMIT - 2][..], b"{}"].concat())["error"], 2);
    let mut announced = UnixStream::connect(bench.path()).unwrap();
    announced.write_all(&u32::MAX.to_le_bytes()).unwrap();
    assert_eq!(self::answer(&mut announced)["error"], 5);
}

#[test]
fn an_object_is_judged_as_its_compact_text_in_its_own_order() {
    let bench = Bench::new();
    let request = r#"{"command":"log_processing","parameters":{"event":{ "z" : "a \" b",
        "a": [1, 2] }, "log_format":"json","location":"x"}} trailing"#;
    let answer = bench.ask(request.as_bytes());
    assert_eq!(answer["data"]["output"]["full_log"], r#"{"z":"a \" b","a":[1,2]}"#);
    assert_eq!(answer["data"]["output"]["location"], "x");
}

#[test]
fn the_way_through_the_rules_is_told_when_asked_for() {
    let bench = Bench::new();
    let request = json!({"command": "log_processing", "parameters": {"event": FAILED, "log_format": "syslog",
        "location": "stdin", "options": {"rules_debug": true}}});
    let answer = bench.ask(request.to_string().as_bytes());
    let lines = answer["data"]["rules_debug"].as_array().unwrap();
    assert!(lines.contains(&json!("*Rule 5710 matched")), "{lines:?}");
    assert!(lines.contains(&json!("*Trying child rules")));
    assert!(lines.iter().any(|line| line.as_str().unwrap().starts_with("Trying rule: 5712 - ")));
}

#[test]
fn an_answer_over_the_limit_becomes_an_error() {
    let bench = Bench::new();
    let quotes = "\"".repeat(20_000);
    let event = json!({ "a": "x".repeat(5_000), "b": quotes, "c": "y" });
    let answer = bench.process(&event, None);
    assert_eq!(answer["data"]["codemsg"], -1, "{answer}");
    assert!(answer["data"]["messages"][0].as_str().unwrap().starts_with("ERROR: "));
    assert_eq!(bench.process(&"x".into(), Some(&token(&answer)))["data"]["codemsg"], 0);
}

#[test]
fn the_socket_is_for_the_group_and_gone_after_the_end() {
    let mut bench = Bench::new();
    let mode = fs::metadata(bench.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    assert_eq!(bench.serve().unwrap_err().kind(), io::ErrorKind::AddrInUse);
    bench.server.take().unwrap().stop();
    assert!(!bench.path().exists());
}

#[test]
fn a_socket_left_by_a_dead_process_is_replaced_and_a_file_is_not() {
    let mut bench = Bench::new();
    bench.server.take().unwrap().stop();
    drop(UnixListener::bind(bench.path()).unwrap());
    bench.serve().unwrap().stop();
    tld_sys::durable::replace(&bench.path(), b"mine", 0o600).unwrap();
    assert_eq!(bench.serve().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn a_client_that_hangs_up_early_does_not_stop_the_service() {
    let bench = Bench::new();
    let mut rude = UnixStream::connect(bench.path()).unwrap();
    rude.write_all(&[9, 0]).unwrap();
    drop(rude);
    assert_eq!(bench.process(&"x".into(), None)["error"], 0);
}

#[test]
fn clients_that_say_nothing_delay_neither_others_nor_the_end() {
    let mut bench = Bench::new();
    let silent: Vec<_> = (0..SPARE).map(|_| UnixStream::connect(bench.path()).unwrap()).collect();
    let begin = SystemClock.boot();
    assert_eq!(bench.process(&"x".into(), None)["error"], 0);
    bench.server.take().unwrap().stop();
    assert!(SystemClock.boot() - begin < PATIENCE, "nobody waited for the silent ones");
    drop(silent);
}

#[test]
fn sessions_are_limited_as_configured() {
    let mut bench = Bench::new();
    bench.server.take().unwrap().stop();
    let limits = RuleTest { max_sessions: 1, session_timeout: Duration::from_secs(5), ..RuleTest::default() };
    let clock: Arc<dyn Clock> = Arc::clone(&bench.clock) as _;
    let server = serve(bench.path(), Arc::new(shipped), settings(Zone::utc()), limits, clock);
    bench.server = Some(server.unwrap());
    let first = token(&bench.process(&"x".into(), None));
    let second = token(&bench.process(&"x".into(), None));
    assert_eq!(bench.process(&"x".into(), Some(&second))["data"]["codemsg"], 0);
    assert_eq!(bench.process(&"x".into(), Some(&first))["data"]["codemsg"], 1);
    let third = token(&bench.process(&"x".into(), None));
    bench.clock.advance(Duration::from_secs(6));
    assert_eq!(bench.process(&"x".into(), Some(&third))["data"]["codemsg"], 1);
}
