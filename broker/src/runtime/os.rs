//! The few system calls the standard library does not offer: signals as something to wait for, limits, and threads.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::stall::CoreTimes;

/// Blocks SIGTERM and SIGINT in this thread and all it starts from now on, so that [`wait_for_stop`] gets them.
/// Call it before any thread is started.
pub(crate) fn block_stop_signals() -> io::Result<()> {
    let set = stop_signals()?;
    // SAFETY: `set` is initialised; a null pointer says that the old set is not wanted.
    let code = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

/// Waits for SIGTERM or SIGINT; gives its name.
pub(crate) fn wait_for_stop() -> io::Result<&'static str> {
    let set = stop_signals()?;
    let mut signal = 0;
    // SAFETY: both pointers are to initialised locals.
    let code = unsafe { libc::sigwait(&raw const set, &raw mut signal) };
    match code {
        0 if signal == libc::SIGINT => Ok("SIGINT"),
        0 => Ok("SIGTERM"),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

fn stop_signals() -> io::Result<libc::sigset_t> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set; sigaddset is given an initialised one and valid signals.
    let failed = unsafe {
        libc::sigemptyset(set.as_mut_ptr()) != 0
            || libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM) != 0
            || libc::sigaddset(set.as_mut_ptr(), libc::SIGINT) != 0
    };
    if failed {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: initialised above.
    Ok(unsafe { set.assume_init() })
}

/// By how much [`give_way`] raises the niceness of a thread: what is left of a core for which it contends with one other is about a
/// tenth, and all of a core that is free.
const BACKGROUND_NICE: i32 = 10;

/// Lets other threads go before the calling one from now on.
pub(crate) fn give_way() {
    // It may always be nicer; at the highest niceness it stays there.
    // SAFETY: takes no pointers. On Linux it concerns the calling thread alone.
    unsafe { libc::nice(BACKGROUND_NICE) };
}

/// Where the system tells of the calling thread, for whoever looks from another one.
pub(crate) fn this_thread() -> io::Result<PathBuf> {
    Ok(Path::new("/proc").join(std::fs::read_link("/proc/thread-self")?))
}

/// What the system tells of a thread's use of its core, by the place that [`this_thread`] gave; none where the kernel does
/// not tell.
pub(crate) fn core_times(thread: &Path) -> Option<CoreTimes> {
    let told = std::fs::read_to_string(thread.join("schedstat")).ok()?;
    let mut numbers = told.split_whitespace().map(|ns| ns.parse().map(Duration::from_nanos));
    Some(CoreTimes { ran: numbers.next()?.ok()?, waited: numbers.next()?.ok()? })
}

/// Raises the number of files this process may have open to what it is allowed; gives the limit now in force.
pub(crate) fn raise_open_files() -> io::Result<u64> {
    let mut limit = limit(libc::RLIMIT_NOFILE)?;
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the pointer is to an initialised local.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

fn limit(resource: libc::__rlimit_resource_t) -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to an initialised local that the call fills.
    if unsafe { libc::getrlimit(resource, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_works_uses_its_core() {
        let thread = this_thread().unwrap();
        let before = core_times(&thread).unwrap().ran;
        // Its own work is what makes the number rise.
        while core_times(&thread).unwrap().ran < before + Duration::from_millis(5) {}
        assert_eq!(core_times(Path::new("/proc/none")), None);
    }
}
