//! Buffers of values, reused for later values of any connection. Buffers of large values matter
//! most: the allocator gets their memory from the kernel and gives it back after each value, which
//! costs a page fault per page each time.

use std::cell::Cell;
use std::rc::Rc;

use super::reply::{Item, Reply};

/// Maximum total size in bytes of the large buffers that are kept.
const MAX_KEPT: usize = 16 * 1024 * 1024;

/// Maximum capacity in bytes of a small buffer.
pub(super) const MAX_SMALL: usize = 16 * 1024;

/// Maximum number of small buffers that are kept. It bounds their total size as well.
const SMALL_KEPT: usize = 256;

/// A stock of buffers. Clones share it.
#[derive(Clone, Default)]
pub struct Buffers(Rc<Stock>);

#[derive(Default)]
struct Stock {
    /// In ascending order of capacity.
    large: Cell<Vec<Vec<u8>>>,
    small: Cell<Vec<Vec<u8>>>,
    items: Cell<Vec<Vec<Item>>>,
}

/// The buffer that was kept last, or a new one without memory.
fn pop<T>(stock: &Cell<Vec<Vec<T>>>) -> Vec<T> {
    let mut kept = stock.take();
    let last = kept.pop().unwrap_or_default();
    stock.set(kept);
    last
}

fn push<T>(stock: &Cell<Vec<Vec<T>>>, mut buffer: Vec<T>) {
    buffer.clear();
    let mut kept = stock.take();
    if kept.len() < SMALL_KEPT {
        kept.push(buffer);
    }
    stock.set(kept);
}

impl Buffers {
    /// An empty buffer for small values.
    pub(super) fn small(&self) -> Vec<u8> {
        pop(&self.0.small)
    }

    /// An empty buffer for the positions of values.
    pub(super) fn items(&self) -> Vec<Item> {
        pop(&self.0.items)
    }

    /// Keeps the buffers of a reply.
    pub fn recycle(&self, reply: Reply) {
        match reply {
            Reply::Value(value) => self.give(value.data),
            Reply::Meta(item) => self.give(item.value.unwrap_or_default()),
            Reply::Values(values) => {
                self.give(values.bytes);
                let size = values.items.capacity().saturating_mul(size_of::<Item>());
                if size > 0 && size <= MAX_SMALL {
                    push(&self.0.items, values.items);
                }
            }
            _ => {}
        }
    }

    /// The smallest buffer with room for `room` bytes. It is empty.
    pub(super) fn large(&self, room: usize) -> Option<Vec<u8>> {
        let mut kept = self.0.large.take();
        // in ascending order
        let at = kept.partition_point(|buffer| buffer.capacity() < room);
        let found = (at < kept.len()).then(|| kept.remove(at));
        self.0.large.set(kept);
        found
    }

