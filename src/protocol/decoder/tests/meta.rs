//! Replies to meta commands.

use super::*;
use crate::protocol::{Meta, MetaArith, MetaDelete, MetaGet, MetaOp, MetaSet};

const OPAQUE: &str = "bad reply: unexpected opaque";
const FLAGS: &str = "bad reply: unexpected flags";
const LINE: &str = "bad reply: unexpected line";

fn meta(op: MetaOp<'_>) -> Meta<'_> {
    Meta {
        key: key(b"k"),
        opaque: 7,
        op,
        bad: None,
    }
}

fn get(get: MetaGet) -> Meta<'static> {
    meta(MetaOp::Get(get))
}

/// As [`super::table`], with `#` for the opaque in a reply.
#[track_caller]
fn table(meta: &Meta<'_>, rows: &[(&str, &str, Then)]) {
    for (bytes, reply, then) in rows {
        let bytes = bytes.replace('#', "O00000007").replace('|', "\r\n");
        super::table(Command::Meta(meta), &[(&bytes, reply, *then)]);
        // however it comes
        let mut pipeline = asked(&Command::Meta(meta));
        let mut said = Vec::new();
        for byte in bytes.as_bytes() {
            said.extend(receive(&mut pipeline, &[*byte]));
        }
        let said = said.pop().map_or(String::new(), |(_, reply)| show(&reply));
        assert_eq!(&said, reply, "{bytes:?} byte by byte");
        assert_eq!(pipeline.is_broken(), *then == Broken);
    }
}

#[test]
fn values_of_mg() {
    table(
        &get(MetaGet::default()),
        &[
            ("EN|", "miss", Quiet),
            ("EN #|", "miss", Quiet),
            ("EN  #|", "miss", Quiet),
            ("EN |", "miss", Quiet),
            ("VA 2 #|ab|", "item \"ab\"", Quiet),
            ("VA 0 #||", "item \"\"", Quiet),
            ("VA 4 #|\r\nVA|", "item \"\\\\r\\\\nVA\"", Quiet),
            ("VA 2 # W|ab|", "item \"ab\" won", Quiet),
            ("VA 2 # X W|ab|", "item \"ab\" won stale", Quiet),
            ("VA 2 # Z X|ab|", "item \"ab\" stale lost", Quiet),
            ("VA  2  #  W |ab|", "item \"ab\" won", Quiet),
            ("VA 02 #|ab|", "item \"ab\"", Quiet),
            ("VA 2 #|a", "", Waits),
            ("VA 2 #|ab", "", Waits),
            ("VA 2 #|ab\r", "", Waits),
            ("VA 2 #|abc|", BAD_CRLF, Broken),
            ("VA 2 #\nab|", "item \"ab\"", Quiet),
        ],
    );
}

#[test]
fn what_is_no_reply_to_mg() {
    table(
        &get(MetaGet::default()),
        &[
            ("|", LINE, Broken),
            (" VA 2 #|ab|", LINE, Broken),
            ("HD #|", LINE, Broken),
            ("VA|", OPAQUE, Broken),
            ("VA #|", OPAQUE, Broken),
            ("VA 2|ab|", OPAQUE, Broken),
            ("VA 2 O1|ab|", OPAQUE, Broken),
            ("VA 2 O00000006|ab|", OPAQUE, Broken),
            ("VA 2 O000000077|ab|", OPAQUE, Broken),
            ("VA 2 # #|ab|", OPAQUE, Broken),
            ("VA x #|ab|", LINE, Broken),
            ("VA -1 #|ab|", LINE, Broken),
            ("VA 2x #|ab|", LINE, Broken),
            (
                "VA 100001 #|",
                "bad reply: value of 100001 bytes exceeds the limit of 100000",
                Broken,
            ),
            (
                "VA 18446744073709551616 #|",
                "bad reply: value length out of range",
                Broken,
            ),
            (
                "VA 000000000000000000002 #|",
                "bad reply: value length out of range",
                Broken,
            ),
            ("VA 2 # f0|ab|", FLAGS, Broken),
            ("VA 2 # q|ab|", FLAGS, Broken),
            ("VA 2 # W W|ab|", FLAGS, Broken),
            ("VA 2 # W1|ab|", FLAGS, Broken),
            ("VA 2 # kk|ab|", FLAGS, Broken),
            ("EN # v|", FLAGS, Broken),
            ("EN O1|", OPAQUE, Broken),
            ("EN W|", OPAQUE, Broken),
            ("NF #|", LINE, Broken),
            ("NS #|", LINE, Broken),
            ("EX #|", LINE, Broken),
            ("END|", LINE, Broken),
            ("VALUE k 0 2|ab|END|", LINE, Broken),
            ("MN|", LINE, Broken),
            ("VERSION 1.6.18|", LINE, Broken),
            ("ERROR|", "line ERROR", Quiet),
            (
                "CLIENT_ERROR bad data|",
                "line CLIENT_ERROR bad data",
                Quiet,
            ),
            (
                "SERVER_ERROR out of memory|",
                "line SERVER_ERROR out of memory",
                Quiet,
            ),
        ],
    );
}

