//! The methods, and how a configuration names them: `ketama [hash=NAME] [hash_tag=XY]`.

use std::fmt;

use super::hash::KeyHash;

/// The kinds of distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// nginx's `hash … consistent`; Cache::Memcached::Fast with 160 points.
    Consistent,
    /// nginx's `hash`; Perl's Cache::Memcached.
    Crc,
    /// libmemcached's weighted ketama (php's `OPT_LIBKETAMA_COMPATIBLE`), twemproxy's ketama.
    Ketama,
    /// libmemcached's ketama without weights (pylibmc's `ketama`).
    KetamaUnweighted,
    /// Hash modulo servers: libmemcached's and twemproxy's.
    Modula,
}

const SCHEMES: [(&str, Scheme); 5] = [
    ("consistent", Scheme::Consistent),
    ("crc", Scheme::Crc),
    ("ketama", Scheme::Ketama),
    ("ketama_unweighted", Scheme::KetamaUnweighted),
    ("modula", Scheme::Modula),
];

impl Scheme {
    fn name(self) -> &'static str {
        SCHEMES
            .iter()
            .find_map(|(name, scheme)| (*scheme == self).then_some(*name))
            .unwrap_or_default()
    }

    /// nginx's own schemes hash in their own way.
    fn default_hash(self) -> Option<KeyHash> {
        match self {
            Scheme::Consistent | Scheme::Crc => None,
            Scheme::Ketama => Some(KeyHash::Md5),
            Scheme::KetamaUnweighted | Scheme::Modula => Some(KeyHash::OneAtATime),
        }
    }
}

/// How keys are distributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    scheme: Scheme,
    hash: KeyHash,
    tag: Option<[u8; 2]>,
}

/// What is wrong with a method's text.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MethodError {
    /// There is no such method.
    #[error(
        "does not know the method \"{0}\", only \"consistent\", \"crc\", \"ketama\", \
         \"ketama_unweighted\" and \"modula\""
    )]
    Unknown(String),
    /// There is no such hash function.
    #[error(
        "does not know the hash \"{0}\", \
         only \"one_at_a_time\", \"md5\", \"crc\" and \"fnv1a_64\""
    )]
    UnknownHash(String),
    /// The method has a hash function of its own.
    #[error("takes no \"hash\" with \"{0}\", which is a method of nginx")]
    FixedHash(&'static str),
    /// A tag has a first and a last character.
    #[error("needs two characters in \"hash_tag\", as in \"hash_tag={{}}\" with the quotes")]
    Tag,
    /// A parameter is there twice.
    #[error("has \"{0}\" twice")]
    Duplicate(&'static str),
    /// There is no such parameter.
    #[error("takes only the parameters \"hash\" and \"hash_tag\"")]
    Parameter,
}

impl Method {
    /// A scheme with the hash function that it has when nothing is said.
    pub fn of(scheme: Scheme) -> Method {
        Method {
            scheme,
            hash: scheme.default_hash().unwrap_or(KeyHash::Crc),
            tag: None,
        }
    }

    /// Parses a method's name and parameters.
    ///
    /// # Errors
    ///
    /// For the operator to read.
    pub fn parse<'a>(
        name: &[u8],
        parameters: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Method, MethodError> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let scheme = SCHEMES
            .iter()
            .find_map(|(known, scheme)| (known.as_bytes() == name).then_some(*scheme))
            .ok_or_else(|| MethodError::Unknown(text(name)))?;
        let mut method = Method::of(scheme);
        let mut hash = None;
        for parameter in parameters {
            if let Some(name) = parameter.strip_prefix(b"hash=") {
                if scheme.default_hash().is_none() {
                    return Err(MethodError::FixedHash(scheme.name()));
                }
                let known =
                    KeyHash::named(name).ok_or_else(|| MethodError::UnknownHash(text(name)))?;
                if hash.replace(known).is_some() {
                    return Err(MethodError::Duplicate("hash"));
                }
            } else if let Some(tag) = parameter.strip_prefix(b"hash_tag=") {
                let tag = tag.try_into().map_err(|_| MethodError::Tag)?;
                if method.tag.replace(tag).is_some() {
                    return Err(MethodError::Duplicate("hash_tag"));
                }
            } else {
                return Err(MethodError::Parameter);
            }
        }
        method.hash = hash.unwrap_or(method.hash);
        Ok(method)
    }

    /// The kind of distribution.
    pub fn scheme(self) -> Scheme {
        self.scheme
    }

    /// The hash function of keys, where the scheme lets one choose it.
    pub fn hash(self) -> KeyHash {
        self.hash
    }

    /// Whether it is the key as the caller gave it that is hashed: nginx hashes a variable before
    /// it escapes it. All others hash what is sent.
    pub fn hashes_unescaped(self) -> bool {
        matches!(self.scheme, Scheme::Consistent | Scheme::Crc)
    }

    /// Whether each address of a name is a server of its own.
    pub fn tells_addresses_apart(self) -> bool {
        self.scheme == Scheme::Crc
    }

    /// The part of a key that is hashed: with `hash_tag={}`, what is between the first `{` and the
    /// first `}` behind it, unless it is empty.
    pub fn hashed_part(self, key: &[u8]) -> &[u8] {
        self.tag
            .and_then(|[first, last]| {
                let from = memchr::memchr(first, key)?;
                let rest = key.get(from.saturating_add(1)..)?;
                let part = rest.get(..memchr::memchr(last, rest)?)?;
                (!part.is_empty()).then_some(part)
            })
            .unwrap_or(key)
    }
}

