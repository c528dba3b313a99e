//! The ruleset that the binary carries, from `ruleset/` of the repository.

use tld_xml::Source;

mod files {
    #![expect(unreachable_pub, reason = "generated list")]
    include!(concat!(env!("OUT_DIR"), "/shipped.rs"));
}

/// File name and content of each shipped decoder file, in loading order.
pub fn decoders() -> &'static [(&'static str, &'static [u8])] {
    files::DECODERS
}

/// File name and content of each shipped rule file, in loading order.
pub fn rules() -> &'static [(&'static str, &'static [u8])] {
    files::RULES
}

/// The shipped decoders and rules as named texts, for runs without a home directory.
pub fn texts() -> (Vec<Source>, Vec<Source>) {
    let named = |folder: &str, files: &[(&str, &[u8])]| {
        files.iter().map(|(name, text)| Source::new(format!("ruleset/{folder}/{name}"), *text)).collect()
    };
    (named("decoders", decoders()), named("rules", rules()))
}
