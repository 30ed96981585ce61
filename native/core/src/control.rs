//! Progress of long steps.

use std::ops::ControlFlow;

/// Told how much of the work is done, from 0 to 1; breaks it off by returning `Break`.
pub type Control<'a> = &'a mut dyn FnMut(f64) -> ControlFlow<()>;