impl fmt::Display for Method {
    /// As a configuration says it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scheme.name())?;
        if self
            .scheme
            .default_hash()
            .is_some_and(|hash| hash != self.hash)
        {
            write!(f, " hash={}", self.hash.name())?;
        }
        if let Some(tag) = self.tag {
            write!(f, " hash_tag={}", String::from_utf8_lossy(&tag))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Method, MethodError> {
        let mut words = text.split(' ').map(str::as_bytes);
        Method::parse(words.next().unwrap(), words)
    }

    #[test]
    fn what_is_accepted() {
        for (text, scheme, hash) in [
            ("consistent", Scheme::Consistent, None),
            ("crc", Scheme::Crc, None),
            ("ketama", Scheme::Ketama, Some(KeyHash::Md5)),
            (
                "ketama_unweighted",
                Scheme::KetamaUnweighted,
                Some(KeyHash::OneAtATime),
            ),
            ("modula", Scheme::Modula, Some(KeyHash::OneAtATime)),
            ("modula hash=crc", Scheme::Modula, Some(KeyHash::Crc)),
            (
                "ketama hash=fnv1a_64",
                Scheme::Ketama,
                Some(KeyHash::Fnv1a64),
            ),
        ] {
            let method = parse(text).unwrap();
            assert_eq!(method.scheme(), scheme, "{text}");
            assert!(hash.is_none_or(|hash| hash == method.hash()), "{text}");
            assert_eq!(method.to_string(), text);
        }
        let tagged = parse("crc hash_tag=<>").unwrap();
        assert_eq!(tagged.to_string(), "crc hash_tag=<>");
        let both = parse("ketama hash_tag=$$ hash=crc").unwrap();
        assert_eq!(both.to_string(), "ketama hash=crc hash_tag=$$");
        assert_eq!(
            parse("ketama hash=md5").unwrap(),
            Method::of(Scheme::Ketama)
        );
    }

    #[test]
    fn what_is_refused() {
        for (text, error) in [
            ("Ketama", MethodError::Unknown("Ketama".into())),
            ("", MethodError::Unknown("".into())),
            ("ketama hash=sha1", MethodError::UnknownHash("sha1".into())),
            ("ketama hash=", MethodError::UnknownHash("".into())),
            ("consistent hash=md5", MethodError::FixedHash("consistent")),
            ("crc hash=crc", MethodError::FixedHash("crc")),
            ("modula hash=crc hash=crc", MethodError::Duplicate("hash")),
            (
                "modula hash_tag={} hash_tag={}",
                MethodError::Duplicate("hash_tag"),
            ),
            ("modula hash_tag=", MethodError::Tag),
            ("modula hash_tag={", MethodError::Tag),
            ("modula hash_tag={}}", MethodError::Tag),
            ("modula md5", MethodError::Parameter),
            ("modula Hash=md5", MethodError::Parameter),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
        assert_eq!(
            parse("x").unwrap_err().to_string(),
            "does not know the method \"x\", only \"consistent\", \"crc\", \"ketama\", \
             \"ketama_unweighted\" and \"modula\""
        );
        assert_eq!(
            MethodError::Tag.to_string(),
            "needs two characters in \"hash_tag\", as in \"hash_tag={}\" with the quotes"
        );
    }

    #[test]
    fn tags() {
        let method = parse("modula hash_tag={}").unwrap();
        for (key, part) in [
            ("user:{17}:name", "17"),
            ("{17}", "17"),
            ("{17", "{17"),
            ("17}", "17}"),
            ("}{17}", "17"),
            ("{}{17}", "{}{17}"),
            ("{a{b}c}", "a{b"),
            ("plain", "plain"),
            ("", ""),
            ("{", "{"),
        ] {
            assert_eq!(method.hashed_part(key.as_bytes()), part.as_bytes(), "{key}");
        }
        let same = parse("modula hash_tag=||").unwrap();
        assert_eq!(same.hashed_part(b"a|b|c"), b"b");
        assert_eq!(same.hashed_part(b"a|b"), b"a|b");
        assert_eq!(Method::of(Scheme::Ketama).hashed_part(b"{a}"), b"{a}");
    }

    #[test]
    fn what_nginx_does_differently() {
        let of = |scheme| {
            let method = Method::of(scheme);
            (method.hashes_unescaped(), method.tells_addresses_apart())
        };
        assert_eq!(of(Scheme::Consistent), (true, false));
        assert_eq!(of(Scheme::Crc), (true, true));
        assert_eq!(of(Scheme::Ketama), (false, false));
        assert_eq!(of(Scheme::KetamaUnweighted), (false, false));
        assert_eq!(of(Scheme::Modula), (false, false));
    }
}
