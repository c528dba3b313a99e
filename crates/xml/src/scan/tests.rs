use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Result<Vec<Element>, Diagnostic> {
    parse(&Source::new("etc/test.xml", text.as_bytes()))
}

fn only(text: &str) -> Element {
    let mut roots = read(text).expect("the text is valid");
    assert_eq!(roots.len(), 1, "{text}");
    roots.remove(0)
}

fn refused(text: &str) -> String {
    read(text).expect_err("the text is broken").message
}

#[test]
fn several_roots_are_kept_in_order_and_text_between_them_is_dropped() {
    let roots = read("\u{feff}<?xml version='1.0'?> one <a>1</a> two <b/> > three").unwrap();
    let names: Vec<_> = roots.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert!(read("").unwrap().is_empty());
}

#[test]
fn content_is_verbatim_with_blanks_and_entities() {
    assert_eq!(only("<a> x &lt; y\n </a>").content, b" x &lt; y\n ");
    assert_eq!(only("<a/>").content, b"");
    assert_eq!(only("<a b=\"c\" />").content, b"");
}

#[test]
fn an_odd_number_of_backslashes_keeps_a_tag_from_opening() {
    assert_eq!(only(r"<a>\<b> \\\<c></a>").content, br"\<b> \\\<c>");
    let two = only(r"<a>\\<b/></a>");
    assert_eq!(two.children.len(), 1);
    assert_eq!(only(r"<a>\</a></a>").content, br"\</a>");
}

#[test]
fn comments_vanish_and_the_content_continues() {
    assert_eq!(only("<a>x<!-- <b> > -- -->y<! z !>w</a>").content, b"xyw");
    assert_eq!(only("<a <!-- no --> b='1'>x</a>").attribute("b").unwrap().value, b"1");
    assert_eq!(refused("<a>x<!-- y </a>"), "the comment is never closed");
}

#[test]
fn attributes_may_hold_angle_brackets_and_either_quote() {
    let e = only("<a one=\"<x>'\" two= '\"' >t</a>");
    assert_eq!(e.attribute("one").unwrap().value, b"<x>'");
    assert_eq!(e.attribute("two").unwrap().value, b"\"");
    assert!(e.attribute("ONE").is_none());
}

#[test]
fn broken_attributes_are_refused() {
    assert_eq!(refused("<a b='1' b='2'/>"), "attribute `b` is given twice");
    assert_eq!(refused("<a b='1'c='2'/>"), "a blank, `/` or `>` must follow the value");
    assert_eq!(refused("<a b>x</a>"), "attribute `b` has no value");
    assert_eq!(refused("<a b=1>x</a>"), "the value of attribute `b` is not in quotes");
    assert_eq!(refused("<a b='1>x</a>"), "the value of attribute `b` has no closing quote");
    let many: String = (0..49).map(|n| format!(" a{n}=''")).collect();
    assert_eq!(refused(&format!("<a{many}/>")), "overflow: more than 48 attributes");
}

#[test]
fn a_closing_tag_must_equal_the_opening_one() {
    assert_eq!(refused("<a>\n<b></B></a>"), "`</B>` cannot close `b`, opened on line 2");
    assert_eq!(refused("</a>"), "`</a>` closes nothing");
    assert_eq!(refused("<a><b></b>"), "element `a` is never closed");
    assert_eq!(refused("<a>x < y</a>"), "`<` without the name of an element");
}

#[test]
fn limits_hold_at_their_edge() {
    let text = "x".repeat(MAX_TEXT);
    assert!(read(&format!("<a>{text}</a>")).is_ok());
    assert!(refused(&format!("<a>{text}x</a>")).starts_with("overflow: the content"));
    assert!(refused(&format!("<a b='{text}x'/>")).starts_with("overflow: the attribute"));
    assert!(refused(&format!("<{text}x/>")).starts_with("overflow: the name"));
    let nested = |n: usize| format!("{}{}", "<a>".repeat(n), "</a>".repeat(n));
    assert!(read(&nested(MAX_DEPTH)).is_ok());
    assert!(refused(&nested(MAX_DEPTH + 1)).starts_with("overflow: elements"));
}

#[test]
fn an_element_with_children_has_no_text() {
    let e = only("<a>one<b>two</b>three</a>");
    assert_eq!(e.content, b"");
    assert_eq!(e.children[0].content, b"two");
}

#[test]
fn variables_reach_later_texts_only_and_are_invisible() {
    let text = "<z>$X..</z><var name=\"X\">one</var><a b=\"$x|q\">$X, $(X) $ </a>";
    let roots = read(text).unwrap();
    assert_eq!(roots.len(), 2);
    assert_eq!(roots[0].content, b"$X..");
    assert_eq!(roots[1].content, b"one, $(X) $ ");
    assert_eq!(roots[1].attribute("b").unwrap().value, b"one|q");
}

#[test]
fn short_texts_are_not_searched_for_variables() {
    assert_eq!(read("<var name=\"X\">1</var><a>$Y</a>").unwrap()[0].content, b"$Y");
}

