//! How often a log line of one kind may be written.
//!
//! While a server is away, each request would write the same line. Of each kind of line a few are
//! written, and the others are counted: the count is told when the time is over.

/// Milliseconds that a kind is counted before its number is told.
pub const WINDOW: u64 = 10_000;

/// Lines of one kind that are written before others of its window are counted.
pub const BURST: u32 = 8;

/// Lines that are written in a window that follows one in which lines were counted: an example.
const EXAMPLES: u32 = 1;

/// Kinds that have a count of their own. Further ones share one.
const MAX_KINDS: usize = 64;

/// Maximum length of a detail in bytes.
const MAX_DETAIL: usize = 160;

/// What a line says, and about whom: lines of equal kinds are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineKind<'a> {
    /// The words of the line that are the same each time.
    pub words: &'a str,
    /// The server's address, if the line is about one.
    pub about: &'a str,
    /// The level at which the number is told.
    pub level: u32,
}

/// Lines that were not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppressed {
    /// As in [`LineKind`], cut to a few hundred bytes; empty for the kinds that share a count.
    pub words: String,
    /// As in [`LineKind`].
    pub about: String,
    /// As in [`LineKind`]; of several the most urgent, i.e. the lowest number.
    pub level: u32,
    /// How many.
    pub lines: u64,
}

#[derive(Debug)]
struct Counted {
    kind: Suppressed,
    /// When the window ends.
    ends: u64,
    /// Lines that may still be written in it.
    left: u32,
}

/// The kinds of lines that were written a moment ago.
#[derive(Debug)]
pub struct Rates {
    counted: Vec<Counted>,
}

impl Rates {
    /// Nothing was written yet.
    pub const fn new() -> Rates {
        Rates {
            counted: Vec::new(),
        }
    }

    /// Whether a line of this kind is to be written at `now`, in milliseconds. If not, it is
    /// counted.
    pub fn admit(&mut self, kind: LineKind<'_>, now: u64) -> bool {
        let found = self.find(kind);
        let Some(counted) = self.counted.get_mut(found) else {
            return true;
        };
        if counted.ends <= now && counted.kind.lines == 0 {
            counted.start(now, BURST);
        }
        if counted.left > 0 {
            counted.left -= 1;
            return true;
        }
        counted.kind.lines = counted.kind.lines.saturating_add(1);
        counted.kind.level = counted.kind.level.min(kind.level);
        false
    }

    /// Whether a line of this kind would be written at `now`.
    pub fn would_admit(&self, kind: LineKind<'_>, now: u64) -> bool {
        self.counted
            .iter()
            .find(|counted| counted.is(kind))
            .is_none_or(|counted| counted.left > 0 || counted.ends <= now)
    }

    /// The index of the kind's count, which is made if there is none.
    fn find(&mut self, kind: LineKind<'_>) -> usize {
        if let Some(at) = self.counted.iter().position(|counted| counted.is(kind)) {
            return at;
        }
        // the last one is that of all others
        let shared = self.counted.len() >= MAX_KINDS;
        let named = match shared {
            true => LineKind {
                words: "",
                about: "",
                ..kind
            },
            false => kind,
        };
        if shared && let Some(at) = self.counted.iter().position(|counted| counted.is(named)) {
            return at;
        }
        self.counted.push(Counted {
            kind: Suppressed {
                words: cut(named.words).into(),
                about: cut(named.about).into(),
                level: kind.level,
                lines: 0,
            },
            ends: 0,
            left: 0,
        });
        self.counted.len() - 1
    }

    /// When [`Self::take_due`] has something to do.
    pub fn next_due(&self) -> Option<u64> {
        let counting = self.counted.iter().filter(|counted| counted.kind.lines > 0);
        counting.map(|counted| counted.ends).min()
    }

    /// The numbers whose time is over at `now`. Kinds of which nothing was counted are forgotten.
    pub fn take_due(&mut self, now: u64) -> Vec<Suppressed> {
        let mut due = Vec::new();
        self.counted.retain_mut(|counted| {
            if counted.ends > now {
                return true;
            }
            if counted.kind.lines == 0 {
                return false;
            }
            due.push(counted.kind.clone());
            counted.kind.lines = 0;
            counted.start(now, EXAMPLES);
            true
        });
        due
    }
}

impl Default for Rates {
    fn default() -> Self {
        Self::new()
    }
}

impl Counted {
    fn is(&self, kind: LineKind<'_>) -> bool {
        self.kind.words == cut(kind.words) && self.kind.about == cut(kind.about)
    }

    fn start(&mut self, now: u64, lines: u32) {
        self.ends = now.saturating_add(WINDOW);
        self.left = lines;
    }
}