#[test]
fn fields_of_mg() {
    let all = get(MetaGet {
        flags: true,
        cas: true,
        ttl: true,
        size: true,
        hit: true,
        last_access: true,
        ..MetaGet::default()
    });
    let whole = "item \"ab\" flags=5 cas=12 ttl=29 size=2 hit=true last_access=3";
    table(
        &all,
        &[
            ("VA 2 # f5 c12 t29 s2 h1 l3|ab|", whole, Quiet),
            ("VA 2 l3 h1 s2 t29 c12 f5 #|ab|", whole, Quiet),
            ("VA 2 # f5 c12 t29 s2 h1|ab|", FLAGS, Broken),
            ("VA 2 # c12 t29 s2 h1 l3|ab|", FLAGS, Broken),
            ("VA 2 # f5 f5 c12 t29 s2 h1 l3|ab|", FLAGS, Broken),
            ("VA 2 # f5 c12 t29 s2 h2 l3|ab|", FLAGS, Broken),
            ("VA 2 # f5 c12 t29 s2 h l3|ab|", FLAGS, Broken),
            ("VA 2 # f c12 t29 s2 h1 l3|ab|", FLAGS, Broken),
            ("VA 2 # f-5 c12 t29 s2 h1 l3|ab|", FLAGS, Broken),
            (
                "VA 2 # f5 c18446744073709551616 t29 s2 h1 l3|ab|",
                FLAGS,
                Broken,
            ),
            ("VA 2 # f5 c12 t-2 s2 h1 l3|ab|", FLAGS, Broken),
            ("VA 2 # f5 c12 t4294967296 s2 h1 l3|ab|", FLAGS, Broken),
            ("VA 2 # f5 c12 t s2 h1 l3|ab|", FLAGS, Broken),
            ("VA 2 # f5 c12 t29 sx h1 l3|ab|", FLAGS, Broken),
            ("VA 2 # f5 c12 t29 s2 h1 l|ab|", FLAGS, Broken),
            (
                "VA 2 # f0 c0 t-1 s0 h0 l0|ab|",
                "item \"ab\" flags=0 cas=0 ttl=-1 size=0 hit=false last_access=0",
                Quiet,
            ),
            // a negative number as an unsigned one
            (
                "VA 2 # f0 c0 t4294967231 s0 h0 l0|ab|",
                "item \"ab\" flags=0 cas=0 ttl=0 size=0 hit=false last_access=0",
                Quiet,
            ),
            (
                "VA 2 # f0 c0 t2147483647 s0 h0 l0|ab|",
                "item \"ab\" flags=0 cas=0 ttl=2147483647 size=0 hit=false last_access=0",
                Quiet,
            ),
        ],
    );
}

