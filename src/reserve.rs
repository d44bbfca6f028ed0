//! A reserve of memory.
//!
//! Where Rust finds no memory it ends the process, unless the code asks in a way that can fail. All
//! that has its size from outside (values, keys, batches) is asked for in such a way. The rest is
//! small and of fixed size, and gets its memory out of a reserve when there is none else. What is
//! begun while the reserve is not full fails with `no memory`, so that it lasts for what is under
//! way.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering::Relaxed};

/// Size of a block of the reserve, in bytes.
const BLOCK: usize = 64 * 1024;

/// Number of blocks.
const BLOCKS: usize = 16;

/// Most bytes that are asked for again while blocks of the reserve are set free.
const MAX_REQUEST: usize = BLOCK * BLOCKS / 4;

/// All of the module's own memory.
#[cfg(all(feature = "nginx", not(test)))]
#[global_allocator]
pub static MEMORY: Reserve = Reserve::new(System);

const LAYOUT: Layout = match Layout::from_size_align(BLOCK, 16) {
    Ok(layout) => layout,
    Err(_) => panic!("a constant"),
};

/// An allocator with a reserve, which is empty at first.
pub struct Reserve<A = System> {
    inner: A,
    blocks: [AtomicPtr<u8>; BLOCKS],
    full: AtomicBool,
}

impl<A> Reserve<A> {
    /// On top of another allocator.
    pub const fn new(inner: A) -> Self {
        Reserve {
            inner,
            blocks: [const { AtomicPtr::new(ptr::null_mut()) }; BLOCKS],
            full: AtomicBool::new(false),
        }
    }
}

impl<A: GlobalAlloc> Reserve<A> {
    /// Fills the reserve up, if it is not full. False if there is no memory for that.
    #[inline(always)]
    pub fn fill(&self) -> bool {
        self.full.load(Relaxed) || self.fill_up()
    }

    /// Gives the reserve back.
    pub fn empty(&self) {
        self.full.store(false, Relaxed);
        for block in &self.blocks {
            let memory = block.swap(ptr::null_mut(), Relaxed);
            self.give_back(memory);
        }
    }

    #[cold]
    fn fill_up(&self) -> bool {
        for block in &self.blocks {
            if block.load(Relaxed).is_null() {
                // SAFETY: the layout is of some size.
                let memory = unsafe { self.inner.alloc(LAYOUT) };
                if memory.is_null() {
                    return false;
                }
                self.put(block, memory);
            }
        }
        self.full.store(true, Relaxed);
        true
    }

    fn put(&self, block: &AtomicPtr<u8>, memory: *mut u8) {
        if block
            .compare_exchange(ptr::null_mut(), memory, Relaxed, Relaxed)
            .is_err()
        {
            self.give_back(memory);
        }
    }

    /// Sets a block free that is not in the reserve any more, if there is one.
    fn give_back(&self, memory: *mut u8) {
        if !memory.is_null() {
            // SAFETY: allocated with this layout, and nobody else has it.
            unsafe { self.inner.dealloc(memory, LAYOUT) };
        }
    }

    /// What `ask` gets or, when there is no memory, what it gets with the reserve.
    #[inline(always)]
    fn ask(&self, size: usize, ask: impl Fn() -> *mut u8) -> *mut u8 {
        let found = ask();
        if found.is_null() {
            return self.use_blocks(size, ask);
        }
        found
    }

    /// Tries again and again, with a block of the reserve set free each time.
    #[cold]
    #[inline(never)]
    fn use_blocks(&self, size: usize, again: impl Fn() -> *mut u8) -> *mut u8 {
        if size > MAX_REQUEST {
            return ptr::null_mut();
        }
        for block in &self.blocks {
            let memory = block.swap(ptr::null_mut(), Relaxed);
            if memory.is_null() {
                continue;
            }
            self.full.store(false, Relaxed);
            self.give_back(memory);
            let found = again();
            if !found.is_null() {
                return found;
            }
        }
        ptr::null_mut()
    }
}

// SAFETY: all memory is the inner allocator's, by the caller's layouts.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Reserve<A> {
    #[inline(always)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by the caller's contract.
        self.ask(layout.size(), || unsafe { self.inner.alloc(layout) })
    }

    #[inline(always)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by the caller's contract.
        self.ask(layout.size(), || unsafe { self.inner.alloc_zeroed(layout) })
    }

    #[inline(always)]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: by the caller's contract.
        unsafe { self.inner.dealloc(memory, layout) }
    }

    #[inline(always)]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: by the caller's contract; after a failure the memory is as it was.
        self.ask(size, || unsafe { self.inner.realloc(memory, layout, size) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Memory of so many bytes.
    struct Limited(Cell<usize>);

    // SAFETY: the system's memory, or none.
    unsafe impl GlobalAlloc for Limited {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            match self.0.get().checked_sub(layout.size()) {
                // SAFETY: by the caller's contract.
                Some(left) => unsafe {
                    self.0.set(left);
                    System.alloc(layout)
                },
                None => ptr::null_mut(),
            }
        }

        unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
            self.0.set(self.0.get() + layout.size());
            // SAFETY: by the caller's contract.
            unsafe { System.dealloc(memory, layout) };
        }
    }

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap()
    }

    #[test]
    fn the_reserve_serves_small_requests_only_until_it_is_empty() {
        let reserve = Reserve::new(Limited(Cell::new(BLOCKS * BLOCK + 100)));
        assert!(reserve.fill() && reserve.fill());
        assert_eq!(reserve.inner.0.get(), 100);
        let (small, large) = (layout(MAX_REQUEST), layout(MAX_REQUEST + 1));
        // SAFETY: layouts are of some size; what is freed was allocated with them.
        unsafe {
            assert!(reserve.alloc(large).is_null());
            assert!(reserve.full.load(Relaxed));
            let mut taken = Vec::new();
            loop {
                let memory = reserve.alloc(small);
                if memory.is_null() {
                    break;
                }
                memory.write_bytes(1, small.size());
                taken.push(memory);
                assert!(!reserve.fill());
            }
            assert_eq!(taken.len(), 4);
            for memory in taken {
                reserve.dealloc(memory, small);
            }
        }
        assert!(reserve.fill());
        assert_eq!(reserve.inner.0.get(), 100);
        reserve.empty();
    }

    #[test]
    fn zeroed_and_grown_memory_comes_out_of_it_too() {
        let reserve = Reserve::new(Limited(Cell::new(BLOCKS * BLOCK + 8)));
        assert!(reserve.fill());
        // SAFETY: layouts are of some size; what is freed was allocated with them.
        unsafe {
            let memory = reserve.alloc(layout(8));
            memory.write_bytes(7, 8);
            let memory = reserve.realloc(memory, layout(8), 4096);
            assert_eq!(std::slice::from_raw_parts(memory, 8), [7; 8]);
            assert!(!reserve.full.load(Relaxed));
            let zeroed = reserve.alloc_zeroed(layout(BLOCK));
            assert!(
                std::slice::from_raw_parts(zeroed, BLOCK)
                    .iter()
                    .all(|&b| b == 0)
            );
            reserve.dealloc(memory, layout(4096));
            reserve.dealloc(zeroed, layout(BLOCK));
        }
        assert!(reserve.fill());
        reserve.empty();
    }
}
