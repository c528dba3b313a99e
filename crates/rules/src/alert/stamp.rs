//! Times in alerts, written without the machinery of `fmt`.

use tld_model::LocalTime;

/// Appends the last digits of a number.
fn digits<const N: usize>(number: u32, out: &mut Vec<u8>) {
    let mut text = [0; N];
    let mut rest = number;
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&text);
}

/// [`LocalTime::alert_stamp`]; years beyond four digits go the long way.
pub(super) fn alert(at: &LocalTime, out: &mut Vec<u8>) {
    match u32::try_from(at.year) {
        Ok(year @ 0..=9999) => {
            digits::<4>(year, out);
            for (mark, number) in [(b'-', at.month), (b'-', at.day), (b'T', at.hour)] {
                out.push(mark);
                digits::<2>(u32::from(number), out);
            }
            clock(at, out);
            out.push(b'.');
            digits::<3>(at.millis, out);
            out.push(if at.offset < 0 { b'-' } else { b'+' });
            let minutes = at.offset.unsigned_abs() / 60;
            digits::<2>(minutes / 60, out);
            digits::<2>(minutes % 60, out);
        }
        _ => out.extend_from_slice(at.alert_stamp().to_string().as_bytes()),
    }
}

/// [`LocalTime::plain_stamp`].
pub(super) fn plain(at: &LocalTime, out: &mut Vec<u8>) {
    match u32::try_from(at.year) {
        Ok(year @ 0..=9999) => {
            digits::<4>(year, out);
            out.push(b' ');
            out.extend_from_slice(at.month_name().as_bytes());
            for number in [at.day, at.hour] {
                out.push(b' ');
                digits::<2>(u32::from(number), out);
            }
            clock(at, out);
        }
        _ => out.extend_from_slice(at.plain_stamp().to_string().as_bytes()),
    }
}

/// Minutes and seconds behind the hour.
fn clock(at: &LocalTime, out: &mut Vec<u8>) {
    for number in [at.minute, at.second] {
        out.push(b':');
        digits::<2>(u32::from(number), out);
    }
}
