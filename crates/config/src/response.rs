//! `<command>` and `<active-response>`: what may run, when, and where.
//!
//! Every problem of a block is noted, not just the first. Invariant: a block with an error yields no
//! response, a disabled block drops only itself, and nothing is read from a place it was not meant for.

use std::collections::HashSet;

use tld_model::{AgentId, Contract, RuleId};
use tld_pattern::Network;
use tld_xml::{Element, Span};

use crate::network::networks;
use crate::reader::{Reader, digits, short};
use crate::scope::{self, Scope};
use crate::settings::{Command, Contested, Locations, Own, Response, Role};
use crate::suggest;

const COMMAND: &[&str] = &["name", "executable", "timeout_allowed", "extra_args", "expect", "contract"];
const RESPONSE: &[&str] = &[
    "command",
    "location",
    "agent_id",
    "level",
    "rules_id",
    "rules_group",
    "timeout",
    "disabled",
    "repeated_offenders",
    "contested",
    "ports",
    "cut_connections",
    "contract",
    "protected",
    "ca_store",
    "agent_group",
    "agent_label",
    "include_manager",
    "max_per_minute",
    "max_per_target",
    "confirm_all",
];
const LOCATIONS: &[&str] = &["local", "server", "defined-agent", "all"];
/// Texts by which other readers recognise a place inside any word.
const LOOSE: &[(&str, &str)] = &[
    ("defined-agent", "defined-agent"),
    ("local", "local"),
    ("all", "all"),
    ("any", "all"),
    ("as", "server"),
    ("server", "server"),
];
/// Bytes of a response name that every endpoint takes.
const MAX_NAME: usize = 256;
/// Bytes of extra arguments that are used.
const MAX_ARGS: usize = 2047;
/// Escalation steps that count.
const MAX_STEPS: usize = 5;
/// Responses that an endpoint has options of its own for.
const MAX_OWN: usize = 1000;

/// What all blocks of one configuration share.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    /// Names that some `<command>` has, wherever it stands.
    pub(crate) names: HashSet<String>,
    pub(crate) commands: Vec<Command>,
    pub(crate) responses: Vec<Response>,
    /// The value that decides for the endpoint.
    pub(crate) disabled: Option<bool>,
    pub(crate) repeated_offenders: Option<Vec<u32>>,
    pub(crate) protected: Vec<Network>,
    pub(crate) own: Vec<Own>,
}

/// Reads one `<command>`.
pub(crate) fn read_command(reader: &mut Reader<'_>, block: &Element, blocks: &mut Blocks) {
    let errors = reader.errors();
    if block.children.is_empty() {
        reader.warning(block.name_span, "empty `command`, ignored", "give it a `name` and an `executable`");
        return;
    }
    let mut command = Command {
        name: String::new(),
        executable: String::new(),
        timeout_allowed: false,
        extra_args: Vec::new(),
        contract: Contract::default(),
        file: reader.file(),
        line: reader.line(block),
    };
    for child in &block.children {
        match child.name.as_str() {
            "name" => {
                command.name = reader.text(child).unwrap_or_default();
                check_name(reader, child, &command.name);
            }
            "executable" => {
                command.executable = reader.text(child).unwrap_or_default();
                check_executable(reader, child, &command.executable);
            }
            "timeout_allowed" => reader.yes_no(child, &mut command.timeout_allowed),
            "extra_args" => command.extra_args = extra_args(reader, child),
            "contract" => command.contract = contract(reader, child).unwrap_or_default(),
            "expect" => {}
            _ => reader.unknown(child, "command", COMMAND),
        }
    }
    for (what, value) in [("name", &command.name), ("executable", &command.executable)] {
        if value.is_empty() {
            let message = format!("`command` without `{what}`");
            reader.error(Some(1280), block.name_span, message, format!("add `<{what}>…</{what}>`"));
        }
    }
    if reader.errors() != errors {
        return;
    }
    if let Some(first) = blocks.commands.iter().find(|c| c.name == command.name)
        && (first.executable != command.executable || first.extra_args != command.extra_args)
    {
        let message = format!("command `{}` is already defined on line {}", short(&command.name), first.line);
        reader.warning(block.name_span, message, "the first definition is used; rename or remove this one");
    }
    blocks.commands.push(command);
}

