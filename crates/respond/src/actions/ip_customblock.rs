//! `ip-customblock`: an empty file named after the address in `/ipblock`, a hook for operators' own tooling.
//! Invariant: a file that was there before stays there.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use super::{Call, Failure, Local, Proof, Subject, Takes};

/// See the module.
pub(crate) struct IpCustomblock;

fn file(call: &Call, subject: &Subject) -> PathBuf {
    call.places.ipblock.join(subject.to_string())
}

impl Local for IpCustomblock {
    fn names(&self) -> &'static [&'static str] {
        &["ip-customblock"]
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
        let path = file(call, subject);
        tld_sys::durable::create_dirs(&call.places.ipblock, 0o755)
            .map_err(Failure::io("create", &call.places.ipblock))?;
        let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let opened =
            OpenOptions::new().append(true).create(true).mode(0o644).custom_flags(no_follow).open(&path);
        opened.map_err(Failure::io("create", &path))?;
        if !self.verify(call, subject, "")? {
            return Err(Failure::Failed(format!("`{}` is gone again", path.display())));
        }
        Ok(format!("`{}` is there", path.display()))
    }

    fn revert(&self, call: &Call, subject: &Subject, prior: &str) -> Result<Proof, Failure> {
        let path = file(call, subject);
        if prior == "present" {
            return Ok(format!("`{}` was there before and stays", path.display()));
        }
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::io("remove", &path)(error)),
        }
        Ok(format!("`{}` is gone", path.display()))
    }

    fn verify(&self, call: &Call, subject: &Subject, _prior: &str) -> Result<bool, Failure> {
        let path = file(call, subject);
        match path.symlink_metadata() {
            Ok(seen) => Ok(seen.is_file()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Failure::io("look at", &path)(error)),
        }
    }
}
