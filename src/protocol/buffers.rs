//! Buffers of large values, kept for the next ones: memory that the allocator got from the kernel
//! for one value, and would give back after it, costs a page fault per page each time.

use std::cell::Cell;
use std::rc::Rc;

/// Most bytes that are kept.
const MAX_KEPT: usize = 16 * 1024 * 1024;

/// A stock of buffers. Clones share it.
#[derive(Clone, Default)]
pub struct Buffers(Rc<Cell<Vec<Vec<u8>>>>);

impl Buffers {
    /// The smallest buffer with room for so many bytes. It is empty.
    pub(super) fn take(&self, room: usize) -> Option<Vec<u8>> {
        let mut kept = self.0.take();
        // in ascending order
        let at = kept.partition_point(|buffer| buffer.capacity() < room);
        let found = (at < kept.len()).then(|| kept.remove(at));
        self.0.set(kept);
        found
    }

    /// Keeps a buffer. If that makes too many bytes, the smallest ones go.
    pub fn give(&self, mut buffer: Vec<u8>) {
        let size = buffer.capacity();
        if size == 0 || size > MAX_KEPT {
            return;
        }
        buffer.clear();
        let mut kept = self.0.take();
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
        self.0.set(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(buffers: &Buffers) -> Vec<usize> {
        let all = buffers.0.take();
        let sizes = all.iter().map(Vec::capacity).collect();
        buffers.0.set(all);
        sizes
    }

    #[test]
    fn the_smallest_that_fits_is_taken() {
        let buffers = Buffers::default();
        for size in [300, 100, 200] {
            let mut buffer = Vec::with_capacity(size);
            buffer.push(1);
            buffers.clone().give(buffer);
        }
        assert_eq!(kept(&buffers), [100, 200, 300]);
        let taken = buffers.take(101).unwrap();
        assert_eq!((taken.capacity(), taken.len()), (200, 0));
        assert_eq!(buffers.take(301), None);
        assert_eq!(buffers.take(100).unwrap().capacity(), 100);
        assert_eq!(kept(&buffers), [300]);
    }

    #[test]
    fn the_largest_are_kept_up_to_the_limit() {
        const QUARTER: usize = MAX_KEPT / 4;
        let buffers = Buffers::default();
        for size in [QUARTER, 2 * QUARTER, 1, QUARTER] {
            buffers.give(Vec::with_capacity(size));
        }
        assert_eq!(kept(&buffers), [QUARTER, QUARTER, 2 * QUARTER]);
        buffers.give(Vec::with_capacity(3 * QUARTER));
        assert_eq!(kept(&buffers), [3 * QUARTER]);
        buffers.give(Vec::with_capacity(MAX_KEPT + 1));
        buffers.give(Vec::new());
        assert_eq!(kept(&buffers), [3 * QUARTER]);
    }
}