/// The beginning of a text, which may come from outside.
fn cut(text: &str) -> &str {
    let mut len = text.len().min(MAX_DETAIL);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    text.get(..len).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kind(words: &str) -> LineKind<'_> {
        LineKind {
            words,
            about: "127.0.0.1:11211",
            level: 4,
        }
    }

    fn written(rates: &mut Rates, words: &str, lines: u32, now: u64) -> u32 {
        (0..lines)
            .map(|_| u32::from(rates.admit(kind(words), now)))
            .sum()
    }

    #[test]
    fn a_few_lines_are_written_and_the_others_counted() {
        let mut rates = Rates::new();
        assert_eq!(written(&mut rates, "refused", 100, 5), BURST);
        assert_eq!(rates.next_due(), Some(5 + WINDOW));
        assert_eq!(rates.take_due(4 + WINDOW), []);
        let told = rates.take_due(5 + WINDOW);
        assert_eq!(
            told,
            [Suppressed {
                words: "refused".into(),
                about: "127.0.0.1:11211".into(),
                level: 4,
                lines: u64::from(100 - BURST),
            }]
        );
        assert_eq!(rates.next_due(), None);
    }

    #[test]
    fn while_it_goes_on_there_is_an_example_in_each_window() {
        let mut rates = Rates::new();
        written(&mut rates, "refused", 100, 0);
        for window in 1..4 {
            let now = window * WINDOW;
            assert_eq!(rates.take_due(now).len(), 1);
            assert_eq!(written(&mut rates, "refused", 50, now), EXAMPLES);
        }
        // the number that is not told yet is told, however late
        let late = rates.take_due(100 * WINDOW);
        assert_eq!(late.first().map(|told| told.lines), Some(49));
    }

    #[test]
    fn a_pause_begins_anew() {
        let mut rates = Rates::new();
        assert!(rates.would_admit(kind("refused"), 0));
        written(&mut rates, "refused", BURST - 1, 0);
        assert!(rates.would_admit(kind("refused"), 0));
        written(&mut rates, "refused", 1, 0);
        assert_eq!(rates.next_due(), None);
        assert!(!rates.would_admit(kind("refused"), WINDOW - 1));
        assert!(rates.would_admit(kind("refused"), WINDOW));
        assert_eq!(written(&mut rates, "refused", 100, WINDOW), BURST);
        rates.take_due(2 * WINDOW);
        assert_eq!(rates.take_due(3 * WINDOW), []);
        assert_eq!(written(&mut rates, "refused", 100, 3 * WINDOW), BURST);
    }

    #[test]
    fn kinds_and_servers_have_counts_of_their_own() {
        let mut rates = Rates::new();
        assert_eq!(written(&mut rates, "refused", 9, 0), BURST);
        assert_eq!(written(&mut rates, "timed out", 9, 0), BURST);
        let other = LineKind {
            about: "127.0.0.2:11211",
            ..kind("refused")
        };
        assert!(rates.admit(other, 0));
    }

    #[test]
    fn kinds_beyond_the_bound_have_one_count() {
        let mut rates = Rates::new();
        for n in 0..MAX_KINDS {
            assert_eq!(written(&mut rates, &n.to_string(), 1, 0), 1);
        }
        let mut admitted = 0;
        for n in 0..100 {
            let (words, about) = (format!("further {n}"), format!("127.0.0.2:{n}"));
            let kind = LineKind {
                words: &words,
                about: &about,
                level: 4,
            };
            admitted += u32::from(rates.admit(kind, 0));
        }
        assert_eq!(admitted, BURST);
        let told = rates.take_due(WINDOW);
        let told: Vec<_> = told
            .iter()
            .map(|told| (&*told.words, &*told.about, told.lines))
            .collect();
        assert_eq!(told, [("", "", u64::from(100 - BURST))]);
    }

    #[test]
    fn a_number_is_told_at_the_most_urgent_level() {
        let mut rates = Rates::new();
        written(&mut rates, "refused", BURST, 0);
        for level in [5, 3, 6] {
            rates.admit(
                LineKind {
                    level,
                    ..kind("refused")
                },
                0,
            );
        }
        let told = rates.take_due(WINDOW);
        assert_eq!(
            told.first().map(|told| (told.level, told.lines)),
            Some((3, 3))
        );
    }

    #[test]
    fn long_texts_are_cut() {
        let mut rates = Rates::new();
        let long = "é".repeat(MAX_DETAIL);
        assert_eq!(written(&mut rates, &long, 100, 0), BURST);
        let told = rates.take_due(WINDOW);
        assert_eq!(told.first().map(|told| told.words.len()), Some(MAX_DETAIL));
        // not within a character
        let shifted = format!("x{long}");
        assert_eq!(cut(&shifted).len(), MAX_DETAIL - 1);
        assert!(shifted.starts_with(cut(&shifted)));
    }

    proptest! {
        #[test]
        fn no_line_is_lost_and_the_memory_bounded(
            lines in proptest::collection::vec((0u32..90, 0u64..4000), 0..3000),
        ) {
            let mut rates = Rates::new();
            let (mut now, mut written, mut told) = (0, 0, 0);
            let count = |due: Vec<Suppressed>| due.iter().map(|kind| kind.lines).sum::<u64>();
            for (words, pause) in &lines {
                now += pause;
                if rates.next_due().is_some_and(|due| due <= now) {
                    told += count(rates.take_due(now));
                }
                written += u64::from(rates.admit(kind(&words.to_string()), now));
                prop_assert!(rates.counted.len() <= MAX_KINDS + 1);
                prop_assert!(rates.next_due().is_none_or(|due| due <= now + WINDOW));
            }
            told += count(rates.take_due(u64::MAX));
            prop_assert_eq!(written + told, lines.len() as u64);
        }
    }
}