fn check_name(reader: &mut Reader<'_>, child: &Element, name: &str) {
    let help = if name.starts_with('!') {
        "a leading `!` calls a file directly and is not for configurations"
    } else if name.contains(" - ") {
        "` - ` separates the fields of ar.conf; take it out of the name"
    } else if name.chars().any(char::is_control) {
        "a name is one line without control characters"
    } else if name.len() >= MAX_NAME {
        "name and timeout together have at most 256 bytes"
    } else {
        if name.contains(' ') {
            let message = format!("command name `{}` contains a blank", short(name));
            reader.warning(child.content_span, message, "tools that take names on the command line miss it");
        }
        return;
    };
    reader.invalid(child, help);
}

fn check_executable(reader: &mut Reader<'_>, child: &Element, name: &str) {
    if name.is_empty() {
        return;
    }
    if crate::executable::is_unsafe(name) || name.len() >= MAX_NAME || name.contains(" - ") {
        reader.invalid(child, "give the bare name of a file in `active-response/bin`");
    }
}

fn contract(reader: &mut Reader<'_>, child: &Element) -> Option<Contract> {
    let contract = reader.text(child).and_then(|word| Contract::from_word(&word));
    if contract.is_none() {
        reader.invalid(child, "`4` (one JSON line), `argv` (words, as before 4.2) or `5` (the 5.x document)");
    }
    contract
}

