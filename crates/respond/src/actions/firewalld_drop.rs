//! `firewalld-drop`: a rich rule of firewalld's running configuration. A reload of firewalld loses it; the comparison
//! that runs all the time puts it back. firewalld is asked over the system's message bus; where there is none, by its tool,
//! which takes a third of a second for each question.
//! Invariant: success means that firewalld answered that it has the rule.

use std::time::Duration;

use super::{Call, Failure, Local, Proof, Subject, Takes, tool};
use crate::bus::{Argument, Bus, BusError, Service};

/// See the module.
pub(crate) struct FirewalldDrop;

fn rule(subject: &Subject) -> String {
    let family = if subject.address().is_some_and(|address| address.is_ipv6()) { "ipv6" } else { "ipv4" };
    format!("rule family={family} source address={subject} drop")
}

/// What is wanted of firewalld.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Add,
    Remove,
    Query,
}

impl Wish {
    const fn option(self) -> &'static str {
        match self {
            Self::Add => "--add-rich-rule",
            Self::Remove => "--remove-rich-rule",
            Self::Query => "--query-rich-rule",
        }
    }

    const fn method(self) -> &'static str {
        match self {
            Self::Add => "addRichRule",
            Self::Remove => "removeRichRule",
            Self::Query => "queryRichRule",
        }
    }

    /// The answer of firewalld that it was so already, which is as good as done.
    const fn already(self) -> &'static str {
        match self {
            Self::Add => "ALREADY_ENABLED",
            Self::Remove | Self::Query => "NOT_ENABLED",
        }
    }
}

/// How firewalld is reached.
enum Firewalld {
    Bus(Box<Bus>),
    Tool(std::path::PathBuf),
}

impl Firewalld {
    fn reach(call: &Call) -> Result<Self, Failure> {
        match Bus::connect(&call.places.bus, PATIENCE) {
            Ok(bus) => Ok(Self::Bus(Box::new(bus))),
            Err(_) => Ok(Self::Tool(call.tool("firewall-cmd")?)),
        }
    }

    /// Whether it is so (a question), or was done.
    fn put(&mut self, wish: Wish, subject: &Subject) -> Result<bool, Failure> {
        match self {
            Self::Bus(bus) => over_bus(bus, wish, &rule(subject)),
            Self::Tool(tool) => by_tool(tool, wish, &rule(subject)),
        }
    }
}

fn over_bus(bus: &mut Bus, wish: Wish, rule: &str) -> Result<bool, Failure> {
    // No name of a zone is the default zone. A rule may have a time; ours is kept by the journal, which outlives it.
    let (zone, rule, time) = (Argument::Text(""), Argument::Text(rule), Argument::Number(0));
    let arguments = [zone, rule, time];
    let wanted = if wish == Wish::Add { &arguments[..] } else { &arguments[..2] };
    match bus.call(ZONE, wish.method(), wanted) {
        Ok(answer) if wish == Wish::Query => {
            answer.is_yes().map_err(|error| Failure::Failed(error.to_string()))
        }
        Ok(_) => Ok(true),
        Err(BusError::Said { name, .. }) if ABSENT.contains(&name.as_str()) => Err(not_running()),
        Err(BusError::Said { text, .. }) if wish != Wish::Query && text.starts_with(wish.already()) => {
            Ok(true)
        }
        Err(error) => Err(Failure::Failed(format!("firewalld: {error}"))),
    }
}

fn by_tool(tool: &std::path::Path, wish: Wish, rule: &str) -> Result<bool, Failure> {
    let ended = tool::run(tool, [wish.option(), rule], b"")?;
    match ended.status {
        Some(0) => Ok(true),
        Some(1) if wish == Wish::Query => Ok(false),
        Some(252) => Err(not_running()),
        _ => Err(ended.failure(tool)),
    }
}

fn not_running() -> Failure {
    Failure::Unsupported("firewalld does not run".into())
}

impl Local for FirewalldDrop {
    fn names(&self) -> &'static [&'static str] {
        &["firewalld-drop"]
    }

    fn takes(&self) -> Option<Takes> {
        Some(Takes::Address)
    }

    fn subject(&self, call: &Call) -> Result<Subject, String> {
        call.address()
    }

    fn prior(&self, call: &Call, subject: &Subject) -> Result<String, Failure> {
        Ok(if self.verify(call, subject, "")? { "present" } else { "absent" }.into())
    }

    fn apply(&self, call: &Call, subject: &Subject, _prior: &str) -> Result<Proof, Failure> {
        let mut firewalld = Firewalld::reach(call)?;
        // Adding what is there already is no error to firewalld.
        firewalld.put(Wish::Add, subject)?;
        if !firewalld.put(Wish::Query, subject)? {
            return Err(Failure::Failed(format!("firewalld has no rule for {subject} although it took it")));
        }
        Ok(format!("firewalld has `{}`", rule(subject)))
    }

    fn revert(&self, call: &Call, subject: &Subject, prior: &str) -> Result<Proof, Failure> {
        if prior == "present" {
            return Ok(format!("firewalld had a rule for {subject} before and keeps it"));
        }
        let mut firewalld = Firewalld::reach(call)?;
        if firewalld.put(Wish::Query, subject)? {
            firewalld.put(Wish::Remove, subject)?;
        }
        if firewalld.put(Wish::Query, subject)? {
            return Err(Failure::Failed(format!("firewalld still has a rule for {subject}")));
        }
        Ok(format!("firewalld has no rule for {subject} any more"))
    }

    fn verify(&self, call: &Call, subject: &Subject, _prior: &str) -> Result<bool, Failure> {
        Firewalld::reach(call)?.put(Wish::Query, subject)
    }
}

const ZONE: Service<'_> = Service {
    name: "org.fedoraproject.FirewallD1",
    object: "/org/fedoraproject/FirewallD1",
    interface: "org.fedoraproject.FirewallD1.zone",
};
/// What the bus says of a service that does not run.
const ABSENT: [&str; 2] =
    ["org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner"];
const PATIENCE: Duration = Duration::from_secs(45);
