//! What of a server's name is hashed. A name is what the configuration says behind `server`:
//! `a:11211`, `a`, `[::1]:11211`, `unix:/path`.

/// memcached's port, which ketama leaves out.
const DEFAULT_PORT: &[u8] = b"11211";

/// The port that nginx takes where none is written.
pub const NGINX_PORT: &[u8] = b"80";

/// A name in its parts, as nginx splits it for its ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts<'a> {
    /// The path of a unix socket.
    Unix(&'a [u8]),
    /// A host, with the brackets of an IPv6 address, and the port if written.
    Host(&'a [u8], Option<&'a [u8]>),
}

/// Splits a name.
pub fn parts(name: &[u8]) -> Parts<'_> {
    if let Some((scheme, path)) = name.split_at_checked(5)
        && scheme.eq_ignore_ascii_case(b"unix:")
    {
        return Parts::Unix(path);
    }
    let digits = name.iter().rev().take_while(|c| c.is_ascii_digit()).count();
    let (head, port) = name.split_at(name.len().saturating_sub(digits));
    match head {
        [host @ .., b':'] => Parts::Host(host, Some(port)),
        _ => Parts::Host(name, None),
    }
}

/// Whether the name says a port, or needs none.
pub fn has_port(name: &[u8]) -> bool {
    !matches!(parts(name), Parts::Host(_, None))
}

/// The name by which ketama knows a server, as libmemcached has it: without memcached's port,
/// without brackets, and a path with the port 0.
pub fn ketama_name(name: &[u8]) -> Vec<u8> {
    match parts(name) {
        Parts::Unix(path) => [path, b":0"].concat(),
        Parts::Host(host, port) => {
            let bare = match host {
                [b'[', bare @ .., b']'] => bare,
                _ => host,
            };
            match port.unwrap_or(NGINX_PORT) {
                DEFAULT_PORT => bare.to_vec(),
                port => [bare, b":", port].concat(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host<'a>(host: &'a str, port: Option<&'a str>) -> Parts<'a> {
        Parts::Host(host.as_bytes(), port.map(str::as_bytes))
    }

    #[test]
    fn split() {
        assert_eq!(parts(b"a:11211"), host("a", Some("11211")));
        assert_eq!(parts(b"a"), host("a", None));
        assert_eq!(parts(b"10.0.0.1"), host("10.0.0.1", None));
        assert_eq!(parts(b"10.0.0.1:80"), host("10.0.0.1", Some("80")));
        assert_eq!(parts(b"[::1]:11211"), host("[::1]", Some("11211")));
        assert_eq!(parts(b"[::1]"), host("[::1]", None));
        assert_eq!(parts(b"a:"), host("a", Some("")));
        assert_eq!(parts(b"a:11211x"), host("a:11211x", None));
        assert_eq!(parts(b"7"), host("7", None));
        assert_eq!(parts(b":7"), host("", Some("7")));
        assert_eq!(parts(b""), host("", None));
        assert_eq!(parts(b"unix:/a:7"), Parts::Unix(b"/a:7"));
        assert_eq!(parts(b"UNIX:"), Parts::Unix(b""));
        assert_eq!(parts(b"unix"), host("unix", None));
    }

    #[test]
    fn ports() {
        assert!(has_port(b"a:1") && has_port(b"unix:/a") && has_port(b"[::1]:1"));
        assert!(!has_port(b"a") && !has_port(b"[::1]"));
    }

    #[test]
    fn names_for_ketama() {
        for (name, expected) in [
            ("10.0.1.1:11211", "10.0.1.1"),
            ("10.0.1.1:11212", "10.0.1.1:11212"),
            ("a:011211", "a:011211"),
            ("a", "a:80"),
            ("[::1]:11212", "::1:11212"),
            ("[::1]:11211", "::1"),
            ("[::1]", "::1:80"),
            ("[a:1", "[a:1"),
            ("unix:/run/m.sock", "/run/m.sock:0"),
        ] {
            assert_eq!(ketama_name(name.as_bytes()), expected.as_bytes(), "{name}");
        }
    }
}
