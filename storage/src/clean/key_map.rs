//! The newest offset of each key, in a bounded table. Pure.
//!
//! Open addressing over slots of 24 bytes: a keyed hash of 128 bits stands for the key, so that neither chance nor a
//! client who wants to can make two keys meet (a collision would drop a record), and the offset. The hash key comes from
//! outside and is never told.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

/// Bytes of a slot.
const SLOT_BYTES: usize = size_of::<Slot>();

/// Both halves of the key's hash, and the offset plus one: 0 is an empty slot, so that a new table needs no writing.
type Slot = [u64; 3];

/// See the module.
#[derive(Debug)]
pub(crate) struct KeyMap {
    slots: Vec<Slot>,
    keys: usize,
    keys_max: usize,
    hasher: SipHasher13,
}

impl KeyMap {
    /// A table for `keys` keys, or as many as fit in `bytes_max` bytes, where at most `load_percent` of the slots are
    /// taken; at least one.
    pub(crate) fn new(keys: u64, bytes_max: usize, load_percent: u8, hash_key: [u64; 2]) -> KeyMap {
        let load = usize::from(load_percent.clamp(1, 99));
        let wanted = usize::try_from(keys).unwrap_or(usize::MAX).saturating_add(1);
        let slots_wanted = (wanted / load).saturating_add(1).saturating_mul(100);
        let slots = slots_wanted.min(bytes_max / SLOT_BYTES).max(2);
        let keys_max = (slots * load / 100).clamp(1, slots - 1);
        let hasher = SipHasher13::new_with_keys(hash_key[0], hash_key[1]);
        KeyMap { slots: vec![[0; 3]; slots], keys: 0, keys_max, hasher }
    }

    /// Notes that `offset`, 0 or more, is the newest of `key`. Says no, and changes nothing, if the table is full.
    #[must_use]
    pub(crate) fn insert(&mut self, key: &[u8], offset: i64) -> bool {
        debug_assert!(offset >= 0, "records have offsets");
        let [high, low] = self.hash(key);
        let at = self.find([high, low]);
        if self.slots[at][2] == 0 {
            if self.keys == self.keys_max {
                return false;
            }
            self.keys += 1;
        }
        self.slots[at] = [high, low, offset as u64 + 1];
        true
    }

    /// The newest offset of `key`, if it is known.
    pub(crate) fn get(&self, key: &[u8]) -> Option<i64> {
        let at = self.find(self.hash(key));
        self.slots[at][2].checked_sub(1).map(|offset| offset as i64)
    }

    /// Keys known.
    pub(crate) fn len(&self) -> usize {
        self.keys
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        let mut hasher = self.hasher;
        hasher.write(key);
        let hash = hasher.finish128();
        [hash.h1, hash.h2]
    }

    /// The slot of a hash, or the empty one where it would stand. There is one: the table is never full.
    fn find(&self, [high, low]: [u64; 2]) -> usize {
        let mut at = ((u128::from(high) * self.slots.len() as u128) >> 64) as usize;
        loop {
            let slot = &self.slots[at];
            if slot[2] == 0 || (slot[0] == high && slot[1] == low) {
                return at;
            }
            at = if at + 1 == self.slots.len() { 0 } else { at + 1 };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_map_until_it_is_full(
            keys in prop::collection::vec(0..40u8, 0..200), bytes_max in 0..1500usize, load in 1..=100u8,
        ) {
            let mut map = KeyMap::new(200, bytes_max, load, [1, 2]);
            let mut twin = BTreeMap::new();
            let room = map.keys_max;
            prop_assert!(map.slots.len() * SLOT_BYTES <= bytes_max.max(2 * SLOT_BYTES));
            for (offset, key) in keys.iter().enumerate() {
                let fits = twin.contains_key(key) || twin.len() < room;
                prop_assert_eq!(map.insert(&[*key], offset as i64), fits);
                if fits {
                    twin.insert(*key, offset as i64);
                }
            }
            prop_assert_eq!(map.len(), twin.len());
            for key in 0..40u8 {
                prop_assert_eq!(map.get(&[key]), twin.get(&key).copied());
            }
        }
    }

    #[test]
    fn is_as_large_as_asked_for() {
        let map = KeyMap::new(1000, 1 << 20, 90, [3, 4]);
        assert!(map.keys_max >= 1000 && map.slots.len() < 2000);
        assert_eq!(KeyMap::new(u64::MAX, 2400, 90, [0, 0]).keys_max, 90);
        assert_ne!(KeyMap::new(1, 100, 90, [1, 1]).hash(b"k"), map.hash(b"k"), "another key, another hash");
    }
}