#[test]
fn without_the_value() {
    let none = get(MetaGet {
        value: false,
        ttl: true,
        ..MetaGet::default()
    });
    table(
        &none,
        &[
            ("HD # t5|", "item ttl=5", Quiet),
            ("HD # t5 W|", "item ttl=5 won", Quiet),
            ("HD t5|", OPAQUE, Broken),
            ("HD|", OPAQUE, Broken),
            ("HD #|", FLAGS, Broken),
            ("VA 1 # t5|x|", LINE, Broken),
            ("EN|", "miss", Quiet),
        ],
    );
    let if_changed = get(MetaGet {
        if_changed: Some(3),
        ..MetaGet::default()
    });
    table(
        &if_changed,
        &[
            ("HD #|", "item", Quiet),
            ("VA 1 #|x|", "item \"x\"", Quiet),
            ("EN #|", "miss", Quiet),
        ],
    );
}

#[test]
fn replies_to_ms() {
    let plain = meta(MetaOp::Set(MetaSet::default()));
    table(
        &plain,
        &[
            ("HD #|", "item", Quiet),
            ("HD  # |", "item", Quiet),
            ("NS #|", "line NOT_STORED", Quiet),
            ("EX #|", "line EXISTS", Quiet),
            ("NF #|", "line NOT_FOUND", Quiet),
            ("NF |", "line NOT_FOUND", Quiet),
            ("HD|", OPAQUE, Broken),
            ("NS O1|", OPAQUE, Broken),
            ("HD # W|", FLAGS, Broken),
            ("HD # c1|", FLAGS, Broken),
            ("NS # c0|", FLAGS, Broken),
            ("VA 1 #|x|", LINE, Broken),
            ("EN #|", LINE, Broken),
            ("STORED|", LINE, Broken),
            (
                "SERVER_ERROR object too large for cache|",
                "line SERVER_ERROR object too large for cache",
                Quiet,
            ),
            ("SERVER_ERROR|", "line SERVER_ERROR", Quiet),
            (
                "CLIENT_ERROR bad data chunk|",
                "line CLIENT_ERROR bad data chunk",
                Broken,
            ),
            ("ERROR|", "line ERROR", Broken),
        ],
    );
    let asks = meta(MetaOp::Set(MetaSet {
        return_cas: true,
        return_size: true,
        ..MetaSet::default()
    }));
    table(
        &asks,
        &[
            ("HD # c9 s2|", "item cas=9 size=2", Quiet),
            ("HD # c9|", FLAGS, Broken),
            ("NS # c0 s2|", "line NOT_STORED", Quiet),
            ("EX #|", "line EXISTS", Quiet),
            ("EX # c0 c0|", FLAGS, Broken),
            ("EX # cx|", FLAGS, Broken),
        ],
    );
}

#[test]
fn replies_to_md() {
    let delete = meta(MetaOp::Delete(MetaDelete::default()));
    table(
        &delete,
        &[
            ("HD #|", "item", Quiet),
            ("NF #|", "line NOT_FOUND", Quiet),
            ("EX #|", "line EXISTS", Quiet),
            ("NS #|", LINE, Broken),
            ("EN #|", LINE, Broken),
            ("DELETED|", LINE, Broken),
            ("HD # X|", FLAGS, Broken),
            ("ERROR|", "line ERROR", Quiet),
        ],
    );
}

#[test]
fn replies_to_ma() {
    let arith = meta(MetaOp::Arith(MetaArith {
        return_ttl: true,
        ..MetaArith::default()
    }));
    let no_number = "bad reply: value is not a number";
    table(
        &arith,
        &[
            ("VA 2 # t60|17|", "item \"17\" ttl=60", Quiet),
            (
                "VA 20 # t-1|18446744073709551615|",
                "item \"18446744073709551615\" ttl=-1",
                Quiet,
            ),
            ("NF #|", "line NOT_FOUND", Quiet),
            ("NS #|", "line NOT_STORED", Quiet),
            ("EX #|", "line EXISTS", Quiet),
            ("EN #|", LINE, Broken),
            ("HD # t60|", LINE, Broken),
            ("VA 2 #|17|", FLAGS, Broken),
            ("VA 0 # t60||", no_number, Broken),
            ("VA 2 # t60|1 |", no_number, Broken),
            ("VA 2 # t60|-1|", no_number, Broken),
            ("VA 21 # t60|000000000000000000001|", no_number, Broken),
            (
                "CLIENT_ERROR cannot increment|",
                "line CLIENT_ERROR cannot increment",
                Quiet,
            ),
        ],
    );
}

