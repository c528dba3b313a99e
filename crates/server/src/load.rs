//! Configuration and ruleset of a home, read and checked as one thing: either all of it serves or none.

use std::path::Path;
use std::sync::Arc;

use tld_config::{Role, Settings};
use tld_policy::Policy;
use tld_rules::{Options, Ruleset};
use tld_xml::{Diagnostic, Severity};

/// What a home says, ready to run.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// `ossec.conf`.
    pub settings: Arc<Settings>,
    /// Decoders, rules, lists.
    pub ruleset: Arc<Ruleset>,
    /// Responses bound to the rules.
    pub policy: Arc<Policy>,
}

/// The result of reading a home: the prepared whole if there is no error, and all diagnostics in any case.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Absent when any diagnostic is an error.
    pub prepared: Option<Prepared>,
    /// Everything worth telling, in order of files.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads `etc/ossec.conf` (or `config`), the ruleset it names, and the executables its commands name.
///
/// # Errors
/// The configuration file itself cannot be read.
pub fn load(home: &Path, config: Option<&Path>) -> Result<Reading, tld_config::LoadError> {
    let tld_config::Loaded { settings, mut diagnostics } = tld_config::load(home, config, Role::Standalone)?;
    diagnostics.extend(tld_config::check_executables(home, &settings));
    diagnostics.extend(tld_config::check_extensions(home, &settings));
    let (texts, problems) = tld_config::read_ruleset(home, &settings.ruleset);
    diagnostics.extend(problems);
    let options = options(home, &settings, &mut diagnostics);
    let loaded = Ruleset::load(&texts.decoders, &texts.rules, &texts.lists, &options);
    diagnostics.extend(loaded.diagnostics);
    let failed = diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    let prepared = loaded.ruleset.filter(|_| !failed).map(|ruleset| Prepared {
        policy: Arc::new(Policy::new(&settings, &ruleset)),
        settings: Arc::new(settings),
        ruleset,
    });
    Ok(Reading { prepared, diagnostics })
}

/// The engine's options as configuration and tunables give them.
fn options(home: &Path, settings: &Settings, diagnostics: &mut Vec<Diagnostic>) -> Options {
    let (tunables, problems) = tld_config::internal_options(home);
    diagnostics.extend(problems);
    let defaults = Options::default();
    let tunable = |name: &str, default: usize| tunables.value(name).map_or(default, |value| value as usize);
    Options {
        log_alert_level: settings.alerts.log_alert_level,
        email_alert_level: settings.alerts.email_alert_level,
        decoder_order_size: tunable("analysisd.decoder_order_size", defaults.decoder_order_size),
        default_timeframe: tunables
            .value("analysisd.default_timeframe")
            .unwrap_or(defaults.default_timeframe),
        fts_list_size: tunable("analysisd.fts_list_size", defaults.fts_list_size),
        fts_min_size_for_str: tunable("analysisd.fts_min_size_for_str", defaults.fts_min_size_for_str),
        ..defaults
    }
}
