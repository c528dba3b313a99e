//! Log lines and what they must mean.

/// Whom names point at.
pub(crate) const VICTIM: &str = "203.0.113.9";

/// The attacker.
pub(crate) const A: &str = "198.51.100.7";

/// Message of sshd, rule, address, `dstuser` or (when there is none) `srcuser`.
pub(crate) const SSHD: &[(&str, u32, &str, &str)] = &[
    ("Invalid user admin from 198.51.100.7 port 40022", 5710, A, "admin"),
    ("Invalid user admin from 198.51.100.7", 5710, A, "admin"),
    ("Invalid user  from 198.51.100.7 port 40022", 5710, A, ""),
    ("Invalid user a b  c from 198.51.100.7 port 40022", 5710, A, "a b  c"),
    ("Invalid user x from 2001:db8::7 port 40022", 5710, "2001:db8::7", "x"),
    ("Invalid user x from ::ffff:198.51.100.7 port 40022", 5710, "::ffff:198.51.100.7", "x"),
    ("Invalid user x from host.example.com port 40022", 5710, "host.example.com", "x"),
    ("Failed password for invalid user admin from 198.51.100.7 port 40022 ssh2", 5710, A, "admin"),
    ("Failed password for invalid user  from 198.51.100.7 port 40022 ssh2", 5710, A, ""),
    ("Failed none for invalid user admin from 198.51.100.7 port 40022 ssh2", 5710, A, "admin"),
    ("Failed keyboard-interactive/pam for invalid user a$b from 198.51.100.7 port 4 ssh2", 5710, A, "a$b"),
    ("Failed publickey for invalid user git from 198.51.100.7 port 4 ssh2: RSA SHA256:abc", 5710, A, "git"),
    ("Failed password for root from 198.51.100.7 port 40022 ssh2", 5760, A, "root"),
    ("Failed password for root from 2001:db8:1::7 port 40022 ssh2", 5760, "2001:db8:1::7", "root"),
    ("Failed password for root from 198.51.100.7 port 40022", 5760, A, "root"),
    ("Failed publickey for git from 198.51.100.7 port 40022 ssh2: ED25519 SHA256:abc", 5761, A, "git"),
    ("error: PAM: Authentication failure for root from 198.51.100.7", 5716, A, "root"),
    ("error: PAM: Authentication failure for illegal user x from 198.51.100.7", 5726, A, "x"),
    (
        "error: maximum authentication attempts exceeded for root from 198.51.100.7 port 4 ssh2 [preauth]",
        5758,
        A,
        "root",
    ),
    (
        "error: maximum authentication attempts exceeded for invalid user x from 198.51.100.7 port 4 ssh2 [preauth]",
        5758,
        A,
        "x",
    ),
    ("User root from 198.51.100.7 not allowed because not listed in AllowUsers", 5718, A, "root"),
    ("User root not allowed because account is locked", 5795, "", ""),
    ("ROOT LOGIN REFUSED FROM 198.51.100.7 port 4", 5794, A, ""),
    ("Connection closed by authenticating user root 198.51.100.7 port 4 [preauth]", 5797, A, "root"),
    ("Connection closed by invalid user  198.51.100.7 port 4 [preauth]", 5797, A, ""),
    ("Connection reset by invalid user a b 198.51.100.7 port 4 [preauth]", 5797, A, "a b"),
    ("Connection closed by 198.51.100.7 port 4 [preauth]", 5700, A, ""),
    ("Disconnected from user alice 198.51.100.7 port 4", 5700, A, "alice"),
    ("Accepted publickey for alice from 198.51.100.7 port 4 ssh2: ED25519 SHA256:abc", 5715, A, "alice"),
    ("Accepted password for alice from 198.51.100.7 port 4 ssh2", 5715, A, "alice"),
    ("Did not receive identification string from 198.51.100.7 port 4", 5706, A, ""),
    ("Did not receive identification string from 198.51.100.7", 5706, A, ""),
    ("Bad protocol version identification 'GET / HTTP/1.1' from 198.51.100.7 port 4", 5701, A, ""),
    ("banner exchange: Connection from 198.51.100.7 port 4: invalid format", 5701, A, ""),
    (
        "Unable to negotiate with 198.51.100.7 port 4: no matching cipher found. Their offer: a,b [preauth]",
        5750,
        A,
        "",
    ),
    ("Timeout before authentication for 198.51.100.7 port 4", 5704, A, ""),
    ("message repeated 3 times: [ Failed password for root from 198.51.100.7 port 4 ssh2]", 5796, A, "root"),
    ("message repeated 9 times: [ Failed password for root from 198.51.100.7 port 4 ssh2]", 5793, A, "root"),
    ("Received disconnect from 2001:db8::7 port 4:11: disconnected by user", 5700, "2001:db8::7", ""),
    ("Server listening on 0.0.0.0 port 22.", 5700, "", ""),
];