fn extra_args(reader: &mut Reader<'_>, child: &Element) -> Vec<String> {
    let mut text = reader.text(child).unwrap_or_default();
    if text.len() > MAX_ARGS {
        let message = format!("`extra_args` is cut after {MAX_ARGS} bytes");
        reader.warning(child.name_span, message, "put longer data into a file");
        let end = (0..=MAX_ARGS).rev().find(|n| text.is_char_boundary(*n)).unwrap_or(0);
        text.truncate(end);
    }
    text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The children of one `<active-response>` as read.
#[derive(Debug, Default)]
struct Draft {
    command: Option<(String, Span)>,
    location: Option<(String, Span)>,
    agent_id: Option<(String, Span)>,
    level: Option<u8>,
    rules_id: Vec<RuleId>,
    rules_group: Option<String>,
    timeout: Option<(u64, Span)>,
    disabled: Option<bool>,
    repeated_offenders: Vec<u32>,
    contested: Contested,
    ports: Vec<u16>,
    cut_connections: bool,
    contract: Option<Contract>,
    /// It is for one command.
    names_command: bool,
    scope: Scope,
    /// Nothing but switches of the endpoint was given.
    endpoint_only: bool,
}

/// Reads one `<active-response>` on a machine that decides.
pub(crate) fn read_response(reader: &mut Reader<'_>, block: &Element, blocks: &mut Blocks) {
    if block.children.is_empty() {
        let help = "remove it, or give it a `command` and a `location`";
        reader.warning(block.name_span, "empty `active-response`, ignored", help);
        return;
    }
    let errors = reader.errors();
    let names_command = block.children.iter().any(|c| c.name == "command");
    let mut draft = Draft { endpoint_only: true, names_command, ..Draft::default() };
    for child in &block.children {
        draft.endpoint_only &=
            matches!(child.name.as_str(), "disabled" | "repeated_offenders" | "ca_store" | "protected");
        read_child(reader, child, &mut draft, blocks);
    }
    if !names_command && draft.disabled.is_some() && blocks.disabled.is_none() {
        blocks.disabled = draft.disabled;
    }
    if draft.disabled == Some(true) || draft.endpoint_only {
        return;
    }
    let response = resolve(reader, block, &draft, blocks);
    if let Some(response) = response.filter(|_| reader.errors() == errors) {
        check_collision(reader, block, &response, blocks);
        if reader.errors() == errors {
            blocks.responses.push(response);
        }
    }
}

fn read_child(reader: &mut Reader<'_>, child: &Element, draft: &mut Draft, blocks: &mut Blocks) {
    let placed = |reader: &Reader<'_>| reader.text(child).map(|text| (text, child.content_span));
    match child.name.as_str() {
        "command" => draft.command = placed(reader),
        "location" => draft.location = placed(reader),
        "agent_id" => draft.agent_id = placed(reader),
        "level" => {
            let mut level = 0;
            reader.level(child, 0, 20, &mut level);
            draft.level = Some(level).filter(|l| *l > 0);
        }
        "rules_id" => draft.rules_id = rules_id(reader, child),
        "rules_group" => draft.rules_group = rules_group(reader, child),
        "timeout" => draft.timeout = timeout(reader, child),
        "disabled" => {
            let mut value = false;
            reader.yes_no(child, &mut value);
            draft.disabled = Some(value);
        }
        "repeated_offenders" => repeated_offenders(reader, child, draft, blocks),
        "contested" => match reader.text(child).as_deref() {
            Some("refuse") => draft.contested = Contested::Refuse,
            Some("first") => draft.contested = Contested::First,
            Some("last") => draft.contested = Contested::Last,
            _ => reader.invalid(child, "one of `refuse`, `first`, `last`"),
        },
        "ports" => draft.ports = ports(reader, child),
        "cut_connections" => reader.yes_no(child, &mut draft.cut_connections),
        "contract" => draft.contract = contract(reader, child),
        "protected" => blocks.protected.extend(networks(reader, child)),
        "ca_store" => {}
        name if scope::OPTIONS.contains(&name) => scope::read(reader, child, &mut draft.scope),
        "ca_verification" => {
            let help = "it belongs into the configuration of an agent";
            reader.error(Some(1230), child.name_span, "`ca_verification` is not known to a server", help);
        }
        _ => reader.unknown(child, "active-response", RESPONSE),
    }
}

fn resolve(reader: &mut Reader<'_>, block: &Element, draft: &Draft, blocks: &Blocks) -> Option<Response> {
    for (what, given) in [("command", draft.command.is_some()), ("location", draft.location.is_some())] {
        if !given {
            let message = format!("`active-response` without `{what}`");
            reader.error(Some(1281), block.name_span, message, format!("add `<{what}>…</{what}>`"));
        }
    }
    let location = draft.location.as_ref().and_then(|(text, span)| locations(reader, text, *span));
    let command = draft.command.as_ref().and_then(|(name, span)| find_command(reader, name, *span, blocks));
    let (location, command) = (location?, command?);
    let agent_id = agent_id(reader, block, draft, location)?;
    scope::check(reader, block, &draft.scope, location);
    let timeout_secs = allowed_timeout(reader, draft, command);
    let name = format!("{}{timeout_secs}", command.name);
    if name.len() > MAX_NAME {
        let message = format!("the response name `{}` is longer than {MAX_NAME} bytes", short(&name));
        reader.error(Some(1235), block.name_span, message, "shorten the name of the command");
    }
    if draft.level.is_none() && draft.rules_id.is_empty() && draft.rules_group.is_none() {
        let message = format!("response `{}` can never run", short(&name));
        reader.warning(block.name_span, message, "add `level`, `rules_id` or `rules_group`");
    }
    Some(Response {
        command: command.name.clone(),
        executable: command.executable.clone(),
        extra_args: command.extra_args.clone(),
        name,
        location,
        agent_id,
        level: draft.level,
        rules_id: draft.rules_id.clone(),
        rules_group: draft.rules_group.clone(),
        timeout_secs,
        repeated_offenders: draft.repeated_offenders.clone(),
        contested: draft.contested,
        ports: draft.ports.clone(),
        cut_connections: draft.cut_connections,
        contract: draft.contract.unwrap_or(command.contract),
        scope: draft.scope.clone(),
        file: reader.file(),
        line: reader.line(block),
    })
}

fn find_command<'b>(
    reader: &mut Reader<'_>,
    name: &str,
    span: Span,
    blocks: &'b Blocks,
) -> Option<&'b Command> {
    let found = blocks.commands.iter().find(|c| c.name == name);
    if found.is_none() {
        let (message, help) = if blocks.names.contains(name) {
            (
                format!("command `{}` is not defined yet", short(name)),
                "move the <command> above this block".to_owned(),
            )
        } else {
            let known: Vec<&str> = blocks.commands.iter().map(|c| c.name.as_str()).collect();
            let help = match suggest::nearest(name, &known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "add a `<command>` with this name above".to_owned(),
            };
            (format!("command `{}` is not defined", short(name)), help)
        };
        reader.error(Some(1303), span, message, help);
    }
    found
}

