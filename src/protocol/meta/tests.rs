//! Meta commands: options to flags, options that are refused, and what servers need.

use super::*;
use crate::protocol::{Command, Version, encode};

mod versions;

/// Unix time of these tests.
const NOW: i64 = 1_700_000_000;

fn meta(op: MetaOp<'_>) -> Meta<'_> {
    Meta {
        key: Key {
            bytes: b"a key",
            escape: true,
        },
        opaque: 0x1a2b,
        op,
        bad: None,
    }
}

fn get() -> Meta<'static> {
    meta(MetaOp::Get(MetaGet::default()))
}

fn set() -> Meta<'static> {
    let value = b"val";
    meta(MetaOp::Set(MetaSet {
        value,
        ..MetaSet::default()
    }))
}

fn delete() -> Meta<'static> {
    meta(MetaOp::Delete(MetaDelete::default()))
}

fn arith() -> Meta<'static> {
    meta(MetaOp::Arith(MetaArith::default()))
}

type Given<'a> = (&'a str, OptionValue<'a>);

fn with<'a>(mut meta: Meta<'a>, options: &[Given<'_>]) -> Meta<'a> {
    for (name, value) in options {
        meta.set_option(name.as_bytes(), *value, NOW);
    }
    meta
}

const YES: OptionValue<'_> = OptionValue::Boolean(true);
const NO: OptionValue<'_> = OptionValue::Boolean(false);

fn number(number: f64) -> OptionValue<'static> {
    OptionValue::Number(number)
}

fn text(text: &str) -> OptionValue<'_> {
    OptionValue::Text(text.as_bytes())
}

/// What is sent, without key and opaque, or the error.
fn sent(meta: &Meta<'_>) -> String {
    let mut out = Vec::new();
    match encode(&Command::Meta(meta), &mut out) {
        Ok(_) => {
            let text = String::from_utf8(out).unwrap();
            let (word, rest) = text.split_once(" a%20key").unwrap();
            let (len, flags) = rest.split_once(" O00001a2b").unwrap();
            format!("{word}{len}{flags}").replace("\r\n", "|")
        }
        Err(refused) => {
            assert!(out.is_empty());
            assert!(refused.why.starts_with(meta.word()), "{}", refused.why);
            refused.to_string()
        }
    }
}

#[track_caller]
fn table(new: fn() -> Meta<'static>, rows: &[(&[Given<'_>], &str)]) {
    for (options, want) in rows {
        assert_eq!(&sent(&with(new(), options)), want, "{options:?}");
    }
}

#[test]
fn what_mg_sends() {
    table(
        get,
        &[
            (&[], "mg v|"),
            (&[("value", YES)], "mg v|"),
            (&[("value", NO)], "mg|"),
            (&[("flags", YES)], "mg v f|"),
            (&[("cas", YES)], "mg v c|"),
            (&[("ttl", YES)], "mg v t|"),
            (&[("size", YES)], "mg v s|"),
            (&[("hit", YES)], "mg v h|"),
            (&[("last_access", YES)], "mg v l|"),
            (&[("no_bump", YES)], "mg u v|"),
            (&[("touch", number(30.0))], "mg T30 v|"),
            (&[("vivify", text("30"))], "mg N30 v|"),
            (&[("recache", number(0.0))], "mg R0 v|"),
            (
                &[("if_changed", text("18446744073709551615"))],
                "mg C18446744073709551615 v|",
            ),
            (
                &[
                    ("ttl", YES),
                    ("touch", number(500.0)),
                    ("recache", number(200.0)),
                    ("vivify", number(9.0)),
                ],
                "mg R200 N9 T500 v t|",
            ),
            (
                &[
                    ("cas", YES),
                    ("flags", YES),
                    ("size", YES),
                    ("cas", NO),
                    ("value", NO),
                ],
                "mg f s|",
            ),
        ],
    );
}