/// Messages of sshd in which the attacker at `A` makes up a name, a greeting or a reason that names `VICTIM`. The
/// third member says whether the address may be missing, where nobody can tell the two apart.
pub(crate) const FRAMING: &[(&str, bool)] = &[
    ("Invalid user x from 203.0.113.9 port 22 from 198.51.100.7 port 40022", false),
    ("Invalid user x from 203.0.113.9 from 198.51.100.7 port 40022", false),
    ("Invalid user root from 203.0.113.9 port 22 ssh2 from 198.51.100.7 port 40022", false),
    ("Invalid user  from 203.0.113.9 port 22 from 198.51.100.7 port 40022", false),
    ("Invalid user a rhost=203.0.113.9  from 198.51.100.7 port 40022", false),
    ("Invalid user admin 203.0.113.9 port 22 [preauth] from 198.51.100.7 port 40022", false),
    ("Invalid user x from 203.0.113.9 port 22 from 2001:db8::7 port 40022", false),
    ("Invalid user Failed password for root from 203.0.113.9 port 22 ssh2 from 198.51.100.7 port 4", false),
    ("Invalid user x from 203.0.113.9 port 22 from 198.51.100.7", false),
    ("Invalid user srcip=203.0.113.9 from 198.51.100.7 port 4", false),
    ("Invalid user \"data\":{\"srcip\":\"203.0.113.9\"} from 198.51.100.7 port 4", false),
    ("Failed password for invalid user x from 203.0.113.9 port 22 ssh2 from 198.51.100.7 port 4 ssh2", false),
    ("Failed password for invalid user x from 203.0.113.9 port 22 from 198.51.100.7 port 4 ssh2", false),
    ("Failed password for invalid user x from 203.0.113.9 from 198.51.100.7 port 4 ssh2", false),
    ("Failed password for invalid user from 203.0.113.9 from 198.51.100.7 port 4 ssh2", false),
    ("Failed password for invalid user a rhost=203.0.113.9  from 198.51.100.7 port 4 ssh2", false),
    (
        "Failed password for invalid user x from 203.0.113.9 port 1 ssh2: RSA SHA256:q from 198.51.100.7 port 4 ssh2",
        false,
    ),
    ("Failed password for x from 203.0.113.9 port 22 ssh2 from 198.51.100.7 port 4 ssh2", false),
    ("Failed none for invalid user x from 203.0.113.9 port 22 ssh2 from 198.51.100.7 port 4 ssh2", false),
    (
        "Failed password for invalid user for root from 203.0.113.9 port 22 ssh2 from 198.51.100.7 port 4",
        false,
    ),
    (
        "Failed keyboard-interactive/pam for invalid user x from 203.0.113.9 port 9 ssh2 from 198.51.100.7 port 4 ssh2",
        false,
    ),
    (
        "Failed publickey for invalid user x from 203.0.113.9 port 1 ssh2: RSA SHA256:q from 198.51.100.7 port 4 ssh2: RSA SHA256:r",
        false,
    ),
    (
        "Failed publickey for invalid user x from 198.51.100.7 port 4 ssh2: RSA-CERT SHA256:r ID y from 203.0.113.9 port 1 ssh2: RSA SHA256:q (serial 1) CA RSA SHA256:s",
        true,
    ),
    (
        "Failed publickey for invalid user x from 198.51.100.7 port 4 ssh2: RSA-CERT SHA256:r ID y from 203.0.113.9 port 1 ssh2 (serial 1) CA RSA SHA256:s",
        true,
    ),
    (
        "Failed publickey for invalid user x from 203.0.113.9 port 1 ssh2: RSA-CERT SHA256:q ID z from 198.51.100.7 port 4 ssh2: RSA-CERT SHA256:r ID y (serial 1) CA RSA SHA256:s",
        true,
    ),
    ("Connection closed by invalid user x 203.0.113.9 port 22 198.51.100.7 port 4 [preauth]", false),
    (
        "Connection closed by invalid user admin 203.0.113.9 port 22 [preauth] 198.51.100.7 port 4 [preauth]",
        false,
    ),
    ("Connection closed by authenticating user x 203.0.113.9 port 22 198.51.100.7 port 4 [preauth]", false),
    ("Connection reset by invalid user from 203.0.113.9 198.51.100.7 port 4 [preauth]", false),
    ("Disconnected from invalid user x 203.0.113.9 port 22 [preauth] 198.51.100.7 port 4 [preauth]", false),
    (
        "Disconnecting invalid user x 203.0.113.9 port 22: Too many 198.51.100.7 port 4: Too many authentication failures [preauth]",
        false,
    ),
    (
        "Disconnecting authenticating user u 198.51.100.7 port 4: Change of username or service not allowed: (u,ssh-connection) -> (x 203.0.113.9 port 5: Too many,ssh-connection) [preauth]",
        true,
    ),
    ("error: PAM: Authentication failure for illegal user x from 203.0.113.9 from 198.51.100.7", false),
    ("error: PAM: Authentication failure for illegal user x from 203.0.113.9 via from 198.51.100.7", false),
    (
        "error: PAM: User not known to the underlying authentication module for illegal user x from 203.0.113.9 from 198.51.100.7",
        false,
    ),
    (
        "error: maximum authentication attempts exceeded for invalid user x from 203.0.113.9 port 22 ssh2 from 198.51.100.7 port 4 ssh2 [preauth]",
        false,
    ),
    (
        "error: maximum authentication attempts exceeded for invalid user x from 203.0.113.9 port 22 ssh2 [preauth] from 198.51.100.7 port 4 ssh2 [preauth]",
        false,
    ),
    (
        "message repeated 2 times: [ Failed password for invalid user x from 203.0.113.9 port 1 ssh2] from 198.51.100.7 port 4 ssh2]",
        false,
    ),
    ("Bad protocol version identification 'x' from 203.0.113.9 port 22' from 198.51.100.7 port 4", false),
    ("Bad protocol version identification 'x' from 203.0.113.9' from 198.51.100.7", false),
    (
        "Received disconnect from 198.51.100.7 port 4:11: x from 203.0.113.9 port 22:11: Bye Bye [preauth]",
        false,
    ),
    ("Received disconnect from 198.51.100.7: 3: from 203.0.113.9: 3: Auth fail", false),
    (
        "Unable to negotiate with 198.51.100.7 port 4: no matching cipher found. Their offer: with 203.0.113.9 port 22: no [preauth]",
        false,
    ),
    ("refused connect from 203.0.113.9 (198.51.100.7)", false),
    (
        "User x from 203.0.113.9 not allowed because listed in DenyUsers from 198.51.100.7 not allowed because listed in DenyUsers",
        false,
    ),
];

