//! Names of Windows audit codes (`%%8272`), as the operating system's message table has them.

/// The numbers in a text such as `%%8448, %%8450`.
pub(super) fn codes(text: &[u8]) -> impl Iterator<Item = u32> {
    let pieces = text.split(|byte| !byte.is_ascii_digit()).filter(|piece| !piece.is_empty());
    pieces.filter_map(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
}

pub(super) fn policy_change(code: u32) -> Option<&'static str> {
    Some(match code {
        8448 => "Success removed",
        8449 => "Success added",
        8450 => "Failure removed",
        8451 => "Failure added",
        _ => return None,
    })
}

pub(super) fn category(code: u32) -> Option<&'static str> {
    GROUPS.get(index(code, 8272)?).map(|group| group.name)
}

pub(super) fn subcategory(code: u32) -> Option<&'static str> {
    GROUPS.iter().find_map(|group| group.members.get(index(code, group.first)?).copied())
}

fn index(code: u32, first: u32) -> Option<usize> {
    code.checked_sub(first).and_then(|place| usize::try_from(place).ok())
}

struct Group {
    name: &'static str,
    first: u32,
    members: &'static [&'static str],
}

/// In the order of category codes, which start at 8272.
const GROUPS: [Group; 9] = [
    Group {
        name: "System",
        first: 12288,
        members: &[
            "Security State Change",
            "Security System Extension",
            "System Integrity",
            "IPsec Driver",
            "Other System Events",
        ],
    },
    Group {
        name: "Logon/Logoff",
        first: 12544,
        members: &[
            "Logon",
            "Logoff",
            "Account Lockout",
            "IPsec Main Mode",
            "Special Logon",
            "IPsec Quick Mode",
            "IPsec Extended Mode",
            "Other Logon/Logoff Events",
            "Network Policy Server",
            "User / Device Claims",
            "Group Membership",
        ],
    },
    Group {
        name: "Object Access",
        first: 12800,
        members: &[
            "File System",
            "Registry",
            "Kernel Object",
            "SAM",
            "Other Object Access Events",
            "Certification Services",
            "Application Generated",
            "Handle Manipulation",
            "File Share",
            "Filtering Platform Packet Drop",
            "Filtering Platform Connection",
            "Detailed File Share",
            "Removable Storage",
            "Central Policy Staging",
        ],
    },
    Group {
        name: "Privilege Use",
        first: 13056,
        members: &["Sensitive Privilege Use", "Non Sensitive Privilege Use", "Other Privilege Use Events"],
    },
    Group {
        name: "Detailed Tracking",
        first: 13312,
        members: &[
            "Process Creation",
            "Process Termination",
            "DPAPI Activity",
            "RPC Events",
            "Plug and Play Events",
            "Token Right Adjusted Events",
        ],
    },
    Group {
        name: "Policy Change",
        first: 13568,
        members: &[
            "Audit Policy Change",
            "Authentication Policy Change",
            "Authorization Policy Change",
            "MPSSVC Rule-Level Policy Change",
            "Filtering Platform Policy Change",
            "Other Policy Change Events",
        ],
    },
    Group {
        name: "Account Management",
        first: 13824,
        members: &[
            "User Account Management",
            "Computer Account Management",
            "Security Group Management",
            "Distribution Group Management",
            "Application Group Management",
            "Other Account Management Events",
        ],
    },
    Group {
        name: "DS Access",
        first: 14080,
        members: &[
            "Directory Service Access",
            "Directory Service Changes",
            "Directory Service Replication",
            "Detailed Directory Service Replication",
        ],
    },
    Group {
        name: "Account Logon",
        first: 14336,
        members: &[
            "Credential Validation",
            "Kerberos Service Ticket Operations",
            "Other Account Logon Events",
            "Kerberos Authentication Service",
        ],
    },
];