    /// Keeps a buffer. If the total size gets too large, the smallest buffers are dropped.
    pub fn give(&self, mut buffer: Vec<u8>) {
        let size = buffer.capacity();
        if size == 0 || size > MAX_KEPT {
            return;
        }
        if size <= MAX_SMALL {
            return push(&self.0.small, buffer);
        }
        buffer.clear();
        let mut kept = self.0.large.take();
        let at = kept.partition_point(|other| other.capacity() < size);
        kept.insert(at, buffer);
        let mut total: usize = kept.iter().map(Vec::capacity).sum();
        let surplus = kept.iter().take_while(|smallest| {
            let surplus = total > MAX_KEPT;
            total -= smallest.capacity();
            surplus
        });
        let surplus = surplus.count();
        kept.drain(..surplus);
        self.0.large.set(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;
    const MIB: usize = 1024 * KIB;

    fn kept(buffers: &Buffers) -> Vec<usize> {
        let all = buffers.0.large.take();
        let sizes = all.iter().map(|buffer| buffer.capacity() / KIB).collect();
        buffers.0.large.set(all);
        sizes
    }

    #[test]
    fn the_smallest_that_fits_is_taken() {
        let buffers = Buffers::default();
        for size in [300, 100, 200] {
            let mut buffer = Vec::with_capacity(size * KIB);
            buffer.push(1);
            buffers.clone().give(buffer);
        }
        assert_eq!(kept(&buffers), [100, 200, 300]);
        let taken = buffers.large(101 * KIB).unwrap();
        assert_eq!((taken.capacity(), taken.len()), (200 * KIB, 0));
        assert_eq!(buffers.large(301 * KIB), None);
        assert_eq!(buffers.large(100 * KIB).unwrap().capacity(), 100 * KIB);
        assert_eq!(kept(&buffers), [300]);
    }

    #[test]
    fn the_largest_are_kept_up_to_the_limit() {
        let buffers = Buffers::default();
        for size in [4 * MIB, 8 * MIB, 20 * KIB, 4 * MIB] {
            buffers.give(Vec::with_capacity(size));
        }
        assert_eq!(kept(&buffers), [4096, 4096, 8192]);
        buffers.give(Vec::with_capacity(12 * MIB));
        assert_eq!(kept(&buffers), [12 * 1024]);
        buffers.give(Vec::with_capacity(MAX_KEPT + 1));
        buffers.give(Vec::new());
        assert_eq!(kept(&buffers), [12 * 1024]);
    }

    #[test]
    fn the_value_of_a_meta_command_is_kept() {
        let buffers = Buffers::default();
        let item = crate::protocol::MetaItem {
            value: Some(Vec::with_capacity(100)),
            ..Default::default()
        };
        buffers.recycle(Reply::Meta(Box::new(item)));
        assert_eq!(buffers.small().capacity(), 100);
    }

    #[test]
    fn small_ones_are_kept_by_number() {
        let buffers = Buffers::default();
        assert_eq!(buffers.small().capacity(), 0);
        for _ in 0..2 * SMALL_KEPT {
            buffers.give(Vec::with_capacity(MAX_SMALL));
        }
        assert_eq!(kept(&buffers), []);
        let taken = std::iter::repeat_with(|| buffers.small());
        let taken = taken.take_while(|buffer| buffer.capacity() > 0).count();
        assert_eq!(taken, SMALL_KEPT);
    }

    fn small_kept(buffers: &Buffers) -> usize {
        let all = buffers.0.small.take();
        let count = all.len();
        buffers.0.small.set(all);
        count
    }

    #[test]
    fn sixteen_kib_are_small_and_more_is_large() {
        let buffers = Buffers::default();
        buffers.give(Vec::with_capacity(16 * KIB));
        assert_eq!((small_kept(&buffers), kept(&buffers).len()), (1, 0));
        buffers.give(Vec::with_capacity(16 * KIB + 1));
        assert_eq!((small_kept(&buffers), kept(&buffers).len()), (1, 1));
        // nothing is no buffer
        buffers.give(Vec::new());
        assert_eq!(small_kept(&buffers), 1);
    }

    #[test]
    fn one_buffer_may_take_all_that_is_kept() {
        let buffers = Buffers::default();
        buffers.give(Vec::with_capacity(16 * MIB));
        assert_eq!(kept(&buffers), [16 * 1024]);
    }

    #[test]
    fn of_equal_ones_the_last_that_was_kept_is_taken() {
        let buffers = Buffers::default();
        let two = [(); 2].map(|()| Vec::with_capacity(100 * KIB));
        let last = two[1].as_ptr();
        two.into_iter().for_each(|buffer| buffers.give(buffer));
        let taken = buffers.large(100 * KIB).unwrap();
        assert_eq!(taken.as_ptr(), last);
    }

    #[test]
    fn places_of_values_are_kept_unless_there_are_many() {
        use crate::protocol::reply::Values;
        let buffers = Buffers::default();
        let places = || {
            let all = buffers.0.items.take();
            let count = all.len();
            buffers.0.items.set(all);
            count
        };
        let recycle = |room: usize| {
            let (bytes, items) = (Vec::new(), Vec::with_capacity(room));
            buffers.recycle(Reply::Values(Values { bytes, items }));
        };
        recycle(0);
        assert_eq!(places(), 0);
        recycle(MAX_SMALL / size_of::<Item>() + 1);
        assert_eq!(places(), 0);
        recycle(MAX_SMALL / size_of::<Item>());
        assert_eq!(places(), 1);
        assert_eq!(buffers.items().capacity(), MAX_SMALL / size_of::<Item>());
        assert_eq!(places(), 0);
    }
}
