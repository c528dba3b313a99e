//! What this host says of itself in its keep-alives.
//! Invariant: the line has the contract's form, whatever the system's files hold.

use std::path::Path;

use tld_sys::durable;

const RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];
const FILE: usize = 64 * 1024;

/// `Linux |node |release |version |machine [Name|platform: version (codename)]`.
pub(crate) fn system() -> String {
    let release = RELEASE.iter().find_map(|path| durable::read_bounded(Path::new(path), FILE).ok());
    let release = String::from_utf8_lossy(&release.unwrap_or_default()).into_owned();
    format!("{} [{}]", tld_sys::host::uname().join(" |"), distribution(&release))
}

fn distribution(release: &str) -> String {
    let value = |key: &str| {
        let lines = release.lines().filter_map(|line| line.split_once('='));
        let found = lines.filter(|(name, _)| name.trim() == key).map(|(_, value)| plain(value)).next();
        found.filter(|value| !value.is_empty())
    };
    let name = value("NAME").unwrap_or_else(|| "Linux".into());
    let platform = value("ID").unwrap_or_else(|| "linux".into());
    let version = value("VERSION_ID").unwrap_or_default();
    match value("VERSION_CODENAME") {
        Some(codename) => format!("{name}|{platform}: {version} ({codename})"),
        None => format!("{name}|{platform}: {version}"),
    }
}

/// Without quotes and without what would be taken for the line's own marks.
fn plain(value: &str) -> String {
    let value = value.trim().trim_matches(['"', '\'']);
    value.chars().filter(|c| !c.is_control() && !matches!(c, '|' | '[' | ']')).take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_understood_by_a_manager() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 12\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\n\
                    VERSION_CODENAME=bookworm\nID=debian\n";
        assert_eq!(distribution(text), "Debian GNU/Linux|debian: 12 (bookworm)");
        assert_eq!(distribution("ID=arch\nNAME='Arch [x]|'"), "Arch x|arch: ");
        let line = system();
        let parsed = tld_wire::control::System::parse(&line);
        assert_eq!(parsed.uname[0], Some("Linux"));
        assert!(parsed.name.is_some() && parsed.platform.is_some(), "{line}");
    }
}
