//! Root elements and sections: from text to [`Settings`], with every problem noted.
//!
//! Invariant: the result depends on the text and the role alone.

use tld_pattern::OsMatch;
use tld_xml::{Diagnostic, Element, Severity, Source};

use crate::client::Client;
use crate::reader::{Reader, short};
use crate::response::{self, Blocks};
use crate::settings::{Own, Response, Role, Settings};
use crate::{auth, client, global, localfile, network, ruleset, suggest};

/// Settings with what was found on the way; with an error among it the settings must not be used.
#[derive(Debug, Default)]
pub struct Loaded {
    /// What the configuration says.
    pub settings: Settings,
    /// Problems in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

impl Loaded {
    /// Is there an error, so that the configuration is to be refused?
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// Sections with an effect here.
const USED: &[&str] = &[
    "global",
    "alerts",
    "ruleset",
    "command",
    "active-response",
    "localfile",
    "remote",
    "client",
    "client_buffer",
    "auth",
    "labels",
    "cluster",
    "rule_test",
];

/// Sections of the contract without an effect here.
const UNUSED: &[&str] = &[
    "email_alerts",
    "syslog_output",
    "integration",
    "agentless",
    "syscheck",
    "rootcheck",
    "anti_tampering",
    "reports",
    "wodle",
    "sca",
    "vulnerability-detection",
    "vulnerability-detector",
    "indexer",
    "gcp-pubsub",
    "gcp-bucket",
    "fluent-forward",
    "logging",
    "socket",
    "agent-upgrade",
    "task-manager",
    "wdb",
    "github",
    "office365",
    "ms-graph",
    "database_output",
];

/// Reads one configuration text.
pub fn parse(source: &Source, role: Role) -> Loaded {
    parse_all(std::slice::from_ref(source), role)
}

/// Who an agent is, as blocks of a pushed configuration name it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// Its registered name.
    pub name: String,
    /// Its system, as its keep-alives describe it.
    pub system: String,
    /// The text of its `<config-profile>`; `-` without one.
    pub profile: String,
}

/// What a pushed configuration may do.
#[derive(Debug, Clone, Default)]
struct Pushed {
    identity: Option<Identity>,
    commands: bool,
}

/// Reads an agent's own configuration and the pushed one behind it: of the latter, the blocks that mean this agent, and
/// commands only if `commands` allows them.
pub fn parse_agent(sources: &[Source], identity: &Identity, commands: bool) -> Loaded {
    parse_with(sources, Role::Agent, &Pushed { identity: Some(identity.clone()), commands })
}

/// Reads several texts as one configuration: lists grow, single values are replaced by later ones.
pub fn parse_all(sources: &[Source], role: Role) -> Loaded {
    parse_with(sources, role, &Pushed::default())
}

fn parse_with(sources: &[Source], role: Role, terms: &Pushed) -> Loaded {
    let mut loaded = Loaded::default();
    let mut trees = Vec::new();
    for source in sources {
        match tld_xml::parse(source) {
            Ok(roots) => trees.push((source, roots)),
            Err(error) => loaded.diagnostics.push(error.with_code(1226)),
        }
    }
    let mut blocks = Blocks::default();
    let sections = trees.iter().flat_map(|(_, roots)| roots).flat_map(|root| &root.children);
    for command in sections.filter(|section| section.name == "command") {
        for name in command.children.iter().filter(|c| c.name == "name") {
            blocks.names.insert(name.text().trim().to_owned());
        }
    }
    for (source, roots) in &trees {
        let before = loaded.diagnostics.len();
        let mut reader = Reader::new(source, &mut loaded.diagnostics);
        for root in roots {
            read_root(&mut reader, root, (role, terms), &mut loaded.settings, &mut blocks);
        }
        loaded.diagnostics[before..].sort_by_key(|d| (d.line, d.column));
    }
    let settings = &mut loaded.settings;
    settings.commands = blocks.commands;
    settings.responses = blocks.responses;
    settings.responder.disabled = blocks.disabled.unwrap_or(false);
    settings.responder.repeated_offenders = blocks.repeated_offenders.unwrap_or_default();
    settings.responder.protected = blocks.protected;
    settings.responder.managers = managers(&settings.client);
    settings.responder.own = own(&settings.responses, blocks.own);
    if let (false, Some(source)) = (settings.unused_sections.is_empty(), sources.first()) {
        let message = format!("sections not used: `{}`", settings.unused_sections.join("`, `"));
        let info = Diagnostic::bare(Severity::Info, source.name.clone(), message);
        loaded.diagnostics.push(info.with_help("they may stay; nothing here acts on them"));
    }
    loaded
}

/// Whom this host must be able to reach, each once.
fn managers(client: &Client) -> Vec<String> {
    let mut managers: Vec<String> = Vec::new();
    let servers = client.servers.iter().map(|server| &server.address);
    for address in servers.chain(&client.enrollment.manager_address) {
        if !managers.contains(address) {
            managers.push(address.clone());
        }
    }
    managers
}

/// An endpoint's own options; where this machine also decides, those of its responses serve a foreign manager's too.
fn own(responses: &[Response], blocks: Vec<Own>) -> Vec<Own> {
    let decided = responses.iter().map(|response| Own {
        name: response.name.clone(),
        contract: response.contract,
        repeated_offenders: response.repeated_offenders.clone(),
        ports: response.ports.clone(),
        cut_connections: response.cut_connections,
    });
    blocks.into_iter().chain(decided).collect()
}

fn read_root(
    reader: &mut Reader<'_>,
    root: &Element,
    (role, terms): (Role, &Pushed),
    settings: &mut Settings,
    blocks: &mut Blocks,
) {
    let pushed = root.name == "agent_config";
    if pushed && role == Role::Agent {
        if let Some(identity) = &terms.identity {
            if !means(reader, root, identity) {
                return;
            }
        } else if !root.attributes.is_empty() {
            let message = "a block for particular agents is left out";
            reader.warning(
                root.name_span,
                message,
                "blocks with `name`, `os` or `profile` are chosen by the server",
            );
            return;
        }
    } else if root.name != "ossec_config" {
        let message = format!("unknown root element `{}`", short(&root.name));
        let help = suggest::help(&root.name, &["ossec_config"]);
        reader.error(Some(1230), root.name_span, message, help);
        return;
    }
    for section in &root.children {
        read_section(reader, section, (role, pushed.then_some(terms)), settings, blocks);
    }
}

/// Longest value of an attribute that can match anything.
const LONGEST_MATCH: usize = 20_480;

/// Whether a block of a pushed configuration means this agent: all given attributes match.
fn means(reader: &mut Reader<'_>, root: &Element, identity: &Identity) -> bool {
    let profile = if identity.profile.is_empty() { "-" } else { &identity.profile };
    let mut matches = true;
    for (attribute, subject) in
        [("name", identity.name.as_str()), ("os", &identity.system), ("profile", profile)]
    {
        let Some(found) = root.attribute(attribute) else { continue };
        let pattern = found.text();
        matches &= pattern.len() <= LONGEST_MATCH
            && match OsMatch::compile(pattern.as_bytes()) {
                Ok(compiled) => compiled.is_match(subject.as_bytes()),
                Err(error) => {
                    let help = "the block is left out";
                    reader.warning(found.value_span, error.to_string(), help);
                    false
                }
            };
    }
    matches
}

fn read_section(
    reader: &mut Reader<'_>,
    section: &Element,
    (role, pushed): (Role, Option<&Pushed>),
    settings: &mut Settings,
    blocks: &mut Blocks,
) {
    match section.name.as_str() {
        "global" => global::read(reader, section, &mut settings.global),
        "alerts" => global::read_alerts(reader, section, &mut settings.alerts),
        "cluster" => global::read_cluster(reader, section, &mut settings.global),
        "rule_test" => global::read_rule_test(reader, section, &mut settings.rule_test),
        "ruleset" => ruleset::read(reader, section, &mut settings.ruleset),
        "command" | "active-response" if pushed.is_some() => {
            let message = format!("`{}` has no effect in a pushed configuration", section.name);
            reader.warning(section.name_span, message, "set it in this host's own ossec.conf");
        }
        "command" | "active-response" => response::read(reader, section, role, blocks),
        "localfile" => {
            let commands = pushed.is_none_or(|terms| terms.commands);
            settings.localfiles.extend(localfile::read(reader, section, role, commands));
        }
        "remote" if role == Role::Agent => {}
        "remote" => settings.remotes.extend(network::read_remote(reader, section)),
        "client" => client::read(reader, section, &mut settings.client),
        "client_buffer" => client::read_buffer(reader, section, &mut settings.client_buffer),
        "auth" => auth::read(reader, section, &mut settings.auth),
        "labels" => {
            for child in section.children.iter().filter(|c| c.name == "label") {
                settings.labels.extend(reader.label(child));
            }
        }
        name => {
            if !UNUSED.contains(&name)
                && let Some(near) = suggest::nearest(name, USED)
            {
                let message = format!("unknown section `{}`", short(name));
                reader.error(Some(1230), section.name_span, message, format!("did you mean `{near}`?"));
            } else if !settings.unused_sections.iter().any(|known| known == name)
                && settings.unused_sections.len() < 100
            {
                settings.unused_sections.push(short(name));
            }
        }
    }
}
