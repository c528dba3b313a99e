//! Configuration and ruleset of a home, read and checked as one thing: either all of it serves or none.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tld_config::{InternalOptions, Role, RulesetTexts, Settings};
use tld_policy::Policy;
use tld_rules::{FormError, Options, PlainForm, Ruleset};
use tld_xml::{Diagnostic, Severity};

const DAY: Duration = Duration::from_secs(86_400);

/// What a home says, ready to run.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// `ossec.conf`.
    pub settings: Arc<Settings>,
    /// Decoders, rules, lists.
    pub ruleset: Arc<Ruleset>,
    /// Responses bound to the rules.
    pub policy: Arc<Policy>,
    /// Form of alerts.log, where it is the operator's.
    pub plain_form: Option<Arc<PlainForm>>,
    /// `internal_options.conf`.
    pub tunables: Arc<InternalOptions>,
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
    let loaded = tld_config::load(home, config, Role::Standalone)?;
    Ok(read(home, loaded, &[], &[]))
}

/// The same as a start would find it, which first makes what is missing of a home. For looking only: while a service runs,
/// what is missing is an error.
///
/// # Errors
/// The configuration file cannot be read, and a start would not write one.
pub fn foresee(home: &Path, config: Option<&Path>) -> Result<Reading, tld_config::LoadError> {
    let loaded = match tld_config::load(home, config, Role::Standalone) {
        Err(tld_config::LoadError::Read { source, .. }) if config.is_none() && is_new(home, &source) => {
            default()
        }
        loaded => loaded?,
    };
    let own = &tld_respond::installation::OWN_RESPONSES;
    Ok(read(home, loaded, own, &crate::home::supplied(home)))
}

fn read(
    home: &Path,
    loaded: tld_config::Loaded,
    executables: &[&str],
    folders: &[tld_config::Supplied],
) -> Reading {
    let tld_config::Loaded { settings, mut diagnostics } = loaded;
    diagnostics.extend(tld_config::check_executables(home, &settings, executables));
    diagnostics.extend(tld_config::check_extensions(home, &settings));
    let (texts, problems) = tld_config::read_ruleset(home, &settings.ruleset, folders);
    diagnostics.extend(problems);
    let (tunables, problems) = tld_config::internal_options(home);
    diagnostics.extend(problems);
    assemble(settings, tunables, &texts, diagnostics)
}

/// Whether this is an installation that was not started yet, and so has no configuration.
fn is_new(home: &Path, source: &std::io::Error) -> bool {
    source.kind() == std::io::ErrorKind::NotFound && home.is_dir()
}

/// The configuration that a start writes where there is none.
fn default() -> tld_config::Loaded {
    let text = tld_config::DEFAULT_OSSEC_CONF.as_bytes();
    let mut loaded = tld_config::parse(&tld_xml::Source::new("ossec.conf", text), Role::Standalone);
    let message = "is not there: a start writes the shipped one, which is what was looked at";
    let warning = Diagnostic::bare(Severity::Warning, CONFIGURATION, message);
    loaded.diagnostics.push(warning.with_help("is this the home that you mean?"));
    loaded
}

/// The ruleset of this binary with the given configuration, or with the one of a new installation. Nothing of a home is
/// read; the executables that the configuration names are taken to be there.
///
/// # Errors
/// The given configuration file cannot be read.
pub fn shipped(config: Option<&Path>) -> Result<Reading, tld_config::LoadError> {
    let loaded = match config {
        Some(path) => tld_config::load(Path::new(""), Some(path), Role::Standalone)?,
        None => {
            let text = tld_config::DEFAULT_OSSEC_CONF.as_bytes();
            tld_config::parse(&tld_xml::Source::new("ossec.conf", text), Role::Standalone)
        }
    };
    let (decoders, rules) = crate::shipped::texts();
    let texts = RulesetTexts { decoders, rules, ..RulesetTexts::default() };
    Ok(assemble(loaded.settings, InternalOptions::default(), &texts, loaded.diagnostics))
}

fn assemble(
    mut settings: Settings,
    tunables: InternalOptions,
    texts: &RulesetTexts,
    mut diagnostics: Vec<Diagnostic>,
) -> Reading {
    hold_rotation(&mut settings, &tunables, &mut diagnostics);
    let plain_form = plain_form(&settings, &mut diagnostics);
    let options = options(&settings, &tunables);
    let loaded = Ruleset::load(&texts.decoders, &texts.rules, &texts.lists, &options);
    diagnostics.extend(loaded.diagnostics);
    let failed = diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    let prepared = loaded.ruleset.filter(|_| !failed).map(|ruleset| Prepared {
        policy: Arc::new(Policy::new(&settings, &ruleset)),
        settings: Arc::new(settings),
        ruleset,
        plain_form,
        tunables: Arc::new(tunables),
    });
    Reading { prepared, diagnostics }
}

const CONFIGURATION: &str = "etc/ossec.conf";

/// Files are not rotated more often than `analysisd.min_rotate_interval`, nor is a longer time than a day one of rotation.
fn hold_rotation(settings: &mut Settings, tunables: &InternalOptions, diagnostics: &mut Vec<Diagnostic>) {
    let least = Duration::from_secs(tunables.value("analysisd.min_rotate_interval").unwrap_or(600).into());
    let wanted = settings.global.rotate_interval;
    let held = if wanted.is_zero() { wanted } else { wanted.clamp(least, DAY.max(least)) };
    if held != wanted {
        let message = format!("`rotate_interval` of {} s becomes {} s", wanted.as_secs(), held.as_secs());
        let help = "`analysisd.min_rotate_interval` is the least, a day the most";
        diagnostics.push(Diagnostic::bare(Severity::Warning, CONFIGURATION, message).with_help(help));
        settings.global.rotate_interval = held;
    }
}

fn plain_form(settings: &Settings, diagnostics: &mut Vec<Diagnostic>) -> Option<Arc<PlainForm>> {
    let form = PlainForm::parse(settings.global.custom_alert_output.as_deref()?);
    let problem = |error: &FormError| {
        let help = "tokens are TIMESTAMP FTELL RULEALERT HOSTNAME LOCATION RULEID RULELEVEL SRCIP DSTUSER FULLLOG \
                    RULECOMMENT RULEGROUP, each behind a `$`";
        Diagnostic::bare(Severity::Error, CONFIGURATION, error.to_string()).with_help(help)
    };
    form.inspect_err(|error| diagnostics.push(problem(error))).ok().map(Arc::new)
}

/// The engine's options as configuration and tunables give them.
fn options(settings: &Settings, tunables: &InternalOptions) -> Options {
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
        log_fw: tunables.value("analysisd.log_fw") != Some(0),
        ..defaults
    }
}