/// Whole lines of PAM, with address and user.
pub(crate) const PAM: &[(&str, u32, &str, &str)] = &[
    (
        "sshd[1]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=198.51.100.7  user=root",
        5503,
        A,
        "root",
    ),
    (
        "sshd[1]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=198.51.100.7 ",
        5503,
        A,
        "",
    ),
    (
        "sshd[1]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=2001:db8::7  user=root",
        5503,
        "2001:db8::7",
        "root",
    ),
    (
        "sshd[1]: PAM 2 more authentication failures; logname= uid=0 euid=0 tty=ssh ruser= rhost=198.51.100.7  user=root",
        2502,
        A,
        "root",
    ),
    (
        "sshd(pam_unix)[1]: authentication failure; logname= uid=0 euid=0 tty=NODEVssh ruser= rhost=198.51.100.7  user=root",
        5503,
        A,
        "root",
    ),
    (
        "vsftpd: pam_unix(vsftpd:auth): authentication failure; logname= uid=0 euid=0 tty=ftp ruser=bob rhost=198.51.100.7 user=bob",
        5503,
        A,
        "bob",
    ),
    (
        "su[1]: pam_unix(su:auth): authentication failure; logname=alice uid=1000 euid=0 tty=pts/1 ruser=alice rhost=  user=root",
        5503,
        "",
        "root",
    ),
    ("sshd[1]: pam_unix(sshd:auth): check pass; user unknown", 5500, "", ""),
    (
        "sshd[1]: pam_unix(sshd:session): session opened for user alice(uid=1000) by (uid=0)",
        5501,
        "",
        "alice",
    ),
    ("sshd[1]: pam_unix(sshd:session): session closed for user alice", 5502, "", "alice"),
    ("CRON[1]: pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)", 5521, "", "root"),
    ("passwd[1]: pam_unix(passwd:chauthtok): password changed for alice", 5555, "", "alice"),
    // Names that imitate what stands around them.
    (
        "sshd[1]: pam_sss(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=198.51.100.7 user=x rhost=203.0.113.9",
        5503,
        A,
        "x rhost=203.0.113.9",
    ),
    (
        "sshd[1]: pam_sss(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=198.51.100.7 user=x authentication failure; logname= uid=0 euid=0 tty=s ruser=b rhost=203.0.113.9",
        5503,
        A,
        "x authentication failure; logname= uid=0 euid=0 tty=s ruser=b rhost=203.0.113.9",
    ),
    (
        "vsftpd: pam_unix(vsftpd:auth): authentication failure; logname= uid=0 euid=0 tty=ftp ruser=a rhost=203.0.113.9 rhost=198.51.100.7",
        5503,
        A,
        "",
    ),
    (
        "vsftpd: pam_unix(vsftpd:auth): authentication failure; logname= uid=0 euid=0 tty=ftp ruser=a rhost=203.0.113.9 user=b rhost=198.51.100.7 user=bob",
        5503,
        A,
        "bob",
    ),
    (
        "vsftpd: pam_unix(vsftpd:auth): authentication failure; logname= uid=0 euid=0 tty=ftp ruser= rhost=203.0.113.9 rhost=198.51.100.7",
        5503,
        A,
        "",
    ),
    (
        "auth: pam_unix(dovecot:auth): authentication failure; logname= uid=0 euid=0 tty=dovecot ruser= rhost=203.0.113.9 rhost=198.51.100.7",
        5503,
        "",
        "",
    ),
    (
        "proftpd: pam_sss(proftpd:auth): authentication failure; logname= uid=0 euid=0 tty=/dev/ftpd7 ruser= rhost=203.0.113.9 rhost=198.51.100.7  user=bob",
        5503,
        "",
        "",
    ),
    (
        "login: pam_unix(login:auth): authentication failure; logname= uid=0 euid=0 tty=pts/1 ruser= rhost=198.51.100.7  user=bob",
        5503,
        A,
        "bob",
    ),
    (
        "ftpd: pam_sss(ftp:auth): authentication failure; logname= uid=0 euid=0 tty=ttyS ruser=a rhost=203.0.113.9 rhost=198.51.100.7",
        5503,
        "",
        "",
    ),
];

