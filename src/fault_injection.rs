//! Faults of kvredis itself, for the tests of their effects.
//!
//! The environment variable `KVREDIS_FAULTS` requests them, separated by commas: `panic NAME` or
//! `end NAME`. `NAME` is that of a task (see `tasks`), or a point of calls: `call of COMPONENT`, before the
//! call is executed, and `result of COMPONENT`, after it.
//!
//! Only builds with debug assertions read the variable; in a release build [`requested`] returns `None`
//! without looking at anything, and the compiler removes the faults.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(debug_assertions),
    expect(dead_code, reason = "release builds have no faults")
)]
pub(crate) enum Fault {
    Panic,
    End,
}

#[cfg(debug_assertions)]
static FAULTS: std::sync::LazyLock<String> =
    std::sync::LazyLock::new(|| std::env::var("KVREDIS_FAULTS").unwrap_or_default());

/// The fault that is requested for a task or point.
#[cfg(debug_assertions)]
pub(crate) fn requested(name: &str) -> Option<Fault> {
    find(&FAULTS, name)
}

#[cfg(not(debug_assertions))]
pub(crate) fn requested(_: &str) -> Option<Fault> {
    None
}

/// Panics if that is requested for this point of a component's calls.
pub(crate) fn panic_at(point: &str, component: &str) {
    #[cfg(debug_assertions)]
    if !FAULTS.is_empty() && requested(&format!("{point} of {component}")).is_some() {
        panic();
    }
    #[cfg(not(debug_assertions))]
    let _ = (point, component);
}

#[expect(clippy::panic, reason = "the fault that is requested")]
pub(crate) fn panic() -> ! {
    panic!("a requested fault")
}

#[cfg(debug_assertions)]
fn find(faults: &str, name: &str) -> Option<Fault> {
    faults
        .split(',')
        .find_map(|fault| match fault.split_once(' ') {
            Some(("panic", requested)) if requested == name => Some(Fault::Panic),
            Some(("end", requested)) if requested == name => Some(Fault::End),
            _ => None,
        })
}
