//! `restart-wazuh`: restarts the service of this home, through systemd where it runs, else through the installation's
//! own control program.
//! Invariant: the restart is handed over, never waited for; the one who is restarted may be this process.

use std::path::Path;

use super::{Call, Failure, Local, Proof, Subject, tool};
use crate::executable;

/// See the module.
pub(crate) struct Restart;

impl Local for Restart {
    fn names(&self) -> &'static [&'static str] {
        &["restart-wazuh"]
    }

    fn subject(&self, _call: &Call) -> Result<Subject, String> {
        Ok(Subject::None)
    }

    fn lasts(&self) -> bool {
        false
    }

    fn apply(&self, call: &Call, _subject: &Subject, _prior: &str) -> Result<Proof, Failure> {
        if Path::new("/run/systemd/system").is_dir()
            && let Ok(systemctl) = call.tool("systemctl")
        {
            for unit in UNITS {
                let active = tool::run(&systemctl, ["is-active", "--quiet", unit], b"")?;
                if active.status == Some(0) {
                    tool::must(&systemctl, ["--no-block", "restart", unit], b"")?;
                    return Ok(format!("systemd was asked to restart {unit}"));
                }
            }
        }
        if !call.home.join(CONTROL).is_file() {
            let text = "no unit of ours runs under systemd, and there is no `bin/wazuh-control`";
            return Err(Failure::Unsupported(text.into()));
        }
        let fit = executable::fit(&call.home, CONTROL).map_err(|denied| Failure::Refused(denied.text()))?;
        // Not by its path: between the check and the start it must stay the same file.
        tool::must_fit(&fit, &call.home, CONTROL, ["restart"])?;
        Ok("bin/wazuh-control restart: exit status 0".into())
    }

    fn revert(&self, _call: &Call, _subject: &Subject, _prior: &str) -> Result<Proof, Failure> {
        Ok("nothing to undo".into())
    }

    fn verify(&self, _call: &Call, _subject: &Subject, _prior: &str) -> Result<bool, Failure> {
        Ok(true)
    }
}

const CONTROL: &str = "bin/wazuh-control";
/// Ours first; then those of an installation that we serve as its responder.
const UNITS: [&str; 5] =
    ["threatlockdown-manager", "threatlockdown-agent", "threatlockdown", "wazuh-manager", "wazuh-agent"];
