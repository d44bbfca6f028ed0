//! What a server has to be for each command and option.

use super::*;

#[test]
fn needed_versions() {
    let vivify = [("vivify", number(1.0)), ("mode", text("append"))];
    let prepend = [("vivify", number(1.0)), ("mode", text("prepend"))];
    let new = number(1.0);
    for (meta, since, what) in [
        (
            with(get(), &[("if_changed", new), ("cas", YES)]),
            (1, 6, 10),
            "meta commands",
        ),
        (with(arith(), &[("cas", new)]), (1, 6, 10), "meta commands"),
        (set(), (1, 6, 10), "meta commands"),
        (delete(), (1, 6, 10), "meta commands"),
        (with(set(), &[("cas", new)]), (1, 6, 10), "meta commands"),
        (
            with(set(), &[("return_cas", YES)]),
            (1, 6, 13),
            "return_cas",
        ),
        (
            with(set(), &[("return_size", YES)]),
            (1, 6, 20),
            "return_size",
        ),
        (with(set(), &vivify), (1, 6, 20), "vivify with append"),
        (with(set(), &prepend), (1, 6, 20), "vivify with prepend"),
        (
            with(set(), &[("new_cas", new), ("return_size", YES)]),
            (1, 6, 27),
            "new_cas",
        ),
        (
            with(delete(), &[("cas", new)]),
            (1, 6, 13),
            "cas with delete",
        ),
        (
            with(delete(), &[("stale", YES)]),
            (1, 6, 10),
            "meta commands",
        ),
        (
            with(delete(), &[("drop_value", YES), ("cas", new)]),
            (1, 6, 27),
            "drop_value",
        ),
        (
            with(delete(), &[("new_cas", new), ("stale", YES)]),
            (1, 6, 27),
            "new_cas",
        ),
    ] {
        let (major, minor, patch) = since;
        let since = Version::new(major, minor, patch);
        assert_eq!(meta.needs(), Needs { since, what });
    }
}
