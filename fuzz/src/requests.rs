//! Commands as memcached reads them (protocol.txt, and what 1.6.18 does where that is silent).

/// A line of words, and what follows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    pub words: Vec<Vec<u8>>,
    pub data: Option<Vec<u8>>,
}

/// What the server does with the bytes at the beginning of its input.
#[derive(PartialEq, Eq, Debug)]
pub enum Read {
    /// It waits for more.
    Incomplete,
    /// It executes a command of so many bytes, and answers.
    Request(Request, usize),
    /// It executes a command and does not answer.
    Silent(Request, usize),
    /// It answers a line of so many bytes with an error, and reads what follows as commands.
    Refused(usize),
    /// It closes the connection.
    Closes,
}

const MAX_LINE: usize = 2048;
const MAX_KEY: usize = 250;

pub fn read(input: &[u8]) -> Read {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
        let is_retrieval = input.starts_with(b"get ") || input.starts_with(b"gets ");
        return match input.len() > MAX_LINE && !is_retrieval {
            true => Read::Closes,
            false => Read::Incomplete,
        };
    };
    let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
    // it handles lines as C strings
    let line = line.split(|byte| *byte == 0).next().unwrap_or(line);
    let words: Vec<Vec<u8>> = line
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty())
        .map(<[u8]>::to_vec)
        .collect();
    let line_len = end + 1;
    let is_retrieval = matches!(words.first().map(Vec::as_slice), Some(b"get" | b"gets"));
    if line_len > MAX_LINE && !is_retrieval {
        return Read::Closes;
    }
    if !is_valid(&words) {
        return Read::Refused(line_len);
    }
    let mut len = line_len;
    let mut data = None;
    if is_storage(&words[0]) || words[0] == b"ms" {
        let at = if words[0] == b"ms" { 2 } else { 4 };
        let size: usize = match std::str::from_utf8(&words[at]).unwrap_or("").parse() {
            Ok(size) if size <= i32::MAX as usize - 2 => size,
            _ => return Read::Refused(line_len),
        };
        let Some(block) = input[line_len..].get(..size + 2) else {
            return Read::Incomplete;
        };
        if !block.ends_with(b"\r\n") {
            return Read::Refused(line_len + size + 2);
        }
        data = Some(block[..size].to_vec());
        len += size + 2;
    }
    // looked for at the end of whatever may be silent, behind a key if it has one, or else, with
    // memcached 1.6.45, in its place
    let may_be_silent = match words[0].as_slice() {
        b"get" | b"gets" | b"gat" | b"gats" | b"stats" | b"version" | b"quit" => false,
        b"mg" | b"ms" | b"md" | b"ma" | b"mn" => false,
        b"flush_all" | b"verbosity" | b"delete" => true,
        _ => words.len() > 2,
    };
    let silent = may_be_silent && words.last().is_some_and(|word| word == b"noreply");
    let request = Request { words, data };
    match silent {
        true => Read::Silent(request, len),
        false => Read::Request(request, len),
    }
}

pub fn is_storage(word: &[u8]) -> bool {
    [
        &b"set"[..],
        b"add",
        b"replace",
        b"append",
        b"prepend",
        b"cas",
    ]
    .contains(&word)
}

/// Whether the line is a command whose arguments are in order.
fn is_valid(words: &[Vec<u8>]) -> bool {
    let Some((name, args)) = words.split_first() else {
        return false;
    };
    // behind `noreply` nothing stands, and it is not counted
    let numbers = |from: usize| {
        let args = args.get(from..).unwrap_or_default();
        match args.split_last() {
            Some((last, args)) if last == b"noreply" => args.to_vec(),
            _ => args.to_vec(),
        }
    };
    let is_key = |at: usize| args.get(at).is_some_and(|key| key.len() <= MAX_KEY);
    match name.as_slice() {
        b"get" | b"gets" => !args.is_empty() && args.iter().all(|key| key.len() <= MAX_KEY),
        b"gat" | b"gats" => {
            args.len() > 1
                && is_signed(&args[0])
                && args[1..].iter().all(|key| key.len() <= MAX_KEY)
        }
        b"mg" | b"ms" | b"md" | b"ma" => crate::meta::is_valid(words),
        b"mn" => true,
        name if is_storage(name) => {
            let cas = name == b"cas";
            match numbers(1).as_slice() {
                [flags, exptime, len] if !cas => {
                    is_key(0)
                        && unsigned(flags).is_some_and(|flags| flags <= u32::MAX.into())
                        && is_signed(exptime)
                        && unsigned(len).is_some()
                }
                [flags, exptime, len, unique] if cas => {
                    is_key(0)
                        && unsigned(flags).is_some_and(|flags| flags <= u32::MAX.into())
                        && is_signed(exptime)
                        && unsigned(len).is_some()
                        && unsigned(unique).is_some()
                }
                _ => false,
            }
        }
        b"delete" => is_key(0) && numbers(1).iter().all(|word| word == b"0"),
        b"incr" | b"decr" => {
            is_key(0) && matches!(numbers(1).as_slice(), [delta] if unsigned(delta).is_some())
        }
        b"touch" => is_key(0) && matches!(numbers(1).as_slice(), [exptime] if is_signed(exptime)),
        b"flush_all" => match numbers(0).as_slice() {
            [] => true,
            [delay] => is_signed(delay),
            _ => false,
        },
        b"verbosity" => matches!(numbers(0).as_slice(), [level] if unsigned(level).is_some()),
        b"version" | b"quit" => args.is_empty(),
        b"stats" => true,
        _ => false,
    }
}

/// As strtoull reads it: a sign may be there, but `-` only before zero; leading zeros.
pub fn unsigned(text: &[u8]) -> Option<u64> {
    let (negative, digits) = signed_digits(text)?;
    let number = magnitude(digits)?;
    match negative && number > 0 {
        true => None,
        false => u64::try_from(number).ok(),
    }
}

/// The number, if 64 bits are enough for it.
pub fn signed(text: &[u8]) -> Option<i64> {
    let (negative, digits) = signed_digits(text)?;
    let number = i128::try_from(magnitude(digits)?).ok()?;
    i64::try_from(if negative { -number } else { number }).ok()
}

/// As strtoll reads it.
pub fn is_signed(text: &[u8]) -> bool {
    let Some((negative, digits)) = signed_digits(text) else {
        return false;
    };
    let most = i64::MAX as u128 + u128::from(negative);
    magnitude(digits).is_some_and(|number| number <= most)
}

fn signed_digits(text: &[u8]) -> Option<(bool, &[u8])> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    plain.then_some((negative, digits))
}

fn magnitude(digits: &[u8]) -> Option<u128> {
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    match &digits[zeros..] {
        [] => Some(0),
        digits if digits.len() > 30 => None,
        digits => std::str::from_utf8(digits).ok()?.parse().ok(),
    }
}