#[test]
fn what_ms_sends() {
    table(
        set,
        &[
            (&[], "ms 3|val|"),
            (&[("ttl", number(-1.0))], "ms 3 T-1|val|"),
            (&[("ttl", number(60.0))], "ms 3 T60|val|"),
            (&[("flags", text("4294967295"))], "ms 3 F4294967295|val|"),
            (&[("cas", text("007"))], "ms 3 C7|val|"),
            (&[("new_cas", number(5.0))], "ms 3 E5|val|"),
            (&[("return_cas", YES)], "ms 3 c|val|"),
            (&[("return_size", YES)], "ms 3 s|val|"),
            (&[("mode", text("set"))], "ms 3|val|"),
            (&[("mode", text("add"))], "ms 3 ME|val|"),
            (&[("mode", text("replace"))], "ms 3 MR|val|"),
            (&[("mode", text("append"))], "ms 3 MA|val|"),
            (&[("mode", text("prepend"))], "ms 3 MP|val|"),
            (
                &[
                    ("mode", text("append")),
                    ("vivify", number(30.0)),
                    ("flags", number(5.0)),
                ],
                "ms 3 F5 MA N30|val|",
            ),
            (
                &[("mode", text("prepend")), ("vivify", number(0.0))],
                "ms 3 MP N0|val|",
            ),
            (
                &[
                    ("mode", text("replace")),
                    ("ttl", number(1.0)),
                    ("flags", number(2.0)),
                    ("cas", number(3.0)),
                    ("new_cas", number(4.0)),
                    ("return_cas", YES),
                    ("return_size", YES),
                ],
                "ms 3 T1 F2 C3 E4 MR c s|val|",
            ),
            (
                &[("vivify", number(30.0))],
                "bad vivify option: only append and prepend need it",
            ),
            (
                &[("vivify", number(30.0)), ("mode", text("add"))],
                "bad vivify option: only append and prepend need it",
            ),
            (
                &[
                    ("ttl", number(30.0)),
                    ("mode", text("append")),
                    ("vivify", number(1.0)),
                ],
                "bad ttl option: append and prepend keep the expiry",
            ),
            (
                &[("flags", number(30.0)), ("mode", text("prepend"))],
                "bad flags option: append and prepend keep the flags",
            ),
        ],
    );
}

#[test]
fn what_md_sends() {
    table(
        delete,
        &[
            (&[], "md|"),
            (&[("cas", number(4.0))], "md C4|"),
            (&[("stale", YES)], "md I|"),
            (&[("stale", YES), ("ttl", number(30.0))], "md I T30|"),
            (&[("drop_value", YES)], "md x|"),
            (&[("drop_value", YES), ("new_cas", number(9.0))], "md E9 x|"),
            (
                &[
                    ("stale", YES),
                    ("new_cas", number(9.0)),
                    ("cas", number(8.0)),
                ],
                "md C8 E9 I|",
            ),
            (
                &[("ttl", number(30.0))],
                "bad ttl option: only with stale is there an item left",
            ),
            (
                &[("ttl", number(30.0)), ("drop_value", YES)],
                "bad ttl option: only with stale is there an item left",
            ),
            (
                &[("new_cas", number(30.0))],
                "bad new_cas option: only with stale or drop_value is there an item left",
            ),
        ],
    );
}

#[test]
fn what_ma_sends() {
    table(
        arith,
        &[
            (&[], "ma v|"),
            (
                &[("delta", text("18446744073709551615"))],
                "ma D18446744073709551615 v|",
            ),
            (&[("decr", YES)], "ma MD v|"),
            (&[("vivify", number(60.0))], "ma N60 v|"),
            (
                &[("vivify", number(60.0)), ("initial", number(1.0))],
                "ma N60 J1 v|",
            ),
            (&[("ttl", number(5.0))], "ma T5 v|"),
            (&[("cas", number(5.0))], "ma C5 v|"),
            (&[("return_ttl", YES)], "ma v t|"),
            (
                &[
                    ("delta", number(2.0)),
                    ("decr", YES),
                    ("vivify", number(3.0)),
                    ("initial", number(4.0)),
                    ("ttl", number(5.0)),
                    ("cas", number(6.0)),
                    ("return_ttl", YES),
                ],
                "ma N3 J4 D2 MD T5 C6 v t|",
            ),
            (
                &[("initial", number(1.0))],
                "bad initial option: only with vivify is there a number made",
            ),
        ],
    );
}

