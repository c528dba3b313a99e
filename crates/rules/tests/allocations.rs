//! Lines without alert cost no memory: no request to the allocator once every cache has met their kind.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tld_model::{Event, Timestamp};
use tld_rules::{Analyzer, Options, Ruleset, Settings};
use tld_sys::allocations::{Counting, of_this_thread};
use tld_xml::Source;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const DECODERS: &str = r#"
<decoder name="shop"><program_name>^shop$</program_name></decoder>
<decoder name="shop-order"><parent>shop</parent><prematch>^order </prematch>
  <regex offset="after_prematch">^(\d+) of (\S+) from (\S+)</regex><order>order.number, order.name, srcip</order></decoder>
<decoder name="json"><prematch>^{\s*"</prematch><plugin_decoder>JSON_Decoder</plugin_decoder></decoder>"#;

const RULES: &str = r#"<group name="shop,">
  <rule id="100100" level="0"><decoded_as>shop</decoded_as><description>an order</description></rule>
  <rule id="100101" level="9"><if_sid>100100</if_sid><field name="order.name">^mallory$</field>
    <description>of somebody</description></rule>
  <rule id="100102" level="0"><decoded_as>json</decoded_as><field name="shop.kind">^order$</field>
    <description>one more</description></rule>
  <rule id="100103" level="9" frequency="3" timeframe="60"><if_matched_sid>100101</if_matched_sid><same_srcip/>
    <description>often</description></rule>
</group>"#;

fn folder(path: &Path) -> Vec<Source> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "xml"));
    files.sort();
    let source = |file: &PathBuf| {
        Source::new(file.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(file).unwrap())
    };
    files.iter().map(source).collect()
}

fn analyzer(decoders: &[Source], rules: &[Source]) -> Analyzer {
    let loaded = Ruleset::load(decoders, rules, &[], &Options::default());
    let problems: Vec<String> = loaded.diagnostics.iter().map(|problem| problem.render(false)).collect();
    Analyzer::new(loaded.ruleset.unwrap_or_else(|| panic!("{problems:#?}")), Settings::default())
}

/// Requests for memory that analysing each line costs in the end; none for a line with an alert.
fn costs(analyzer: &mut Analyzer, lines: &[&str]) -> Vec<Option<u64>> {
    let location: Arc<[u8]> = b"/var/log/syslog"[..].into();
    let mut costs = Vec::new();
    for round in 0..8 {
        costs.clear();
        for line in lines {
            let mut event = Event::local("", *line, Timestamp::from_secs(1_000_000 + round));
            event.location = Arc::clone(&location);
            let before = of_this_thread();
            let verdict = analyzer.analyze(&event);
            let alert = verdict.alert.is_some();
            analyzer.recycle(verdict);
            let spent = of_this_thread() - before;
            costs.push((!alert).then_some(spent));
        }
    }
    costs
}

#[test]
fn the_counter_counts() {
    let before = of_this_thread();
    drop(std::hint::black_box(vec![0_u8; 100]));
    assert!(of_this_thread() > before);
}

#[test]
fn lines_without_alert_ask_for_no_memory() {
    let mut analyzer =
        analyzer(&[Source::new("d", DECODERS.as_bytes())], &[Source::new("r", RULES.as_bytes())]);
    let lines = [
        "Nov 22 20:50:01 host shop[7]: order 17 of alice from 192.0.2.1",
        "Nov 22 20:50:01 host shop[7]: nothing special",
        "Nov 22 20:50:01 host cron: nothing at all",
        "a line without any header",
        r#"{"shop":{"kind":"order","number":17,"note":"a \"quoted\" word"},"user":"alice"}"#,
        "",
    ];
    assert_eq!(costs(&mut analyzer, &lines), [Some(0); 6]);
}

#[test]
fn lines_that_the_shipped_rules_pass_over_ask_for_no_memory() {
    let ruleset = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ruleset");
    let mut analyzer = analyzer(&folder(&ruleset.join("decoders")), &folder(&ruleset.join("rules")));
    let lines = [
        "Nov 22 20:50:01 host sshd[7]: Connection closed by 192.0.2.1 port 22",
        "Nov 22 20:50:01 host sshd[7]: Received disconnect from 192.0.2.1 port 22:11: Bye",
        "Nov 22 20:50:01 host kernel: [1.2] usb 1-1: new device",
        r#"192.0.2.1 - - [22/Nov/2026:20:50:01 +0000] "GET /index.html HTTP/1.1" 200 512 "-" "Mozilla/5.0""#,
    ];
    let costs = costs(&mut analyzer, &lines);
    assert!(costs.iter().flatten().count() >= 3, "{costs:?}");
    assert!(costs.iter().flatten().all(|spent| *spent == 0), "{costs:?}");
}
