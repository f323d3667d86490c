//! Which keys a run has not: a Bloom filter. Pure.
//!
//! Most producers that write for the first time were never spilled, and must not cost a read per run to know. With 12
//! bits per key and 8 of them set, about 3 of 1,000 absent keys are taken for present. Whoever makes up keys that collide
//! gains a needless read of one block each.

use super::Key;

const BITS_PER_KEY: u64 = 12;
const PROBES: u64 = 8;
/// Words that a filter may have beyond what its keys need, where they are few.
const WORDS_SPARE: u64 = 64;

/// A filter over keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    words: Vec<u64>,
}

/// Words for so many keys.
fn words_for(keys: u64) -> u64 {
    (keys.max(1) * BITS_PER_KEY).div_ceil(64)
}

/// What a number of words is rounded up to, by less than a tenth where they are many: three times a power of two, since a
/// filter folds by what divides its words.
fn unit(words: u64) -> u64 {
    3 << (words / 32).max(4).ilog2()
}

/// Most words that a filter over so many keys has.
pub(super) fn words_max(keys: u64) -> u64 {
    words_for(keys) * 2 + WORDS_SPARE
}

impl Filter {
    /// An empty filter with room for so many keys.
    pub(super) fn with_room(keys: u64) -> Filter {
        let words = words_for(keys).next_multiple_of(unit(words_for(keys)));
        Filter { words: vec![0; words as usize] }
    }

    /// A filter as it was written.
    pub(super) fn of_words(words: Vec<u64>) -> Filter {
        Filter { words }
    }

    pub(super) fn words(&self) -> &[u64] {
        &self.words
    }

    pub(super) fn insert(&mut self, key: Key) {
        let bits = self.words.len() as u64 * 64;
        for bit in probes(key, bits) {
            self.words[(bit / 64) as usize] |= 1 << (bit % 64);
        }
    }

    /// Whether the key may have been inserted.
    pub(super) fn may_have(&self, key: Key) -> bool {
        let bits = self.words.len() as u64 * 64;
        probes(key, bits).all(|bit| self.words[(bit / 64) as usize] & (1 << (bit % 64)) != 0)
    }

    /// Makes it smaller if it has come to hold far fewer keys than it had room for. A key's place in a filter a third as
    /// large is a third of its place in this one, so the keys themselves are not needed.
    pub(super) fn folded(self, keys: u64) -> Filter {
        let words = self.words.len() as u64;
        let fits = |factor: &u64| words.is_multiple_of(*factor) && words / factor >= words_for(keys);
        let factors = (0..words.ilog2() + 1).flat_map(|power| [1 << power, 3 << power]);
        let factor = factors.filter(fits).max().unwrap_or(1);
        if factor == 1 {
            return self;
        }
        let mut folded = vec![0; (words / factor) as usize];
        for (at, mut word) in self.words.into_iter().enumerate() {
            while word != 0 {
                let bit = (at as u64 * 64 + u64::from(word.trailing_zeros())) / factor;
                folded[(bit / 64) as usize] |= 1 << (bit % 64);
                word &= word - 1;
            }
        }
        Filter { words: folded }
    }
}

/// The bits of a key in a filter of so many.
fn probes((log, id): Key, bits: u64) -> impl Iterator<Item = u64> {
    let start = mix(mix(log) ^ id.cast_unsigned());
    let step = mix(start) | 1;
    (0..PROBES).map(move |n| {
        let hash = start.wrapping_add(n.wrapping_mul(step));
        ((u128::from(hash) * u128::from(bits)) >> 64) as u64
    })
}

/// Spreads each bit of a number over all: the finalizer of SplitMix64 (Steele, Lea, Flood 2014).
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(filter: &Filter, keys: impl Iterator<Item = Key>) -> usize {
        keys.filter(|key| filter.may_have(*key)).count()
    }

    #[test]
    fn knows_all_it_was_given_and_little_else() {
        let keys = || (0..20_000).map(|n| (n % 5, n as i64 * 3));
        let absent = || (0..100_000).map(|n| (n % 5, n as i64 * 3 + 1));
        let mut filter = Filter::with_room(20_000);
        assert_eq!(present(&filter, absent()), 0);
        keys().for_each(|key| filter.insert(key));
        assert_eq!(present(&filter, keys()), 20_000);
        let wrong = present(&filter, absent());
        assert!(wrong < 1_000, "{wrong} of 100,000");
        assert!(filter.words().len() * 8 <= 20_000 * 12 / 8 * 11 / 10);
    }

    #[test]
    fn folds_to_what_is_needed() {
        for (held, factor) in [(20_000, 1), (9_900, 2), (6_600, 3), (4_900, 4), (3_300, 6), (40, 384)] {
            let mut filter = Filter::with_room(20_000);
            let before = filter.words().len();
            let keys = || (0..held).map(|n| (3, n as i64));
            keys().for_each(|key| filter.insert(key));
            let filter = filter.folded(held);
            assert_eq!(filter.words().len() * factor, before);
            assert_eq!(present(&filter, keys()) as u64, held);
            let wrong = present(&filter, (0..100_000).map(|n| (4, n)));
            assert!(wrong < 1_000, "{wrong} of 100,000 with {held}");
            assert!(filter.words().len() as u64 <= words_max(held));
        }
    }
}