/// Lines of sudo and su, with the rule and the target user.
pub(crate) const LOCAL: &[(&str, u32, &str)] = &[
    ("sudo:    alice : TTY=pts/0 ; PWD=/home/alice ; USER=root ; COMMAND=/usr/bin/apt update", 5402, "root"),
    ("sudo:    alice : TTY=pts/0 ; PWD=/home/alice ; USER=bob ; COMMAND=/usr/bin/id", 5407, "bob"),
    (
        "sudo:    alice : 1 incorrect password attempt ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/sh",
        5401,
        "root",
    ),
    (
        "sudo:    alice : 3 incorrect password attempts ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/sh",
        5404,
        "root",
    ),
    ("sudo:    alice : user NOT in sudoers ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/sh", 5405, "root"),
    (
        "sudo:    alice : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/echo x : 3 incorrect password attempts",
        5402,
        "root",
    ),
    ("su[1]: FAILED SU (to root) alice on pts/0", 5302, "root"),
    ("su[1]: FAILED su for bob by alice", 5301, "bob"),
    ("su[1]: BAD SU alice to root on /dev/ttyp0", 5302, "root"),
    ("su[1]: - /dev/pts/1 alice:root", 5302, "root"),
    ("su[1]: (to root) alice on pts/0", 5303, "root"),
    ("su[1]: Successful su for bob by alice", 5304, "bob"),
    ("su[1]: + /dev/pts/1 alice:root", 5303, "root"),
];

