//! Hash functions of keys, as libmemcached and twemproxy have them: all give 32 bits.

/// A hash function of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyHash {
    /// The first four bytes of the MD5 digest, little-endian.
    Md5,
    /// 15 bits of CRC-32, as Perl's Cache::Memcached has it.
    Crc,
    /// Jenkins's one-at-a-time: libmemcached's default.
    OneAtATime,
    /// What libmemcached and twemproxy call FNV-1a of 64 bits; they compute its lower half only.
    Fnv1a64,
}

impl KeyHash {
    /// The function that a configuration calls `name`.
    pub fn named(name: &[u8]) -> Option<KeyHash> {
        Some(match name {
            b"md5" => KeyHash::Md5,
            b"crc" => KeyHash::Crc,
            b"one_at_a_time" => KeyHash::OneAtATime,
            b"fnv1a_64" => KeyHash::Fnv1a64,
            _ => return None,
        })
    }

    /// What a configuration calls it.
    pub fn name(self) -> &'static str {
        match self {
            KeyHash::Md5 => "md5",
            KeyHash::Crc => "crc",
            KeyHash::OneAtATime => "one_at_a_time",
            KeyHash::Fnv1a64 => "fnv1a_64",
        }
    }

    /// The hash of `bytes`.
    pub fn of(self, bytes: &[u8]) -> u32 {
        match self {
            KeyHash::Md5 => {
                let [first, ..] = md5_words(bytes);
                first
            }
            KeyHash::Crc => fifteen_bits(crc32fast::hash(bytes)),
            KeyHash::OneAtATime => one_at_a_time(bytes),
            KeyHash::Fnv1a64 => fnv1a_64(bytes),
        }
    }
}

/// The digest as four little-endian numbers: the four points of a ring.
pub fn md5_words(bytes: &[u8]) -> [u32; 4] {
    let digest = u128::from_le_bytes(md5::compute(bytes).0);
    [0, 32, 64, 96].map(|shift| (digest >> shift) as u32)
}

/// The bits of a CRC-32 that Cache::Memcached uses.
pub fn fifteen_bits(crc: u32) -> u32 {
    crc >> 16 & 0x7fff
}

/// As on x86, where C's `char` is signed: bytes from 0x80 count as negative.
fn signed(byte: u8) -> u32 {
    i32::from(byte.cast_signed()).cast_unsigned()
}

fn one_at_a_time(bytes: &[u8]) -> u32 {
    let mut hash = 0u32;
    for byte in bytes {
        hash = hash.wrapping_add(signed(*byte));
        hash = hash.wrapping_add(hash << 10);
        hash ^= hash >> 6;
    }
    hash = hash.wrapping_add(hash << 3);
    hash ^= hash >> 11;
    hash.wrapping_add(hash << 15)
}

/// The lower halves of FNV's offset basis and prime for 64 bits.
fn fnv1a_64(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x8422_2325, |hash, byte| {
        (hash ^ signed(*byte)).wrapping_mul(0x1b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_values() {
        // RFC 1321: d41d8cd9… and 900150983cd24fb0d6963f7d28e17f72
        assert_eq!(KeyHash::Md5.of(b""), 0xd98c_1dd4);
        assert_eq!(
            md5_words(b"abc"),
            [0x9850_0190, 0xb04f_d23c, 0x7d3f_96d6, 0x727f_e128]
        );
        // CRC-32 of "123456789" is cbf43926
        assert_eq!(KeyHash::Crc.of(b"123456789"), 0x4bf4);
        // Jenkins's own examples
        assert_eq!(KeyHash::OneAtATime.of(b"a"), 0xca2e_9442);
        assert_eq!(
            KeyHash::OneAtATime.of(b"The quick brown fox jumps over the lazy dog"),
            0x519e_91f5
        );
        assert_eq!(KeyHash::Fnv1a64.of(b""), 0x8422_2325);
    }

    #[test]
    fn high_bytes_are_negative() {
        assert_eq!(signed(0x7f), 0x7f);
        assert_eq!(signed(0x80), 0xffff_ff80);
        assert_eq!(
            KeyHash::Fnv1a64.of(b"\xff"),
            (0x8422_2325u32 ^ u32::MAX).wrapping_mul(0x1b3)
        );
        assert_eq!(KeyHash::OneAtATime.of(b"\x80"), {
            let mut hash = 0xffff_ff80u32;
            hash = hash.wrapping_add(hash << 10);
            hash ^= hash >> 6;
            hash = hash.wrapping_add(hash << 3);
            hash ^= hash >> 11;
            hash.wrapping_add(hash << 15)
        });
    }

    #[test]
    fn names() {
        for hash in [
            KeyHash::Md5,
            KeyHash::Crc,
            KeyHash::OneAtATime,
            KeyHash::Fnv1a64,
        ] {
            assert_eq!(KeyHash::named(hash.name().as_bytes()), Some(hash));
        }
        assert_eq!(KeyHash::named(b"MD5"), None);
        assert_eq!(KeyHash::named(b""), None);
    }
}