#[test]
fn large_values_of_mg() {
    let get = get(MetaGet::default());
    let value = "0123456789".repeat(5000);
    let bytes = format!("VA 50000 O00000007\r\n{value}\r\n");
    let mut pipeline = asked(&Command::Meta(&get));
    for (at, piece) in bytes.as_bytes().chunks(7001).enumerate() {
        let last = at == bytes.len() / 7001;
        let mut replies = receive(&mut pipeline, piece);
        match replies.pop() {
            Some((1, Reply::Meta(item))) if last => {
                assert_eq!(item.value.as_deref(), Some(value.as_bytes()));
            }
            None if !last => assert!(pipeline.is_amid_reply()),
            other => panic!("{other:?}"),
        }
    }
    assert!(pipeline.is_quiet() && !pipeline.is_amid_reply());
}

#[test]
fn replies_one_after_the_other() {
    let (one, two) = (
        get(MetaGet::default()),
        meta(MetaOp::Set(MetaSet::default())),
    );
    let two = Meta { opaque: 8, ..two };
    let mut pipeline = asked(&Command::Meta(&one));
    pipeline.submit(2, &Command::Meta(&two)).unwrap();
    pipeline
        .submit(
            3,
            &Command::Get {
                key: key(b"k"),
                cas: false,
            },
        )
        .unwrap();
    pipeline.submit(4, &Command::Meta(&one)).unwrap();
    let n = pipeline.unsent().len();
    pipeline.sent(n);
    let text = b"VA 1 O00000007\r\nx\r\nHD O00000008\r\nVALUE k 0 1\r\ny\r\nEND\r\nEN\r\n";
    let all: Vec<_> = receive(&mut pipeline, text)
        .iter()
        .map(|(tag, reply)| format!("{tag} {}", show(reply)))
        .collect();
    assert_eq!(all, ["1 item \"x\"", "2 item", "3 value y 0", "4 miss"]);
    assert!(pipeline.is_quiet());
    // none of it stays for the next one
    pipeline.submit(5, &Command::Meta(&one)).unwrap();
    let n = pipeline.unsent().len();
    pipeline.sent(n);
    let bad = receive(&mut pipeline, b"VA 1 O00000008\r\nx\r\n");
    assert_eq!(show(&bad[0].1), OPAQUE);
    assert!(pipeline.is_broken());
}

#[test]
fn what_a_server_says_of_itself() {
    let say = |command: &Command<'_>, reply: &[u8]| {
        let mut pipeline = Pipeline::new(LIMITS);
        pipeline.submit(1, command).unwrap();
        let n = pipeline.unsent().len();
        pipeline.sent(n);
        let said = receive(&mut pipeline, reply);
        (show(&said[0].1), pipeline.server())
    };
    let other = |meta| Server::Other { meta };
    for (command, reply, said, server) in [
        (
            Command::Version,
            "VERSION 1.6.18",
            "version 1.6.18",
            Server::Memcached(Version::new(1, 6, 18)),
        ),
        (Command::Version, "VERSION x", "version x", other(None)),
        (Command::Version, "ERROR", "line ERROR", Server::Unknown),
        (Command::Version, "VERSION", "line VERSION", Server::Unknown),
        (Command::MetaNoop, "MN", "done", other(Some(true))),
        (Command::MetaNoop, "ERROR", "done", other(Some(false))),
        (
            Command::MetaNoop,
            "CLIENT_ERROR what",
            "done",
            other(Some(false)),
        ),
        (Command::MetaNoop, "OK", "line OK", Server::Unknown),
        (
            Command::Verbosity { level: Some(b"1") },
            "OK",
            "done",
            Server::Unknown,
        ),
    ] {
        let (seen, known) = say(&command, format!("{reply}\r\n").as_bytes());
        assert_eq!(
            (seen.as_str(), known),
            (said, server),
            "{command:?} {reply}"
        );
    }
}
