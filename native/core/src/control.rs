//! Progress of long steps.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, TryLockError};

/// Told how much of the work is done, from 0 to 1; breaks it off by returning `Break`.
pub type Control<'a> = &'a mut (dyn FnMut(f64) -> ControlFlow<()> + Send);

/// A [`Control`] of a step that hears of the stretch `from..to` of a longer one.
pub(crate) fn stretch(control: Control<'_>, from: f64, to: f64) -> impl FnMut(f64) -> ControlFlow<()> + Send + '_ {
    move |done| control(from + (to - from) * done)
}

/// Reports at most, and as many at least where the work is long.
const REPORTS: usize = 16;

/// Work that several threads share. Any of them reports for all, so that nobody waits for a report; once one was answered by `Break` there is
/// nothing left to do for anybody.
pub(crate) struct Gauge<'a> {
    control: Mutex<Control<'a>>,
    total: usize,
    /// Work between reports.
    step: usize,
    done: AtomicUsize,
    /// When the next report is due.
    due: AtomicUsize,
    stopped: AtomicBool,
}

impl<'a> Gauge<'a> {
    /// For `total` units of work, of which less than `least` are not worth a report.
    pub fn new(control: Control<'a>, total: usize, least: usize) -> Self {
        let step = total.div_ceil(REPORTS).max(least);
        let count = AtomicUsize::new;
        Gauge { control: Mutex::new(control), total, step, done: count(0), due: count(step), stopped: AtomicBool::new(false) }
    }

    /// Counts what was done. -> whether to go on.
    pub fn did(&self, units: usize) -> bool {
        let done = self.done.fetch_add(units, Ordering::Relaxed) + units;
        if done >= self.due.load(Ordering::Relaxed) {
            self.report();
        }
        self.goes_on()
    }

    #[cold]
    fn report(&self) {
        let mut control = match self.control.try_lock() {
            Ok(control) => control,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Another thread is about it.
            Err(TryLockError::WouldBlock) => return,
        };
        // Read under the lock: what others have reported meanwhile is not said again, and fractions never fall.
        let done = self.done.load(Ordering::Relaxed);
        if !self.goes_on() || done < self.due.load(Ordering::Relaxed) {
            return;
        }
        self.due.store(done + self.step, Ordering::Relaxed);
        if control((done as f64 / self.total as f64).min(1.0)).is_break() {
            self.stopped.store(true, Ordering::Relaxed);
        }
    }

    /// Whether nobody has stopped the work.
    pub fn goes_on(&self) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }

    /// The end of the work: `Break` if it was stopped, and what was made of it is worth nothing.
    pub fn end(self) -> ControlFlow<()> {
        if self.stopped.into_inner() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    /// -> the fractions told, the units done in all, and how it ended.
    fn work(units: usize, least: usize, limit: usize) -> (Vec<f64>, usize, ControlFlow<()>) {
        let (mut told, worked) = (Vec::new(), AtomicUsize::new(0));
        let mut control = |done| {
            told.push(done);
            if told.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let gauge = Gauge::new(&mut control, units, least);
        (0..units).into_par_iter().for_each(|_| {
            if gauge.goes_on() {
                worked.fetch_add(1, Ordering::Relaxed);
                gauge.did(1);
            }
        });
        let end = gauge.end();
        (told, worked.into_inner(), end)
    }

    #[test]
    fn threads_report_together_and_stop_together() {
        let (units, step) = (1 << 16, (1 << 16) / REPORTS);
        for threads in [1, 2, 7] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let (told, worked, end) = pool.install(|| work(units, 1, usize::MAX));
            assert!(end.is_continue() && worked == units);
            assert!(told.is_sorted() && (1..=REPORTS).contains(&told.len()), "{told:?}");
            // How far others get while one reports is the scheduler's business: only one thread's reports can be counted.
            assert!(threads > 1 || told.len() == REPORTS);
            for limit in 1..=told.len().min(REPORTS - 1) {
                let (told, worked, end) = pool.install(|| work(units, 1, limit));
                assert!(told.len() < limit || end.is_break() && told.len() == limit);
                assert!(threads > 1 || worked == limit * step, "{worked} units, stopped at report {limit}");
            }
        }
    }

    #[test]
    fn short_work_is_not_reported() {
        let (told, worked, end) = work(1 << 10, (1 << 10) + 1, 1);
        assert!(told.is_empty() && worked == 1 << 10 && end.is_continue());
    }

    #[test]
    fn a_stretch_is_a_part_of_the_whole() {
        let mut told = Vec::new();
        let mut control = |done| {
            told.push(done);
            ControlFlow::Continue(())
        };
        for done in [0.0, 0.5, 1.0] {
            assert!(stretch(&mut control, 0.5, 0.75)(done).is_continue());
        }
        assert_eq!(told, [0.5, 0.625, 0.75]);
    }
}