#[test]
fn a_version_is_compared_with_only_if_the_value_is_wanted() {
    let options = [("if_changed", number(1.0)), ("value", NO)];
    let refused = "bad if_changed option: no value is wanted";
    assert_eq!(sent(&with(get(), &options)), refused);
}

#[test]
fn options_of_other_commands_do_not_exist() {
    for (new, names) in [
        (
            get as fn() -> Meta<'static>,
            &["mode", "delta", "q", "", "Value", "value "][..],
        ),
        (set, &["value", "touch", "delta", "stale"]),
        (delete, &["value", "mode", "vivify", "return_cas"]),
        (arith, &["value", "mode", "stale", "return_cas"]),
    ] {
        for name in names {
            let refused = sent(&with(new(), &[(name, YES)]));
            assert_eq!(
                refused,
                format!("bad options: there is no option \"{name}\"")
            );
        }
    }
    let mut other = get();
    other.bad = Some(BadOption::no_table(OptionValue::Number(7.0)));
    assert_eq!(sent(&other), "bad options: expecting a table, got 7");
    other.bad = Some(BadOption::unknown(OptionValue::Other("function")));
    assert_eq!(sent(&other), "bad options: there is no option a function");
}

#[test]
fn the_first_bad_option_is_told() {
    let meta = with(get(), &[("one", YES), ("two", YES)]);
    assert_eq!(sent(&meta), "bad options: there is no option \"one\"");
}

#[test]
fn values_of_options() {
    let u64_text = "an integer from 0 to 2^64-1";
    let u32_text = "an integer from 0 to 2^32-1";
    let any = "a number of seconds";
    let span = "a number of seconds, at least 0";
    let modes = "set, add, replace, append or prepend";
    for (new, name, value, expected, seen) in [
        (
            get as fn() -> Meta<'static>,
            "flags",
            number(1.0),
            "a boolean",
            "1",
        ),
        (get, "value", text("yes"), "a boolean", "\"yes\""),
        (
            set,
            "return_cas",
            OptionValue::Other("table"),
            "a boolean",
            "a table",
        ),
        (set, "mode", text("Set"), modes, "\"Set\""),
        (set, "mode", YES, modes, "true"),
        (set, "cas", NO, u64_text, "false"),
        (set, "cas", number(-1.0), u64_text, "-1"),
        (set, "cas", number(0.5), u64_text, "0.5"),
        (set, "cas", number(f64::NAN), u64_text, "NaN"),
        (set, "cas", number(f64::INFINITY), u64_text, "inf"),
        (
            set,
            "cas",
            number(18_446_744_073_709_551_616.0),
            u64_text,
            "18446744073709552000",
        ),
        (
            set,
            "cas",
            text("18446744073709551616"),
            u64_text,
            "\"18446744073709551616\"",
        ),
        (set, "cas", text(""), u64_text, "\"\""),
        (set, "cas", text("-"), u64_text, "\"-\""),
        (set, "cas", text("-1"), u64_text, "\"-1\""),
        (set, "cas", text("+1"), u64_text, "\"+1\""),
        (set, "cas", text("1 "), u64_text, "\"1 \""),
        (set, "cas", text("0x1"), u64_text, "\"0x1\""),
        (
            set,
            "cas",
            text("1\r\nflush_all"),
            u64_text,
            "\"1\\r\\nflush_all\"",
        ),
        (
            set,
            "cas",
            text("000000000000000000001"),
            u64_text,
            "\"000000000000000000001\"",
        ),
        (set, "flags", text("4294967296"), u32_text, "\"4294967296\""),
        (set, "flags", number(-1.0), u32_text, "-1"),
        (set, "ttl", number(2_147_483_648.0), any, "2147483648"),
        (set, "ttl", text("soon"), any, "\"soon\""),
        (get, "touch", number(1.5), any, "1.5"),
        (get, "touch", number(-2_147_483_649.0), any, "-2147483649"),
        (get, "vivify", number(-1.0), span, "-1"),
        (get, "recache", number(-1.0), span, "-1"),
        (set, "vivify", number(-1.0), span, "-1"),
        (arith, "vivify", text("-1"), span, "\"-1\""),
        (arith, "delta", number(-1.0), u64_text, "-1"),
        (delete, "ttl", YES, any, "true"),
    ] {
        let want = format!("bad {name} option: expecting {expected}, got {seen}");
        assert_eq!(sent(&with(new(), &[(name, value)])), want);
    }
    // as far as numbers of Lua go
    let largest = [("cas", number(18_446_744_073_709_549_568.0))];
    assert_eq!(
        sent(&with(set(), &largest)),
        "ms 3 C18446744073709549568|val|"
    );
    let zero = [("cas", number(-0.0)), ("ttl", text("-0"))];
    assert_eq!(sent(&with(set(), &zero)), "ms 3 T0 C0|val|");
    let least = [("ttl", text("-2147483648"))];
    assert_eq!(sent(&with(set(), &least)), "ms 3 T-2147483648|val|");
    // a text of 20 bytes
    let long = [("cas", text("00000000000000000017"))];
    assert_eq!(sent(&with(set(), &long)), "ms 3 C17|val|");
}

