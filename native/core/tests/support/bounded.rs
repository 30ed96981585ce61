//! Whatever a peer sends costs bounded time and memory: both are measured around every refusal.
#![allow(dead_code)] // each binary uses a part

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuilder};

thread_local! {
    /// Bytes that this thread has allocated and not freed, and the most there were since [`peak_of`] began. Plain cells: they are there before
    /// the first allocation, and after the last.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, counting for each thread.
struct Counting;

fn add(bytes: isize) {
    LIVE.set(LIVE.get() + bytes);
    PEAK.set(PEAK.get().max(LIVE.get()));
}

// SAFETY: every call goes to the system's allocator as it came; the counters are no memory that it hands out.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        add(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new may be there together.
        add(size as isize);
        add(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `f` gives, and the most bytes that it had allocated at one time. It runs, with all that it does in parallel, on one thread of its own: those
/// that all tests share may be busy with another test.
pub fn peak_of<T: Send>(f: impl FnOnce() -> T + Send) -> (T, usize) {
    static POOL: LazyLock<ThreadPool> = LazyLock::new(|| ThreadPoolBuilder::new().num_threads(1).build().expect("a thread"));
    POOL.install(|| {
        let before = LIVE.get();
        PEAK.set(before);
        let out = f();
        (out, (PEAK.get() - before) as usize)
    })
}

/// What `f` gives, if it takes no longer than `time` and no more than `bytes`.
pub fn bounded<T: Send>(time: Duration, bytes: usize, f: impl FnOnce() -> T + Send) -> T {
    let started = Instant::now();
    let (out, peak) = peak_of(f);
    assert!(started.elapsed() < time, "{:?}", started.elapsed());
    assert!(peak <= bytes, "{peak} bytes, {bytes} are allowed");
    out
}

#[test]
fn peaks_are_counted() {
    let some = |n: usize| std::hint::black_box(vec![1u8; n]);
    assert_eq!(peak_of(|| drop(some(5000))).1, 5000);
    let (_, parallel) = peak_of(|| {
        let first = some(3000);
        rayon::join(|| drop(some(4000)), || drop(some(1000)));
        first
    });
    assert!((7000..8000).contains(&parallel), "{parallel}");
    let (grown, peak) = peak_of(|| std::hint::black_box((0..1000u64).collect::<Vec<_>>()));
    assert!(grown.len() == 1000 && peak >= 8000);
}
