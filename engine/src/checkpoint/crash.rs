//! Named points between the durable steps of the protocol, where a test can end the process.
//!
//! A crash is safe or not depending on what is on disk at that moment. So the tests of crashes do not wait for luck: they
//! set `WINDROW_CRASH_POINT="K8 decided:3"` for a real process, which then dies, without running a single destructor, when
//! it passes that point for the third time. With `WINDROW_CRASH_TRACE` set to a file, every point that is passed is
//! appended to it as a line, so that a test can show that no point was left out.
//!
//! Only with the feature `faults`; without it nothing of this is in the program.

/// Passes the point `name`.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub(crate) fn crash_point(_name: &'static str) {}

/// Passes the point `name`, or ends here if a test wants it.
#[cfg(feature = "faults")]
pub fn crash_point(name: &'static str) {
    use std::{collections::HashMap, env, fs::OpenOptions, io::Write, sync::Mutex, sync::PoisonError};

    static PASSED: Mutex<Option<HashMap<&'static str, u64>>> = Mutex::new(None);

    super::faults::pass(name);
    if let Some(trace) = env::var_os("WINDROW_CRASH_TRACE") {
        let file = OpenOptions::new().create(true).append(true).open(trace);
        // One write per line: several processes may share the file. A trace that cannot be written shows as a point
        // that was not passed.
        let _ = file.and_then(|mut file| file.write_all(format!("{name}\n").as_bytes()));
    }
    let Ok(wanted) = env::var("WINDROW_CRASH_POINT") else { return };
    let Some((point, pass)) = wanted.rsplit_once(':') else { return };
    if point != name {
        return;
    }
    let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
    let count = passed.get_or_insert_default().entry(name).or_default();
    *count += 1;
    if pass.parse() == Ok(*count) {
        std::process::abort();
    }
}