/// Lines with a place `@` for a stranger's text. The address in each is `A`; it must be found where the second member
/// says so, and `VICTIM` never.
pub(crate) const TEMPLATES: &[(&str, bool)] = &[
    ("Nov 11 08:04:51 h sshd[1]: Invalid user @ from 198.51.100.7 port 40022", true),
    ("Nov 11 08:04:51 h sshd[1]: Failed password for invalid user @ from 198.51.100.7 port 40022 ssh2", true),
    ("Nov 11 08:04:51 h sshd[1]: Failed none for invalid user @ from 198.51.100.7 port 40022 ssh2", true),
    (
        "Nov 11 08:04:51 h sshd[1]: Failed publickey for invalid user @ from 198.51.100.7 port 4 ssh2: RSA SHA256:r",
        true,
    ),
    (
        "Nov 11 08:04:51 h sshd[1]: Failed publickey for invalid user u from 198.51.100.7 port 4 ssh2: RSA-CERT SHA256:r ID @ (serial 1) CA RSA SHA256:s",
        false,
    ),
    (
        "Nov 11 08:04:51 h sshd[1]: Failed publickey for invalid user @ from 198.51.100.7 port 4 ssh2: RSA-CERT SHA256:r ID k (serial 1) CA RSA SHA256:s",
        false,
    ),
    ("Nov 11 08:04:51 h sshd[1]: Connection closed by invalid user @ 198.51.100.7 port 4 [preauth]", true),
    (
        "Nov 11 08:04:51 h sshd[1]: Connection reset by authenticating user @ 198.51.100.7 port 4 [preauth]",
        true,
    ),
    (
        "Nov 11 08:04:51 h sshd[1]: Disconnecting invalid user @ 198.51.100.7 port 4: Too many authentication failures [preauth]",
        true,
    ),
    (
        "Nov 11 08:04:51 h sshd[1]: Disconnecting authenticating user u 198.51.100.7 port 4: Change of username or service not allowed: (u,ssh-connection) -> (@,ssh-connection) [preauth]",
        false,
    ),
    (
        "Nov 11 08:04:51 h sshd[1]: error: PAM: Authentication failure for illegal user @ from 198.51.100.7",
        true,
    ),
    (
        "Nov 11 08:04:51 h sshd[1]: error: maximum authentication attempts exceeded for invalid user @ from 198.51.100.7 port 4 ssh2 [preauth]",
        true,
    ),
    (
        "Nov 11 08:04:51 h sshd[1]: message repeated 2 times: [ Failed password for invalid user @ from 198.51.100.7 port 4 ssh2]",
        true,
    ),
    ("Nov 11 08:04:51 h sshd[1]: Bad protocol version identification '@' from 198.51.100.7 port 4", true),
    ("Nov 11 08:04:51 h sshd[1]: Received disconnect from 198.51.100.7 port 4:11: @ [preauth]", true),
    (
        "Nov 11 08:04:51 h sshd[1]: Unable to negotiate with 198.51.100.7 port 4: no matching cipher found. Their offer: @ [preauth]",
        true,
    ),
    (
        "Nov 11 08:04:51 h sshd[1]: pam_sss(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=198.51.100.7 user=@",
        true,
    ),
    (
        "Nov 11 08:04:51 h vsftpd: pam_unix(vsftpd:auth): authentication failure; logname= uid=0 euid=0 tty=ftp ruser=@ rhost=198.51.100.7",
        false,
    ),
    ("Nov 11 08:04:51 h vsftpd[1]: [@] FAIL LOGIN: Client \"198.51.100.7\"", true),
    (
        "Nov 11 08:04:51 h proftpd[1]: h (h[198.51.100.7]): USER @: no such user found from h [198.51.100.7] to 192.0.2.1:21",
        true,
    ),
    ("Nov 11 08:04:51 h dropbear[1]: Bad password attempt for '@' from 198.51.100.7:60588", true),
    (
        "Nov 11 08:04:51 h dovecot: imap-login: Disconnected (auth failed, 1 attempts in 2 secs): user=<@>, method=PLAIN, rip=198.51.100.7, lip=192.0.2.1, session=<a>",
        true,
    ),
    ("Nov 11 08:04:51 h dovecot: auth: sql(@,198.51.100.7,<s>): unknown user", true),
    (
        "Nov 11 08:04:51 h postfix/smtpd[1]: NOQUEUE: reject: RCPT from unknown[198.51.100.7]: 554 5.7.1 <@>: Relay access denied; from=<@> to=<@> proto=ESMTP helo=<@>",
        true,
    ),
    (
        "Nov 11 08:04:51 h sendmail[1]: s1P: ruleset=check_rcpt, arg1=<@>, relay=[198.51.100.7], reject=550 5.7.1 <@>... Relaying denied",
        false,
    ),
    (
        "2013-01-04 17:03:46 login authenticator failed for (u) [198.51.100.7]: 535 Incorrect authentication data (set_id=@)",
        true,
    ),
    (
        "2013-01-04 17:03:46 SMTP protocol error in \"@\" H=(u) [198.51.100.7]:1 I=[192.0.2.1]:587 AUTH command used when not advertised",
        false,
    ),
    (
        "2019-10-07 06:09:42 5907 [Warning] Access denied for user '@'@'198.51.100.7' (using password: YES)",
        true,
    ),
    (
        "2014/04/03 22:20:38 [error] 30708#0: *3 user \"@\": password mismatch, client: 198.51.100.7, server: s, request: \"GET /@ HTTP/1.1\", host: \"h\"",
        false,
    ),
    (
        "2014/04/03 22:20:38 [error] 30708#0: *3 open() \"/www/@\" failed (2: No such file or directory), client: 198.51.100.7, server: s, request: \"GET / HTTP/1.1\", host: \"h\", referrer: \"@\"",
        false,
    ),
    (
        "2014/04/03 22:20:38 [error] 30708#0: *3 access forbidden by rule, client: 198.51.100.7, server: s, request: \"GET /@ HTTP/1.1\", host: \"@\", referrer: \"@\"",
        true,
    ),
    (
        "2014/04/03 22:20:38 [error] 30708#0: *3 limiting requests, excess: 5.020 by zone \"one\", client: 198.51.100.7, server: s, request: \"GET /@ HTTP/1.1\", host: \"@\"",
        true,
    ),
    (
        "Nov 11 08:04:51 h auth: pam_unix(dovecot:auth): authentication failure; logname= uid=0 euid=0 tty=dovecot ruser=@ rhost=198.51.100.7  user=@",
        false,
    ),
    (
        "Nov 11 08:04:51 h proftpd: pam_sss(proftpd:auth): authentication failure; logname= uid=0 euid=0 tty=/dev/ftpd7 ruser=@ rhost=198.51.100.7 user=@",
        false,
    ),
    (
        "[Wed Jul 17 22:18:52 2013] [error] [client 198.51.100.7] user @: authentication failure for \"/@\": Password Mismatch",
        true,
    ),
    ("198.51.100.7 - @ [20/Jan/2015:19:53:28 +0100] \"GET /@ HTTP/1.1\" 404 47 \"@\" \"@\"", false),
    (
        "[2012-02-13 17:18:22] NOTICE[1638] chan_sip.c: Registration from '@' failed for '198.51.100.7' - No matching peer found",
        true,
    ),
];

