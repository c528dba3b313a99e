//! `firewalld-drop`: a rich rule of firewalld's running configuration. A reload of firewalld loses it; the comparison
//! that runs all the time puts it back.
//! Invariant: success means that firewalld answered that it has the rule.

use super::{Call, Failure, Local, Proof, Subject, tool};

/// See the module.
pub(crate) struct FirewalldDrop;

fn rule(subject: &Subject) -> String {
    let family = if subject.address().is_some_and(|address| address.is_ipv6()) { "ipv6" } else { "ipv4" };
    format!("rule family={family} source address={subject} drop")
}

fn ask(call: &Call, option: &str, subject: &Subject) -> Result<tool::Ended, Failure> {
    tool::run(&call.tool("firewall-cmd")?, [option, &rule(subject)], b"")
}

fn must(call: &Call, option: &str, subject: &Subject) -> Result<(), Failure> {
    tool::must(&call.tool("firewall-cmd")?, [option, &rule(subject)], b"").map(drop)
}

impl Local for FirewalldDrop {
    fn names(&self) -> &'static [&'static str] {
        &["firewalld-drop"]
    }

    fn subject(&self, call: &Call) -> Result<Subject, String> {
        call.address()
    }

    fn prior(&self, call: &Call, subject: &Subject) -> Result<String, Failure> {
        Ok(if self.verify(call, subject, "")? { "present" } else { "absent" }.into())
    }

    fn apply(&self, call: &Call, subject: &Subject, _prior: &str) -> Result<Proof, Failure> {
        // Adding what is there already is no error to firewalld, and each question costs a process.
        must(call, "--add-rich-rule", subject)?;
        if !self.verify(call, subject, "")? {
            return Err(Failure::Failed(format!("firewalld has no rule for {subject} although it took it")));
        }
        Ok(format!("firewalld has `{}`", rule(subject)))
    }

    fn revert(&self, call: &Call, subject: &Subject, prior: &str) -> Result<Proof, Failure> {
        if prior == "present" {
            return Ok(format!("firewalld had a rule for {subject} before and keeps it"));
        }
        if self.verify(call, subject, "")? {
            must(call, "--remove-rich-rule", subject)?;
        }
        if self.verify(call, subject, "")? {
            return Err(Failure::Failed(format!("firewalld still has a rule for {subject}")));
        }
        Ok(format!("firewalld has no rule for {subject} any more"))
    }

    fn verify(&self, call: &Call, subject: &Subject, _prior: &str) -> Result<bool, Failure> {
        let ended = ask(call, "--query-rich-rule", subject)?;
        match ended.status {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            // 252: the daemon does not run.
            Some(252) => Err(Failure::Unsupported("firewalld does not run".into())),
            _ => Err(ended.failure(&call.tool("firewall-cmd")?)),
        }
    }
}