fn locations(reader: &mut Reader<'_>, text: &str, span: Span) -> Option<Locations> {
    let mut found = Locations::default();
    for word in text.split(',').map(str::trim).filter(|w| !w.is_empty()) {
        let lower = word.to_ascii_lowercase();
        match lower.as_str() {
            "server" | "as" | "analysisd" | "analysis-server" => found.server = true,
            "local" => found.local = true,
            "defined-agent" => found.defined_agent = true,
            "all" | "any" => found.all = true,
            _ => {
                let near = match suggest::nearest(&lower, LOCATIONS) {
                    Some(near) => format!("did you mean `{near}`? "),
                    None => String::new(),
                };
                let loose = LOOSE.iter().find(|(part, _)| lower.contains(part));
                let loose = loose.map_or(String::new(), |(part, place)| {
                    format!("; other readers take the `{part}` in it for `{place}`")
                });
                let help = format!("{near}use `local`, `server`, `defined-agent` or `all`{loose}");
                reader.error(Some(1302), span, format!("`{}` is not a location", short(word)), help);
                return None;
            }
        }
    }
    if found == Locations::default() {
        reader.error(
            Some(1302),
            span,
            "no location is given",
            "use `local`, `server`, `defined-agent` or `all`",
        );
        return None;
    }
    Some(found)
}

/// `None` skips the block; `Some(None)` is a response that needs no agent.
fn agent_id(
    reader: &mut Reader<'_>,
    block: &Element,
    draft: &Draft,
    location: Locations,
) -> Option<Option<AgentId>> {
    if !location.defined_agent {
        return Some(None);
    }
    let Some((text, span)) = &draft.agent_id else {
        let message = "location `defined-agent` without `agent_id`";
        reader.error(Some(1304), block.name_span, message, "add `<agent_id>001</agent_id>`");
        return None;
    };
    match text.parse::<AgentId>() {
        Ok(id) if id != AgentId::MANAGER => Some(Some(id)),
        _ => {
            let message = format!("`{}` is no agent, the block is ignored", short(text));
            reader.warning_with(1306, *span, message, "for the server itself use location `server`");
            None
        }
    }
}

fn allowed_timeout(reader: &mut Reader<'_>, draft: &Draft, command: &Command) -> u64 {
    match draft.timeout {
        Some((seconds, span)) if seconds > 0 && !command.timeout_allowed => {
            let message = format!("command `{}` allows no timeout, 0 is used", short(&command.name));
            let help =
                "the action stays until it is undone by hand; set `timeout_allowed` to `yes` to change that";
            reader.info(1305, span, message, help);
            0
        }
        Some((seconds, _)) => seconds,
        None => 0,
    }
}

/// Command and timeout are joined without a mark, so two different commands can get one name.
fn check_collision(reader: &mut Reader<'_>, block: &Element, response: &Response, blocks: &Blocks) {
    let other =
        blocks.responses.iter().find(|r| r.name == response.name && r.executable != response.executable);
    if let Some(other) = other {
        let message = format!(
            "response name `{}` already means `{}` (line {})",
            short(&response.name),
            short(&other.executable),
            other.line
        );
        reader.error(
            None,
            block.name_span,
            message,
            "name and timeout are joined; rename one of the commands",
        );
    }
    let restart = matches!(response.executable.as_str(), "restart-wazuh" | "restart-wazuh.exe");
    if response.name == "restart-wazuh0" && !restart {
        let message = "response name `restart-wazuh0` is reserved for the restart of an agent";
        reader.error(None, block.name_span, message, "rename the command");
    }
}

fn rules_id(reader: &mut Reader<'_>, child: &Element) -> Vec<RuleId> {
    let mut ids = Vec::new();
    for word in reader.list(child) {
        match word.parse::<RuleId>() {
            Ok(id) => ids.push(id),
            Err(_) => {
                let message = format!("`{}` is not a rule id", short(&word));
                let help = "give numbers of at most six digits with commas between them";
                reader.error(Some(1235), child.content_span, message, help);
            }
        }
    }
    ids
}

fn rules_group(reader: &mut Reader<'_>, child: &Element) -> Option<String> {
    let text = reader.text(child)?;
    if text.trim_end_matches(',').contains(',') {
        let message = "with a comma only this very sequence of groups matches";
        reader.warning(child.content_span, message, "write alternatives as `one|two`");
    }
    Some(text)
}

