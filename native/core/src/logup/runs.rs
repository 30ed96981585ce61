//! Where the numerators are 1: runs of groups that need no numerators.

use core::ops::Range;

/// Consecutive groups of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The groups.
    pub groups: Range<usize>,
    /// Whether every numerator under them is 1.
    pub unit: bool,
    /// Number of groups of the same kind before them.
    pub at: usize,
}

/// Units, which start and end at multiples of `align` groups, and what lies between them, up to `total`.
pub(super) fn runs(units: impl IntoIterator<Item = Range<usize>>, align: usize, total: usize) -> Vec<Run> {
    let mut out: Vec<Run> = Vec::new();
    let (mut end, mut used) = (0, [0; 2]);
    let mut push = |groups: Range<usize>, unit: bool| {
        if !groups.is_empty() {
            let at = &mut used[usize::from(unit)];
            out.push(Run { groups: groups.clone(), unit, at: *at });
            *at += groups.len();
        }
    };
    for unit in units {
        let aligned = unit.start.next_multiple_of(align)..unit.end / align * align;
        if !aligned.is_empty() {
            push(end..aligned.start, false);
            end = aligned.end;
            push(aligned, true);
        }
    }
    push(end..total, false);
    out
}

/// The runs after neighbouring groups were merged into `total`; units are whole pairs of groups again.
pub(super) fn halved(of: &[Run], total: usize) -> Vec<Run> {
    runs(of.iter().filter(|r| r.unit).map(|r| r.groups.start / 2..r.groups.end / 2), 2, total)
}

/// Groups of one kind.
pub(super) fn count(of: &[Run], unit: bool) -> usize {
    of.iter().filter(|r| r.unit == unit).map(|r| r.groups.len()).sum()
}

/// The run that holds a group.
#[inline(always)]
pub(super) fn find(of: &[Run], group: usize) -> Option<&Run> {
    of.get(of.partition_point(|r| r.groups.end <= group))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_cover_and_units_stay_units(lengths in prop::collection::vec((0usize..40, 1usize..40), 0..6), rest in 1usize..50) {
            let (mut units, mut end) = (Vec::new(), 0);
            for (gap, unit) in lengths {
                units.push(end + gap..end + gap + unit);
                end += gap + unit + 1;
            }
            let mut total = end + rest;
            let is_unit = |g: usize| units.iter().any(|u| u.contains(&g));
            let mut level = runs(units.clone(), 4, total);
            let mut under = 1;
            while total > 1 {
                let mut at = [0; 2];
                let mut next = 0;
                for r in &level {
                    prop_assert_eq!((r.groups.start, r.at), (next, at[usize::from(r.unit)]));
                    at[usize::from(r.unit)] += r.groups.len();
                    next = r.groups.end;
                    if r.unit {
                        prop_assert!(r.groups.start % 2 == 0 && r.groups.end % 2 == 0);
                        prop_assert!((r.groups.start * under..r.groups.end * under).all(is_unit));
                    }
                    prop_assert!(r.groups.clone().all(|g| find(&level, g) == Some(r)));
                }
                prop_assert_eq!(next, total);
                prop_assert_eq!(find(&level, total), None);
                prop_assert_eq!(count(&level, true) + count(&level, false), total);
                total = total.div_ceil(2);
                under *= 2;
                level = halved(&level, total);
            }
            prop_assert_eq!(level, runs([], 2, 1));
        }
    }
}
