//! Formats of particular programs, recognised by the head of a line.

use super::{Format, append, find};

/// Whether `text` begins like `shape`, where `0` stands for any digit.
fn shaped(text: &[u8], shape: &[u8]) -> bool {
    text.len() >= shape.len()
        && text.iter().zip(shape).all(|(byte, want)| match want {
            b'0' => byte.is_ascii_digit(),
            want => byte == want,
        })
}

/// `postgresql_log` and `mssql_log`: a record begins with a time stamp.
#[derive(Debug)]
pub(crate) struct Stamped {
    shape: &'static [u8],
    only_tabs: bool,
    text: Option<Vec<u8>>,
}

impl Stamped {
    /// `[YYYY-MM-DD HH:MM:SS`; only lines that begin with a tab continue a record.
    pub(crate) fn postgresql() -> Self {
        Self { shape: b"[0000-00-00 00:00:00", only_tabs: true, text: None }
    }

    /// `YYYY-MM-DD HH:MM:SS`; every other line continues the record.
    pub(crate) fn mssql() -> Self {
        Self { shape: b"0000-00-00 00:00:00", only_tabs: false, text: None }
    }
}

impl Format for Stamped {
    fn feed(&mut self, line: &[u8], out: &mut Vec<Vec<u8>>) {
        if shaped(line, self.shape) {
            self.flush(out);
            self.text = Some(line.to_vec());
        } else if let Some(text) = &mut self.text {
            let more = if self.only_tabs { line.strip_prefix(b"\t") } else { Some(line) };
            if let Some(more) = more {
                append(text, b" ");
                append(text, more);
            }
        }
    }

    fn pending(&self) -> bool {
        self.text.is_some()
    }

    fn flush(&mut self, out: &mut Vec<Vec<u8>>) {
        out.extend(self.text.take());
    }

    fn patience(&self) -> Option<std::time::Duration> {
        // The next record may be hours away; its first line alone is worth an alert at once.
        Some(std::time::Duration::from_millis(500))
    }
}

/// `snort-full`: of a three-line record the contract sends the last line only.
#[derive(Debug, Default)]
pub(crate) struct SnortFull {
    seen: u8,
}

impl Format for SnortFull {
    fn feed(&mut self, line: &[u8], out: &mut Vec<Vec<u8>>) {
        let dated = shaped(line, b"00/00");
        match self.seen {
            _ if line.starts_with(b"[**] [") => self.seen = 1,
            1 if line.starts_with(b"[Classification: ") || line.starts_with(b"[Priority: ") => self.seen = 2,
            2 if dated => {
                self.seen = 0;
                out.push(line.to_vec());
            }
            _ => {}
        }
    }

    fn pending(&self) -> bool {
        self.seen > 0
    }

    fn flush(&mut self, _out: &mut Vec<Vec<u8>>) {
        self.seen = 0;
    }
}

/// `mysql_log`.
#[derive(Debug, Default)]
pub(crate) struct Mysql {
    time: Vec<u8>,
}

impl Format for Mysql {
    fn feed(&mut self, line: &[u8], out: &mut Vec<Vec<u8>>) {
        const OLD: &[u8] = b"000000 00:00:00";
        const OLD_BLANK: &[u8] = b"000000  0:00:00";
        const ISO: &[u8] = b"0000-00-00T00:00:00.000000";
        let text = if shaped(line, OLD) || shaped(line, OLD_BLANK) {
            let (time, text) = line.split_at(OLD.len());
            self.time = time.to_vec();
            text
        } else if shaped(line, ISO) {
            let end = line.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(line.len());
            let (time, text) = line.split_at(end);
            self.time = time.to_vec();
            text
        } else if let Some(text) = line.strip_prefix(b"\t\t      ")
            && !self.time.is_empty()
        {
            text
        } else {
            return;
        };
        let text = text.trim_ascii_start();
        if !text.is_empty() {
            let mut message = b"MySQL log: ".to_vec();
            append(&mut message, &self.time);
            append(&mut message, b" ");
            append(&mut message, text);
            out.push(message);
        }
    }
}

/// `djb-multilog`: TAI64 labels are cut; lines without a header of their own get one.
pub(crate) struct Djb {
    name: Vec<u8>,
    header: Box<dyn Fn() -> String + Send>,
}

impl Djb {
    /// `name` is the directory above `current`; `header` gives `Mon DD HH:MM:SS <short host>`.
    pub(crate) fn new(name: Vec<u8>, header: Box<dyn Fn() -> String + Send>) -> Self {
        Self { name, header }
    }
}

fn has_bsd_header(text: &[u8]) -> bool {
    const MONTHS: &[u8] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = text.get(..3).and_then(|month| find(MONTHS, month));
    month.is_some_and(|at| at % 3 == 0)
        && text.get(3) == Some(&b' ')
        && text.get(4..6).is_some_and(|day| day.iter().all(|byte| *byte == b' ' || byte.is_ascii_digit()))
        && text.get(6..).is_some_and(|time| shaped(time, b" 00:00:00 "))
}

impl Format for Djb {
    fn feed(&mut self, line: &[u8], out: &mut Vec<Vec<u8>>) {
        let Some((label, text)) = line.split_at_checked(26) else { return };
        if !matches!(label, [b'@', digits @ .., b' '] if digits.iter().all(u8::is_ascii_alphanumeric)) {
            return;
        }
        if has_bsd_header(text) {
            out.push(text.to_vec());
            return;
        }
        let mut message = (self.header)().into_bytes();
        message.push(b' ');
        append(&mut message, &self.name);
        append(&mut message, b": ");
        append(&mut message, text);
        out.push(message);
    }
}