fn timeout(reader: &mut Reader<'_>, child: &Element) -> Option<(u64, Span)> {
    let seconds = reader.text(child).and_then(|t| digits(&t)).filter(|n| *n <= u64::from(u32::MAX));
    if seconds.is_none() {
        reader.invalid(child, "give seconds as plain digits; 0 never undoes the action");
    }
    seconds.map(|s| (s, child.content_span))
}

fn ports(reader: &mut Reader<'_>, child: &Element) -> Vec<u16> {
    let mut ports = Vec::new();
    for word in reader.list(child) {
        match word.parse::<u16>() {
            Ok(port) if port > 0 && digits(&word).is_some() => ports.push(port),
            _ => {
                let message = format!("`{}` is not a port", short(&word));
                reader.error(Some(1235), child.content_span, message, "give numbers from 1 to 65535");
            }
        }
    }
    ports
}

fn repeated_offenders(reader: &mut Reader<'_>, child: &Element, draft: &mut Draft, blocks: &mut Blocks) {
    let steps = steps(reader, child);
    draft.repeated_offenders.clone_from(&steps);
    if blocks.repeated_offenders.is_none() {
        blocks.repeated_offenders = Some(steps);
    } else if !draft.names_command {
        let message = "only the first `repeated_offenders` of a configuration counts";
        let help = "keep one list for the whole endpoint, or give the block a `command` of its own";
        reader.warning(child.name_span, message, help);
    }
}

/// Minutes in the order they apply; a leading 0 switches escalation off.
fn steps(reader: &mut Reader<'_>, child: &Element) -> Vec<u32> {
    let mut steps = Vec::new();
    for word in reader.list(child) {
        match word.parse::<u32>().ok().filter(|_| digits(&word).is_some()) {
            Some(0) => {
                if !steps.is_empty() {
                    let message = "`repeated_offenders` ends at the 0";
                    reader.warning(child.content_span, message, "remove the 0 and what follows it");
                }
                break;
            }
            Some(minutes @ 1..=5_256_000) if steps.len() < MAX_STEPS => steps.push(minutes),
            Some(1..=5_256_000) => {
                let message =
                    format!("`repeated_offenders` has more than {MAX_STEPS} steps, the rest is ignored");
                reader.warning(child.content_span, message, "keep the five that matter");
                break;
            }
            _ => {
                let message = format!("`{}` is not a number of minutes", short(&word));
                reader.error(Some(1235), child.content_span, message, "write minutes such as `30,60,120`");
            }
        }
    }
    steps
}

/// Reads one `<active-response>` of an endpoint, which takes its own switches and judges nothing else.
pub(crate) fn read_endpoint(reader: &mut Reader<'_>, block: &Element, blocks: &mut Blocks) {
    let names_command = block.children.iter().any(|c| c.name == "command");
    let mut draft = Draft { names_command, ..Draft::default() };
    for child in &block.children {
        match child.name.as_str() {
            "disabled" if blocks.disabled.is_none() => {
                let mut value = false;
                reader.yes_no(child, &mut value);
                blocks.disabled = Some(value);
            }
            "command" => draft.command = reader.text(child).map(|text| (text, child.content_span)),
            "repeated_offenders" | "protected" | "ports" | "cut_connections" | "contract" => {
                read_child(reader, child, &mut draft, blocks);
            }
            _ => {}
        }
    }
    // Options for the responses of a manager that cannot send them.
    if let Some((name, _)) = draft.command
        && blocks.own.len() < MAX_OWN
    {
        blocks.own.push(Own {
            name,
            contract: draft.contract.unwrap_or_default(),
            repeated_offenders: draft.repeated_offenders,
            ports: draft.ports,
            cut_connections: draft.cut_connections,
        });
    }
}

/// Dispatches one block to the reader that fits the role.
pub(crate) fn read(reader: &mut Reader<'_>, block: &Element, role: Role, blocks: &mut Blocks) {
    match (role, block.name.as_str()) {
        (Role::Agent, "command") => {}
        (Role::Agent, _) => read_endpoint(reader, block, blocks),
        (_, "command") => read_command(reader, block, blocks),
        (_, _) => read_response(reader, block, blocks),
    }
}