#[test]
fn a_time_long_ago_is_refused() {
    let ago = |name, seconds| {
        format!(
            "bad {name} option: {seconds} is neither up to 2592000 seconds nor a Unix time to come"
        )
    };
    for (new, name, flag) in [
        (get as fn() -> Meta<'static>, "touch", "mg T{} v|"),
        (get, "vivify", "mg N{} v|"),
        (get, "recache", "mg R{} v|"),
        (set, "ttl", "ms 3 T{}|val|"),
        (arith, "ttl", "ma T{} v|"),
        (arith, "vivify", "ma N{} v|"),
    ] {
        for (seconds, good) in [
            (2_592_000, true),
            (2_592_001, false),
            (1_700_000_000, false),
            (1_700_000_001, true),
            (i32::MAX, true),
        ] {
            let seen = sent(&with(new(), &[(name, number(seconds.into()))]));
            let want = match good {
                true => flag.replace("{}", &seconds.to_string()),
                false => ago(name, seconds),
            };
            assert_eq!(seen, want);
        }
    }
}

#[test]
fn opaques_have_eight_digits() {
    for (opaque, text) in [
        (0, "O00000000"),
        (0xfedc_ba98, "Ofedcba98"),
        (0x7654_3210, "O76543210"),
    ] {
        let mut meta = delete();
        meta.opaque = opaque;
        let mut out = Vec::new();
        let expect = encode(&Command::Meta(&meta), &mut out).unwrap();
        assert_eq!(out, format!("md a%20key {text}\r\n").as_bytes());
        assert_eq!(
            &out[expect.start..expect.end],
            format!("a%20key {text}").as_bytes()
        );
        assert_eq!(expect.begin, 0);
    }
    let set = set();
    let mut out = Vec::new();
    let expect = encode(&Command::Meta(&set), &mut out).unwrap();
    assert_eq!(&out[expect.start..expect.end], b"a%20key 3 O00001a2b");
}

#[test]
fn keys() {
    let answer = |bytes: &[u8], escape| {
        let mut meta = get();
        meta.key = Key { bytes, escape };
        encode(&Command::Meta(&meta), &mut Vec::new()).map_err(|refused| refused.to_string())
    };
    assert!(answer(&[b'k'; 250], true).is_ok());
    let format = "CLIENT_ERROR bad command line format";
    assert_eq!(answer(&[b'k'; 251], true).unwrap_err(), format);
    assert_eq!(answer(&[b' '; 84], true).unwrap_err(), format);
    assert_eq!(answer(b"", true).unwrap_err(), "ERROR");
    let word = "bad key: contains whitespace or control characters";
    assert_eq!(answer(b"a v\r\n", false).unwrap_err(), word);
}

#[test]
fn words_and_values() {
    for (meta, word, value) in [
        (get(), "mg", &b""[..]),
        (set(), "ms", b"val"),
        (delete(), "md", b""),
        (arith(), "ma", b""),
    ] {
        let command = Command::Meta(&meta);
        assert_eq!((command.word(), command.value()), (word, value));
        assert!(command.can_share());
    }
    assert_eq!(Command::MetaNoop.word(), "mn");
    assert_eq!(Command::Version.value(), b"");
    let empty = meta(MetaOp::Set(MetaSet::default()));
    assert_eq!(sent(&empty), "ms 0||");
}