/// What strangers build their names of.
pub(crate) const FRAGMENTS: &[&str] = &[
    "x",
    " ",
    "",
    "203.0.113.9",
    " from 203.0.113.9",
    " from 203.0.113.9 port 22",
    " ssh2",
    " port 5",
    ": RSA SHA256:q",
    ": RSA-CERT SHA256:q",
    " ID y",
    " (serial 1) CA RSA SHA256:s",
    " [preauth]",
    " 203.0.113.9 port 22",
    ": Too many",
    " rhost=203.0.113.9",
    " user=b",
    " via ",
    "invalid user ",
    "]",
    "[203.0.113.9]",
    "(203.0.113.9)",
    "'",
    "\"",
    ">",
    "<",
    "Failed password for ",
    ": ",
    ", client: 203.0.113.9, server: s",
    ", cl",
    ", client:",
    ", rip=203.0.113.9,",
    ",203.0.113.9,<s>): unknown user",
    "'@'203.0.113.9' (using password: YES)",
    "] FAIL LOGIN: Client \"203.0.113.9\"",
    ", relay=[203.0.113.9], reject=",
    "' failed for '203.0.113.9' - No matching peer found",
    " H=(u) [203.0.113.9]",
    " [203.0.113.9]: 535 ",
    ", request: \"GET / HTTP/1.1\"",
    " authentication failure; logname= uid=0 euid=0 tty=s ruser=b rhost=203.0.113.9",
    ",",
    " from 203.0.113.9:22",
    "' from 203.0.113.9 port 2",
    ": 11: from 203.0.113.9 port 22:11: x",
    "[client 203.0.113.9] ",
    " - - [20/Jan/2015:19:53:28 +0100] \"GET / HTTP/1.1\" 404 1 ",
];