#[test]
fn an_unknown_variable_is_refused_only_after_a_definition() {
    assert_eq!(only("<a>$nope</a>").content, b"$nope");
    let error = read("<var name=\"X\">1</var>\n<a>one $nope two</a>").unwrap_err();
    assert_eq!(error.message, "unknown variable `$nope`");
    assert_eq!((error.line, error.column, error.width), (2, 8, 5));
}

#[test]
fn variables_that_multiply_each_other_are_stopped() {
    let big = "x".repeat(MAX_TEXT);
    let use_it = "$X ".repeat(6000);
    let text = format!("<var name='X'>{big}</var><a>{use_it}</a>");
    assert_eq!(refused(&text), "overflow: variables add too much text");
}

#[test]
fn spans_point_at_names_values_and_contents() {
    let text = "<a k=\"v\">text</a>";
    let source = Source::new("f", text.as_bytes());
    let e = parse(&source).unwrap().remove(0);
    assert_eq!(source.slice(e.name_span), b"a");
    assert_eq!(source.slice(e.span), text.as_bytes());
    assert_eq!(source.slice(e.content_span), b"text");
    assert_eq!(source.slice(e.attributes[0].span), b"k=\"v\"");
    assert_eq!(source.slice(e.attributes[0].value_span), b"v");
}

#[test]
fn a_diagnostic_renders_its_line_with_a_caret() {
    let source = Source::new("etc/ossec.conf", &b"<a>\n\t<b>\x1b[1mdrop</b>\n</a>"[..]);
    let span = Span { start: 12, end: 16 };
    let d = Diagnostic::error(&source, span, "command `drop` is not defined")
        .with_code(1303)
        .with_help("move it up");
    let lines = [
        "error[1303]: command `drop` is not defined",
        " --> etc/ossec.conf:2:9",
        "2 |  <b>\u{fffd}[1mdrop</b>",
        "  |         ^^^^",
        "  = help: move it up",
    ];
    assert_eq!(d.render(false), lines.join("\n"));
}

#[test]
fn a_diagnostic_without_a_place_names_the_file_and_the_line_if_known() {
    let mut d = Diagnostic::bare(Severity::Warning, "etc/ossec.conf", "no such file").with_help("add it");
    assert_eq!(d.render(false), "warning: no such file\n --> etc/ossec.conf\n  = help: add it");
    d.line = 12;
    assert_eq!(d.render(false), "warning: no such file\n  --> etc/ossec.conf:12\n   = help: add it");
}

#[test]
fn a_long_line_is_shown_as_a_window() {
    let text = format!("{}HERE{}", "a".repeat(5000), "b".repeat(5000));
    let source = Source::new("f", text.as_bytes());
    let d = Diagnostic::warning(&source, Span { start: 5000, end: 5004 }, "m");
    assert_eq!(d.column, 5001);
    assert!(d.source_line.len() <= 160);
    let rendered = d.render(false);
    let lines: Vec<_> = rendered.lines().collect();
    assert_eq!(lines[3].find("^^^^"), lines[2].find("HERE"));
}

fn shared() -> PathBuf {
    let fallback = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    std::env::var_os("TLD_SHARED").map_or(fallback, PathBuf::from)
}

#[test]
fn every_file_of_the_reference_ruleset_is_read() {
    let home = shared().join("conformance/home");
    if !home.is_dir() {
        assert!(std::env::var_os("TLD_REQUIRE_ALL").is_none() || std::env::var_os("TLD_SHARED").is_none());
        println!("skipped: no {}", home.display());
        return;
    }
    let mut files = 0;
    for dir in ["ruleset/decoders", "ruleset/rules", "etc/decoders", "etc/rules"] {
        for entry in std::fs::read_dir(home.join(dir)).unwrap() {
            let path = entry.unwrap().path();
            let source = Source::new(path.display().to_string(), std::fs::read(&path).unwrap());
            match parse(&source) {
                Ok(roots) => assert!(roots.iter().all(|e| !e.is("var"))),
                Err(d) => panic!("{}", d.render(false)),
            }
            files += 1;
        }
    }
    assert!(files > 100, "{files}");
}

proptest! {
    #[test]
    fn no_bytes_make_the_scanner_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Err(d) = parse(&Source::new("f", bytes)) {
            assert!(!d.render(true).is_empty());
        }
    }

    #[test]
    fn no_tag_soup_makes_the_scanner_panic(
        parts in proptest::collection::vec(
            proptest::sample::select(vec![
                "<a>", "</a>", "<a ", "b='", "'", "\"", "/>", ">", "<", "\\", "<!--", "-->", "!>", "<!",
                "$X", "$(", "|", "<var name='X'>", "</var>", "<?", "\n", "\u{e9}", "=", " ", "x",
            ]),
            0..60,
        )
    ) {
        let source = Source::new("f", parts.concat().into_bytes());
        match parse(&source) {
            Ok(roots) => for e in &roots {
                prop_assert!(source.slice(e.span).starts_with(b"<"));
            },
            Err(d) => prop_assert!(!d.render(true).is_empty()),
        }
    }
}
