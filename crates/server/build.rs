//! Lists the shipped ruleset so that the binary carries it: the main job runs on embedded defaults, with no file around it.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    // Read at run time: a build script may be shared by checkouts at different places.
    let manifest =
        env::var_os("CARGO_MANIFEST_DIR").ok_or_else(|| io::Error::other("CARGO_MANIFEST_DIR is not set"))?;
    let root = Path::new(&manifest).join("../../ruleset");
    let mut code = String::new();
    for (constant, folder) in [("DECODERS", "decoders"), ("RULES", "rules")] {
        let folder = root.join(folder);
        println!("cargo::rerun-if-changed={}", folder.display());
        let mut files: Vec<_> = fs::read_dir(&folder)?.collect::<Result<_, _>>()?;
        files.sort_by_key(fs::DirEntry::file_name);
        let _ = writeln!(code, "pub static {constant}: &[(&str, &[u8])] = &[");
        for file in files.iter().filter(|file| file.path().extension().is_some_and(|end| end == "xml")) {
            let path = file.path().canonicalize()?;
            println!("cargo::rerun-if-changed={}", path.display());
            let _ = writeln!(code, "    ({:?}, include_bytes!({:?})),", file.file_name(), path);
        }
        code.push_str("];\n");
    }
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?;
    #[expect(clippy::disallowed_methods, reason = "a build script writes into its own OUT_DIR")]
    fs::write(Path::new(&out).join("shipped.rs"), code)
}
