//! Attributes of the `rule` element (analysis-rules 1.1). Every problem here refuses the load, because a rule whose
//! number or level is in doubt cannot be placed.

use tld_xml::{Attribute, Diagnostic, Element, Source};

use super::subject::Subject;

/// The attributes of one rule.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    pub(crate) id: u32,
    pub(crate) level: u8,
    pub(crate) max_size: Option<usize>,
    /// As written.
    pub(crate) frequency: Option<u32>,
    pub(crate) timeframe: Option<u32>,
    pub(crate) ignore: Option<u32>,
    pub(crate) ignore_by: Vec<Subject>,
    pub(crate) behind_others: bool,
    pub(crate) noalert: bool,
    pub(crate) overwrite: bool,
}

/// Reads them; `None` when one of them is wrong, which has then been reported.
pub(crate) fn read(source: &Source, rule: &Element, diagnostics: &mut Vec<Diagnostic>) -> Option<Attributes> {
    let mut read = Attributes::default();
    let (mut id, mut level) = (None, None);
    let errors = diagnostics.len();
    for attribute in &rule.attributes {
        let number = |digits, least, most, diagnostics: &mut Vec<Diagnostic>| {
            number(source, attribute, digits, least..=most, diagnostics)
        };
        match attribute.name.as_str() {
            "id" => id = number(6, 0, 999_999, diagnostics),
            "level" => level = number(2, 0, 16, diagnostics),
            "maxsize" => read.max_size = number(4, 0, 9999, diagnostics).map(|size| size as usize),
            "frequency" => read.frequency = number(4, 2, 9999, diagnostics),
            "timeframe" => read.timeframe = number(5, 0, 99_999, diagnostics),
            "ignore" => read.ignore = number(6, 0, 999_999, diagnostics).filter(|seconds| *seconds > 0),
            "ignore_by" => read.ignore_by = windows(source, attribute, diagnostics),
            "accuracy" => read.behind_others = number(1, 0, 9, diagnostics) == Some(0),
            "noalert" => match &*attribute.value {
                b"1" => read.noalert = true,
                b"0" => {}
                _ => diagnostics.push(Diagnostic::warning(
                    source,
                    attribute.span,
                    "`noalert` is neither `0` nor `1`, ignored",
                )),
            },
            "overwrite" => match attribute.text().to_ascii_lowercase().as_str() {
                "yes" => read.overwrite = true,
                "no" => {}
                other => diagnostics.push(wrong(source, attribute, other, "`yes` or `no`")),
            },
            other => diagnostics.push(Diagnostic::error(
                source,
                attribute.span,
                format!("a rule has no attribute `{other}`"),
            )),
        }
    }
    if !read.ignore_by.is_empty() && read.ignore.is_none() {
        diagnostics.push(
            Diagnostic::error(source, rule.name_span, "`ignore_by` without `ignore` has no window to divide")
                .with_help("add `ignore=\"SECONDS\"`"),
        );
    }
    for (name, value) in [("id", id), ("level", level)] {
        if value.is_none() && rule.attribute(name).is_none() {
            diagnostics.push(Diagnostic::error(source, rule.name_span, format!("rule without `{name}`")));
        }
    }
    if diagnostics[errors..].iter().any(Diagnostic::is_error) {
        return None;
    }
    read.id = id?;
    read.level = u8::try_from(level?).ok()?;
    Some(read)
}

fn number(
    source: &Source,
    attribute: &Attribute,
    digits: usize,
    range: std::ops::RangeInclusive<u32>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<u32> {
    let text = attribute.text();
    let plain = (1..=digits).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| plain && range.contains(number));
    if number.is_none() {
        let wanted = format!("a number from {} to {}", range.start(), range.end());
        diagnostics.push(wrong(source, attribute, &text, &wanted));
    }
    number
}

fn windows(source: &Source, attribute: &Attribute, diagnostics: &mut Vec<Diagnostic>) -> Vec<Subject> {
    let text = attribute.text();
    let names: Vec<&str> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        diagnostics.push(wrong(source, attribute, &text, "a comma list of field names"));
    }
    names.into_iter().map(Subject::of_window).collect()
}

fn wrong(source: &Source, attribute: &Attribute, value: &str, wanted: &str) -> Diagnostic {
    Diagnostic::error(
        source,
        attribute.value_span,
        format!("`{}` is `{value}`, expected {wanted}", attribute.name),
    )
}
